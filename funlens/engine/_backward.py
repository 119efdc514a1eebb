"""Values that stay, and gradients that are changed, or looked at, on their way."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor


class _Identity(torch.autograd.Function):
    """Gives a value back; its gradient goes through a function."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Give the value back."""
        del change
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Remember the function."""
        del output
        ctx.change = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Change the gradient."""
        return ctx.change(grads[0]), None


def with_gradient(value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Give a value back whose gradient goes through a function first.

    Works under `torch.func.grad` and `vmap`; forward mode has no gradients.

    Args:
        value: Any tensor.
        change: From the gradient that arrives to the one that goes on.
    """
    apply = cast("Callable[..., Tensor]", _Identity.apply)
    return apply(value, change)


class _Watched(torch.autograd.Function):
    """Gives a value back; its gradient is shown to a function as it passes."""

    @staticmethod
    def forward(  # with `setup_context` torch reads the signature at every call
        ctx: Any, value: Tensor, anchor: Tensor, look: Callable[[Tensor], None]
    ) -> Tensor:
        """Give the value back, and remember the function."""
        del anchor
        ctx.look = look
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Show the gradient, and let it pass."""
        ctx.look(grads[0])
        return grads[0], None, None


def watched(value: Tensor, anchor: Tensor, look: Callable[[Tensor], None]) -> Tensor:
    """Give a value back whose gradient a function is shown.

    Args:
        value: Any tensor.
        anchor: A leaf that requires a gradient: a backward to it passes here, and
            keeps no gradient of its own.
        look: What is shown the gradient.
    """
    apply = cast("Callable[..., Tensor]", _Watched.apply)
    return apply(value, anchor, look)
