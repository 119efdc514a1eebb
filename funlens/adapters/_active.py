"""What a run looks like from a tap: the door between the two."""

from contextvars import ContextVar
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import torch
from torch import nn

from funlens.adapters._tap import Side

Point: TypeAlias = tuple[str, Side]


@runtime_checkable
class Active(Protocol):
    """What a run does at the taps."""

    def wants(self, point: Point) -> bool:
        """Tell whether the run looks at a point."""
        ...

    def wants_inside(self, path: str) -> bool:
        """Tell whether the run looks at scores, pattern or a router of a module."""
        ...

    def act(self, point: Point, raw: Any, seen: "Seen") -> Any:
        """Look at a tensor, and give it or another back."""
        ...

    def begins(self, n_pos: int) -> None:
        """Learn how many positions a forward of the whole model is given."""
        ...

    def skips(self, path: str) -> bool:
        """Tell whether a block is left out."""
        ...

    @property
    def forces_eager(self) -> bool:
        """Whether SDPA cannot be used in this run."""
        ...

    @property
    def rounds(self) -> bool:
        """Whether this run may round in other places than the model does."""
        ...


class Seen:
    """The module at a tap, and what entered it."""

    __slots__ = ("entered", "module")

    def __init__(self, module: nn.Module, entered: Any) -> None:
        self.module = module
        self.entered = entered


class Door:
    """A variable of each call's own: what is active at the taps.

    `torch.compile` traces no context variable. It runs no Python beside what it traces
    either, so there a plain attribute does, which is None again at the end.
    """

    def __init__(self) -> None:
        self._active: ContextVar[Active | None] = ContextVar("funlens", default=None)
        self._traced: Active | None = None

    def get(self) -> Active | None:
        """Give what is active."""
        return self._traced if torch.compiler.is_compiling() else self._active.get()

    def set(self, active: Active | None) -> Any:
        """Make something active, and give what undoes that."""
        if not torch.compiler.is_compiling():
            return self._active.set(active)
        before, self._traced = self._traced, active
        return before

    def reset(self, token: Any) -> None:
        """Undo it."""
        if torch.compiler.is_compiling():
            self._traced = token
        else:
            self._active.reset(token)


ACTIVE: Final = Door()
