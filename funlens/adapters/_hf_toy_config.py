"""The config of toy transformers, as HuggingFace reads and writes it."""

from typing import ClassVar, no_type_check

from transformers import PreTrainedConfig


@no_type_check  # the runtime checks would check HuggingFace's own constructor
class FunlensToyConfig(PreTrainedConfig):
    """HuggingFace's view of a `ToyConfig` whose sizes are all settled."""

    model_type = "funlens_toy"
    attribute_map: ClassVar[dict[str, str]] = {
        "vocab_size": "d_vocab",
        "hidden_size": "d_model",
        "intermediate_size": "d_mlp",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "num_key_value_heads": "n_kv_heads",
        "head_dim": "d_head",
        "max_position_embeddings": "n_ctx",
        "tie_word_embeddings": "is_tied",
    }

    n_layers: int = 2
    d_model: int = 32
    n_heads: int = 4
    n_kv_heads: int = 4
    d_head: int = 8
    d_mlp: int = 128
    d_vocab: int = 32
    d_out: int = 32
    n_ctx: int = 64
    norm: str = "layer"
    positions: str = "learned"
    activation: str = "gelu"
    is_gated: bool = False
    is_parallel: bool = False
    is_causal: bool = True
    is_tied: bool = False
    has_bias: bool = True
    attn_softcap: float | None = None
    logit_softcap: float | None = None
    use_cache: bool = True

    @property
    def is_centered(self) -> bool:
        """Whether its norms subtract the mean."""
        return self.norm == "layer"

    @property
    def has_rotary(self) -> bool:
        """Whether queries and keys are rotated."""
        return self.positions == "rotary"

    @property
    def has_mlp(self) -> bool:
        """Whether there is more than attention."""
        return self.d_mlp > 0
