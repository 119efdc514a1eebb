"""The plan of a sweep: which cells run together, and from where to where."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
import torch
from toolz import groupby

from funlens.adapters import Machinery
from funlens.data import ENTERING, ModelSpec, Selection, Site
from funlens.engine._cells import Cells
from funlens.engine._columns import columns_of
from funlens.engine._edits import read_by
from funlens.engine._inputs import Prepared
from funlens.engine._metrics import Metric
from funlens.engine._plan import Edit, conflicts, placed
from funlens.engine._waves import Waves, first_position, waves_of
from funlens.errors import FunlensError, OptionError, raise_all

_BEFORE: Final = frozenset({"embed", "pos_embed"})
_SHARE: Final = 4  # of free memory, a part for what is alive beside activations
_READING: Final = 24  # positions that take as long as reading a layer's weights
_UNTOLD: Final = 1024  # positions of a picture or a sound, which only a run tells
_UNTOLD_MEMORY: Final = 2**32
_COPIES: Final = 4  # of the widest activations, alive at once in a block


@attrs.frozen(kw_only=True)
class Group:
    """Cells that run stacked below each other.

    Attributes:
        cells: Their numbers.
        starts: Layer that each begins with, in order; None for the whole model.
        stop: Layer that they end before.
        since: First position that is run.
        joins: Whether cells join on the way, each at its own layer.
        only: The one position that passes the whole last layer, where others pass it
            as far as keys and values; None where all pass it.
    """

    cells: tuple[int, ...]
    starts: tuple[int | None, ...]
    stop: int
    since: int = 0
    joins: bool = False
    only: int | None = None

    @property
    def n_layers(self) -> int:
        """How many layers all cells pass together."""
        return sum(self.stop - (start or 0) for start in self.starts)

    def token_layers(self, n_pos: int) -> int:
        """How many positions pass a layer, in all cells, of so many positions each."""
        if self.only is None:
            return self.n_layers * (n_pos - self.since)
        n_cells = len(self.cells)
        return (self.n_layers - n_cells) * (n_pos - self.since) + n_cells

    def key_layers(self, n_pos: int) -> int:
        """How many positions pass a layer as far as keys and values."""
        return 0 if self.only is None else len(self.cells) * (n_pos - self.since)


@attrs.frozen(kw_only=True, eq=False)
class SweepPlan:
    """What a sweep will compute.

    Attributes:
        groups: Cells that run together.
        n_cells: How many cells there are, without those that the model does not have.
        token_layers: How many positions pass a layer, over all runs; the run without
            edits included.
        key_layers: How many more pass a layer as far as keys and values.
        naive_token_layers: The same for one run of the whole model for each cell.
        row_bytes: About how much memory one row of a stack takes.
        memory: How much may be taken, in bytes.
        whole: Why no layer can be left out; empty where some can.
        alone: Why cells that begin at other layers run apart; empty where they do not.
        ends: Why all positions pass the whole last layer; empty where one can.
        again: Why positions before an edit are run again; empty where they need not be.
        apart: Why cells cannot be stacked; empty where they can.
        logits_at: Position of the logits that are computed; None for all of them.
        columns: Whether only the logits of the tokens that metrics name are computed.
    """

    groups: tuple[Group, ...]
    n_cells: int
    token_layers: int
    key_layers: int
    naive_token_layers: int
    row_bytes: int
    memory: int
    whole: str
    alone: str
    again: str
    ends: str
    apart: str
    logits_at: Selection | None
    columns: bool

    @property
    def share(self) -> float:
        """Share of the naive work that is left."""
        return self.token_layers / max(1, self.naive_token_layers)

    def __repr__(self) -> str:
        """Say how much is computed, in how many runs."""
        whole = f"; no layer left out: {self.whole}" if self.whole else ""
        alone = f"; layer by layer: {self.alone}" if self.alone else ""
        again = f"; from the first position: {self.again}" if self.again else ""
        keys = f", {self.key_layers} more for their keys" if self.key_layers else ""
        apart = f"; not stacked: {self.apart}" if self.apart else ""
        return (
            f"SweepPlan({self.n_cells} cells in {len(self.groups)} runs, "
            f"{self.token_layers} of {self.naive_token_layers} token-layers "
            f"({self.share:.0%}){keys}, {self.row_bytes} bytes a row"
            f"{whole}{alone}{again}{apart})"
        )


def placed_cells(
    spec: ModelSpec, prepared: Prepared, cells: Cells
) -> tuple[tuple[Edit, ...] | None, ...]:
    """Find where each cell's edits act, and every fault in them.

    Raises:
        FunlensError: The only fault that there is; a note names the cell.
        ExceptionGroup: Several faults.
    """
    faults: list[FunlensError] = []
    found: list[tuple[Edit, ...] | None] = []
    for index, row in enumerate(cells.edits):
        if row is None:
            found.append(None)
            continue
        here: list[FunlensError] = []
        made = placed(spec, prepared.frames, row, faults=here)
        here += conflicts(made)
        for fault in here:
            fault.add_note(f"in {cells.name(index)}")
        faults += here
        found.append(tuple(made))
    raise_all(faults)
    return tuple(found)


def read_edits(
    spec: ModelSpec, row: Sequence[Edit], metrics: Sequence[Metric]
) -> tuple[Edit, ...]:
    """Leave out the edits that act after all that the metrics read."""
    stop = layer_after(spec, metrics)
    if stop == spec.n_layers:
        return tuple(row)
    return tuple(edit for edit in row if _comes_before(edit.record.site, stop))


def _comes_before(site: Site, stop: int) -> bool:
    if site.stack or site.part in _BEFORE:
        return True
    return site.layer is not None and site.layer < stop


def planned(
    spec: ModelSpec,
    prepared: Prepared,
    edits: Sequence[tuple[Edit, ...] | None],
    metrics: Sequence[Metric],
    *,
    memory: int | None,
    done: Sequence[bool],
) -> SweepPlan:
    """Group cells by the layer that they can begin with, and cut groups to memory.

    Args:
        spec: The model.
        prepared: The inputs of one run.
        edits: Each cell's edits; None for a cell that is not there.
        metrics: What is read.
        memory: How many bytes a stack may take; a share of what is free if None.
        done: Cells that were run before.
    """
    machinery: Machinery = spec.engine
    whole = machinery.why_no_skip(prepared.kwargs)
    apart = machinery.arch.mixes_rows
    stop = layer_after(spec, metrics)
    rows = {at: row for at, row in enumerate(edits) if row}
    wanted = {at: row for at, row in rows.items() if not done[at]}
    starts = {
        at: first_layer(spec, row, stop, whole=whole) for at, row in wanted.items()
    }
    logits_at = _logits_at(spec, rows, metrics)
    columns = all(metric.tokens for metric in metrics)
    columns = columns and columns_of(spec, prepared, logits_at) is not None
    row_bytes = row_bytes_of(spec, prepared, metrics)
    limit = memory_limit(spec, memory)
    most = 1 if apart else max(1, limit // (row_bytes * prepared.main.batch))
    waves = waves_of(spec, prepared) if wanted else Waves()
    joining = {} if waves.why_not else _joining(starts, metrics)
    left = {at: start for at, start in starts.items() if at not in joining}
    n_pos = prepared.main.n_pos
    reuses = not waves.why_again and all(_reads_late(m.site) for m in metrics)
    since = {at: _since(wanted[at], metrics, n_pos) * reuses for at in joining}
    only = None if waves.why_whole else _only(metrics, n_pos)
    short = {} if only is None else _short(spec, wanted, joining)
    whole_ends = {at: start for at, start in joining.items() if at not in short}
    groups = (
        *_stacks(left, stop, most),
        *_waves(whole_ends, since, stop, most, n_pos),
        *_waves(short, since, stop, most, n_pos, only=only),
    )
    batch = prepared.main.batch
    passed = sum(group.token_layers(n_pos) for group in groups)
    return SweepPlan(
        groups=groups,
        n_cells=len(rows),
        token_layers=batch * (passed + n_pos * spec.n_layers),
        key_layers=batch * sum(group.key_layers(n_pos) for group in groups),
        naive_token_layers=batch * n_pos * spec.n_layers * (len(wanted) + 1),
        row_bytes=row_bytes,
        memory=limit,
        whole=whole,
        alone=waves.why_not,
        again=waves.why_again,
        ends=waves.why_whole,
        apart=apart,
        logits_at=logits_at,
        columns=columns,
    )


def _joining(
    starts: Mapping[int, int | None], metrics: Sequence[Metric]
) -> dict[int, int]:
    """Pick the cells that can join on the way: all are there where the metrics look."""
    if len({metric.site.layer for metric in metrics}) > 1:
        return {}
    return {at: start for at, start in starts.items() if start is not None}


def _only(metrics: Sequence[Metric], n_pos: int) -> int | None:
    """Give the one position that is read, where that is behind the last layer."""
    sites = [metric.site for metric in metrics]
    places = {site.pos for site in sites}
    if any(site.stack or site.layer is not None for site in sites) or len(places) > 1:
        return None
    at = places.pop()
    only = at % n_pos if isinstance(at, int) and n_pos else 0
    return only or None


def _short(
    spec: ModelSpec,
    rows: Mapping[int, Sequence[Edit]],
    joining: Mapping[int, int],
) -> dict[int, int]:
    """Pick the cells of which nothing acts after what enters the last layer."""
    last = spec.n_layers - 1

    def is_short(row: Sequence[Edit]) -> bool:
        sites = (edit.record.site for edit in row)
        return all(_comes_before(s, last) or _enters(s, last) for s in sites)

    return {at: start for at, start in joining.items() if is_short(rows[at])}


def _enters(site: Site, layer: int) -> bool:
    return site.layer == layer and site.part in ENTERING


def _reads_late(site: Site) -> bool:
    """Tell whether a metric reads single positions, so that others may be missing."""
    chosen = site.query if "query" in site.axes else site.pos
    return isinstance(chosen, int)


def _since(row: Sequence[Edit], metrics: Sequence[Metric], n_pos: int) -> int:
    """Find the first position that a cell must run."""
    looks = (m.site.query if "query" in m.site.axes else m.site.pos for m in metrics)
    read = (at % n_pos for at in looks if isinstance(at, int))
    return min([first_position(row, n_pos), *read])


def _stacks(starts: Mapping[int, int | None], stop: int, most: int) -> Iterator[Group]:
    """Stack the cells that begin with the same layer, as many as memory holds."""
    by_start = groupby(starts.__getitem__, starts)
    for start, held in sorted(by_start.items(), key=_by_layer):
        for at in range(0, len(held), most):
            cells = tuple(held[at : at + most])
            yield Group(cells=cells, starts=(start,) * len(cells), stop=stop)


def _waves(
    starts: Mapping[int, int],
    since: Mapping[int, int],
    stop: int,
    most: int,
    n_pos: int,
    *,
    only: int | None = None,
) -> Iterator[Group]:
    """Let cells join on the way, those that begin with near positions together."""
    whole = stop if only is None else stop - 1
    for first, held in _cut(starts, since, whole, n_pos):
        every = sorted(held, key=lambda at: (starts[at], at))
        for at in range(0, len(every), most):
            cells = tuple(every[at : at + most])
            begins = tuple(starts[cell] for cell in cells)
            yield Group(
                cells=cells,
                starts=begins,
                stop=stop,
                since=first,
                joins=True,
                only=only if only is not None and first < only else None,
            )


def _cut(
    starts: Mapping[int, int], since: Mapping[int, int], stop: int, n_pos: int
) -> list[tuple[int, list[int]]]:
    """Cut cells, sorted by their first position, where that computes least.

    A run costs the positions that it computes in each layer, and for each layer as much
    as some positions more, for reading its weights. What is cheapest up to each
    position is found from what is cheapest up to those before.
    """
    places = sorted({since[cell] for cell in starts})
    at = groupby(since.__getitem__, starts)
    work = {p: sum(stop - starts[cell] for cell in at[p]) for p in places}
    first = {p: min(starts[cell] for cell in at[p]) for p in places}
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(places) + 1):
        options: list[tuple[float, int]] = []
        for begin in range(end):
            inside = places[begin:end]
            layers = stop - min(first[p] for p in inside)
            tokens = (n_pos - inside[0]) * sum(work[p] for p in inside)
            options.append((best[begin][0] + tokens + _READING * layers, begin))
        best.append(min(options))
    cuts: list[tuple[int, list[int]]] = []
    end = len(places)
    while end:
        begin = best[end][1]
        inside = places[begin:end]
        cuts.insert(0, (inside[0], [cell for p in inside for cell in at[p]]))
        end = begin
    return cuts


def _by_layer(pair: tuple[int | None, object]) -> int:
    return -1 if pair[0] is None else pair[0]


def first_layer(
    spec: ModelSpec, row: Sequence[Edit], stop: int, *, whole: str
) -> int | None:
    """Find the layer before which none of a cell's edits can change anything."""
    sites = [edit.record.site for edit in row]
    sites += [site for edit in row for site in read_by(edit.record)]
    if whole or any(site.stack or site.part in _BEFORE for site in sites):
        return None
    machinery: Machinery = spec.engine
    layers = (spec.n_layers if s.layer is None else s.layer for s in sites)
    first = min(*layers, stop - 1, spec.n_layers - 1)
    begins = [layer for layer in machinery.begins if layer <= first]
    return begins[-1]


