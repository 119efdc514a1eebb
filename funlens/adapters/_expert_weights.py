"""The weights of a mixture's experts, one tensor for all of them.

How they lie is not in the tables: modules of transformers' experts interface say it
themselves, as they do to HuggingFace's own kernels.
"""

from typing import Any

import torch
from torch import Tensor

from funlens.adapters._collectives import whole
from funlens.adapters._machinery import Machinery
from funlens.adapters._tree import find
from funlens.data import Site
from funlens.errors import UnsupportedConfigError


def experts_of(machinery: Machinery, layer: int, stack: str) -> str:
    """Give the path of a layer's experts; empty where its MLP is dense.

    Raises:
        UnsupportedConfigError: They do not go through transformers' experts interface.
    """
    experts = machinery.taps.get(Site(part="expert_out", layer=layer, stack=stack))
    if experts is not None:
        return experts.path
    if Site(part="router_logits", layer=layer, stack=stack) in machinery.taps:
        raise UnsupportedConfigError(
            machinery.config.model_type,
            f"the experts of layer {layer} do not go through transformers' experts "
            "interface, which tells how their weights lie",
            "Take them from `spec.module`.",
        )
    return ""


def matrix_name(experts: Any, part: str) -> str:
    """Name the parameter that a part's weights lie in.

    Raises:
        UnsupportedConfigError: It is quantized, or not there.
    """
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    name = "down_proj" if part == "mlp_proj" else first
    raw = getattr(experts, name, None)
    if not isinstance(raw, Tensor) or not raw.is_floating_point():
        raise UnsupportedConfigError(
            type(experts).__name__,
            f"it holds no plain {name}",
            "Load the model without quantization to look at weights.",
        )
    return name


def expert_weight(machinery: Machinery, path: str, part: str) -> Tensor:
    """Give the experts' weights of a part: `[expert, input, output]`.

    Raises:
        UnsupportedConfigError: They are quantized, or have no gate.
    """
    experts: Any = find(machinery.module, path)
    name = matrix_name(experts, part)
    raw = whole(getattr(experts, name))
    return _half(raw if experts.is_transposed else raw.mT, experts, name, part)


def expert_bias(machinery: Machinery, path: str, part: str) -> Tensor:
    """Give the experts' biases of a part: `[expert, output]`, zeros if none."""
    experts = find(machinery.module, path)
    raw = getattr(experts, f"{matrix_name(experts, part)}_bias", None)
    if isinstance(raw, Tensor):
        return _half(whole(raw), experts, matrix_name(experts, part), part)
    weight = expert_weight(machinery, path, part)
    shape = (weight.shape[0], weight.shape[-1])
    return torch.zeros(shape, dtype=weight.dtype, device=weight.device)


def _half(both: Tensor, experts: Any, name: str, part: str) -> Tensor:
    """Take the gate's or the other columns, where they lie in one tensor."""
    if name == "gate_up_proj":
        second = part == "mlp_pre"
        if experts.is_concatenated:
            return both.chunk(2, dim=-1)[second]
        return both[..., int(second) :: 2]
    if part == "mlp_gate":
        raise UnsupportedConfigError(
            type(experts).__name__, "its experts have no gate", "Ask for `W_in`."
        )
    return both
