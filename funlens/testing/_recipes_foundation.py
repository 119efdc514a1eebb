"""The recipes of the families that funlens supports first."""

from typing import Final

from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_record import recipe as _recipe

_HALF_ROTARY: Final = {"rope_parameters.partial_rotary_factor": 0.5}
_SLIDING: Final = "sliding_attention"
_FULL: Final = "full_attention"

FOUNDATION: Final[tuple[Recipe, ...]] = (
    _recipe("gpt2"),
    _recipe("gpt_neox", nested=_HALF_ROTARY),
    _recipe(
        "gpt_neox",
        variant="sequential",
        use_parallel_residual=False,
        nested=_HALF_ROTARY,
    ),
    _recipe("gptj", rotary_dim=2),
    _recipe("gpt_neo", attention_types=((("global", "local"), 1),), window_size=4),
    _recipe("opt"),
    _recipe(
        "opt",
        variant="post_norm",
        do_layer_norm_before=False,
        word_embed_proj_dim=8,
        note="as OPT-350m: norm after the sum, projections around the embedding",
    ),
    _recipe("bloom"),
    _recipe(
        "falcon",
        new_decoder_architecture=True,
        num_kv_heads=2,
        note="grouped queries and two norms in parallel, as Falcon-40B",
    ),
    _recipe("falcon", variant="multi_query", note="one norm, as Falcon-7B"),
    _recipe(
        "falcon",
        variant="alibi",
        alibi=True,
        bias=True,
        multi_query=False,
        parallel_attn=False,
        note="as Falcon-RW; HuggingFace's eager attention adds the bias twice",
    ),
    _recipe("mpt", logit_scale=None),
    _recipe("llama"),
    _recipe("mistral", note="every layer slides"),
    _recipe("mixtral", num_key_value_heads=4, sliding_window=None),
    _recipe("qwen2", num_key_value_heads=1),
    _recipe(
        "qwen2_moe",
        mlp_only_layers=(0,),
        num_key_value_heads=4,
        note="the first layer is dense",
    ),
    _recipe("qwen3"),
    _recipe(
        "qwen3",
        variant="wide_heads",
        head_dim=8,
        note="heads together wider than the stream",
    ),
    _recipe("qwen3_moe", num_key_value_heads=1, norm_topk_prob=True),
    _recipe("gemma", num_key_value_heads=1, head_dim=8),
    _recipe("gemma2", num_hidden_layers=3),
    _recipe(
        "gemma3_text",
        num_hidden_layers=3,
        num_key_value_heads=1,
        layer_types=(_SLIDING, _FULL, _SLIDING),
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
    ),
    _recipe("phi", num_key_value_heads=4, nested=_HALF_ROTARY),
    _recipe(
        "phi",
        variant="qk_norm",
        qk_layernorm=True,
        num_key_value_heads=4,
        nested=_HALF_ROTARY,
    ),
    _recipe("phi3", sliding_window=None),
    _recipe("olmo", num_key_value_heads=4, clip_qkv=1.5),
    _recipe("olmo2"),
    _recipe("stablelm", num_key_value_heads=4, use_qkv_bias=True, nested=_HALF_ROTARY),
    _recipe(
        "stablelm",
        variant="parallel",
        use_parallel_residual=True,
        qk_layernorm=True,
        nested=_HALF_ROTARY,
    ),
    _recipe("starcoder2"),
    _recipe("cohere"),
    _recipe("cohere", variant="qk_norm", use_qk_norm=True),
    _recipe("granite"),
    _recipe(
        "gpt_oss",
        nested={
            "rope_parameters.factor": 8.0,
            "rope_parameters.original_max_position_embeddings": 8,
            "rope_parameters.rope_theta": 10000.0,
            "rope_parameters.rope_type": "yarn",
        },
    ),
    _recipe("smollm3", no_rope_layer_interval=2, note="the second layer has no rotary"),
    _recipe("bert", task="masked-lm"),
    _recipe("t5", task="seq2seq-lm", num_decoder_layers=3, decoder_start_token_id=0),
    _recipe(
        "t5",
        variant="gated",
        task="seq2seq-lm",
        decoder_start_token_id=0,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        note="as T5 v1.1",
    ),
    _recipe("mamba", time_step_rank=2),
)
