"""What is done to the private copy of a few families before anything else."""

import math
from collections.abc import Iterator
from types import MethodType, SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from funlens.adapters._skeleton import bare_copy


def unroll_groups(module: Any) -> None:
    """Give ALBERT's groups, which run several times, a copy for each time."""
    encoder = module.base_model.encoder
    encoder.albert_layer_groups = _Turns(
        encoder.albert_layer_groups, encoder.config.num_hidden_layers
    )
    encoder.config.num_hidden_groups = encoder.config.num_hidden_layers


class _Turns(nn.ModuleList):
    """Groups of layers under their own names, and a copy for each time one runs."""

    def __init__(self, groups: nn.ModuleList, n_turns: int) -> None:
        super().__init__(groups)
        for turn in range(n_turns):
            group = groups[turn * len(groups) // n_turns]
            self.add_module(f"turn{turn}", bare_copy(group))

    def __getitem__(self, turn: int) -> nn.Module:  # pyright: ignore[reportIncompatibleMethodOverride] (slices are not asked for)
        """Give the copy for one time."""
        return getattr(self, f"turn{turn}")


def record_every_cycle(module: Any) -> None:
    """Let HRM record a graph in all of its cycles: it would in the last ones only."""
    body, config = module.base_model, module.config
    body.L_bp_cycles_padded = [config.L_cycles] * config.H_cycles


def call_layers(module: Any) -> None:
    """Let SqueezeBERT call its layers, rather than their `forward` past all hooks."""
    encoder = module.base_model.encoder
    encoder.layers = _Called(encoder.layers)


class _Called(nn.ModuleList):
    """Layers whose `forward`, as the encoder asks for it, calls them."""

    def __iter__(self) -> Iterator[Any]:
        """Go through the layers."""
        return (SimpleNamespace(forward=layer) for layer in self._modules.values())


def show_scaled(module: Any) -> None:
    """Let InternVL's blocks pass what they add through a module, once it is scaled."""
    for part in module.modules():
        if type(part).__name__ == "InternVLVisionLayer":
            part.scaled_attention, part.scaled_mlp = nn.Identity(), nn.Identity()
            part.forward = MethodType(_scale_and_add, part)


def _scale_and_add(layer: Any, hidden_states: Tensor) -> Tensor:
    """Run an InternVL block as HuggingFace does, operation by operation."""
    attended, _ = layer.attention(layer.layernorm_before(hidden_states))
    added = layer.scaled_attention(layer.lambda_1 * attended)
    hidden_states = added + hidden_states
    fed = layer.dropout(layer.mlp(layer.layernorm_after(hidden_states)))
    return layer.scaled_mlp(layer.lambda_2 * fed) + hidden_states


def call_projections(module: Any) -> None:
    """Let WavLM's attention call its projections, and take its steps one by one."""
    for part in module.modules():
        if type(part).__name__ == "WavLMAttention":
            part.torch_multi_head_self_attention = MethodType(_attend, part)


def _attend(
    attention: Any, hidden_states: Tensor, attention_mask: Tensor | None, bias: Tensor
) -> tuple[Tensor, None]:
    """Do what torch's own multi-head attention does, operation by operation."""
    frames = hidden_states.transpose(0, 1)
    n_pos, batch, _ = frames.shape

    def heads(projected: Tensor) -> Tensor:
        split = projected.view(n_pos, batch * attention.num_heads, attention.head_dim)
        return split.transpose(0, 1)

    parts = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (heads(part(frames)) for part in parts)
    if attention_mask is not None:
        hidden = torch.zeros_like(attention_mask, dtype=bias.dtype)
        hidden = hidden.masked_fill(attention_mask.ne(1), float("-inf"))
        each = hidden[:, None].expand(-1, attention.num_heads, -1).flatten(0, 1)
        bias = bias + each[:, None]
    scaled = query * math.sqrt(1.0 / attention.head_dim)
    scores = torch.baddbmm(bias, scaled, key.transpose(-2, -1))
    mixed = torch.bmm(F.softmax(scores, dim=-1), value)
    joined = mixed.transpose(0, 1).contiguous().view(n_pos, batch, -1)
    return attention.out_proj(joined).transpose(0, 1), None
