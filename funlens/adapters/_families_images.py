"""The tables of language models that are shown pictures."""

from typing import Final

from attrs import evolve

from funlens.adapters._families_common import PRE_NORM, SELF, causal, with_attention
from funlens.adapters._families_towers import CLIPPED, CONVOLVED, ROTARY, SCALED, tower
from funlens.adapters._language import Architecture, Around

_GLM4V: Final = evolve(
    PRE_NORM, ln1_post="post_self_attn_layernorm", ln2_post="post_mlp_layernorm"
)
_LATENT: Final = evolve(
    SELF, kv="kv_b_proj", q_latent="q_a_layernorm", kv_latent="kv_a_layernorm"
)
IMAGE_TEXTS: Final[tuple[Architecture, ...]] = (
    causal(
        "cosmos3_edge_text",
        "deepseek_ocr2_text",
        "glm4v_moe_text",
        "hunyuan_vl_text",
        "molmo2_text",
        "paddleocr_vl_text",
        "qwen2_5_omni_text",
        "qwen2_5_vl_text",
        "qwen2_vl_text",
        "qwen3_omni_moe_text",
        "qwen3_vl_moe_text",
        "qwen3_vl_text",
        "unlimited_ocr_text",
    ),
    causal("glm4v_text", "glm_ocr_text", block=_GLM4V),
    causal(
        "step3p5", block=with_attention(PRE_NORM, changes="a gate scales each head")
    ),
    causal("mistral4", block=evolve(PRE_NORM, attention=(_LATENT,))),
)
"""The language models of some of them, which have no other name."""

_DEEP: Final = {
    "reads": "what is seen is added to the first layers too",
    "unjoined": "what is seen is added between the first layers",
}

_BOTH_WAYS: Final = "tokens that stand for one picture see each other"

_COUNTS: Final = {"counts_tokens": True}
_NO_GRADIENT: Final = {
    "no_func": dict.fromkeys(
        ("Grad", "Jvp"), "its tower adds what it learned to SDPA's mask"
    )
}

_BY_START: Final = {
    "counts_by": "vision_start_token_id",
    "maskless": "HuggingFace's count of positions asks its config for what it lacks",
}
_WHOLE_NUMBERS: Final = {
    "no_func": dict.fromkeys(
        ("Grad", "Jvp"), "its tower interpolates what autograd takes for whole numbers"
    )
}

