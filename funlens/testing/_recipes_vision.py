"""The recipes of models that name what they see."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_drawing import Drawing, Known, Marks, Noise, Text
from funlens.testing._recipes_image_rows import FINE, GEMMA3_TEXT, PIXELS, dotted
from funlens.testing._recipes_modal_sizes import IMAGE
from funlens.testing._recipes_record import Recipe, recipe

# From stage to stage there are fewer and wider patches.
_SWIN: Final = {
    "depths": (1, 1),
    "embed_dim": 8,
    "num_heads": (2, 4),
    "patch_size": 2,
    "window_size": 4,
}
_PYRAMID: Final = {
    "depths": (1, 1),
    "hidden_sizes": (8, 16),
    "mlp_ratios": (2, 2),
    "num_attention_heads": (2, 4),
    "num_encoder_blocks": 2,
    "patch_sizes": (7, 3),
    "strides": (4, 2),
}
_CVT: Final = {
    "attention_drop_rate": (0.0, 0.0),
    "cls_token": (False, True),
    "depth": (1, 2),
    "drop_path_rate": (0.0, 0.0),
    "drop_rate": (0.0, 0.0),
    "embed_dim": (8, 16),
    "kernel_qkv": (3, 3),
    "mlp_ratio": (2.0, 2.0),
    "num_heads": (2, 4),
    "padding_kv": (1, 1),
    "padding_q": (1, 1),
    "patch_padding": (0, 0),
    "patch_sizes": (4, 2),
    "patch_stride": (4, 2),
    "qkv_bias": (True, True),
    "qkv_projection_method": ("dw_bn", "dw_bn"),
    "stride_kv": (2, 2),
    "stride_q": (1, 1),
}
_HIERA: Final = {
    "depths": (1, 1),
    "embed_dim": 8,
    "image_size": (16, 16),
    "masked_unit_attention": (True, False),
    "masked_unit_size": (2, 2),
    "num_heads": (2, 4),
    "num_query_pool": 1,
    "patch_padding": (1, 1),
    "patch_size": (3, 3),
    "patch_stride": (2, 2),
}
_LEVIT: Final = {
    "depths": (1, 1, 1),
    "hidden_sizes": (8, 16, 24),
    "image_size": 64,
    "key_dim": (4, 4, 4),
    "num_attention_heads": (2, 4, 4),
    "patch_size": 16,
}
PERCEIVER: Final = {
    "d_latents": 16,
    "num_cross_attention_heads": 1,
    "num_latents": 4,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
}
FLAT: Final = {
    "pixel_values": Noise((16, 48)),
    "spatial_shapes": Known((4, 4)),
    "pixel_attention_mask": Known((1,) * 16),
}
FLAT_SIZES: Final = {**FINE, "num_patches": 16}

_PLAIN: Final = (
    "beit",
    "clip",
    "data2vec-vision",
    "dinov2",
    "dinov2_with_registers",
    "ijepa",
    "metaclip_2",
    "siglip",
    "vit",
    "vit_msn",
)


def _named(
    model_type: str, inputs: Mapping[str, Drawing] = PIXELS, **settings: Any
) -> Recipe:
    """Write a row of a model that names what it sees."""
    return recipe(
        model_type,
        variant="image_classifier",
        task="image-classifier",
        inputs=inputs,
        **settings,
    )


VISION: Final[tuple[Recipe, ...]] = (
    *(_named(name) for name in _PLAIN),
    _named("cvt", nested=_CVT),
    _named("deit", architectures=("DeiTForImageClassification",)),
    _named("donut-swin", nested=_SWIN),
    _named("hiera", nested=_HIERA),
    _named("imagegpt", {"input_ids": Text()}),
    _named(
        "levit",
        {"pixel_values": Noise((3, 64, 64))},
        architectures=("LevitForImageClassification",),
        nested=_LEVIT,
    ),
    _named(
        "perceiver",
        {"inputs": Noise((3, 16, 16))},
        architectures=("PerceiverForImageClassificationConvProcessing",),
        nested=PERCEIVER,
    ),
    _named(
        "pvt",
        {"pixel_values": Noise((3, 32, 32))},
        image_size=32,
        num_labels=2,
        sequence_reduction_ratios=(2, 1),
        nested={**_PYRAMID, "patch_sizes": (4, 2)},
    ),
    _named("pvt_v2", sr_ratios=(2, 1), nested=_PYRAMID),
    _named("segformer", sr_ratios=(2, 1), nested=_PYRAMID),
    _named(
        "shieldgemma2",
        {
            "input_ids": Text((IMAGE,) * 4),
            **PIXELS,
            "token_type_ids": Marks(IMAGE),
        },
        mm_tokens_per_image=4,
        no_token_index=6,
        yes_token_index=5,
        nested=dotted(text_config=GEMMA3_TEXT, vision_config=FINE),
        note="a language model; its two answers are words",
    ),
    _named("siglip2", FLAT, nested=dotted(vision_config=FLAT_SIZES)),
    _named("swin", nested=_SWIN),
    _named("swinv2", pretrained_window_sizes=(0, 0), nested=_SWIN),
)
