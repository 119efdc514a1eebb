"""The cells of a sweep: lists of interventions, laid out on named axes."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final, TypeAlias

import attrs

from funlens.adapters import to_str_tokens
from funlens.data import Grid, Grids, Intervention, ModelSpec, Site, axis_of
from funlens.engine._inputs import Prepared
from funlens.engine._plan import records
from funlens.errors import InputError, SiteNotFoundError, nearest

CellsLike: TypeAlias = (
    Grid | Grids | Mapping[str, Grid] | Sequence[Sequence[Intervention]]
)
"""A grid, grids on the same axes, or the interventions of each run."""

_BY_POSITION: Final = frozenset({"pos", "query", "key"})


@attrs.frozen(kw_only=True, eq=False)
class Cells:
    """What each run of a sweep changes.

    Attributes:
        axes: Names of the axes.
        labels: What stands at each place of each axis.
        edits: The interventions of each cell, the last axis fastest; None for a cell
            that the model does not have.
    """

    axes: tuple[str, ...]
    labels: Mapping[str, tuple[str, ...]]
    edits: tuple[tuple[Intervention, ...] | None, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(len(self.labels[axis]) for axis in self.axes)

    def name(self, index: int) -> str:
        """Name a cell in errors, such as `cells[17] (layer 1, pos 5)`."""
        places: list[str] = []
        left = index
        for axis in reversed(self.axes):
            left, at = divmod(left, len(self.labels[axis]))
            places.insert(0, f"{axis} {self.labels[axis][at]}")
        return f"cells[{index}] ({', '.join(places)})"


@attrs.frozen(kw_only=True, eq=False)
class _Laid:
    """A grid, laid out on a model.

    Attributes:
        grid: The grid.
        held: The layers that have its part, and the lengths of its axes there.
        chosen: What each axis goes over.
    """

    grid: Grid
    held: Mapping[int | None, tuple[int | str, ...]]
    chosen: Mapping[str, tuple[int, ...]]

    def edits(self, places: Sequence[int]) -> tuple[Intervention, ...] | None:
        """Give the interventions of a cell; None where it is not there."""
        cell = dict(zip(self.chosen, places, strict=True))
        if any(place not in self.chosen[word] for word, place in cell.items()):
            return None
        return _edits(self.held, self.grid, cell)


def cells_of(spec: ModelSpec, prepared: Prepared, cells: CellsLike) -> Cells:
    """Lay out what a sweep goes over.

    Raises:
        InputError: There is nothing to go over, or something else than interventions.
        SiteNotFoundError: The model has no such part.
        SelectionError: An index is out of range, or grids go over other axes.
    """
    if isinstance(cells, Grid):
        alone = _from_grids(spec, prepared, Grids({"": cells}))
        axes = alone.axes[1:]
        labels = {axis: alone.labels[axis] for axis in axes}
        return attrs.evolve(alone, axes=axes, labels=labels)
    if isinstance(cells, Grids):
        return _from_grids(spec, prepared, cells)
    if isinstance(cells, Mapping):
        return _from_grids(spec, prepared, Grids(cells))
    if isinstance(cells, str) or not isinstance(cells, Sequence) or not cells:  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
        raise InputError(
            f"the cells are {type(cells).__name__}",
            "a grid, or a list of lists of interventions",
            "Use `funlens.grid`, or write `[[edit], [edit]]`",
        )
    edits = tuple(tuple(records(cell)) for cell in cells)
    labels = {"cell": tuple(str(at) for at in range(len(edits)))}
    return Cells(axes=("cell",), labels=labels, edits=edits)


def _from_grids(spec: ModelSpec, prepared: Prepared, grids: Grids) -> Cells:
    """Lay grids out beside each other; places that one lacks are no cells of it."""
    every = [_laid(spec, prepared, grid) for _, grid in grids.named]
    axes = tuple(every[0].chosen)
    columns = zip(*(laid.chosen.values() for laid in every), strict=True)
    chosen = {axis: _joined(at) for axis, at in zip(axes, columns, strict=True)}
    cells = list(product(*chosen.values()))
    labels = {
        grids.axis: tuple(name for name, _ in grids.named),
        **{word: tuple(_labels(spec, prepared, word, chosen[word])) for word in axes},
    }
    edits = tuple(laid.edits(places) for laid in every for places in cells)
    return Cells(axes=(grids.axis, *axes), labels=labels, edits=edits)


def _laid(spec: ModelSpec, prepared: Prepared, grid: Grid) -> _Laid:
    held = _held(spec, grid)
    chosen = {
        word: _all_of(held, prepared, grid, word) if places is None else places
        for word, places in grid.axes
    }
    return _Laid(grid=grid, held=held, chosen=chosen)


def _joined(places: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """Join what grids go over on one axis: as given where they agree, else in order."""
    if len(set(places)) == 1:
        return places[0]
    return tuple(sorted({place for some in places for place in some}))


def _held(spec: ModelSpec, grid: Grid) -> dict[int | None, tuple[int | str, ...]]:
    """Give the layers that have the part, and the lengths of its axes there."""
    part = grid.part
    held = {
        info.site.layer: info.shape
        for info in spec.sites
        if (info.site.part, info.site.stack) == (part.name, part.stack)
    }
    if not held:
        known = {str(info.site) for info in spec.sites}
        raise SiteNotFoundError(str(part), spec.n_layers, nearest(str(part), known))
    return held


def _all_of(
    held: Mapping[int | None, tuple[int | str, ...]],
    prepared: Prepared,
    grid: Grid,
    word: str,
) -> tuple[int, ...]:
    """Go over the whole of an axis, as long as it is in the layer where it is longest.

    Raises:
        InputError: Only a run tells how long it is.
    """
    if word == "layer":
        return tuple(sorted(layer for layer in held if layer is not None))
    at = axis_of(grid.part.name, word)
    sizes = [shape[at] for shape in held.values()]
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) == len(sizes):
        return tuple(range(max(known)))
    name = "encoder" if sizes[0] == "source" else grid.part.stack
    n_pos = prepared.frames[name].n_pos if name in prepared.frames else 0
    if not n_pos:
        raise InputError(
            f"only a run tells how many places {grid.part} has on its {word} axis",
            "indices",
            f"Write `{word}=range(...)`",
        )
    return tuple(range(n_pos))


def _edits(
    held: Mapping[int | None, tuple[int | str, ...]],
    grid: Grid,
    cell: Mapping[str, int],
) -> tuple[Intervention, ...] | None:
    """Make one cell's interventions; None where only other layers have its place."""
    site = grid.site(cell)
    shape = held.get(site.layer)
    is_lacking = shape is not None and not _has(site, shape, cell)
    if is_lacking and any(_has(site, other, cell) for other in held.values()):
        return None
    return tuple(records([grid.kind(site, **grid.options)]))


def _has(site: Site, shape: tuple[int | str, ...], cell: Mapping[str, int]) -> bool:
    for word, index in cell.items():
        size = 0 if word == "layer" else shape[axis_of(site.part, word)]
        if isinstance(size, int) and size and index >= size:
            return False
    return True


def _labels(
    spec: ModelSpec, prepared: Prepared, word: str, places: Sequence[int]
) -> Iterator[str]:
    """Name the places of an axis; positions of one text by its tokens."""
    words = position_labels(spec, prepared) if word in _BY_POSITION else ()
    yield from (words[place] if words else str(place) for place in places)


def position_labels(spec: ModelSpec, prepared: Prepared) -> tuple[str, ...]:
    """Name positions by the tokens of a single text; nothing where there is none."""
    tokens = prepared.kwargs.get("input_ids")
    is_text = spec.tokenizer is not None and not spec.is_encoder_decoder
    if not is_text or tokens is None or len(tokens) > 1:
        return ()
    words = to_str_tokens(spec, tokens[0])
    return tuple(f"{place} {word}" for place, word in enumerate(words))
