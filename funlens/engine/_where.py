"""Where on a site an edit acts: reading a selection and writing it back."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs
import torch
from torch import Tensor

from funlens.data import (
    POSITION_WORDS,
    Generated,
    PerRow,
    Selection,
    Site,
    Span,
    axis_of,
    columns,
    drops_axis,
    take,
)
from funlens.engine._inputs import UNKNOWN, Frame
from funlens.errors import SelectionError

Columns: TypeAlias = tuple[int, ...] | tuple[tuple[int, ...], ...]
Window: TypeAlias = tuple[int, int]
"""First position and first key that a value covers."""

WHOLE: Final[Window] = (0, 0)


@attrs.frozen(kw_only=True)
class Axis:
    """What is selected on one axis.

    Attributes:
        at: Which axis.
        found: Indices, or indices for each row.
        dropped: Whether the axis is left out of the value.
        moves: Whether the axis is a window that moves while generating.
        holds_keys: Whether it is the window of keys, which has a start of its own.
        since: For generated positions: the first column of them.
        later: A selection on an axis whose length only the run tells.
        site: Name of the site, for an error that only then can be found.
    """

    at: int
    found: Columns = ()
    dropped: bool = False
    moves: bool = False
    holds_keys: bool = False
    since: int | None = None
    later: Selection | None = None
    site: str = ""

    def inside(self, size: int, window: Window) -> Columns:
        """Give the indices within a window of the axis; empty if none is."""
        if self.later is not None:
            rows = len(self.later.indices) if isinstance(self.later, PerRow) else 1
            return columns(self.later, size, n_rows=rows, site=self.site)
        start = window[self.holds_keys] if self.moves else 0
        if self.since is not None:
            return tuple(range(max(self.since - start, 0), size))
        if start == 0 and not self.moves:
            return self.found
        return _shifted(self.found, start, size)


def _shifted(found: Columns, start: int, size: int) -> Columns:
    """Move indices into a window; none of them where a row has not all of its own."""
    if found and isinstance(found[0], int):
        return tuple(
            c - start for c in found if isinstance(c, int) and 0 <= c - start < size
        )
    rows = [tuple(c - start for c in row) for row in found if isinstance(row, tuple)]
    is_inside = all(0 <= c < size for row in rows for c in row)
    return tuple(rows) if is_inside else ()


def are_apart(first: tuple[Axis, ...], second: tuple[Axis, ...]) -> bool:
    """Tell whether two selections of one site surely share no place."""
    theirs = {axis.at: axis for axis in second}
    return any(
        axis.at in theirs and _are_disjoint(axis, theirs[axis.at]) for axis in first
    )


def _are_disjoint(one: Axis, other: Axis) -> bool:
    if one.since is not None or other.since is not None:
        return one.since != other.since  # the prompt, and what comes after it
    if one.later is not None or other.later is not None:
        return _are_surely_disjoint(one.later, other.later)
    ours, theirs = _by_row(one.found), _by_row(other.found)
    n_rows = max(len(ours), len(theirs))
    pairs = zip(
        ours * (n_rows // len(ours)), theirs * (n_rows // len(theirs)), strict=True
    )
    return all(mine.isdisjoint(other_row) for mine, other_row in pairs)


def _are_surely_disjoint(one: Selection | None, other: Selection | None) -> bool:
    """Tell whether two selections share no index, however long their axis is."""
    ours, theirs = _numbers(one), _numbers(other)
    every = (*ours, *theirs)
    alike = all(index >= 0 for index in every) or all(index < 0 for index in every)
    return bool(ours and theirs) and alike and set(ours).isdisjoint(theirs)


def _numbers(chosen: Selection | None) -> tuple[int, ...]:
    """Give the indices that a selection names one by one; none of a range."""
    match chosen:
        case int():
            return (chosen,)
        case tuple():
            return chosen
        case _:
            return ()


def _by_row(found: Columns) -> list[set[int]]:
    """Give the indices of each row; of the one row where all are alike."""
    rows = [set(row) for row in found if isinstance(row, tuple)]
    return rows or [{index for index in found if isinstance(index, int)}]


def resolved(
    site: Site, sizes: Mapping[str, int], frames: Mapping[str, Frame]
) -> tuple[Axis, ...]:
    """Turn a site's selection into indices, for the positions of one run, axis by axis.

    They come in the order of the axes.

    Args:
        site: The site.
        sizes: Length of every axis; 0 where only the run tells.
        frames: Positions of each stack.

    Raises:
        SelectionError: An index is out of range.
    """
    found: list[Axis] = []
    for word, chosen in site.selections:
        at = axis_of(site.part, word)
        axis = site.axes[at]
        frame = frames.get("encoder" if axis == "source" else site.stack, UNKNOWN)
        holds_keys = axis == "key"
        moves = holds_keys or axis in {"pos", "query"}
        if isinstance(chosen, Generated):
            since = frame.n_pos
            if not since:
                problem = f"{chosen} has no place in a stack that takes no tokens"
                raise SelectionError(str(site), problem, "positions")
            found.append(Axis(at=at, moves=moves, holds_keys=holds_keys, since=since))
            continue
        dropped = drops_axis(chosen)
        # other keys may stand behind those of the positions
        size = sizes[axis] or (frame.n_pos if axis == "key" else 0)
        if not size:
            _check_rows(site, chosen, frame)
            _check_ends(site, chosen, frame)
            found.append(Axis(at=at, dropped=dropped, later=chosen, site=str(site)))
            continue
        padded = word in POSITION_WORDS
        indices = columns(
            chosen,
            size,
            n_rows=frame.batch,
            site=str(site),
            starts=frame.starts if padded else None,
            stops=frame.stops if padded else None,
        )
        found.append(
            Axis(
                at=at,
                found=indices,
                dropped=dropped,
                moves=moves,
                holds_keys=holds_keys,
            )
        )
    return tuple(sorted(found, key=_place))


def _check_rows(site: Site, chosen: Selection, frame: Frame) -> None:
    """Refuse another number of rows than there are, where positions are not known."""
    if isinstance(chosen, PerRow) and frame.batch not in {0, len(chosen.indices)}:
        problem = f"{len(chosen.indices)} rows are selected on a batch of {frame.batch}"
        raise SelectionError(str(site), problem, "one index for each row")


def _check_ends(site: Site, chosen: Selection, frame: Frame) -> None:
    """Refuse to count from the end of rows that end nobody knows where."""
    ends = [*_numbers(chosen), *(chosen.indices if isinstance(chosen, PerRow) else ())]
    if isinstance(chosen, Span):
        ends += [
            end or 0
            for end in (chosen.start, -1 if chosen.stop is None else chosen.stop)
        ]
    if frame.is_ragged and any(end < 0 for end in ends):
        problem = f"{chosen} counts from the end of rows that are padded"
        expected = (
            "positions counted from the start, as only the run tells where rows end"
        )
        raise SelectionError(str(site), problem, expected)


def _place(axis: Axis) -> int:
    return axis.at


def selected(
    value: Tensor, where: tuple[Axis, ...], window: Window = WHOLE
) -> Tensor | None:
    """Cut a selection out of a site's value; None where the window misses it."""
    for axis in where:
        found = axis.inside(value.shape[axis.at], window)
        if not found:
            return None
        value = take(value, axis.at, found)
    for axis in reversed(where):
        if axis.dropped:
            value = value.squeeze(axis.at)
    return value


