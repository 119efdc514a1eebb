"""The recipes of language models that are shown patches on a grid, as Qwen2-VL is."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_causal import INKLING
from funlens.testing._recipes_hybrid import DOTS3, QWEN4
from funlens.testing._recipes_inputs import Drawing, Marks, Noise, Known, Text
from funlens.testing._recipes_modal_sizes import IMAGE
from funlens.testing._recipes_record import Recipe, recipe

_FULL: Final = "full_attention"
_LINEAR: Final = "linear_attention"
_FIRST_LINEAR: Final = (_LINEAR, _FULL)

_MARKS: Final = {"mm_token_type_ids": Marks(((IMAGE, 1),))}


def _grid(
    model_type: str,
    *,
    frames: int = 2,
    tokens: int = 4,
    marked: bool = True,
    nested: Mapping[str, object] | None = None,
    grid: Drawing = Known((1, 4, 4)),
    more: Mapping[str, Drawing] | None = None,
    pixels: Drawing | None=None,
    **settings: Any,
) -> Recipe:
    """Write a row of a model that is shown 4 by 4 patches, and merges 2 by 2."""
    inputs = {
        "input_ids": Text((IMAGE,) * tokens),
        "pixel_values": pixels or Noise((16, 3 * frames * 4 * 4), along=0),
        "image_grid_thw": grid,
        **(_MARKS if marked else {}),
        **(more or {}),
    }
    return recipe(
        model_type,
        variant="image",
        task="image-text",
        inputs=inputs,
        nested={"vision_config.patch_size": 4, **(nested or {})},
        **settings,
    )

_DEEP: Final = {"vision_config.deepstack_visual_indexes": (0,)}


def _turned(*sections: int) -> dict[str, object]:
    """Write rotary settings that turn by frame, row and column."""
    return {
        "text_config.rope_parameters.mrope_section": sections,
        "text_config.rope_parameters.rope_theta": 10000.0,
        "text_config.rope_parameters.rope_type": "default",
    }


_TURNED: Final = _turned(1, 1, 0)

_WINDOWS: Final = {
    "vision_config.fullatt_block_indexes": (1,),
    "vision_config.window_size": 8,
}

GRID = (
    _grid("cohere_compass", nested={**_DEEP,
            "text_config.layer_types": ("sliding_attention",_FULL),
            "text_config.rope_parameters.full_attention": None,
            "text_config.rope_parameters.sliding_attention.mrope_section": (1, 1, 0),
            "text_config.rope_parameters.sliding_attention.rope_theta": 10000.0,
            "text_config.rope_parameters.sliding_attention.rope_type": "default",
        }),
    _grid("cosmos3_edge", frames=1, nested=_TURNED),
    _grid("cosmos3_omni", nested=_DEEP),
    _grid("dots3_note",marked=False, frames=1,
        nested={
            **{f"text_config.{key}": value for key, value in DOTS3.items()},
            "audio_config.adapter_input_size": 16,
            "audio_config.adapter_out_dim": 16,
            "audio_config.downsample_hidden_size": 8,
            "vision_config.adapter_in_dim": 16,
            "vision_config.adapter_out_dim": 16,
            "vision_config.mlp_layer_types": ("dense", "sparse"),
        },
    ),
    _grid("ernie4_5_vl_moe", frames=1, more={"moe_mm_token_type_ids": Marks(((IMAGE, 1),))}, nested={"text_config.moe_intermediate_size": (8, 4), "text_config.mlp_layer_types": ("dense", "sparse"), "text_config.moe_num_experts": 4, "text_config.moe_k": 2, "text_config.head_dim": 8, **_turned(1,1,2)}),
    _grid("exaone4_5",marked=False, nested={"text_config.model_type": "exaone4", **_WINDOWS, "vision_config.num_key_value_heads": 2}),
    _grid("glm46v", nested=_TURNED),
    _grid("glm4v", nested=_TURNED),
    _grid("glm4v_moe", nested={**_turned(1,0,0), "text_config.n_routed_experts": 4}),
    _grid("glm5_next", nested={"text_config.num_key_value_heads": 4, "text_config.linear_head_dim": 4, "text_config.linear_num_heads": 4, "text_config.index_kpool": 2, "text_config.hc_mult": 2, "vision_config.projection_intermediate_size": 24, "text_config.qk_rope_head_dim":0, "text_config.layer_types": (_LINEAR, "indexed_attention"), "text_config.mlp_layer_types": ("dense", "sparse")}),
    _grid("glm_ocr", nested=_TURNED),
    _grid("glmga", nested=_TURNED),
    _grid("hunyuan_vl", frames=1, tokens=8, nested={"vision_config.max_image_size": 16, **_TURNED}),
    _grid("hyperclovax_vision_v2", marked=False, nested=_WINDOWS),
    _grid("inkling2", marked=False, pixels=Noise((4, 8, 8, 3), along=0), grid=Known((1,2,2)),
       nested={f"text_config.{key}": value for key, value in INKLING.items()}|{"vision_config.projection_hidden_dim": 24, "vision_config.posemb_grid_size": 4}),
    _grid("kimi_k25", projection_hidden_size=16, marked=False, pixels=Noise((16,3,4,4), along=0),nested={"vision_config.pos_emb_height": 4, "vision_config.pos_emb_width": 4, "text_config.num_key_value_heads": 4}),
    _grid("lfm3_vl", marked=False,nested={"vision_config.layer_types": ("conv", "full_attention"), "text_config.layer_types": ("conv","sliding_attention", "full_attention"), "text_config.num_hidden_layers": 3}),
    _grid("minimax_m3_vl", marked=False,nested={"text_config.dense_intermediate_size": 32, "text_config.index_block_size": 2, "text_config.index_topk_blocks": 2, "text_config.layer_types": (_FULL, "minimax_m3_sparse"), "text_config.mlp_layer_types": ("dense","sparse"), "text_config.rotary_dim": 2}),
    _grid("muse_glimmer", marked=False, out_hidden_size=64,nested={"vision_config.pos_emb_height": 4, "vision_config.pos_emb_width": 4}),
    _grid("muse_spark", marked=False, out_hidden_size=64, nested={"vision_config.pos_emb_height": 4, "vision_config.pos_emb_width": 4,"audio_config.patch_sizes":(2,2), "audio_config.hidden_sizes": (8,16), "audio_config.depths":(1,1), "text_config.moe_hidden_size": 16}),
    _grid("paddleocr_vl", pixels=Noise((16,3,4,4), along=0), nested=_TURNED),
    _grid("qwen2_5_omni_thinker", marked=False, nested={**_TURNED, **_WINDOWS}),
    _grid("qwen2_5_vl", nested={**_TURNED, **_WINDOWS}),
    _grid("qwen2_vl", nested={"vision_config.embed_dim": 16, **_TURNED}),
    _grid("qwen3_5", nested={"text_config.layer_types": _FIRST_LINEAR}),
    _grid("qwen3_5_moe", nested={"text_config.layer_types": _FIRST_LINEAR}),
    _grid("qwen3_omni_moe_thinker", marked=False, nested={**_DEEP, "audio_config.downsample_hidden_size": 8, "audio_config.output_dim": 16, "vision_config.patch_size": 4}),
    _grid("qwen3_vl", nested=_DEEP),
    _grid("qwen3_vl_moe", nested=_DEEP),
    _grid("qwen4_exp", nested={f"text_config.{key}": value for key, value in QWEN4.items()}),
    _grid("video_llama_3", marked=False, frames=1, more={"image_merge_sizes": Known(2)}),
)
