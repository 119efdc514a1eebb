"""The recipes whose layers recur over positions, or attend to a chosen few."""

from typing import Final

from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_record import recipe as _recipe

_CONV: Final = "conv"
_FULL: Final = "full_attention"
_INDEXED: Final = "indexed_attention"
_LINEAR: Final = "linear_attention"
_SLIDING: Final = "sliding_attention"

_FIRST_DENSE: Final = ("dense", "sparse")
_FIRST_LINEAR: Final = (_LINEAR, _FULL)

# Of few, all can be off for several keys, whose scores then tie; how a tie is broken
# depends on the length of the row.
_INDEX_HEADS: Final = 8

DOTS3: Final = {
    "layer_types": (_INDEXED, _SLIDING),
    "num_key_value_heads": 4,
    "shared_experts_intermediate_size": 8,
    "swa_head_dim": 8,
    "swa_kv_lora_rank": 8,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_q_lora_rank": 8,
    "swa_qk_nope_head_dim": 4,
    "swa_v_head_dim": 4,
}

SPARSE_ATTENTION: Final[tuple[Recipe, ...]] = (
    _recipe("axk2", num_key_value_heads=4, index_n_heads=_INDEX_HEADS),
    _recipe("deepseek_v32", num_key_value_heads=4, index_n_heads=_INDEX_HEADS),
    _recipe(
        "deepseek_v4",
        head_dim=8,
        hc_mult=2,
        layer_types=(
            _SLIDING,
            "compressed_sparse_attention",
            "heavily_compressed_attention",
        ),
        mlp_layer_types=("hash_moe", "moe", "moe"),
        num_hidden_layers=3,
        num_key_value_heads=1,
        o_groups=2,
        o_lora_rank=4,
        partial_rotary_factor=0.5,
        nested={
            "compress_rates.compressed_sparse_attention": 2,
            "compress_rates.heavily_compressed_attention": 4,
        },
    ),
    _recipe("dots3_note_text", nested=DOTS3),
    _recipe(
        "dots3_note",
        nested={
            **{f"text_config.{key}": value for key, value in DOTS3.items()},
            "audio_config.adapter_input_size": 16,
            "audio_config.adapter_out_dim": 16,
            "audio_config.downsample_hidden_size": 8,
            "vision_config.adapter_in_dim": 16,
            "vision_config.adapter_out_dim": 16,
            "vision_config.mlp_layer_types": _FIRST_DENSE,
        },
    ),
    _recipe(
        "glm_moe_dsa",
        indexer_types=("full", "shared"),
        num_key_value_heads=4,
    ),
    _recipe(
        "hy_v4",
        indexer_types=("full", "shared"),
        hc_mult=2,
        index_n_heads=_INDEX_HEADS,
    ),
    _recipe(
        "minimax_m3_vl_text",
        dense_intermediate_size=32,
        index_block_size=2,
        index_topk_blocks=2,
        layer_types=(_FULL, "minimax_m3_sparse"),
        mlp_layer_types=_FIRST_DENSE,
        rotary_dim=2,
    ),
)

QWEN4: Final = {
    "hc_lowrank": 8,
    "heads_per_ngram": 2,
    "indexer_budget": 4,
    "indexer_compress_ratio": 2,
    "indexer_head_dim": 8,
    "indexer_kv_heads": 1,
    "indexer_n_heads": 2,
    "layer_types": (_LINEAR, _INDEXED),
    "make_ngram_vocab_size_divisible_by": 8,
    "ngram_vocab_size_base": 16,
    "ple_layer_ids": (1,),
    "split_ngram_parts": 4,
}

RECURRENT: Final[tuple[Recipe, ...]] = (
    _recipe("bailing_hybrid", layer_types=_FIRST_LINEAR, num_key_value_heads=4),
    _recipe("bamba", attn_layer_indices=(1,)),
    _recipe(
        "falcon_h1",
        attention_in_multiplier=1.2,
        attention_out_multiplier=0.8,
        key_multiplier=0.7,
        lm_head_multiplier=0.9,
        mlp_multipliers=(1.3, 0.7),
        ssm_in_multiplier=0.9,
        ssm_multipliers=(1.1, 0.9, 1.2, 0.8, 1.3),
        ssm_out_multiplier=1.1,
    ),
    _recipe("granitemoehybrid", layer_types=_FIRST_LINEAR),
    _recipe(
        "jamba",
        attn_layer_offset=1,
        attn_layer_period=2,
        mamba_dt_rank=2,
    ),
    _recipe(
        "kimi_linear",
        layer_types=_FIRST_LINEAR,
        linear_head_dim=4,
        linear_num_heads=4,
        num_key_value_heads=4,
    ),
    _recipe("lfm2", block_auto_adjust_ff_dim=False, layer_types=(_CONV, _FULL)),
    _recipe("lfm2_moe", layer_types=(_CONV, _FULL), num_dense_layers=1),
    _recipe("lfm3", layer_types=(_CONV, _SLIDING, _FULL), num_hidden_layers=3),
    _recipe("mamba2", head_dim=8, num_heads=4),
    _recipe(
        "minimax",
        block_size=4,
        full_attn_alpha_factor=1.5,
        full_attn_beta_factor=0.7,
        linear_attn_alpha_factor=1.3,
        linear_attn_beta_factor=0.6,
        mlp_alpha_factor=1.2,
        mlp_beta_factor=0.8,
    ),
    _recipe("nemotron_h", moe_shared_expert_intermediate_size=24),
    _recipe("qwen3_5", nested={"text_config.layer_types": _FIRST_LINEAR}),
    _recipe("qwen3_5_moe", nested={"text_config.layer_types": _FIRST_LINEAR}),
    _recipe("qwen3_5_moe_text", layer_types=_FIRST_LINEAR),
    _recipe("qwen3_5_text", layer_types=_FIRST_LINEAR),
    _recipe("qwen3_next", layer_types=_FIRST_LINEAR, mlp_only_layers=(0,)),
    _recipe(
        "qwen4_exp",
        nested={f"text_config.{key}": value for key, value in QWEN4.items()},
    ),
    _recipe("qwen4_exp_text", nested=QWEN4),
    _recipe("recurrent_gemma", block_types=("recurrent", "attention")),
    _recipe(
        "rwkv",
        attention_hidden_size=16,
        note="the first forward writes its weights in place, with the same values",
    ),
    _recipe(
        "rwkv",
        variant="rescaled",
        attention_hidden_size=16,
        note="the first forward halves weights in place, as from six layers on",
        rescale_every=1,
    ),
    _recipe(
        "xlstm",
        ffn_round_up_to_multiple_of=8,
        num_heads=4,
        qk_dim_factor=4.0,
        v_dim_factor=4.0,
        note="its cache rounds the width of all heads up to 64, its layers do not",
    ),
    _recipe(
        "zamba",
        layers_block_type=(_LINEAR, "hybrid", "hybrid"),
        num_hidden_layers=3,
        num_key_value_heads=4,
        attention_head_dim=8,
    ),
    _recipe(
        "zamba2",
        adapter_rank=4,
        layers_block_type=(_LINEAR, "hybrid", "hybrid"),
        n_mamba_heads=4,
        num_hidden_layers=3,
        num_key_value_heads=4,
        use_mem_rope=True,
        use_shared_attention_adapter=True,
    ),
    _recipe(
        "zaya",
        layer_types=("hybrid", "hybrid_sliding"),
        num_experts_per_tok=1,
        router_hidden_size=8,
    ),
)
