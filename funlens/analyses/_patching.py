"""Activation patching: what a run gains when one place is as it was in another run.

Each function is a named sweep of `Patch` over all places of a part. For some layers or
positions, other parts or other stacks, write the `grid` yourself.
"""

from collections.abc import Mapping
from types import EllipsisType
from typing import Final, TypeAlias, Unpack

from funlens.data import ActivationCache, Effects, Grids, ModelSpec, Part, Patch, grid
from funlens.data import _constructors as parts
from funlens.engine import Inputs, Metrics, SweepOptions, check_source, sweep

_All: TypeAlias = Mapping[str, EllipsisType]

_BY_POSITION: Final[_All] = {"layer": ..., "pos": ...}
_BY_HEAD: Final[_All] = {"layer": ..., "head": ...}
_BY_HEAD_AND_POSITION: Final[_All] = {"layer": ..., "pos": ..., "head": ...}
_PATTERN_BY_HEAD_AND_POSITION: Final[_All] = {"layer": ..., "query": ..., "head": ...}

_OF_BLOCKS: Final = (parts.resid_pre, parts.attn_out, parts.mlp_out)
_OF_HEADS: Final = (parts.z, parts.q, parts.k, parts.v)


def patch_resid_pre(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch the stream that enters each block, at one position at a time.

    TransformerLens calls it `get_act_patch_resid_pre`. Activation patching is that of
    Meng et al., "Locating and Editing Factual Associations in GPT" (2022), and Wang et
    al., "Interpretability in the Wild" (2022); which run is patched into which, and
    what is measured, is the caller's choice.

    Args:
        spec: The model.
        corrupted: What is run, as for `run`.
        source: Cache of the run that is patched from, commonly of the clean prompt,
            with the patched part in all layers. Its rows and positions stand beside
            those of `corrupted`.
        metric: As for `sweep`.
        options: `attention_mask`, `memory` and `resume`, as for `sweep`.

    Returns:
        The metric by layer and pos.

    Raises:
        SiteNotFoundError: The model has no such part.
        SiteNotCachedError: The source lacks the part in some layer; a note says what
            to capture.
        ShapeError: The source has other rows or positions.
        FunlensError: As for `sweep`.

    Costs what `sweep` does: a cell for each layer and position.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean = fl.to_tokens(spec, "Tom had a big red ball.")
        >>> source = fl.run_with_cache(spec, clean, capture=[fl.resid_pre]).cache
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " Tom"))
        >>> corrupted = "Ben had a big red ball."
        >>> fl.patch_resid_pre(spec, corrupted, source, metric=metric).axes
        ('layer', 'pos')
    """
    return _patched(
        spec,
        corrupted,
        source,
        parts.resid_pre,
        _BY_POSITION,
        metric=metric,
        options=options,
    )


def patch_resid_mid(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch the stream between attention and MLP, at one position at a time.

    TransformerLens calls it `get_act_patch_resid_mid`. Arguments and errors are those
    of `patch_resid_pre`; parallel blocks have no such part.

    Returns:
        The metric by layer and pos.
    """
    return _patched(
        spec,
        corrupted,
        source,
        parts.resid_mid,
        _BY_POSITION,
        metric=metric,
        options=options,
    )