AROUND: Final[tuple[Around, ...]] = (
    Around(
        model_types=(
            "aya_vision",
            "llava",
            "llava_next",
            "llava_next_video",
            "llava_onevision",
            "vipllava",
        ),
        others=tower("vision_tower.encoder.layers", read_at="vision_feature_layer"),
    ),
    Around(
        model_types=(
            "aria",
            "cohere2_vision",
            "lfm2_vl",
        ),
        others=tower("vision_tower.encoder.layers"),
    ),
    Around(
        model_types=("gemma3", "paligemma", "shieldgemma2"),
        others=tower("vision_tower.encoder.layers"),
        words={"looks_ahead": _BOTH_WAYS},
    ),
    Around(
        model_types=("deepseek_vl", "janus"),
        others=tower("vision_model.encoder.layers"),
    ),
    Around(
        model_types=("deepseek_vl_hybrid",),
        others=tower("vision_model.encoder.layers"),
        words=_NO_GRADIENT,
    ),
    Around(
        model_types=("idefics2", "idefics3", "smolvlm"),
        language="text_model",
        others=tower("vision_model.encoder.layers"),
    ),
    Around(
        model_types=("blip-2", "instructblip", "instructblipvideo"),
        others=tower("vision_model.encoder.layers"),
        stack=_COUNTS,
    ),
    Around(
        model_types=("video_llava",),
        others=tower(
            "image_tower.encoder.layers",
            given="pixel_values_images",
            read_at="vision_feature_layer",
        ),
    ),
    Around(
        model_types=("ovis2",),
        others=tower("vision_tower.transformer.encoder.layers"),
    ),
    Around(
        model_types=("internvl",),
        others=tower(
            "vision_tower.encoder.layer",
            block=SCALED,
            read_at="vision_feature_layer",
        ),
    ),
    Around(
        model_types=("perception_lm",),
        others=tower("vision_tower.layers"),
    ),
    Around(
        model_types=("molmo2",),
        words={"mixes_rows": "what it pools is counted through all rows' pictures"},
    ),
    Around(
        model_types=("hunyuan_vl",),
        others=tower("vision_tower.layers"),
        stack=_COUNTS,
    ),
    Around(
        model_types=("qianfan_ocr",),
        others=tower("vision_tower.layers", block=SCALED),
    ),
    Around(
        model_types=("step3p7",),
        others=tower("vision_model.layers", block=SCALED),
    ),
    Around(
        model_types=("lighton_ocr",),
        others=tower("vision_encoder.transformer.layers", block=ROTARY),
    ),
    Around(
        model_types=("mistral3",),
        others=tower("vision_tower.transformer.layers", block=ROTARY),
    ),
    Around(
        model_types=("llama4",),
        others=tower("vision_model.model.layers", block=ROTARY),
    ),
    Around(
        model_types=(
            "glm46v",
            "glm4v",
            "glm4v_moe",
            "glm_ocr",
            "glmga",
            "qwen2_5_vl",
            "qwen3_5",
            "qwen3_5_moe",
        ),
        others=tower("visual.blocks", block=ROTARY),
        stack=_COUNTS,
    ),
    Around(
        model_types=("qwen2_vl",),
        others=tower("visual.blocks", block=ROTARY, sizes={"d_model": "embed_dim"}),
        stack=_COUNTS,
    ),
    Around(
        model_types=(
            "cohere_compass",
            "cosmos3_omni",
            "qwen3_vl",
            "qwen3_vl_moe",
        ),
        others=tower("visual.blocks", block=ROTARY),
        stack=_COUNTS,
        block=_DEEP,
    ),
    Around(
        model_types=("exaone4_5",),
        others=tower("visual.blocks", block=ROTARY),
    ),
    Around(
        model_types=("qwen4_exp",),
        stack=_COUNTS,
        others=tower("visual.blocks", block=ROTARY),
    ),
    Around(
        model_types=("cosmos3_edge",),
        others=tower("visual.encoder.layers"),
        stack=_COUNTS,
    ),
    Around(
        model_types=("paddleocr_vl",),
        others=tower("visual.vision_model.encoder.layers", block=ROTARY),
        stack=_COUNTS,
    ),
    Around(
        model_types=("hyperclovax_vision_v2",),
        others=tower("vision_model.blocks", block=ROTARY),
    ),
    Around(
        model_types=("video_llama_3",),
        others=tower("vision_model.encoder.layers", block=ROTARY),
    ),
    Around(
        model_types=("qwen2_5_omni_thinker",),
        others=tower("visual.blocks", block=ROTARY),
        stack=_COUNTS,
        words=_BY_START,
    ),
    Around(
        model_types=("qwen3_omni_moe_thinker",),
        others=tower("visual.blocks", block=ROTARY),
        block=_DEEP,
        stack=_COUNTS,
        words=_BY_START,
    ),
    Around(
        model_types=("minimax_m3_vl",),
        others=tower("vision_tower.layers", block=ROTARY),
    ),
    Around(
        model_types=("kimi_k25",),
        others=tower("vision_tower.layers", block=ROTARY),
        words=_WHOLE_NUMBERS,
    ),
    Around(
        model_types=("inkling2",),
        others=tower("vision_tower.layers", block=SCALED),
    ),
    Around(
        model_types=("lfm3_vl",),
        others=tower("vision_tower.layers", block=CONVOLVED),
    ),
    Around(
        model_types=("gemma4",),
        others=tower("vision_tower.encoder.layers", block=CLIPPED),
    ),
    Around(model_types=("gemma4_unified",), words={"looks_ahead": _BOTH_WAYS}),
    Around(model_types=("fast_vlm", "minicpm_ocr", "got_ocr2", "pp_chart2table")),
    Around(model_types=("deepseek_ocr2", "unlimited_ocr"), words=_NO_GRADIENT),
    Around(
        model_types=("nemotron_h_omni",),
        others=tower("vision_model.encoder.layer", block=SCALED),
    ),
    Around(model_types=("fuyu", "inkling_mm_model")),
)
"""Models that see, around the language model whose table is theirs."""
