"""What a norm does, found by asking it."""

from typing import Final

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters._machinery import Machinery
from funlens.adapters._stream import refusal
from funlens.adapters._tree import find
from funlens.adapters._views import is_centered
from funlens.data import ModelSpec

_CLOSE: Final = 1e-3  # of the largest value; the norm's epsilon shifts it by 1e-7
_SIZE: Final = 10.0  # large beside any epsilon


@attrs.frozen(kw_only=True)
class NormForm:
    """A norm's formula: `normalized * (offset + weight) + bias`.

    Attributes:
        centered: Whether the mean is taken away before: layer norm, not RMS norm.
        offset: What is added to the weight: 1 in families that store the gain so.
    """

    centered: bool
    offset: float


def form_of(spec: ModelSpec, path: str) -> NormForm:
    """Find the formula of a norm of the stream.

    Raises:
        UnsupportedConfigError: It is none of those known.
    """
    machinery: Machinery = spec.engine
    norm = find(machinery.module, path)
    form = None if norm is None else _form(norm, spec.d_model)
    if form is None:
        raise refusal(
            spec.model_type,
            f"{path} is neither a layer norm nor an RMS norm",
        )
    return form


@torch.no_grad()
def _form(norm: nn.Module, width: int) -> NormForm | None:
    """Find the formula of a norm from what it makes of a vector and its opposite."""
    weight, bias = _parameter(norm, "weight"), _parameter(norm, "bias")
    centered = is_centered(norm, width)
    entered = _probe(width, weight)
    named = dict(norm.named_parameters())
    wide = {name: held.to(entered.dtype) for name, held in named.items()}
    ahead, behind = (
        torch.func.functional_call(norm, wide, (one,)) for one in (entered, -entered)
    )
    shift = torch.zeros_like(entered) if bias is None else bias.to(entered.dtype)
    if not _close(shift.expand_as(ahead), (ahead + behind) / 2):
        return None
    normalized = entered - (entered.mean(-1, keepdim=True) if centered else 0.0)
    normalized = normalized / normalized.square().mean(-1, keepdim=True).sqrt()
    for offset in (0.0, 1.0) if weight is not None else (0.0,):
        gain = 1.0 if weight is None else offset + weight.to(entered.dtype)
        if _close(normalized * gain, (ahead - behind) / 2):
            return NormForm(centered=centered, offset=offset)
    return None


def _parameter(norm: nn.Module, name: str) -> Tensor | None:
    held = getattr(norm, name, None)
    return held if isinstance(held, Tensor) else None


def _probe(width: int, weight: Tensor | None) -> Tensor:
    """Make a vector whose mean is not 0, as wide as computing allows."""
    if weight is None:
        return _SIZE * (torch.arange(width).float().sin() + 0.5)
    wide = torch.promote_types(weight.dtype, torch.float32)
    steps = torch.arange(weight.shape[-1], dtype=wide, device=weight.device)
    return _SIZE * (steps.sin() + 0.5)


def _close(expected: Tensor, found: Tensor) -> bool:
    largest = expected.abs().max().clamp(min=1.0)
    return bool((expected - found).abs().max() <= _CLOSE * largest)
