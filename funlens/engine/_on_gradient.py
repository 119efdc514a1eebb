"""Edits of gradients: values pass as they are, and what flows back is changed."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from funlens.data import Apply, Site
from funlens.engine._edits import applied
from funlens.errors import InputError


class _Rewritten(torch.autograd.Function):
    """The identity, with a gradient of the caller's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Pass the value on."""
        del function
        return value.view_as(value)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep the function for the way back."""
        del output
        ctx.function = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Give what the function makes of the gradient."""
        return ctx.function(grads[0]), None


def on_gradient(site: Site | str, function: Callable[[Tensor], Tensor]) -> Apply:
    """Make an intervention that changes the gradient which flows back through a site.

    The values of the run stay as they are. Works in reverse mode: with
    `run_with_grads`, with `grad=True`, and under `torch.func.grad` and `vmap`.

    Args:
        site: Where.
        function: Maps the gradient of what was selected to one of the same shape and
            dtype. `torch.zeros_like` lets nothing through.

    Raises:
        InputError: In a run that records no graph, where it would do nothing.
        UserFunctionError: On the way back, if the function misbehaves.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> stop = fl.on_gradient(fl.attn_out(3), torch.zeros_like)
        >>> run = fl.run_with_grads(
        ...     spec, "Hi", fl.log_prob_of(5), interventions=[stop], capture=[fl.z(3)]
        ... )
        >>> bool(run.grads["z.3"].any())
        False
    """
    where = str(site)
    safely = partial(applied, function, where="the function of a gradient", site=where)
    return Apply(site, partial(_passed, safely))


def _passed(function: Callable[[Tensor], Tensor], value: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        raise InputError(
            "an edit of a gradient is part of a run that records none",
            "a run with a backward pass",
            "Use `run_with_grads`, or pass `grad=True`",
        )
    rewritten: Any = _Rewritten
    passed: Tensor = rewritten.apply(value, function)
    return passed
