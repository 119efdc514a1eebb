"""What a metric reads of a run, and what it makes of it."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import ModelSpec
from funlens.data._constructors import logits as _logits
from funlens.engine._metrics import Metric, reads
from funlens.engine._stacked import Ends
from funlens.errors import InputError, UserFunctionError

MetricLike: TypeAlias = Metric | Callable[[Tensor], Tensor]
"""A metric, or any function from logits `[batch, pos, vocab]` to `[batch]` or one."""


def metric_of(metric: MetricLike) -> Metric:
    """Let any function be a metric of all logits.

    Raises:
        InputError: It is no function.
    """
    if not callable(metric):  # pyright: ignore[reportUnnecessaryComparison] (callers need no types)
        problem = f"the metric is a {type(metric).__name__}"
        raise InputError(problem, "a function", "Use `logit_diff`")
    return metric if isinstance(metric, Metric) else reads(_logits(), metric)


def ends_of(spec: ModelSpec, metric: Metric) -> Ends:
    """Say what a metric reads; where it is one position's logits, no others."""
    machinery: Machinery = spec.engine
    site = metric.site
    can = bool(machinery.unembed) and not machinery.unembeds_streams
    at = site.pos if site.part == "logits" and can else None
    return Ends(sites=(site,), logits_at=at)


def measured(
    metric: Metric, value: Tensor, *, differs: bool = False
) -> Float[Tensor, " batch"]:
    """Give a metric's numbers, one for each row.

    Args:
        metric: The metric.
        value: What it reads.
        differs: Whether a gradient will be taken.

    Raises:
        InputError: It gives something else than one number, or one for each row.
        UserFunctionError: It gives what has no gradient.
    """
    function: Any = metric.function
    found: object = function(value)
    n_rows = len(value)
    if not isinstance(found, Tensor) or tuple(found.shape) not in {(), (n_rows,)}:
        is_tensor = isinstance(found, Tensor)
        given = f"shape {tuple(found.shape)}" if is_tensor else type(found).__name__
        raise InputError(
            f"the metric {metric.name} gave {given}",
            f"one number, or one for each of {n_rows} rows",
            "Sum or average over its other axes",
        )
    if differs and not found.requires_grad:
        problem = "what it returned does not depend smoothly on what it was given"
        raise UserFunctionError(f"the metric {metric.name}", str(metric.site), problem)
    wide = torch.promote_types(found.dtype, torch.float32)
    return found.to(wide).reshape(-1).expand(n_rows)
