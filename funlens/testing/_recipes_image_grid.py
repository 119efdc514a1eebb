"""The recipes of language models that are shown patches on a grid, as Qwen2-VL is."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_causal import INKLING
from funlens.testing._recipes_drawing import Drawing, Known, Marks, Noise
from funlens.testing._recipes_hybrid import DOTS3, QWEN4
from funlens.testing._recipes_image_rows import (
    FINE,
    FIRST_DENSE,
    FIRST_LINEAR,
    FIRST_SLIDING,
    FULL,
    LINEAR,
    MARKS,
    SLIDING,
    dotted,
    shown,
)
from funlens.testing._recipes_modal_sizes import IMAGE, START
from funlens.testing._recipes_record import Recipe

# A picture of 4 by 4 patches, of which 2 by 2 are merged into one token.
_GRID: Final = {"image_grid_thw": Known((1, 4, 4))}
_FILM: Final = {"pixel_values": Noise((16, 96), along=0), **_GRID}  # two frames deep
_STILL: Final = {"pixel_values": Noise((16, 48), along=0), **_GRID}
_SQUARE: Final = {"pixel_values": Noise((16, 3, 4, 4), along=0), **_GRID}

_DEEP: Final = {"deepstack_visual_indexes": (0,)}
_WINDOWS: Final = {"fullatt_block_indexes": (1,), "window_size": 8}
# What is shown and what is heard begin with tokens of their own.
_STARTS: Final = {"audio_start_token_id": 26, "vision_start_token_id": START}
_UNLISTED: Final = "given a mask it reads a setting that its config class leaves out"
_PLACES: Final = {"pos_emb_height": 4, "pos_emb_width": 4}


def _gridded(
    model_type: str,
    inputs: Mapping[str, Drawing],
    *,
    tokens: int = 4,
    vision: Mapping[str, object] | None = None,
    **settings: Any,
) -> Recipe:
    """Write a row of a model whose patches are 4 by 4 pixels."""
    finer = {**FINE, **(vision or {})}
    return shown(model_type, tokens, inputs, vision=finer, **settings)


def _turned(*sections: int, layers: str = "") -> dict[str, object]:
    """Write rotary settings that turn so many pairs by frame, row and column."""
    where = f"rope_parameters.{layers}" if layers else "rope_parameters"
    return {
        f"{where}.mrope_section": sections,
        f"{where}.rope_theta": 10000.0,
        f"{where}.rope_type": "default",
    }


_TURNED: Final = _turned(1, 1, 0)

_MARKED: Final = (
    _gridded(
        "cohere_compass",
        {**_FILM, **MARKS},
        text={
            **_turned(1, 1, 0, layers=SLIDING),
            "layer_types": FIRST_SLIDING,
            "rope_parameters.full_attention": None,
        },
        vision=_DEEP,
    ),
    _gridded("cosmos3_edge", {**_STILL, **MARKS}, text=_TURNED),
    _gridded("cosmos3_omni", {**_FILM, **MARKS}, vision=_DEEP),
    _gridded(
        "ernie4_5_vl_moe",
        {**_STILL, **MARKS, "moe_mm_token_type_ids": Marks(IMAGE)},
        text={
            **_turned(1, 1, 2),
            "head_dim": 8,
            "mlp_layer_types": FIRST_DENSE,
            "moe_intermediate_size": (8, 4),
            "moe_k": 2,
            "moe_num_experts": 4,
        },
        note="experts of their own for words and for pictures",
    ),
    *(
        _gridded(name, {**_FILM, **MARKS}, text=_TURNED)
        for name in ("glm46v", "glm4v", "glm_ocr", "glmga")
    ),
    _gridded("glm4v_moe", {**_FILM, **MARKS}, text=_turned(1, 0, 0)),
    _gridded(
        "glm5_next",
        {**_FILM, **MARKS},
        text={
            "hc_mult": 2,
            "index_kpool": 2,
            "layer_types": (LINEAR, "indexed_attention"),
            "linear_head_dim": 4,
            "linear_num_heads": 4,
            "mlp_layer_types": FIRST_DENSE,
            "num_key_value_heads": 4,
            "qk_rope_head_dim": 0,
        },
        vision={"projection_intermediate_size": 24},
    ),
    _gridded(
        "hunyuan_vl",
        {**_STILL, **MARKS},
        tokens=8,
        text=_TURNED,
        vision={"max_image_size": 16},
        note="each row of the picture, and the picture, has marks of its own",
    ),
    _gridded("paddleocr_vl", {**_SQUARE, **MARKS}, text=_TURNED),
    _gridded("qwen2_vl", {**_FILM, **MARKS}, text=_TURNED, vision={"embed_dim": 16}),
    _gridded("qwen2_5_vl", {**_FILM, **MARKS}, text=_TURNED, vision=_WINDOWS),
    *(
        _gridded(name, {**_FILM, **MARKS}, vision=_DEEP)
        for name in ("qwen3_vl", "qwen3_vl_moe")
    ),
    *(
        _gridded(name, {**_FILM, **MARKS}, text={"layer_types": FIRST_LINEAR})
        for name in ("qwen3_5", "qwen3_5_moe")
    ),
    _gridded("qwen4_exp", {**_FILM, **MARKS}, text=QWEN4),
)

_UNMARKED: Final = (
    _gridded(
        "dots3_note",
        _STILL,
        text=DOTS3,
        vision={
            "adapter_in_dim": 16,
            "adapter_out_dim": 16,
            "mlp_layer_types": FIRST_DENSE,
        },
        nested=dotted(audio_config={"adapter_input_size": 16, "adapter_out_dim": 16}),
    ),
    _gridded(
        "exaone4_5",
        _FILM,
        text={"model_type": "exaone4"},
        vision={**_WINDOWS, "num_key_value_heads": 2},
    ),
    _gridded("hyperclovax_vision_v2", _FILM, vision=_WINDOWS),
    _gridded(
        "inkling2",
        {
            "pixel_values": Noise((4, 8, 8, 3), along=0),
            "image_grid_thw": Known((1, 2, 2)),
        },
        text=INKLING,
        vision={"posemb_grid_size": 4, "projection_hidden_dim": 24},
    ),
    _gridded(
        "kimi_k25",
        _SQUARE,
        projection_hidden_size=16,
        text={"num_key_value_heads": 4},
        vision=_PLACES,
    ),
    _gridded(
        "lfm3_vl",
        _FILM,
        text={"layer_types": ("conv", SLIDING, FULL), "num_hidden_layers": 3},
        vision={"layer_types": ("conv", FULL)},
    ),
    _gridded(
        "minimax_m3_vl",
        _FILM,
        text={
            "dense_intermediate_size": 32,
            "index_block_size": 2,
            "index_topk_blocks": 2,
            "layer_types": (FULL, "minimax_m3_sparse"),
            "mlp_layer_types": FIRST_DENSE,
            "rotary_dim": 2,
        },
    ),
    _gridded("muse_glimmer", _FILM, out_hidden_size=64, vision=_PLACES),
    _gridded(
        "muse_spark",
        _FILM,
        out_hidden_size=64,
        text={"moe_hidden_size": 16},
        vision=_PLACES,
        nested=dotted(
            audio_config={
                "depths": (1, 1),
                "hidden_sizes": (8, 16),
                "patch_sizes": (2, 2),
            }
        ),
    ),
    _gridded(
        "qwen2_5_omni_thinker",
        _FILM,
        text=_TURNED,
        vision=_WINDOWS,
        nested=_STARTS,
        note=_UNLISTED,
    ),
    _gridded(
        "qwen3_omni_moe_thinker",
        _FILM,
        vision=_DEEP,
        nested={**_STARTS, "audio_config.output_dim": 16},
        note=_UNLISTED,
    ),
    _gridded("video_llama_3", {**_STILL, "image_merge_sizes": Known(2)}),
)

GRIDS: Final[tuple[Recipe, ...]] = (*_MARKED, *_UNMARKED)