def patch_resid_post(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch the stream that leaves each block, at one position at a time.

    Arguments and errors are those of `patch_resid_pre`.

    Returns:
        The metric by layer and pos.
    """
    return _patched(
        spec,
        corrupted,
        source,
        parts.resid_post,
        _BY_POSITION,
        metric=metric,
        options=options,
    )


def patch_attn_out(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch what attention adds to the stream, at one position at a time.

    TransformerLens calls it `get_act_patch_attn_out`. Arguments and errors are those
    of `patch_resid_pre`.

    Returns:
        The metric by layer and pos.
    """
    return _patched(
        spec,
        corrupted,
        source,
        parts.attn_out,
        _BY_POSITION,
        metric=metric,
        options=options,
    )


def patch_mlp_out(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch what the MLP adds to the stream, at one position at a time.

    TransformerLens calls it `get_act_patch_mlp_out`. Arguments and errors are those of
    `patch_resid_pre`.

    Returns:
        The metric by layer and pos.
    """
    return _patched(
        spec,
        corrupted,
        source,
        parts.mlp_out,
        _BY_POSITION,
        metric=metric,
        options=options,
    )


def patch_blocks(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch what enters each block, what attention adds and what the MLP adds.

    TransformerLens calls it `get_act_patch_block_every`. Arguments and errors are those
    of `patch_resid_pre`; it is one sweep.

    Returns:
        The metric by part (`resid_pre`, `attn_out`, `mlp_out`), layer and pos; NaN
        where a layer lacks the part.
    """
    laid = dict.fromkeys(_OF_BLOCKS, _BY_POSITION)
    return _patched_beside(
        spec, corrupted, source, laid, metric=metric, options=options
    )


def patch_heads(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    part: Part = parts.z,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch what each head has at all positions.

    TransformerLens calls it `get_act_patch_attn_head_out_all_pos` for `z`, and
    `get_act_patch_attn_head_q_all_pos`, `..._k_all_pos` and `..._v_all_pos`.

    Args:
        spec: The model.
        corrupted: As for `patch_resid_pre`.
        source: As for `patch_resid_pre`.
        metric: As for `sweep`.
        part: `z`, `q`, `k`, `v`, or another part with heads.
        options: As for `patch_resid_pre`.

    Returns:
        The metric by layer and head; by key and value head where the part has those.

    Raises:
        SelectionError: The part has no heads.
        FunlensError: As for `patch_resid_pre`.
    """
    return _patched(
        spec, corrupted, source, part, _BY_HEAD, metric=metric, options=options
    )


def patch_heads_by_pos(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    part: Part = parts.z,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch what each head has at one position at a time.

    TransformerLens calls it `get_act_patch_attn_head_out_by_pos` for `z`, and
    `get_act_patch_attn_head_q_by_pos`, `..._k_by_pos` and `..._v_by_pos`.

    Args:
        spec: The model.
        corrupted: As for `patch_resid_pre`.
        source: As for `patch_resid_pre`.
        metric: As for `sweep`.
        part: `z`, `q`, `k`, `v`, or another part with heads and positions.
        options: As for `patch_resid_pre`.

    Returns:
        The metric by layer, pos and head.

    Raises:
        SelectionError: The part has no heads or no positions.
        FunlensError: As for `patch_resid_pre`.
    """
    return _patched(
        spec,
        corrupted,
        source,
        part,
        _BY_HEAD_AND_POSITION,
        metric=metric,
        options=options,
    )


def patch_patterns(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch the whole pattern of each head.

    TransformerLens calls it `get_act_patch_attn_head_pattern_all_pos`. Arguments and
    errors are those of `patch_resid_pre`.

    Returns:
        The metric by layer and head.
    """
    return _patched(
        spec, corrupted, source, parts.pattern, _BY_HEAD, metric=metric, options=options
    )


def patch_patterns_by_query(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch the pattern of each head, at one position that attends at a time.

    TransformerLens calls it `get_act_patch_attn_head_pattern_by_pos`. Arguments and
    errors are those of `patch_resid_pre`.

    Returns:
        The metric by layer, head and query.
    """
    places: _All = {**_BY_HEAD, "query": ...}
    return _patched(
        spec, corrupted, source, parts.pattern, places, metric=metric, options=options
    )


def patch_patterns_by_query_key(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch one number of each head's pattern at a time.

    TransformerLens calls it `get_act_patch_attn_head_pattern_dest_src_pos`. Arguments
    and errors are those of `patch_resid_pre`. There are as many cells in each head as
    positions squared.

    Returns:
        The metric by layer, head, query and key.
    """
    places: _All = {**_BY_HEAD, "query": ..., "key": ...}
    return _patched(
        spec, corrupted, source, parts.pattern, places, metric=metric, options=options
    )


def patch_all_heads(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch each head's output, query, key, value and pattern, at all positions.

    TransformerLens calls it `get_act_patch_attn_head_all_pos_every`, and puts 0 where
    a model has fewer key and value heads than query heads. Arguments and errors are
    those of `patch_resid_pre`; it is one sweep.

    Returns:
        The metric by part (`z`, `q`, `k`, `v`, `pattern`), layer and head; NaN where
        there is no such key or value head.
    """
    laid = dict.fromkeys((*_OF_HEADS, parts.pattern), _BY_HEAD)
    return _patched_beside(
        spec, corrupted, source, laid, metric=metric, options=options
    )


def patch_all_heads_by_pos(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    *,
    metric: Metrics,
    **options: Unpack[SweepOptions],
) -> Effects:
    """Patch each head's output, query, key, value and pattern, position by position.

    TransformerLens calls it `get_act_patch_attn_head_by_pos_every`, and puts 0 where a
    model has fewer key and value heads than query heads. Of the pattern, a position is
    the one that attends. Arguments and errors are those of `patch_resid_pre`; it is one
    sweep.

    Returns:
        The metric by part (`z`, `q`, `k`, `v`, `pattern`), layer, pos and head; NaN
        where there is no such key or value head.
    """
    laid = dict.fromkeys(_OF_HEADS, _BY_HEAD_AND_POSITION)
    laid[parts.pattern] = _PATTERN_BY_HEAD_AND_POSITION
    return _patched_beside(
        spec, corrupted, source, laid, metric=metric, options=options
    )


def _patched(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    part: Part,
    places: _All,
    *,
    metric: Metrics,
    options: SweepOptions,
) -> Effects:
    cells = grid(Patch, part, source=source, **places)
    _check(spec, corrupted, source, (part,), options)
    return sweep(spec, corrupted, cells, metric=metric, **options)


def _patched_beside(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    laid: Mapping[Part, _All],
    *,
    metric: Metrics,
    options: SweepOptions,
) -> Effects:
    _check(spec, corrupted, source, tuple(laid), options)
    grids = {
        part.name: grid(Patch, part, source=source, **places)
        for part, places in laid.items()
    }
    return sweep(spec, corrupted, Grids(grids), metric=metric, **options)


def _check(
    spec: ModelSpec,
    corrupted: Inputs,
    source: ActivationCache,
    patched: tuple[Part, ...],
    options: SweepOptions,
) -> None:
    mask = options.get("attention_mask")
    check_source(spec, corrupted, source, patched, attention_mask=mask)
