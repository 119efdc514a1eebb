"""The recipes of the other causal language models in transformers."""

from typing import Final

from funlens.testing._recipes_hybrid import RECURRENT, SPARSE_ATTENTION
from funlens.testing._recipes_music import MUSIC
from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_record import recipe as _recipe

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"

_FIRST_DENSE: Final = ("dense", "sparse")
_FIRST_SLIDING: Final = (_SLIDING, _FULL)
_TWICE: Final = (*_FIRST_SLIDING, *_FIRST_SLIDING)

# The shared settings are enough.
_PLAIN: Final = (
    "arcee",
    "aria_text",
    "bart",
    "bert-generation",
    "biogpt",
    "bitnet",
    "blenderbot",
    "blenderbot-small",
    "camembert",
    "data2vec-text",
    "diffllama",
    "electra",
    "ernie",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "exaone_moe",
    "falcon_mamba",
    "flex_olmo",
    "git",
    "glm",
    "glm4",
    "glm4_moe",
    "gpt-sw3",
    "gpt_bigcode",
    "gpt_neox_japanese",
    "granite_swa",
    "granitemoe",
    "granitemoe_swa",
    "granitemoeshared",
    "helium",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "hy_v3",
    "hyperclovax",
    "internlm3",
    "iquestcoder",
    "jais2",
    "jetmoe",
    "marian",
    "mbart",
    "megatron-bert",
    "minimax_m2",
    "mvp",
    "nanochat",
    "nemotron",
    "olmo_hybrid",
    "olmoe",
    "openai-gpt",
    "pegasus",
    "persimmon",
    "plbart",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "seed_oss",
    "solar_open",
    "trocr",
    "vaultgemma",
    "whisper",
    "xglm",
    "xlm-roberta",
    "xlm-roberta-xl",
)

# Keys and values are expanded to every head, so these take no fewer key heads.
_LATENT: Final = (
    "axk1",
    "deepseek_v2",
    "deepseek_v3",
    "glm4_moe_lite",
    "minicpm3",
    "youtu",
)

_LLAMA3_ROTARY: Final = {
    "rope_parameters.factor": 8.0,
    "rope_parameters.high_freq_factor": 4.0,
    "rope_parameters.low_freq_factor": 1.0,
    "rope_parameters.original_max_position_embeddings": 8,
    "rope_parameters.rope_theta": 10000.0,
    "rope_parameters.rope_type": "llama3",
}

_YARN_ROTARY: Final = {
    "rope_parameters.factor": 8.0,
    "rope_parameters.llama_4_scaling_beta": 0.1,
    "rope_parameters.original_max_position_embeddings": 8,
    "rope_parameters.rope_theta": 10000.0,
    "rope_parameters.rope_type": "yarn",
}

_ROTARY: Final = (
    _recipe("apertus", nested=_LLAMA3_ROTARY),
    _recipe(
        "cohere_compass_text",
        layer_types=_FIRST_SLIDING,
        nested={
            "rope_parameters.full_attention": None,
            "rope_parameters.sliding_attention.mrope_section": (1, 1, 0),
            "rope_parameters.sliding_attention.rope_theta": 10000.0,
            "rope_parameters.sliding_attention.rope_type": "default",
        },
        note="no rotary in full layers",
    ),
    _recipe("cwm", nested=_LLAMA3_ROTARY),
    _recipe("ministral3", nested=_YARN_ROTARY),
)

_DENSE_AND_SPARSE: Final = (
    _recipe("afmoe", layer_types=_FIRST_SLIDING, mup_enabled=True),
    _recipe("beam", mlp_layer_types=_FIRST_DENSE),
    _recipe("cohere2", layer_types=_FIRST_SLIDING),
    _recipe("cohere2_moe", mlp_layer_types=_FIRST_DENSE, num_shared_experts=1),
    _recipe("dots1", layer_types=_FIRST_SLIDING, n_shared_experts=1),
    _recipe("flint", layer_types=_FIRST_SLIDING, mlp_only_layers=(0,)),
    _recipe(
        "gemma3",
        nested={
            "text_config.attn_logit_softcapping": None,
            "text_config.final_logit_softcapping": None,
            "text_config.layer_types": _FIRST_SLIDING,
        },
    ),
    _recipe("kolibri1", layer_types=_FIRST_SLIDING),
    _recipe("laguna", layer_types=_FIRST_SLIDING),
    _recipe("mellum", layer_types=_FIRST_SLIDING, mlp_layer_types=_FIRST_DENSE),
    _recipe("mimo_v2_flash", head_dim=8),
    _recipe("ministral", layer_types=_FIRST_SLIDING),
    _recipe("modernbert-decoder", local_attention=4),
    _recipe("olmo3", layer_types=_FIRST_SLIDING),
    _recipe("phimoe", attention_bias=True, lm_head_bias=True),
)

_GEMMA: Final = (
    _recipe(
        "gemma3n_text",
        activation_sparsity_pattern=(0.5, 0.0, 0.0, 0.0),
        laurel_rank=4,
        layer_types=_TWICE,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        note="the last two layers read the keys of the first two",
    ),
    _recipe(
        "gemma4_text",
        global_head_dim=8,
        layer_types=_TWICE,
        num_hidden_layers=4,
        num_kv_shared_layers=2,
        note="wider heads in full layers; the last two read the first two's keys",
    ),
    _recipe(
        "gemma4_text",
        variant="moe",
        enable_moe_block=True,
        global_head_dim=8,
        hidden_size_per_layer_input=0,
        layer_types=_FIRST_SLIDING,
        top_k_experts=2,
    ),
    _recipe(
        "gemma4",
        nested={
            "text_config.global_head_dim": 8,
            "text_config.layer_types": _FIRST_SLIDING,
        },
    ),
    _recipe(
        "gemma4_unified_text",
        attention_k_eq_v=True,
        global_head_dim=8,
        layer_types=_FIRST_SLIDING,
        num_global_key_value_heads=1,
    ),
    _recipe(
        "gemma4_unified",
        nested={
            "text_config.global_head_dim": 8,
            "text_config.layer_types": _FIRST_SLIDING,
        },
    ),
)

