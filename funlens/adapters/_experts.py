"""The weights of a mixture's experts, one tensor for all of them."""

import torch
from torch import Tensor, nn

from funlens.adapters._language import Experts, Stack
from funlens.adapters._machinery import Machinery
from funlens.adapters._taps import find
from funlens.data import Site
from funlens.errors import UnsupportedConfigError


def stack_of(machinery: Machinery, name: str) -> Stack:
    """Give the words of a stack."""
    arch = machinery.arch
    return arch.main if not name or arch.encoder is None else arch.encoder


def mixture_of(machinery: Machinery, layer: int, stack: str) -> Experts | None:
    """Give the words of a layer's mixture; None where its MLP is dense."""
    tap = machinery.taps.get(Site(part="router_logits", layer=layer, stack=stack))
    if tap is None:
        return None
    path = f"{stack_of(machinery, stack).blocks}.{layer}"
    every = stack_of(machinery, stack).block.mlp
    mixtures = (words for words in every if isinstance(words, Experts))
    found = (words for words in mixtures if tap.path == f"{path}.{words.router}")
    return next(found, None)


def experts_at(machinery: Machinery, words: Experts, path: str) -> nn.Module:
    """Find the module that holds the stacked weights of a block's experts.

    Raises:
        UnsupportedConfigError: The table does not say where they are.
    """
    at = find(machinery.module, f"{path}.{words.stacked}") if words.stacked else None
    if at is None:
        raise UnsupportedConfigError(
            machinery.config.model_type,
            f"its table does not say where the weights of the experts of {path} are",
        )
    return at


def matrix_name(experts: nn.Module, part: str) -> str:
    """Name the parameter that a part's weights lie in.

    Raises:
        UnsupportedConfigError: It is quantized, or not there.
    """
    first = "gate_up_proj" if hasattr(experts, "gate_up_proj") else "up_proj"
    name = "down_proj" if part == "mlp_proj" else first
    raw = getattr(experts, name, None)
    if not isinstance(raw, Tensor) or not raw.is_floating_point():
        raise UnsupportedConfigError(
            type(experts).__name__,
            f"it holds no plain {name}",
            "Load the model without quantization to look at weights.",
        )
    return name


def expert_weight(experts: nn.Module, words: Experts, part: str) -> Tensor:
    """Give the experts' weights of a part: `[expert, input, output]`.

    Raises:
        UnsupportedConfigError: They are quantized, or have no gate.
    """
    name = matrix_name(experts, part)
    raw: Tensor = getattr(experts, name)
    return _half(raw if words.input_first else raw.mT, words, name, part)


def expert_bias(experts: nn.Module, words: Experts, part: str) -> Tensor:
    """Give the experts' biases of a part: `[expert, output]`, zeros if none."""
    name = matrix_name(experts, part)
    raw = getattr(experts, f"{name}_bias", None)
    if isinstance(raw, Tensor):
        return _half(raw, words, name, part)
    weight = expert_weight(experts, words, part)
    shape = (weight.shape[0], weight.shape[-1])
    return torch.zeros(shape, dtype=weight.dtype, device=weight.device)


def _half(both: Tensor, words: Experts, name: str, part: str) -> Tensor:
    """Take the gate's or the other columns, where they lie in one tensor."""
    if name == "gate_up_proj":
        second = part == "mlp_pre"
        if words.interleaved:
            return both[..., int(second) :: 2]
        return both.chunk(2, dim=-1)[second]
    if part == "mlp_gate":
        raise UnsupportedConfigError(
            words.path, "its experts have no gate", "Ask for `W_in`."
        )
    return both