def written(
    value: Tensor, new: Tensor, where: tuple[Axis, ...], *, window: Window = WHOLE
) -> Tensor:
    """Give the site's value with another one at the selection, out of place."""
    if not where:
        return new
    for axis in where:
        if axis.dropped:
            new = new.unsqueeze(axis.at)
    mask: Tensor | None = None
    for axis in where:
        found = axis.inside(value.shape[axis.at], window)
        here, back = _inverse(value, axis.at, found)
        new = take_back(new, axis.at, back)
        mask = here if mask is None else mask & here
    if mask is None:
        return new
    return torch.where(mask, new, value)


def _inverse(value: Tensor, at: int, found: Columns) -> tuple[Tensor, Tensor]:
    """Say which places are selected, and which of the selected each place is."""
    index = torch.tensor(found, device=value.device)
    size = value.shape[at]
    rows = index if index.ndim == 2 else index[None]  # noqa: PLR2004 -- one selection for each row
    places = torch.arange(size, device=value.device)
    hits = rows[:, :, None] == places
    shape = [1] * value.ndim
    shape[0], shape[at] = rows.shape[0], size
    here = hits.any(1).view(shape)
    back = hits.int().argmax(1)
    return here, back if index.ndim == 2 else back[0]  # noqa: PLR2004 -- one selection for each row


def take_back(new: Tensor, at: int, back: Tensor) -> Tensor:
    """Spread selected values over the whole axis."""
    if back.ndim == 1:
        return new.index_select(at, back)
    shape = [1] * new.ndim
    shape[0], shape[at] = back.shape
    wanted = list(new.shape)
    wanted[at] = back.shape[1]
    return torch.gather(new, at, back.view(shape).expand(wanted))
