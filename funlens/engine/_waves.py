"""Runs that begin at several layers and at one position, as one."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import torch
from torch import Tensor

from funlens.adapters import KeysValues, Machinery, Prefix, recorded, recording
from funlens.data import ENTERING, LEAVING, ModelSpec, PerRow, Site, Span
from funlens.engine._edits import read_by
from funlens.engine._inputs import Frame, Prepared, prepare
from funlens.engine._options import Joins, Options
from funlens.engine._plan import Edit, kept, lay_out
from funlens.engine._stacked import Ends, apart, for_rows, read, repeated
from funlens.engine._trace import Stop, Trace
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
_PATTERN: Final = ("pattern", "")
_N_TRIED: Final = 6  # positions of the run that tries it out
_CLOSE: Final = 1e-3  # rounding of other shapes, in float32


@attrs.frozen(kw_only=True)
class Waves:
    """Whether runs can join each other on the way.

    Attributes:
        why_not: Why they cannot; empty where they can.
        why_again: Why positions before an edit must be run again; empty where not.
        why_whole: Why all positions must pass the whole last layer, where one is read;
            empty where not.
    """

    why_not: str = ""
    why_again: str = ""
    why_whole: str = ""


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
    return Waves(why_not=why, why_again=why, why_whole=why)


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
    why: str = machinery.why_no_skip(prepared.kwargs)
    why = why or machinery.noted("waves that look", lambda: _why_no_patterns(spec))
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
    read_sites = () if ends.logits_at is not None else ends.sites
    sites = (*read_sites, *held)
    cache = recording() if keeps_keys else None
    more = {} if cache is None else {"past_key_values": cache, "use_cache": True}
    given = attrs.evolve(prepared, kwargs={**prepared.kwargs, **more})
    plan = lay_out(spec, (), [kept(spec, given.frames, site) for site in sites])
    out, trace = traced(
        spec,
        given,
        plan,
        options=Options(grad=False, logits_at=ends.logits_at),
        enters_unembed=ends.enters_unembed,
    )
    residuals = {at: trace.captured[s][0] for at, s in zip(layers, held, strict=True)}
    prefix = None if cache is None else recorded(cache)
    start = Unedited(residuals=residuals, prefix=prefix)
    return read(out, trace, ends.sites, ends.logits_at), start


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
    only: int | None = None,
) -> list[list[Tensor]]:
    """Run several lists of edits that begin at several layers.

    Args:
        spec: The model.
        prepared: The inputs of one run.
        cells: The layer that each run begins with, in order, and its edits.
        ends: What is read.
        start: What the runs begin with.
        since: First position that is run.
        only: The one position that passes the whole last layer, which others pass as
            far as keys and values; None where all pass it. No edit may act after what
            enters that layer.

    Returns:
        For each cell, each site's value.
    """
    rows: dict[int, Tensor] = {}
    for layer in dict.fromkeys(layer for layer, _ in cells):
        joining = sum(at == layer for at, _ in cells)
        rows[layer] = start.residuals[layer][:, since:].repeat(joining, 1, 1)
    joined = _Joined(spec=spec, prepared=prepared, n_cells=len(cells))
    edits = [row for _, row in cells]
    if only is None:
        return joined.read(edits, ends, Joins(rows=rows, since=since), start.prefix)
    last = spec.n_layers - 1
    entering = Site(part=ENTERING[0], layer=last, pos=only)
    joins = Joins(rows=rows, since=since)
    enters, prefix = joined.keys(edits, entering, joins, start.prefix)
    joins = Joins(rows={last: enters}, since=only)
    return joined.read([()] * len(cells), ends, joins, prefix)


@attrs.frozen(kw_only=True, eq=False)
class _Joined:
    """Runs that join each other, as one run of HuggingFace's model."""

    spec: ModelSpec
    prepared: Prepared
    n_cells: int

    def read(
        self,
        cells: Sequence[Sequence[Edit]],
        ends: Ends,
        joins: Joins,
        prefix: Prefix | None,
    ) -> list[list[Tensor]]:
        """Give what is read of each cell."""
        sites = tuple(for_rows(site, self.n_cells) for site in ends.sites)
        out, trace = self._run(cells, ends, joins, self._cache(prefix, joins.since))
        return apart(read(out, trace, sites, ends.logits_at), self.n_cells)

    def keys(
        self,
        cells: Sequence[Sequence[Edit]],
        entering: Site,
        joins: Joins,
        prefix: Prefix | None,
    ) -> tuple[Tensor, Prefix]:
        """Run up to the last layer's keys: what enters it at one position, and they.

        Keys and values are those of the positions before that one.
        """
        if prefix is None:  # the plan asks for it only where there is one
            raise AssertionError(str(entering))
        held: list[KeysValues] = []
        at = entering.pos if isinstance(entering.pos, int) else 0

        def told(keys: Tensor, values: Tensor) -> None:
            held.append((keys[..., :at, :], values[..., :at, :]))
            raise Stop(keys)

        ends = Ends(sites=(entering,))
        cache = prefix.cache(joins.since, told=told)
        _, trace = self._run(cells, ends, joins, cache)
        return trace.captured[entering][0][:, None], prefix.with_last(*held[0])

    def _cache(self, prefix: Prefix | None, since: int) -> Any:
        return prefix.cache(since) if since and prefix is not None else None

    def _run(
        self, cells: Sequence[Sequence[Edit]], ends: Ends, joins: Joins, cache: Any
    ) -> tuple[Tensor, Trace]:
        spec, main, times = self.spec, self.prepared.main, self.n_cells
        n_pos = next(iter(joins.rows.values())).shape[1]
        tokens: Tensor = self.prepared.kwargs["input_ids"]
        kwargs = {"input_ids": tokens[:1, joins.since :][:, :n_pos]}
        if cache is not None:
            kwargs |= {"past_key_values": cache, "use_cache": True}
        frames = {"": Frame(batch=main.batch * times, n_pos=main.n_pos)}
        stacked = Prepared(kwargs=kwargs, frames=frames)
        captured = () if ends.logits_at is not None else ends.sites
        keeps = [kept(spec, frames, for_rows(site, times)) for site in captured]
        numbered = enumerate((at, e) for at, row in enumerate(cells) for e in row)
        edits = [
            attrs.evolve(edit, index=index, rows=(at, main.batch))
            for index, (at, edit) in numbered
        ]
        plan = lay_out(spec, edits, keeps)
        options = Options(
            stop_at_layer=ends.stop,
            logits_at=repeated(ends.logits_at, times),
            grad=False,
        )
        return traced(
            spec,
            stacked,
            plan,
            options=options,
            joins=joins,
            enters_unembed=ends.enters_unembed,
        )