def layer_after(spec: ModelSpec, metrics: Sequence[Metric]) -> int:
    """Find the layer after which nothing is read: all of them where logits are."""
    sites = [metric.site for metric in metrics]
    if any(site.stack or site.layer is None for site in sites):
        return spec.n_layers
    return max(_end(site) for site in sites)


def _end(site: Site) -> int:
    return max(1, (site.layer or 0) + (site.part not in ENTERING))


def _logits_at(
    spec: ModelSpec, rows: Mapping[int, Sequence[Edit]], metrics: Sequence[Metric]
) -> Selection | None:
    """Give the one position of logits that is read, if nothing else is."""
    machinery: Machinery = spec.engine
    edited = any(e.record.site.part == "logits" for row in rows.values() for e in row)
    places = {m.site.pos for m in metrics if m.site.part == "logits"}
    alone = all(m.site.part == "logits" for m in metrics) and len(places) == 1
    cannot = not machinery.unembed or machinery.unembeds_streams
    if edited or not alone or cannot:
        return None
    return places.pop()


def row_bytes_of(spec: ModelSpec, prepared: Prepared, metrics: Sequence[Metric]) -> int:
    """Estimate what one row of a stack takes while it runs."""
    n_pos = prepared.main.n_pos or _UNTOLD
    widest = max(spec.d_mlp, 4 * spec.d_model) + n_pos * spec.n_heads
    reads_all = any(m.site.part == "logits" and m.site.pos is None for m in metrics)
    logits = spec.d_vocab * (n_pos if reads_all else 1)
    return (_COPIES * n_pos * widest + logits) * spec.dtype.itemsize


def memory_limit(spec: ModelSpec, memory: int | None) -> int:
    """Give how many bytes a stack may take: a share of what is free if not told."""
    return _free_memory(spec) // _SHARE if memory is None else memory


def _free_memory(spec: ModelSpec) -> int:
    if spec.device.type == "cuda":
        return int(torch.cuda.mem_get_info(spec.device)[0])
    if "SC_AVPHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return _UNTOLD_MEMORY  # macOS and Windows do not tell
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_memory(memory: int | None) -> None:
    """Refuse a limit that is none.

    Raises:
        OptionError: It is no positive number of bytes.
    """
    if memory is not None and (type(memory) is not int or memory < 1):
        raise OptionError("memory", f"it is {memory!r}, not a number of bytes")
