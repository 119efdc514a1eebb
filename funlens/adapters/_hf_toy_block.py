"""The layers of toy transformers."""

from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from funlens.adapters._hf_toy_config import FunlensToyConfig

_ROTARY_BASE: Final = 10_000.0
_EPS: Final = 1e-5
_ACTIVATIONS: Final = {"relu": F.relu, "gelu": F.gelu, "silu": F.silu}


def norm_of(config: FunlensToyConfig) -> nn.Module | None:
    if config.norm == "none":
        return None
    kind = nn.LayerNorm if config.is_centered else nn.RMSNorm
    return kind(config.d_model, eps=_EPS)


def through(module: nn.Module | None, hidden: Tensor) -> Tensor:
    """Apply a module, if there is one."""
    return hidden if module is None else module(hidden)


def capped(values: Tensor, cap: float | None) -> Tensor:
    return values if cap is None else cap * torch.tanh(values / cap)


def rotation_of(
    positions: Int[Tensor, "batch pos"], d_head: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Give cosines and sines `[batch, 1, pos, d_head]`, each frequency twice."""
    wide = torch.promote_types(dtype, torch.float32)
    steps = torch.arange(0, d_head, 2, device=positions.device, dtype=wide)
    angles = positions[:, None, :, None] * _ROTARY_BASE ** (-steps / d_head)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos().to(dtype), both.sin().to(dtype)


def _rotated(heads: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    first, second = heads.chunk(2, dim=-1)
    cos, sin = rotation
    return heads * cos + torch.cat((-second, first), dim=-1) * sin


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attend step by step, under the name that HuggingFace's families give it."""
    repeats = cast("ToyAttention", module).num_key_value_groups
    keys = key.repeat_interleave(repeats, dim=1)
    values = value.repeat_interleave(repeats, dim=1)
    scores = capped(torch.matmul(query, keys.transpose(2, 3)) * scaling, softcap)
    if attention_mask is not None:
        scores = scores + attention_mask
    pattern = F.softmax(scores, dim=-1)
    return torch.matmul(pattern, values).transpose(1, 2).contiguous(), pattern


class ToyAttention(nn.Module):
    """Self-attention, through transformers' attention interface."""

    def __init__(self, config: FunlensToyConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer
        self.is_causal = config.is_causal
        self.num_key_value_groups = config.n_heads // config.n_kv_heads
        queries, groups = config.n_heads, config.n_kv_heads
        stream, width, bias = config.d_model, config.d_head, config.has_bias
        self.q = nn.Linear(stream, queries * width, bias=bias)
        self.k = nn.Linear(stream, groups * width, bias=bias)
        self.v = nn.Linear(stream, groups * width, bias=bias)
        self.o = nn.Linear(queries * width, stream, bias=bias)

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        past_key_values: Cache | None,
    ) -> Tensor:
        """Give what the heads together add to the stream."""
        batch, n_pos, _ = hidden_states.shape
        split = (batch, n_pos, -1, self.config.d_head)
        query = self.q(hidden_states).view(split).transpose(1, 2)
        key = self.k(hidden_states).view(split).transpose(1, 2)
        value = self.v(hidden_states).view(split).transpose(1, 2)
        if rotation is not None:
            query, key = _rotated(query, rotation), _rotated(key, rotation)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        config: Any = self.config
        functions: Any = ALL_ATTENTION_FUNCTIONS
        attend = functions.get_interface(
            config._attn_implementation,  # noqa: SLF001 -- HuggingFace's only name for it
            eager_attention_forward,
        )
        scaling, softcap = config.d_head**-0.5, config.attn_softcap
        z, _ = attend(self, query, key, value, mask, scaling=scaling, softcap=softcap)
        return self.o(z.reshape(batch, n_pos, -1))


class ToyMlp(nn.Module):
    """A feed-forward part, gated or not."""

    def __init__(self, config: FunlensToyConfig) -> None:
        super().__init__()
        self.act = _ACTIVATIONS[config.activation]
        sizes, bias = (config.d_model, config.d_mlp), config.has_bias
        self.gate = nn.Linear(*sizes, bias=bias) if config.is_gated else None
        self.up = nn.Linear(*sizes, bias=bias)
        self.down = nn.Linear(config.d_mlp, config.d_model, bias=bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Give what the neurons together add to the stream."""
        up = self.up(hidden_states)
        gated = (
            self.act(up)
            if self.gate is None
            else self.act(self.gate(hidden_states)) * up
        )
        return self.down(gated)


class ToyBlock(nn.Module):
    """One layer. `mid` is where the stream passes between attention and MLP."""

    def __init__(self, config: FunlensToyConfig, layer: int) -> None:
        super().__init__()
        self.ln1 = norm_of(config)
        self.attn = ToyAttention(config, layer)
        self.mid = nn.Identity() if not config.is_parallel and config.has_mlp else None
        self.ln2 = norm_of(config) if config.has_mlp else None
        self.mlp = ToyMlp(config) if config.has_mlp else None

    def forward(
        self,
        hidden_states: Tensor,
        mask: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        past_key_values: Cache | None,
    ) -> Tensor:
        """Give the stream after this layer."""
        normalized = through(self.ln1, hidden_states)
        mid = hidden_states + self.attn(normalized, mask, rotation, past_key_values)
        if self.mlp is None:
            return mid
        mid = through(self.mid, mid)
        read = hidden_states if self.mid is None else mid
        return mid + self.mlp(through(self.ln2, read))
