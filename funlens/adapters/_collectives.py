"""Tensors that several processes hold parts of, made whole and parted again.

Every process must come here at the same time with the same question: each waits for the
others. Gradients of what is whole are whole in every process.
"""

from collections.abc import Callable
from typing import Any, cast

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn


@attrs.frozen(eq=False)
class Layout:
    """Which part of a tensor a process holds.

    Attributes:
        group: The processes.
        axis: The axis that they share.
        pieces: Of how many tensors on that axis, one after the other, it holds a part.
    """

    group: Any
    axis: int = -1
    pieces: int = 1


def is_split(module: nn.Module) -> bool:
    """Tell whether some weights are held in parts by several processes."""
    return any(is_part(parameter) for parameter in module.parameters())


def is_part(tensor: Tensor) -> bool:
    """Tell a tensor of which this process holds a part."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """Give a weight whole; each process must ask."""
    held: Any = tensor
    found: Tensor = held.full_tensor() if is_part(tensor) else tensor
    return found


def gathered(part: Tensor, layout: Layout) -> Tensor:
    """Join the parts of all processes."""
    apply = cast("Callable[..., Tensor]", _Gathered.apply)
    return apply(part, layout)


def parted(value: Tensor, layout: Layout) -> Tensor:
    """Take this process's part."""
    apply = cast("Callable[..., Tensor]", _Parted.apply)
    return apply(value, layout)


def summed(part: Tensor, group: Any) -> Tensor:
    """Add what all processes have."""
    apply = cast("Callable[..., Tensor]", _Summed.apply)
    return apply(part, group)


def with_sum(part: Tensor, value: Tensor, group: Any) -> Tensor:
    """Give parts whose sum over all processes is a value; the first bears the change.

    Where the sum is that value already, the parts keep their bits.
    """
    apply = cast("Callable[..., Tensor]", _WithSum.apply)
    return apply(part, value, group)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, layout: Layout) -> Tensor:
        """Join the parts of all processes."""
        ctx.layout = layout
        return _joined(part, layout)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Take this process's part of a gradient that all have whole."""
        return _part(gradients[0], ctx.layout), None


class _Parted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, layout: Layout) -> Tensor:
        """Take this process's part."""
        ctx.layout = layout
        return _part(value, layout)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Join the parts of a gradient."""
        return _joined(gradients[0], ctx.layout), None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, group: Any) -> Tensor:
        """Add what all processes have."""
        del ctx
        return _total(part, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Pass a gradient on that all have whole."""
        del ctx
        return gradients[0], None


class _WithSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, value: Tensor, group: Any) -> Tensor:
        """Let the first process bear what the sum lacks."""
        del ctx
        if dist.get_rank(group):
            _total(part, group)
            return part.clone()
        total = _total(part, group)
        return torch.where(value == total, part, part + (value - total))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Pass a gradient on to the value, which alone decides the sum."""
        del ctx
        return None, gradients[0], None


def _total(part: Tensor, group: Any) -> Tensor:
    total = part.clone()
    dist.all_reduce(total, group=group)
    return total


def _joined(part: Tensor, layout: Layout) -> Tensor:
    own = part.contiguous()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size(layout.group))]
    dist.all_gather(parts, own, group=layout.group)
    if layout.pieces == 1:
        return torch.cat(parts, layout.axis)
    apart = [_in_pieces(one, layout.pieces) for one in parts]
    return torch.cat(apart, -1).flatten(-2)


def _part(value: Tensor, layout: Layout) -> Tensor:
    count, rank = dist.get_world_size(layout.group), dist.get_rank(layout.group)
    if layout.pieces == 1:
        return value.chunk(count, layout.axis)[rank].contiguous()
    apart = _in_pieces(value, layout.pieces)
    return apart.chunk(count, -1)[rank].flatten(-2)


def _in_pieces(tensor: Tensor, pieces: int) -> Tensor:
    """Part the last axis; torch leaves the method untyped."""
    apart: Tensor = torch.unflatten(tensor, -1, (pieces, -1))
    return apart
