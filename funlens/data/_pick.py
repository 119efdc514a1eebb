"""From a selection to indices, and from indices to the part of a tensor."""

from collections.abc import Sequence
from typing import Final

import attrs
import torch
from torch import Tensor

from funlens.data._parts import axis_of
from funlens.data._selections import Generated, PerRow, Selection, Span
from funlens.data._sites import Site
from funlens.errors import SelectionError

POSITION_WORDS = frozenset({"pos", "query", "key"})


def columns(
    chosen: Selection,
    size: int,
    *,
    n_rows: int,
    site: str,
    starts: Sequence[int] | None = None,
    stops: Sequence[int] | None = None,
) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
    """Turn a selection into indices: the same for all rows, or a tuple for each row.

    Args:
        chosen: What is selected.
        size: Length of the axis.
        n_rows: Rows of the batch.
        site: Name for the error.
        starts: First real column of each row, where rows are padded.
        stops: Column after the last real one of each row.

    Raises:
        SelectionError: An index is out of range, or rows would differ in number.
    """
    if isinstance(chosen, PerRow):
        starts, stops = starts or (0,) * n_rows, stops or (size,) * n_rows
        if len(chosen.indices) != n_rows:
            problem = f"{len(chosen.indices)} rows are selected on a batch of {n_rows}"
            raise SelectionError(site, problem, "one index for each row")
        found = [
            _within((index,), stop - start, site)
            for index, start, stop in zip(chosen.indices, starts, stops, strict=True)
        ]
    elif starts is None or stops is None:
        return _within(chosen, size, site)
    else:
        lengths = [stop - start for start, stop in zip(starts, stops, strict=True)]
        found = [_within(chosen, length, site) for length in lengths]
    if len({len(row) for row in found}) > 1:
        problem = "it means another number of positions in each padded row"
        raise SelectionError(site, problem, "a selection that every row has")
    return tuple(
        tuple(start + index for index in row)
        for start, row in zip(starts, found, strict=True)
    )


def _within(
    chosen: Selection | tuple[int, ...], size: int, site: str
) -> tuple[int, ...]:
    match chosen:
        case Span():
            indices = tuple(range(*chosen.to_slice().indices(size)))
            if not indices:
                raise SelectionError(site, f"{chosen} of {size} is empty", "an index")
            return indices
        case int():
            wanted: tuple[int, ...] = (chosen,)
        case tuple():
            wanted = chosen
        case Generated() | PerRow():
            raise SelectionError(site, f"{chosen} has no place here", "a position")
    for index in wanted:
        if not -size <= index < size:
            raise SelectionError(
                site, f"index {index} of {size}", f"{-size}..{size - 1}"
            )
    return tuple(index % size for index in wanted)


def drops_axis(chosen: Selection) -> bool:
    """Tell whether a selection takes one index and leaves the axis out."""
    return isinstance(chosen, (int, PerRow))


def left_axes(site: Site) -> tuple[str, ...]:
    """Name the axes that a site's selection leaves."""
    dropped = {
        axis_of(site.part, word)
        for word, chosen in site.selections
        if drops_axis(chosen)
    }
    return tuple(axis for at, axis in enumerate(site.axes) if at not in dropped)


@attrs.frozen(kw_only=True)
class Padding:
    """Where the real positions of each row lie; None where nothing is padded.

    Attributes:
        starts: Column of each row's first real token.
        stops: Column after each row's last real token.
    """

    starts: tuple[int, ...] | None = None
    stops: tuple[int, ...] | None = None


NO_PADDING: Final = Padding()


def is_of_encoder(site: Site, axis: str) -> bool:
    """Tell whether an axis counts the positions of the encoder."""
    return site.stack == "encoder" or axis == "source"


def pick(
    whole: Tensor,
    site: Site,
    *,
    main: Padding = NO_PADDING,
    encoder: Padding = NO_PADDING,
) -> Tensor:
    """Cut a site's selection out of the whole site's tensor.

    Args:
        whole: The whole site's tensor.
        site: The site with its selection.
        main: Real positions of the main stack.
        encoder: Real positions of the encoder.

    Raises:
        SelectionError: The selection does not fit the tensor.
    """
    dropped: list[int] = []
    for word, chosen in site.selections:
        axis = axis_of(site.part, word)
        padding = encoder if is_of_encoder(site, site.axes[axis]) else main
        padding = padding if word in POSITION_WORDS else NO_PADDING
        found = columns(
            chosen,
            whole.shape[axis],
            n_rows=whole.shape[0],
            site=str(site),
            starts=padding.starts,
            stops=padding.stops,
        )
        whole = take(whole, axis, found)
        if drops_axis(chosen):
            dropped.append(axis)
    for axis in sorted(dropped, reverse=True):
        whole = whole.squeeze(axis)
    return whole


def take(
    whole: Tensor, axis: int, found: tuple[int, ...] | tuple[tuple[int, ...], ...]
) -> Tensor:
    """Take indices of an axis, keeping the axis; other indices for each row if so."""
    index = torch.tensor(found, device=whole.device)
    if index.ndim == 1:
        if found == tuple(range(whole.shape[axis])):
            return whole
        if len(found) == 1:
            return whole.narrow(axis, int(found[0]), 1)  # pyright: ignore[reportArgumentType] (one axis: plain ints)
        return whole.index_select(axis, index)
    shape = [1] * whole.ndim
    shape[0], shape[axis] = index.shape
    wanted = list(whole.shape)
    wanted[axis] = index.shape[1]
    return torch.gather(whole, axis, index.view(shape).expand(wanted))
