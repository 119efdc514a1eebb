"""What part of an axis is meant: one index, several, a range, or one per row."""

from typing import Final, TypeAlias

import attrs
import torch
from torch import Tensor

from funlens.errors import SelectionError


@attrs.frozen
class Span:
    """A range of indices, as a slice that can be hashed."""

    start: int | None = None
    stop: int | None = None
    step: int | None = None

    def __attrs_post_init__(self) -> None:
        """Refuse a step that goes nowhere."""
        if self.step == 0:
            raise SelectionError(str(self.to_slice()), "its step is 0", "another step")

    def to_slice(self) -> slice:
        """Give Python's own slice."""
        return slice(self.start, self.stop, self.step)

    def __str__(self) -> str:
        """Write it as Python does."""
        parts = [self.start, self.stop, *([self.step] if self.step else [])]
        return ":".join("" if part is None else str(part) for part in parts)


@attrs.frozen
class PerRow:
    """One index for each row of the batch."""

    indices: tuple[int, ...]

    def __str__(self) -> str:
        """Write the rows apart from a tuple of positions."""
        return "rows(" + ",".join(map(str, self.indices)) + ")"


@attrs.frozen
class Generated:
    """Every token that `generate` adds."""

    def __str__(self) -> str:
        """Write the word."""
        return "generated"


generated: Final = Generated()
"""The positions of the tokens that `generate` adds to the prompt."""

Selection: TypeAlias = int | tuple[int, ...] | Span | PerRow | Generated
Selector: TypeAlias = int | tuple[int, ...] | list[int] | slice | Tensor | Selection


def to_selection(selector: Selector | None) -> Selection | None:
    """Turn what a caller writes into something frozen and hashable."""
    match selector:
        case slice():
            return Span(selector.start, selector.stop, selector.step)
        case Tensor():
            return _from_tensor(selector)
        case list() | tuple():
            return _from_indices(tuple(selector))
        case bool():
            raise SelectionError(str(selector), "it is a bool", "an integer")
        case None | int() | Span() | PerRow() | Generated():
            return selector
        case _:
            problem = f"it is a {type(selector).__name__}"
            raise SelectionError(str(selector), problem, "int, slice, tuple or tensor")


def _from_indices(indices: tuple[int, ...]) -> tuple[int, ...]:
    if not indices:
        raise SelectionError(str(indices), "it is empty", "at least one index")
    if any(type(index) is not int for index in indices):
        problem = "it does not hold integers only"
        raise SelectionError(str(indices), problem, "integers")
    if len(set(indices)) < len(indices):
        raise SelectionError(str(indices), "an index stands twice", "each index once")
    return indices


def _from_tensor(selector: Tensor) -> Selection:
    is_integer = not selector.is_floating_point() and selector.dtype != torch.bool
    if not is_integer or selector.ndim > 1:
        problem = f"the tensor is {selector.dtype} with {selector.ndim} axes"
        raise SelectionError(str(selector.dtype), problem, "integers, one for each row")
    if selector.ndim == 0:
        return int(selector)
    indices = tuple(int(index) for index in selector)
    if not indices:
        raise SelectionError(str(indices), "it is empty", "one index for each row")
    return PerRow(indices)