def _why_no_patterns(spec: ModelSpec) -> str:
    """Tell why runs cannot join where patterns are looked at; empty where they can.

    Attention that shows its pattern is other code, which may want the rows that the
    model began with: Falcon's alibi does.
    """
    machinery: Machinery = spec.engine
    shown = [i.site for i in spec.sites if (i.site.part, i.site.stack) == _PATTERN]
    if not shown:
        return ""
    layers = [layer for layer in machinery.begins if layer < 2]  # noqa: PLR2004 -- two of them
    size = min(_N_TRIED, spec.n_ctx or _N_TRIED)
    tokens = torch.arange(size, device=spec.device)[None] % max(1, spec.d_vocab)
    prepared, ends = prepare(spec, tokens), Ends(sites=(shown[-1],))
    _, start = unedited(spec, prepared, layers, ends, keeps_keys=False)
    try:
        wave(spec, prepared, [(layer, ()) for layer in layers], ends, start)
    except _REFUSALS as error:
        return f"its patterns take no other rows ({type(error).__name__}: {error})"
    return ""


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

    def tried(since: int, only: int | None = None) -> str:
        try:
            found = wave(spec, prepared, cells, ends, start, since=since, only=only)
        except _REFUSALS as error:
            return f"its blocks take no other rows ({type(error).__name__}: {error})"
        expected = values[0][:, since if only is None else only :]
        same = (torch.allclose(v, expected, rtol=_CLOSE, atol=_CLOSE) for (v,) in found)
        return "" if all(same) else "its blocks depend on more than the stream"

    why = tried(0)
    if why or start.prefix is None:
        return Waves(why_not=why, why_again=why or _NO_KEYS, why_whole=why or _NO_KEYS)
    why = tried(size // 2)
    return Waves(why_again=why, why_whole=why or tried(size // 2, size - 1))
