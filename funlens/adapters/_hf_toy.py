"""Toy transformers as HuggingFace models.

Importing this module tells transformers about them. It is imported inside functions
only, since transformers is slow to import.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedModel,
    masking_utils,
)
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from funlens.adapters._hf_toy_block import (
    ToyBlock,
    capped,
    norm_of,
    rotation_of,
    through,
)
from funlens.adapters._hf_toy_config import FunlensToyConfig


def _next_positions(hidden: Tensor, past_key_values: Cache | None) -> Tensor:
    seen = 0 if past_key_values is None else past_key_values.get_seq_length()
    stop = seen + hidden.shape[1]
    return torch.arange(seen, stop, device=hidden.device)[None]


def _kept(hidden: Tensor, positions: int | Tensor) -> Tensor:
    """Select the positions of a tensor, or the last so many; 0 means all."""
    if isinstance(positions, int):
        return hidden[:, -positions:]
    return hidden[:, positions]


class FunlensToyForCausalLM(PreTrainedModel, GenerationMixin):
    """A toy transformer with its unembedding."""

    config_class = FunlensToyConfig
    _supports_attention_backend = True

    def __init__(self, config: FunlensToyConfig) -> None:
        self._supports_sdpa = config.attn_softcap is None  # SDPA knows no caps
        self._tied_weights_keys = {"unembed.weight": "embed.weight"}
        super().__init__(config)
        self.embed = nn.Embedding(config.d_vocab, config.d_model)
        has_table = config.positions == "learned"
        self.pos_embed = (
            nn.Embedding(config.n_ctx, config.d_model) if has_table else None
        )
        layers = (ToyBlock(config, layer) for layer in range(config.n_layers))
        self.blocks = nn.ModuleList(layers)
        self.ln_final = norm_of(config)
        self.unembed = nn.Linear(config.d_model, config.d_out, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Give the token embedding."""
        return self.embed

    def get_output_embeddings(self) -> nn.Module:
        """Give the unembedding."""
        return self.unembed

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        *,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Give logits, and the keys and values so far if they are to be cached."""
        config, hidden = self.config, inputs_embeds
        if hidden is None:
            hidden = self.embed(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=config)
        if position_ids is None:
            position_ids = _next_positions(hidden, past_key_values)
        masks: Any = masking_utils
        mask = masks.create_causal_mask(  # bidirectional where the config says so
            config=config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        rotation = None
        if config.has_rotary:
            rotation = rotation_of(position_ids, config.d_head, hidden.dtype)
        if self.pos_embed is not None:
            hidden = hidden + self.pos_embed(position_ids)
        for block in self.blocks:
            hidden = block(hidden, mask, rotation, past_key_values)
        last = through(self.ln_final, _kept(hidden, logits_to_keep))
        logits = capped(self.unembed(last), config.logit_softcap)
        out = CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)
        if return_dict is False:
            return cast("tuple[Any, ...]", out.to_tuple())
        return out


AutoConfig.register(FunlensToyConfig.model_type, FunlensToyConfig)
AutoModelForCausalLM.register(FunlensToyConfig, FunlensToyForCausalLM)