INKLING: Final = {
    "d_rel": 4,
    "layer_types": ("hybrid_sliding", "hybrid"),
    "rel_extent": 8,
    "swa_head_dim": 4,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 1,
}

LLAMA4: Final = {
    "attention_chunk_size": 4,
    "floor_scale": 4,
    "intermediate_size_mlp": 24,
    "layer_types": ("chunked_attention", _FULL),
    "moe_layers": (1,),
    "no_rope_layers": (1, 0),
}

_OTHERS: Final = (
    _recipe("bert", variant="causal"),
    _recipe("big_bird", attention_type="original_full"),
    _recipe("bigbird_pegasus", attention_type="original_full"),
    _recipe(
        "blt",
        encoder_hash_byte_group_size=(3, 4),
        encoder_hash_byte_group_vocab=50,
        local_attention_window_len=4,
        note="its own cache fails on its own config",
        patching_threshold=3.2,
        use_cache=False,
        nested={
            "decoder_config.hidden_size_global": 16,
            "encoder_config.hidden_size_global": 16,
        },
    ),
    _recipe("codegen", n_ctx=64, rotary_dim=2),
    _recipe(
        "cpmant",
        dim_ff=32,
        dim_head=4,
        pad_token_id=0,
        prompt_length=4,
        note="sees both ways; four prompt positions stand before the tokens",
    ),
    _recipe("ctrl", dff=32),
    _recipe(
        "dbrx",
        nested={
            "attn_config.clip_qkv": 1.5,
            "attn_config.kv_n_heads": 2,
            "attn_config.rope_theta": 10000.0,
            "ffn_config.ffn_hidden_size": 8,
            "ffn_config.hidden_size": 16,
            "ffn_config.moe_top_k": 2,
        },
    ),
    _recipe("doge", keep_window_size=4),
    _recipe(
        "doge",
        variant="moe",
        is_moe=True,
        keep_window_size=4,
        note="not causal: HuggingFace's router mixes tokens",
    ),
    _recipe(
        "emu3",
        nested={
            "vocabulary_map.<image>": 3,
            "vq_config.base_channels": 32,
            "vq_config.channel_multiplier": (1,),
            "vq_config.codebook_size": 8,
        },
    ),
    _recipe("fuyu"),
    _recipe("hrm_text"),
    _recipe("inkling2_text", nested=INKLING),
    _recipe("inkling_text", mlp_layer_types=_FIRST_DENSE, nested=INKLING),
    _recipe(
        "llama4",
        nested={
            **{f"text_config.{key}": value for key, value in LLAMA4.items()},
            "vision_config.projector_input_dim": 16,
            "vision_config.projector_output_dim": 16,
            "vision_config.vision_output_dim": 16,
        },
    ),
    _recipe("llama4_text", nested=LLAMA4),
    _recipe("longcat_flash", num_key_value_heads=4, num_layers=2, zero_expert_num=2),
    _recipe(
        "mllama",
        note="the middle layer is skipped where there is no picture",
        nested={
            "text_config.cross_attention_layers": (1,),
            "text_config.num_hidden_layers": 3,
        },
    ),
    _recipe(
        "phi4_multimodal",
        nested={
            "audio_config.depthwise_separable_out_channel": 16,
            "audio_config.ext_pw_out_channel": 16,
            "audio_config.nemo_conv_channels": 16,
            "audio_config.num_blocks": 2,
            "vision_config.crop_size": 28,
            "vision_config.image_size": 28,
        },
    ),
    _recipe("moshi"),
    _recipe(
        "got_ocr2",
        nested={
            "vision_config.image_size": 64,
            "vision_config.mlp_dim": 32,
            "vision_config.output_channels": 8,
        },
    ),
    _recipe("moss_transcribe_diarize"),
    _recipe(
        "prophetnet",
        is_decoder=True,
        add_cross_attention=False,
        num_buckets=8,
        num_decoder_attention_heads=4,
        num_decoder_layers=2,
        relative_max_distance=16,
    ),
    _recipe(
        "reformer",
        attention_head_size=4,
        attn_layers=("local", "lsh"),
        axial_pos_embds_dim=(8, 8),
        axial_pos_shape=(8, 8),
        feed_forward_size=32,
        hash_seed=0,
        local_attn_chunk_length=4,
        lsh_attn_chunk_length=4,
        note="each forward seeds the global generator; no gradients unless training",
        num_buckets=4,
    ),
    _recipe("rembert", input_embedding_size=8, output_embedding_size=24),
    _recipe(
        "roc_bert",
        pronunciation_embed_dim=8,
        pronunciation_vocab_size=32,
        shape_embed_dim=8,
        shape_vocab_size=32,
    ),
    _recipe("xlm", causal=True),
    _recipe("xlnet", attn_type="uni", d_inner=32),
    _recipe("xmod", default_language="en_XX"),
)

CAUSAL: Final[tuple[Recipe, ...]] = (
    *(_recipe(name) for name in _PLAIN),
    *(_recipe(name, num_key_value_heads=4) for name in _LATENT),
    *_ROTARY,
    *_DENSE_AND_SPARSE,
    *SPARSE_ATTENTION,
    *RECURRENT,
    *_GEMMA,
    *_OTHERS,
    *MUSIC,
)
