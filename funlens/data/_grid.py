"""`Grid`: many interventions of one kind, over the axes of a part; `Grids` of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Any, Final, TypeAlias, cast

import attrs

from funlens.data._parts import AXES, axis_of
from funlens.data._sites import Part, Site
from funlens.errors import InputError, OptionError, SelectionError, nearest

Choice: TypeAlias = EllipsisType | Sequence[int] | int
"""All of an axis, some of it, or one place that makes no axis."""

_WORDS: Final = ("layer", "head", "pos", "query", "key", "neuron", "expert", "stream")


@attrs.frozen(kw_only=True, eq=False)
class Grid:
    """Cells that differ only in where one intervention acts.

    Attributes:
        kind: Makes the intervention: called with a site and the options.
        part: The part of the model.
        axes: What each axis of the result goes over, in order.
        fixed: What is selected alike in all cells.
        options: What the kind is given beside the site, such as `source`.
    """

    kind: Callable[..., Any]
    part: Part
    axes: tuple[tuple[str, tuple[int, ...] | None], ...]
    fixed: Mapping[str, int]
    options: Mapping[str, Any] = attrs.field(repr=False)

    def site(self, chosen: Mapping[str, int]) -> Site:
        """Name the site of one cell."""
        every = {**self.fixed, **chosen}
        layer = every.pop("layer", None)
        return self.part(layer, **every)


def _named(grids: Mapping[str, Grid]) -> tuple[tuple[str, Grid], ...]:
    return tuple(grids.items())


@attrs.frozen(eq=False)
class Grids:
    """Grids beside each other on one more axis, swept as one.

    They go over the same axes in the same order, where `query` counts as `pos`. Where
    one has places that another lacks, such as more heads, the other has no cells.

    Attributes:
        named: Each grid, with its label on the new axis; given as a mapping.
        axis: Name of the new axis, the first one of the result.
    """

    named: tuple[tuple[str, Grid], ...] = attrs.field(converter=_named)
    axis: str = attrs.field(default="part", kw_only=True)

    def __attrs_post_init__(self) -> None:
        """Check that they fit beside each other."""
        for name, each in self.named:
            if not isinstance(each, Grid):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
                problem = f"{name} is a {type(each).__name__}"
                raise InputError(problem, "a grid", "Use `funlens.grid`")
        if not self.named:
            raise InputError("there is no grid", "one or more", "Use `funlens.grid`")
        expected = _kinds_of_axes(self.named[0][1])
        if self.axis in {word for word, _ in self.named[0][1].axes}:
            problem = f"the grids go over {self.axis} themselves"
            raise InputError(problem, "a new axis", "Give it another name")
        for name, each in self.named:
            if _kinds_of_axes(each) != expected:
                words = ", ".join(word for word, _ in each.axes)
                problem = f"{name} goes over {words}"
                raise SelectionError(str(each.part), problem, ", ".join(expected))


def _kinds_of_axes(given: Grid) -> tuple[str, ...]:
    return tuple("pos" if word == "query" else word for word, _ in given.axes)


def grid(kind: Callable[..., Any], part: Part, **words: Any) -> Grid:
    """Describe a sweep over the axes of a part.

    Args:
        kind: An intervention's class, or a function from a site and the options to an
            intervention.
        part: The part, uncalled, such as `resid_pre`.
        words: `layer`, `head`, `pos`, `query`, `key`, `neuron`, `expert`, `stream`:
            `...` for all, a sequence for some, in the order that the result's axes
            shall have; one number for a place that all cells share. Anything else goes
            to the kind, such as `source=cache`.

    Raises:
        SelectionError: The part has no such axis, or no axis is gone over.
        OptionError: The kind takes no such word.

    Examples:
        >>> import funlens as fl
        >>> fl.grid(fl.Zero, fl.z, layer=..., head=...).axes
        (('layer', None), ('head', None))
    """
    _check_part(part)
    options = {name: held for name, held in words.items() if name not in _WORDS}
    _check_options(kind, options)
    places = {word: chosen for word, chosen in words.items() if word in _WORDS}
    for word in places:
        if word != "layer":
            axis_of(part.name, word)
    axes = {word: at for word, at in places.items() if not isinstance(at, int)}
    if not axes:
        problem = "the grid goes over nothing"
        raise SelectionError(str(part), problem, "an axis or more, as in `layer=...`")
    return Grid(
        kind=kind,
        part=part,
        axes=tuple((word, _chosen(part, word, at)) for word, at in axes.items()),
        fixed={word: at for word, at in places.items() if isinstance(at, int)},
        options=options,
    )


def _check_part(part: object) -> None:
    if not isinstance(part, Part):
        problem = f"it is a {type(part).__name__}"
        raise SelectionError(str(part), problem, "a part, uncalled: `resid_pre`")
    if part.name not in AXES:
        raise AssertionError(part)


def _check_options(kind: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Refuse words that neither select nor mean anything to the kind."""
    known = inspect.signature(kind).parameters
    if any(each.kind is each.VAR_KEYWORD for each in known.values()):
        return
    for name in options:
        if name not in known:
            problem = f"{getattr(kind, '__name__', kind)} takes no such word"
            raise OptionError(name, problem, nearest(name, [*known, *_WORDS]))


def _chosen(part: Part, word: str, at: object) -> tuple[int, ...] | None:
    """Read what an axis goes over; None for all of it."""
    if at is ...:
        return None
    if isinstance(at, Sequence) and not isinstance(at, str):
        found = tuple(cast("Sequence[object]", at))
        indices = tuple(index for index in found if type(index) is int)
        if indices and len(indices) == len(found):
            return indices
    problem = f"{word} is {at!r}"
    raise SelectionError(str(part), problem, "`...`, or indices in a list")
