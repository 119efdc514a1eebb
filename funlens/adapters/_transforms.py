"""Which of torch's transforms are active."""

from typing import Any

import torch


def is_functional() -> bool:
    """Tell whether a `torch.func` transform is active."""
    functorch: Any = getattr(torch, "_C")  # noqa: B009 -- torch has no public name for it
    return functorch._functorch.peek_interpreter_stack() is not None  # noqa: SLF001 -- as above


def is_forward_mode() -> bool:
    """Tell whether a forward-mode derivative is taken, which some kernels have not."""
    return "Jvp" in _active()


def is_differentiating() -> bool:
    """Tell whether a transform takes a derivative, in either mode."""
    return not _active().isdisjoint({"Grad", "Jvp"})


def _active() -> set[str]:
    """Name the kinds of transforms that are active."""
    functorch: Any = getattr(torch, "_C")  # noqa: B009 -- torch has no public name for it
    stack: Any = functorch._functorch.get_interpreter_stack() or ()  # noqa: SLF001 -- as above
    return {str(level.key().name) for level in stack}
