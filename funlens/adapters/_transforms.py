"""Which of torch's transforms are active."""

from typing import Any

import torch


def is_functional() -> bool:
    """Tell whether a `torch.func` transform is active."""
    functorch: Any = getattr(torch, "_C")  # noqa: B009 -- torch has no public name for it
    return functorch._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 -- as above


def active_transforms() -> tuple[str, ...]:
    """Name the transforms that are active: `Vmap`, `Grad`, `Jvp`; outermost first."""
    functorch: Any = getattr(torch, "_C")  # noqa: B009 -- torch has no public name for it
    stack: Any = functorch._functorch.get_interpreter_stack() or ()  # noqa: SLF001 -- as above
    return tuple(str(level.key().name) for level in stack)


def is_forward_mode() -> bool:
    """Tell whether a forward-mode derivative is taken, which some kernels have not."""
    return "Jvp" in active_transforms()


def is_differentiating() -> bool:
    """Tell whether a transform takes a derivative, in either mode."""
    return not {"Grad", "Jvp"}.isdisjoint(active_transforms())
