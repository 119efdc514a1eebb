"""Several runs as one: their rows below each other, each with its own edits."""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from funlens.data import ModelSpec, PerRow, Selection, Site
from funlens.engine._inputs import Frame, Prepared
from funlens.engine._options import Options
from funlens.engine._plan import Edit, kept, lay_out
from funlens.engine._trace import Trace
from funlens.engine._traced import traced


@attrs.frozen(kw_only=True, eq=False)
class Ends:
    """Where runs begin and end, and what is read of them.

    Attributes:
        sites: What is read, with selections.
        logits_at: Positions to unembed, where logits are all that is read.
        start: Layer to begin with; None for the whole model.
        residual: `[batch, pos, d_model]` that enters it.
        stop: Layer to end before.
    """

    sites: tuple[Site, ...]
    logits_at: Selection | None = None
    start: int | None = None
    residual: Tensor | None = None
    stop: int | None = None


def stacked(
    spec: ModelSpec,
    prepared: Prepared,
    cells: Sequence[Sequence[Edit]],
    ends: Ends,
) -> list[list[Tensor]]:
    """Run several lists of edits at once.

    Args:
        spec: The model.
        prepared: The inputs of one run.
        cells: The edits of each run, placed on its frames.
        ends: Where the runs begin and end, and what is read.

    Returns:
        For each cell, each site's value.

    Raises:
        RunError: An edit misbehaved, or never acted.
    """
    times = len(cells)
    inputs = prepared if times == 1 else tiled_inputs(prepared, times)
    batch = prepared.main.batch
    sites = tuple(for_rows(site, times) for site in ends.sites)
    captured = () if ends.logits_at is not None else sites
    keeps = [kept(spec, inputs.frames, site) for site in captured]
    edits = [
        attrs.evolve(edit, index=index, rows=None if times == 1 else (cell, batch))
        for index, (cell, edit) in enumerate(
            (cell, edit) for cell, row in enumerate(cells) for edit in row
        )
    ]
    plan = lay_out(spec, edits, keeps)
    options = Options(
        stop_at_layer=ends.stop,
        start_at_layer=ends.start,
        residual=None if ends.residual is None else tiled(ends.residual, times),
        logits_at=repeated(ends.logits_at, times),
        grad=False,
    )
    out, trace = traced(spec, inputs, plan, options=options)
    return apart(read(out, trace, sites, ends.logits_at), times)


def read(
    out: Tensor, trace: Trace, sites: Sequence[Site], logits_at: Selection | None
) -> list[Tensor]:
    """Give what was read of a run: its logits at one position, or what it kept."""
    if logits_at is None:
        return [trace.captured[site][0] for site in sites]
    drops = isinstance(logits_at, int | PerRow)
    return [out.squeeze(1) if drops else out for _ in sites]


def apart(held: Sequence[Tensor], times: int) -> list[list[Tensor]]:
    """Give each run's part of what was read of all."""
    split = [value.chunk(times) for value in held]
    return [list(values) for values in zip(*split, strict=True)]


def tiled_inputs(prepared: Prepared, times: int) -> Prepared:
    """Put the inputs below themselves so many times."""
    batch = prepared.main.batch
    kwargs = {
        name: tiled(held, times)
        if _has_rows(held, batch)
        else torch.cat([held] * times, dim=-1)
        if _is_packed(held, batch)
        else held
        for name, held in prepared.kwargs.items()
    }
    frames = {
        name: Frame(
            batch=frame.batch * times,
            n_pos=frame.n_pos,
            starts=None if frame.starts is None else frame.starts * times,
            stops=None if frame.stops is None else frame.stops * times,
        )
        for name, frame in prepared.frames.items()
    }
    return Prepared(kwargs=kwargs, frames=frames)


def _is_packed(held: Any, batch: int) -> bool:
    """Tell whether pictures lie beside each other in one strip, for all rows."""
    is_one = isinstance(held, Tensor) and held.ndim > 3 and len(held) == 1  # noqa: PLR2004 -- rows, channels, height, width
    return is_one and batch > 1


def _has_rows(held: Any, batch: int) -> bool:
    """Tell whether an input belongs to rows: not if all rows share one."""
    is_shared = isinstance(held, Tensor) and held.ndim > 0 and len(held) == 1 < batch
    return isinstance(held, Tensor) and held.ndim > 0 and not is_shared


def tiled(held: Tensor, times: int) -> Tensor:
    return held.repeat(times, *[1] * (held.ndim - 1))


def for_rows(site: Site, times: int) -> Site:
    """Say for all rows what a selection says for those of one run."""
    changed = {
        word: repeated(chosen, times)
        for word, chosen in site.selections
        if isinstance(chosen, PerRow)
    }
    return attrs.evolve(site, **changed) if changed else site


def repeated(chosen: Selection | None, times: int) -> Selection | None:
    """Say for all rows what one index for each row says of one run's."""
    if isinstance(chosen, PerRow):
        return PerRow(chosen.indices * times)
    return chosen
