"""Edits of gradients: a value that stays, and a gradient that changes on its way."""

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
