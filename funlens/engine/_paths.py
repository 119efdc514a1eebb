"""Straight paths from what a run has at a site to what another run had there."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

import attrs
import torch
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import ENTERING, Intervention, Set, Site
from funlens.engine._pairs import Pair
from funlens.engine._passing import Rows, read_of, slope_of
from funlens.engine._plan import Edit, placed
from funlens.engine._stacked import for_rows, tiled_inputs
from funlens.engine._sweep_plan import (
    check_memory,
    first_layer,
    layer_after,
    memory_limit,
    row_bytes_of,
)
from funlens.errors import FunlensError, OptionError, raise_all

Along: TypeAlias = Literal["inputs", "activations"]
"""What is moved: what enters the first block, or each component or site itself."""


@attrs.frozen(kw_only=True, eq=False)
class Paths:
    """The run that paths begin with.

    Attributes:
        pair: The two runs.
        values: What the first run has at each site.
        residuals: What enters the layers that later runs begin with.
        measured: The metric there.
    """

    pair: Pair
    values: Mapping[Site, Tensor]
    residuals: Mapping[int, Tensor]
    measured: Tensor

    def step(self, site: Site) -> Tensor:
        """Give the way from one run's value to the other's."""
        return self.pair.step(site, self.values[site])

    def rows(self, site: Site, times: int) -> Rows:
        """Give runs without edits that begin at the layer of a site."""
        start = _start(self.pair, site)
        residual = None if start is None else self.residuals[start]
        return Rows(times=times, start=start, residual=residual)


def paths_of(pair: Pair) -> Paths:
    """Run the inputs, and keep what paths begin with.

    Raises:
        InputError: The metric has no derivative.
    """
    spec = pair.spec
    part = ENTERING[spec.n_streams > 1]
    starts = {_start(pair, site) for site in pair.sites}
    layers = sorted(at for at in starts if at is not None)
    entering = {at: Site(part=part, layer=at) for at in layers}
    wanted = (*pair.sites, *entering.values())
    with torch.no_grad():
        read, trace = read_of(spec, pair.prepared, pair.metric, wanted)
    with torch.enable_grad():
        values, _ = slope_of(pair.metric, read, 1)  # refuses what has no derivative
    return Paths(
        pair=pair,
        values={site: trace.captured[site][0] for site in pair.sites},
        residuals={at: trace.captured[site][0] for at, site in entering.items()},
        measured=values[0],
    )


def _start(pair: Pair, site: Site) -> int | None:
    """Find the layer before which a change of a site changes nothing."""
    machinery: Machinery = pair.spec.engine
    edit = Edit(index=0, record=Set(site, 0.0), where=())
    stop = layer_after(pair.spec, [pair.metric])
    whole = machinery.why_no_skip(pair.prepared.kwargs)
    return first_layer(pair.spec, [edit], stop, whole=whole)


def moved(paths: Paths, sites: Sequence[Site], points: Sequence[float]) -> Rows:
    """Lay runs below each other in which sites are moved so far along their paths.

    Args:
        paths: The paths.
        sites: Sites that move together; runs begin at the layer of a single one.
        points: How far, from 0 to 1.
    """
    times = len(points)
    records = [
        Set(for_rows(site, times), torch.cat([value + at * step for at in points]))
        for site in sites
        for value, step in [(paths.values[site], paths.step(site))]
    ]
    edits = edits_of(paths.pair, records, times)
    if len(sites) > 1:
        return Rows(times=times, edits=edits)
    return attrs.evolve(paths.rows(sites[0], times), edits=edits)


def edits_of(
    pair: Pair, records: Sequence[Intervention], times: int
) -> tuple[Edit, ...]:
    """Place edits of all rows.

    Raises:
        FunlensError: The only fault that there is.
        ExceptionGroup: Several faults.
    """
    faults: list[FunlensError] = []
    frames = tiled_inputs(pair.prepared, times).frames
    found = placed(pair.spec, frames, records, faults=faults)
    raise_all(faults)
    return tuple(found)


def midpoints(steps: int) -> tuple[float, ...]:
    """Give the middles of so many equal parts of a path.

    Raises:
        OptionError: There is no such number of parts.
    """
    if type(steps) is not int or steps < 1:
        raise OptionError("steps", f"it is {steps!r}, not a number of steps")
    return tuple((step + 0.5) / steps for step in range(steps))


def cut_points(
    pair: Pair, points: Sequence[float], memory: int | None
) -> Iterator[Sequence[float]]:
    """Cut points of a path to as many as fit in memory together.

    Raises:
        OptionError: `memory` is no positive number of bytes.
    """
    check_memory(memory)
    machinery: Machinery = pair.spec.engine
    graph = row_bytes_of(pair.spec, pair.prepared, [pair.metric]) * pair.spec.n_layers
    most = memory_limit(pair.spec, memory) // (graph * pair.prepared.main.batch)
    most = 1 if machinery.arch.mixes_rows else max(1, most)
    for at in range(0, len(points), most):
        yield points[at : at + most]
