"""Runs that begin at several layers and at one position, as one."""

from collections.abc import Mapping, Sequence
from typing import Final

import attrs
import torch
from torch import Tensor

from funlens.adapters import Machinery, Prefix, recorded, recording
from funlens.data import ENTERING, LEAVING, ModelSpec, PerRow, Site, Span
from funlens.engine._edits import read_by
from funlens.engine._inputs import Frame, Prepared, prepare
from funlens.engine._options import Joins, Options
from funlens.engine._plan import Edit, kept, lay_out
from funlens.engine._stacked import Ends, apart, for_rows, read, repeated
from funlens.engine._traced import traced
from funlens.errors import FunlensError

# How HuggingFace's code, or ours, may refuse rows that it does not expect.
_REFUSALS: Final = (
    FunlensError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
_NO_KEYS: Final = "earlier positions are known by more than keys and values"
_N_TRIED: Final = 6  # positions of the run that tries it out
_CLOSE: Final = 1e-3  # rounding of other shapes, in float32


@attrs.frozen(kw_only=True)
class Waves:
    """Whether runs can join each other on the way.

    Attributes:
        why_not: Why they cannot; empty where they can.
        why_again: Why positions before an edit must be run again; empty where not.
    """

    why_not: str = ""
    why_again: str = ""


@attrs.frozen(kw_only=True, eq=False)
class Unedited:
    """What runs that join on the way take from the run without edits.

    Attributes:
        residuals: What enters each layer, `[batch, pos, d_model]`.
        prefix: Keys and values of all its layers; None where positions before an edit
            must be run again.
    """

    residuals: Mapping[int, Tensor]
    prefix: Prefix | None


def _apart(why: str) -> Waves:
    """Say that runs cannot join, nor begin at a position."""
    return Waves(why_not=why, why_again=why)


def waves_of(spec: ModelSpec, prepared: Prepared) -> Waves:
    """Tell whether runs can join each other on the way.

    A joining run brings the stream alone, so nothing else may come with a row: no mask
    of its own, no encoder, no picture. What the table does not tell, a run of a few
    positions does, once for each model.
    """
    machinery: Machinery = spec.engine
    main = prepared.main
    arch = machinery.arch
    kinds = arch.main.kinds
    if set(prepared.kwargs) - {"input_ids"} or main.starts is not None:
        return _apart("rows come with more than tokens, or are padded")
    if spec.is_encoder_decoder or spec.n_streams > 1 or arch.front is not None:
        return _apart("blocks read more than one stream")
    if arch.codebooks or arch.channels:
        return _apart("a position has several ids")
    if any(kind.reads or kind.given for kind in kinds) or arch.mixes_rows:
        return _apart("blocks read more than the stream")
    why = machinery.why_no_skip(prepared.kwargs)
    if why:
        return _apart(why)
    known: Waves = machinery.noted("waves", lambda: _trial(spec))
    return known


def unedited(
    spec: ModelSpec,
    prepared: Prepared,
    layers: Sequence[int],
    ends: Ends,
    *,
    keeps_keys: bool,
) -> tuple[list[Tensor], Unedited]:
    """Run without edits, and keep what others begin with.

    Args:
        spec: The model.
        prepared: The inputs.
        layers: Layers that runs begin with.
        ends: What is read of this run, too.
        keeps_keys: Whether to keep what attention knows of each position.

    Returns:
        What is read, and what is kept.
    """
    entering = ENTERING[spec.n_streams > 1]
    held = [Site(part=entering, layer=layer) for layer in layers]
    sites = (*ends.sites, *held)
    cache = recording() if keeps_keys else None
    more = {} if cache is None else {"past_key_values": cache, "use_cache": True}
    given = attrs.evolve(prepared, kwargs={**prepared.kwargs, **more})
    plan = lay_out(spec, (), [kept(spec, given.frames, site) for site in sites])
    _, trace = traced(spec, given, plan, options=Options(grad=False))
    values = [trace.captured[site][0] for site in sites]
    residuals = dict(zip(layers, values[len(ends.sites) :], strict=True))
    prefix = None if cache is None else recorded(cache)
    return values[: len(ends.sites)], Unedited(residuals=residuals, prefix=prefix)


def has_keys(spec: ModelSpec) -> bool:
    """Tell whether later positions need only keys and values of earlier ones."""
    mixes = any(info.site.part == "ssm_in" for info in spec.sites)
    return spec.is_causal and not mixes and not spec.is_encoder_decoder


def first_position(row: Sequence[Edit], n_pos: int) -> int:
    """Find the position before which a cell changes nothing in a causal model."""
    if any(read_by(edit.record) for edit in row):
        return 0
    return min((_first(edit.record.site, n_pos) for edit in row), default=0)


def _first(site: Site, n_pos: int) -> int:
    chosen = site.query if "query" in site.axes else site.pos
    match chosen:
        case int():
            found = [chosen]
        case PerRow():
            found = list(chosen.indices)
        case tuple():
            found = list(chosen)
        case Span():
            found = list(range(n_pos))[chosen.to_slice()]
        case _:
            return 0
    return min((at % n_pos for at in found), default=0)


def wave(
    spec: ModelSpec,
    prepared: Prepared,
    cells: Sequence[tuple[int, Sequence[Edit]]],
    ends: Ends,
    start: Unedited,
    *,
    since: int = 0,
) -> list[list[Tensor]]:
    """Run several lists of edits that begin at several layers.

    Args:
        spec: The model.
        prepared: The inputs of one run.
        cells: The layer that each run begins with, in order, and its edits.
        ends: What is read.
        start: What the runs begin with.
        since: First position that is run.

    Returns:
        For each cell, each site's value.
    """
    main, times = prepared.main, len(cells)
    tokens: Tensor = prepared.kwargs["input_ids"]
    kwargs = {"input_ids": tokens[:1, since:]}
    if since and start.prefix is not None:
        kwargs |= {"past_key_values": start.prefix.cache(since), "use_cache": True}
    rows: dict[int, Tensor] = {}
    for layer in dict.fromkeys(layer for layer, _ in cells):
        joining = sum(at == layer for at, _ in cells)
        rows[layer] = start.residuals[layer][:, since:].repeat(joining, 1, 1)
    stacked = Prepared(
        kwargs=kwargs, frames={"": Frame(batch=main.batch * times, n_pos=main.n_pos)}
    )
    sites = tuple(for_rows(site, times) for site in ends.sites)
    captured = () if ends.logits_at is not None else sites
    numbered = enumerate(
        (at, edit) for at, (_, row) in enumerate(cells) for edit in row
    )
    edits = [
        attrs.evolve(edit, index=index, rows=(at, main.batch))
        for index, (at, edit) in numbered
    ]
    keeps = [kept(spec, stacked.frames, site) for site in captured]
    plan = lay_out(spec, edits, keeps)
    options = Options(
        stop_at_layer=ends.stop, logits_at=repeated(ends.logits_at, times), grad=False
    )
    joins = Joins(rows=rows, since=since)
    out, trace = traced(spec, stacked, plan, options=options, joins=joins)
    return apart(read(out, trace, sites, ends.logits_at), times)


def _trial(spec: ModelSpec) -> Waves:
    """Let two runs join each other, and one begin at a position: do they come out?"""
    machinery: Machinery = spec.engine
    size = min(_N_TRIED, spec.n_ctx or _N_TRIED)
    tokens = torch.arange(size, device=spec.device)[None] % max(1, spec.d_vocab)
    prepared = prepare(spec, tokens)
    layers = [layer for layer in machinery.begins if layer < 2]  # noqa: PLR2004 -- two of them
    ends = Ends(sites=(Site(part=LEAVING[0], layer=spec.n_layers - 1),))
    try:
        values, start = unedited(
            spec, prepared, layers, ends, keeps_keys=has_keys(spec)
        )
    except _REFUSALS:  # its cache is of another kind
        values, start = unedited(spec, prepared, layers, ends, keeps_keys=False)
    cells = [(layer, ()) for layer in layers]

    def tried(since: int) -> str:
        try:
            found = wave(spec, prepared, cells, ends, start, since=since)
        except _REFUSALS as error:
            return f"its blocks take no other rows ({type(error).__name__}: {error})"
        expected = values[0][:, since:]
        same = (torch.allclose(v, expected, rtol=_CLOSE, atol=_CLOSE) for (v,) in found)
        return "" if all(same) else "its blocks depend on more than the stream"

    why = tried(0)
    if why or start.prefix is None:
        return Waves(why_not=why, why_again=why or _NO_KEYS)
    return Waves(why_again=tried(size // 2))
