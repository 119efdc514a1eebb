"""The recipes of language models that are shown a picture."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_inputs import Drawing, Marks, Noise, Known, Text
from funlens.testing._recipes_modal_sizes import IMAGE
from funlens.testing._recipes_record import Recipe, recipe

_FULL: Final = "full_attention"
_SLIDING: Final = "sliding_attention"
_FIRST_SLIDING: Final = (_SLIDING, _FULL)

_PIXELS: Final = Noise((3, 16, 16))
_MARKS: Final = Marks(((IMAGE, 1),))
_SIZES: Final = Known((16, 16))


def _seen(
    model_type: str,
    *,
    tokens: int = 4,
    pixels: Drawing = _PIXELS,
    more: Mapping[str, Drawing] | None = None,
    **settings: Any,
) -> Recipe:
    """Write a row of a model that is shown one picture in the middle of its text."""
    inputs = {
        "input_ids": Text((IMAGE,) * tokens),
        "pixel_values": pixels,
        **(more or {}),
    }
    return recipe(
        model_type, variant="image", task="image-text", inputs=inputs, **settings
    )


# The shared settings are enough.
_PLAIN: Final = (
    "blip-2",
    "deepseek_vl",
    "llava",
    "ovis2",
    "paligemma",
)

_SAM: Final = {
    "vision_config.mlp_dim": 32,
    "vision_config.output_channels": 8,
    "vision_config.patch_size": 2,
    "vision_config.window_size": 2,
    "vision_config.global_attn_indexes": (1,),
}

_PROJECTED: Final = (
    _seen("aria", nested={"projector_patch_to_query_dict.4": 3}, tokens=3),
    _seen("blip", tokens=0),
    _seen("git", tokens=0),
    _seen("aya_vision", nested={"vision_config.patch_size": 4}),
    _seen(
        "chameleon",
        nested={
            "vq_config.attn_resolutions": None,
            "vq_config.base_channels": 32,
            "vq_config.channel_multiplier": (1, 1, 1, 1),
            "vq_config.embed_dim": 8,
            "vq_config.latent_channels": 8,
            "vq_config.num_embeddings": 4,
            "vq_config.num_res_blocks": 1,
            "vq_config.resolution": 16,
            "vocabulary_map.<image>": IMAGE,
            "vocabulary_map.IMGIMGAZ": 27,
            "vocabulary_map.IMGIMGBZ": 28,
            "vocabulary_map.IMGIMGCZ": 29,
            "vocabulary_map.IMGIMGDZ": 30,
        },
    ),
    _seen(
        "cohere2_vision",
        alignment_intermediate_size=32,
        nested={"vision_config.patch_size": 4},
    ),
    _seen(
        "florence2",
        tokens=5,
        more={"decoder_input_ids": Text(fewer=2)},
        nested={
            "vision_config.depths": (1, 1),
            "vision_config.embed_dim": (8, 16),
            "vision_config.max_position_embeddings": 8,
            "vision_config.max_temporal_embeddings": 4,
            "vision_config.num_groups": (2, 4),
            "vision_config.num_heads": (2, 4),
            "vision_config.patch_padding": (3, 1),
            "vision_config.patch_prenorm": (False, True),
            "vision_config.patch_size": (7, 3),
            "vision_config.patch_stride": (4, 2),
            "vision_config.window_size": 3,
        },
    ),
    _seen("fuyu", pixels=Noise((4, 192))),
    _seen(
        "gemma3",
        mm_tokens_per_image=4,
        more={"token_type_ids": _MARKS},
        nested={
            "vision_config.patch_size": 4,
            "text_config.attn_logit_softcapping": None,
            "text_config.final_logit_softcapping": None,
            "text_config.layer_types": _FIRST_SLIDING,
        },
    ),
    _seen(
        "gemma4",
        pixels=Noise((16, 48)),
        more={
            "image_position_ids": Known(
                tuple((x, y) for y in range(4) for x in range(4))
            ),
            "mm_token_type_ids": _MARKS,
        },
        nested={
            "text_config.global_head_dim": 8,
            "text_config.layer_types": _FIRST_SLIDING,
            "vision_config.patch_size": 4,
            "vision_config.pooling_kernel_size": 2,
            "vision_config.position_embedding_size": 8,
        },
    ),
    _seen("got_ocr2", nested=_SAM),
    _seen("internvl", nested={"vision_config.patch_size": (4, 4), "vision_config.image_size": (16, 16)}),
    _seen(
        "janus",
        nested={
            "vq_config.base_channels": 32,
            "vq_config.channel_multiplier": (1, 1),
            "vq_config.latent_channels": 8,
            "vq_config.num_embeddings": 8,
            "vq_config.image_token_embed_dim": 16,
            "vision_config.num_image_tokens": 4,
            "vision_config.hidden_dropout_rate":0.0,
        },
    ),
    _seen(
        "llama4",
        nested={
            "text_config.attention_chunk_size": 4,
            "text_config.floor_scale": 4,
            "text_config.intermediate_size_mlp": 24,
            "text_config.layer_types": ("chunked_attention", _FULL),
            "text_config.moe_layers": (1,),
            "text_config.no_rope_layers": (1, 0),
            "vision_config.patch_size": 4,
            "vision_config.intermediate_size": 64,
            "vision_config.projector_input_dim": 24,
            "vision_config.projector_output_dim": 24,
            "vision_config.vision_output_dim": 24,
        },
    ),
    _seen("lighton_ocr", nested={"vision_config.head_dim": 4, "vision_config.patch_size": 4}, more={"image_sizes": _SIZES}),
    _seen("mistral3", nested={"vision_config.head_dim": 4, "vision_config.patch_size": 4}, more={"image_sizes": _SIZES}),
    _seen(
        "mllama",
        tokens=1,
        pixels=Noise((1, 4, 3, 16, 16)),
        more={
            "aspect_ratio_ids": Known((6,)),
            "aspect_ratio_mask": Known(((1, 1, 1, 1),)),
        },
        nested={
            "text_config.cross_attention_layers": (1,),
            "text_config.num_hidden_layers": 3,
            "vision_config.num_global_layers": 1,
            "vision_config.intermediate_layers_indices": (0,),
            "vision_config.attention_heads": 4,
            "vision_config.vision_output_dim": 32,
        },
    ),
    _seen("pp_chart2table", nested=_SAM),
    _seen("qianfan_ocr", nested={"vision_config.patch_size": (4, 4), "vision_config.image_size": (16, 16)}),
    _seen(
        "shieldgemma2",
        mm_tokens_per_image=4,
        more={"token_type_ids": _MARKS},
        nested={
            "vision_config.patch_size": 4,
            "text_config.attn_logit_softcapping": None,
            "text_config.final_logit_softcapping": None,
            "text_config.layer_types": _FIRST_SLIDING,
        },
    ),
    _seen("t5gemma2", more={"decoder_input_ids": Text(fewer=2)},
        nested={
            "encoder.mm_tokens_per_image": 4,
            "encoder.vision_config.patch_size": 4,
        },
    ),
    _seen("vipllava", vision_feature_layer=(-2, -1)),
    _seen("kosmos-2", latent_query_num=4, more={"image_embeds_position_mask": _MARKS}),
)

IMAGE_TEXT: Final[tuple[Recipe, ...]] = (
    *(_seen(name) for name in _PLAIN),
    *_PROJECTED,
)
