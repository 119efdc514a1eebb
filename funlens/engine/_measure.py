"""What a metric reads of a run, and its numbers for each row."""

import torch
from jaxtyping import Float
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import ModelSpec
from funlens.engine._metrics import Metric, measured
from funlens.engine._stacked import Ends
from funlens.errors import UserFunctionError


def ends_of(spec: ModelSpec, metric: Metric) -> Ends:
    """Say what a metric reads; where it is one position's logits, no others."""
    machinery: Machinery = spec.engine
    site = metric.site
    can = bool(machinery.unembed) and not machinery.unembeds_streams
    at = site.pos if site.part == "logits" and can else None
    return Ends(sites=(site,), logits_at=at)


def row_numbers(
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
    found = measured(metric, value)
    if differs and not found.requires_grad:
        problem = "what it returned does not depend smoothly on what it was given"
        raise UserFunctionError(f"the metric {metric.name}", str(metric.site), problem)
    wide = torch.promote_types(found.dtype, torch.float32)
    return found.to(wide).reshape(-1).expand(len(value))
