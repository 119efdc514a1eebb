"""The HuggingFace config of a recipe: shared tiny settings, and its own on top."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol, cast, runtime_checkable

from funlens.testing._recipes_modal_sizes import MODAL_SIZES
from funlens.testing._recipes_record import Recipe

VOCAB: Final = 32
N_EXPERTS: Final = 4

# Applied to every config, and to the configs inside it, where the class has the field.
_TINY: Final[dict[str, object]] = {
    "vocab_size": VOCAB,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "cls_token_id": 1,
    "sep_token_id": 2,
    "decoder_start_token_id": 0,
    "max_position_embeddings": 64,
    "original_max_position_embeddings": 64,
    "max_seq_len": 64,
    "max_source_positions": 64,
    "max_target_positions": 64,
    # widths and counts
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "embedding_size": 8,
    "vocab_size_per_layer_input": VOCAB,
    "hidden_size_per_layer_input": 4,
    "intermediate_size": 32,
    "ffn_dim": 32,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "ffn_hidden_size": 32,
    "d_ff": 32,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    # experts
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 8,
    "shared_expert_intermediate_size": 24,
    "shared_intermediate_size": 24,
    "num_local_experts": N_EXPERTS,
    "num_experts": N_EXPERTS,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "routed_scaling_factor": 1.5,
    # windows, low ranks and sparse attention
    "sliding_window": 4,
    "sliding_window_pattern": 2,
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_nope_head_dim": 4,
    "qk_rope_head_dim": 4,
    "v_head_dim": 4,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "index_topk": 4,
    # recurrences
    "state_size": 4,
    "ssm_state_size": 4,
    "n_groups": 2,
    "chunk_size": 4,
    "time_step_min": 0.1,
    "time_step_max": 1.0,
    "mamba_chunk_size": 4,
    "mamba_d_ssm": 32,
    "mamba_d_state": 4,
    "mamba_n_heads": 4,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
    # multipliers and caps, where 1 or a large number would hide a mistake
    "embedding_multiplier": 3.0,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.3,
    "logits_scaling": 2.5,
    "logit_scale": 0.4,
    "query_pre_attn_scalar": 8,
    "attn_logit_softcapping": 2.0,
    "final_logit_softcapping": 3.0,
}


@runtime_checkable
class TextConfig(Protocol):
    """What we ask of the config of a text model."""

    vocab_size: int


@runtime_checkable
class Config(Protocol):
    """What we ask of any HuggingFace config; one made of parts has no vocabulary."""

    def to_dict(self) -> dict[str, object]:
        """Give every setting, those of inner configs too."""
        ...

    def get_text_config(self) -> TextConfig:
        """Give the inner config that knows the vocabulary, or this one."""
        ...


@runtime_checkable
class _Inner(Protocol):
    """What HuggingFace says of a config inside another."""

    config_class: type[Any]
    init_kwargs: dict[str, Any]
    model_type: str
    optional: bool

    def get_config_class(self, model_type: str) -> type[Any]:
        """Look the class up by the name of its type."""
        ...


def config_of(found: Recipe) -> Config:
    """Make the HuggingFace config of a recipe; transformers is imported here."""
    from transformers import CONFIG_MAPPING  # here: `import funlens` must stay cheap

    config_class: type[Any] = CONFIG_MAPPING[found.config_type or found.model_type]
    overrides: dict[str, Any] = {}
    if found.task == "causal-lm" and _knows(config_class, "is_decoder"):
        overrides["is_decoder"] = True  # BERT and its kin see both ways otherwise
    for dotted, value in found.config:
        *path, last = dotted.split(".")
        inner = overrides
        for step in path:
            inner = inner.setdefault(step, {})
        inner[last] = _as_lists(value)
    shared = _TINY | MODAL_SIZES if found.inputs else _TINY
    return config_class(**_settings(config_class, overrides, shared=shared))


def _settings(
    config_class: type[Any],
    overrides: Mapping[str, Any],
    *,
    shared: Mapping[str, object],
) -> dict[str, Any]:
    """Merge the shared tiny settings that a config class knows with overrides."""
    aliases: Mapping[str, str] = config_class.attribute_map
    merged: dict[str, Any] = {
        spelling: value
        for key, value in shared.items()
        for spelling in {key, aliases.get(key, key)}
        if _knows(config_class, spelling)
    }
    merged |= overrides
    for key, spec in config_class.sub_configs_defaults.items():
        inner: Mapping[str, Any] = overrides.get(key, {})
        if inner or not spec.optional:
            inner_class = _inner_class(spec, inner)
            merged[key] = spec.init_kwargs | _settings(
                inner_class, inner, shared=shared
            )
    return merged


def _knows(config_class: type[Any], setting: str) -> bool:
    """Tell whether a config class has a setting of its own by this name."""
    return setting in {field.name for field in dataclasses.fields(config_class)}


def _inner_class(spec: _Inner, overrides: Mapping[str, Any]) -> type[Any]:
    """Find the class of a config inside another."""
    if dataclasses.is_dataclass(spec.config_class):
        return spec.config_class
    return spec.get_config_class(overrides.get("model_type", spec.model_type))


def _as_lists(value: object) -> object:
    """Turn tuples, which recipes are made of, into the lists that configs expect."""
    if not isinstance(value, tuple):
        return value
    return [_as_lists(item) for item in cast("tuple[object, ...]", value)]


def special_ids(settings: Mapping[Any, object]) -> Iterator[object]:
    """Find every token id that a config gives a meaning, in nested configs too.

    Not all keys are words: the labels of a classifier are named by number.
    """
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from special_ids(cast("dict[Any, object]", value))
        elif str(key).endswith(("token_id", "token_index", "token_ids")):
            yield from cast(
                "list[object]", value if isinstance(value, list) else [value]
            )
