"""The recipes of models that are shown tiles, flat patches, or a picture alone."""

from typing import Any, Final

from funlens.testing._recipes_causal import INKLING
from funlens.testing._recipes_drawing import (
    Known,
    Marks,
    Noise,
    PerToken,
    Placed,
    Text,
)
from funlens.testing._recipes_image_rows import (
    FINE,
    FIRST_DENSE,
    FIRST_LINEAR,
    FULL,
    MARKS,
    PIXELS,
    dotted,
    shown,
)
from funlens.testing._recipes_modal_sizes import IMAGE, VIDEO
from funlens.testing._recipes_record import Recipe, recipe

_TWO_TILES: Final = {"pixel_values": Noise((2, 3, 16, 16))}

# A small copy of the picture, and two tiles of it side by side.
_WIDE: Final = {
    "pixel_values": Noise((3, 3, 16, 16)),
    "image_sizes": Known((16, 32)),
}
_WIDE_SHAPES: Final = ((16, 32),)

_TILED: Final = (
    *(
        shown(name, 14, _WIDE, image_grid_pinpoints=_WIDE_SHAPES)
        for name in ("llava_next", "llava_next_video", "llava_onevision")
    ),
    shown(
        "granite4_vision",
        4,
        _WIDE,
        deepstack_layer_map=((-1, 0),),
        downsample_rate="1/2",
        image_grid_pinpoints=_WIDE_SHAPES,
        spatial_target_layers=(1,),
        vision={"hidden_size": 64},
        note="a head of its queries is always 64 wide",
    ),
    shown(
        "granite_docling",
        8,
        {**_TWO_TILES, "pixel_attention_mask": Known((True, True))},
        vision={**FINE, "deepstack_visual_indexes": (0,), "scale_factor": 2},
    ),
    shown(
        "idefics",
        0,
        {**_TWO_TILES, "image_attention_mask": PerToken((1, 1))},
        vision={"embed_dim": 16},
        note="sees through cross-attention",
    ),
    shown(
        "idefics2", 4, _TWO_TILES, nested={"perceiver_config.resampler_n_latents": 2}
    ),
    *(
        shown(name, 8, _TWO_TILES, scale_factor=2, vision=FINE)
        for name in ("idefics3", "smolvlm")
    ),
    shown(
        "instructblip",
        3,
        {**PIXELS, "qformer_input_ids": Text(fewer=2)},
        num_query_tokens=3,
    ),
    recipe(
        "instructblipvideo",
        variant="image",
        task="image-text",
        inputs={
            "input_ids": Text((VIDEO,) * 6),
            **_TWO_TILES,
            "qformer_input_ids": Text(fewer=2),
        },
        num_query_tokens=3,
    ),
    shown(
        "mllama",
        1,
        {
            "pixel_values": Noise((1, 4, 3, 16, 16)),
            "aspect_ratio_ids": Known((6,)),
            "aspect_ratio_mask": Known(((1, 1, 1, 1),)),
            "cross_attention_mask": PerToken(((1, 1, 1, 1),)),
        },
        text={"cross_attention_layers": (1,), "num_hidden_layers": 3},
        vision={
            "attention_heads": 4,
            "intermediate_layers_indices": (0,),
            "num_global_layers": 1,
            "vision_output_dim": 32,
        },
        note="four tiles in a square; sees through cross-attention",
    ),
    shown(
        "pi0",
        8,
        {
            **_TWO_TILES,
            "pixel_attention_mask": Known((True, True)),
            "state": Noise((8,)),
            "noise": Noise((3, 8)),
            "timestep": Known(0.3),
        },
        chunk_size=3,
        max_action_dim=8,
        max_state_dim=8,
        nested={"vlm_config.image_token_id": IMAGE},
        note="its output is not words but what a robot should do",
    ),
)

# Pictures of any shape in one row of patches.
_STRIP: Final = {
    "pixel_values": Noise((1, 3, 4, 64), along=3),
    "target_sizes": Known((4, 4)),
}
_MERGED_EARLY: Final = {**FINE, "insert_layer_id": 0}

_FLAT: Final = (
    shown(
        "inkling_mm_model",
        4,
        {"pixel_values": Noise((4, 2, 4, 4, 3), along=0)},
        text={**INKLING, "mlp_layer_types": FIRST_DENSE},
        vision={**FINE, "num_hidden_layers": 5},
        nested=dotted(audio_config={"mel_vocab_size": 8, "n_mel_bins": 4}),
        note="with fewer layers that see it would need scipy",
    ),
    shown(
        "kosmos-2.5",
        4,
        {
            "flattened_patches": Placed(2, 2, 48),
            "image_embeds_position_mask": Marks(IMAGE),
        },
        latent_query_num=4,
        vision={"max_num_patches": 16, "patch_embed_hidden_size": 48},
    ),
    shown(
        "lfm2_vl",
        4,
        {
            "pixel_values": Noise((16, 48)),
            "spatial_shapes": Known((4, 4)),
            "pixel_attention_mask": Known((1,) * 16),
        },
        text={"block_auto_adjust_ff_dim": False, "layer_types": ("conv", FULL)},
        vision={**FINE, "num_patches": 16},
    ),
    shown("minicpm_ocr", 4, _STRIP, text={"layer_types": FIRST_LINEAR}, vision=FINE),
    shown(
        "minicpmv4_6",
        1,
        _STRIP,
        text={"layer_types": FIRST_LINEAR},
        vision=_MERGED_EARLY,
    ),
    shown(
        "minicpmv4_7",
        1,
        {**_STRIP, **MARKS},
        text={"layer_types": FIRST_LINEAR},
        vision=_MERGED_EARLY,
    ),
    shown(
        "molmo2",
        4,
        {
            "pixel_values": Noise((1, 16, 48), along=0),
            "image_token_pooling": Known(
                ((0, 1, 4, 5), (2, 3, 6, 7), (8, 9, 12, 13), (10, 11, 14, 15)), step=16
            ),
            "image_grids": Known((2, 2, 0, 0)),
            "image_num_crops": Known(1),
        },
        image_patch_id=IMAGE,
        vision={**FINE, "image_size": (16, 16), "num_key_value_heads": 4},
        nested=dotted(
            adapter_config={"num_key_value_heads": 4, "vision_feature_layer": (0,)}
        ),
    ),
    shown(
        "nemotron_h_omni",
        4,
        {
            "pixel_values": Noise((16, 48), along=0),
            "image_grid_hw": Known((4, 4)),
        },
        vision_hidden_size=16,
        text={"moe_shared_expert_intermediate_size": 24},
        vision={**FINE, "max_img_size": 16},
        nested=dotted(
            audio_config={"projection_bias": True, "projection_hidden_size": 16}
        ),
    ),
)


def _read(
    model_type: str, picture: str, how: Noise | Placed, **settings: Any
) -> Recipe:
    """Write a row of a model that writes down a picture, and is told nothing."""
    return recipe(
        model_type,
        variant="image",
        task="image-text",
        inputs={picture: how, "decoder_input_ids": Text()},
        **settings,
    )


_DECODED: Final = (
    _read(
        "pix2struct",
        "flattened_patches",
        Placed(2, 2, 48),
        nested=dotted(
            text_config={"d_kv": 4},
            vision_config={"d_kv": 4, "patch_embed_hidden_size": 48, "seq_len": 16},
        ),
    ),
    _read(
        "pp_formulanet",
        "pixel_values",
        Noise((3, 16, 16)),
        nested=dotted(
            vision_config={
                "decoder_hidden_size": 16,
                "global_attn_indexes": (1,),
                "mlp_dim": 32,
                "output_channels": 8,
                "patch_size": 2,
                "post_conv_in_channels": 8,
                "post_conv_mid_channels": 8,
                "post_conv_out_channels": 16,
                "window_size": 2,
            }
        ),
    ),
    shown(
        "udop",
        0,
        {
            **PIXELS,
            "bbox": PerToken((0.1, 0.2, 0.4, 0.6)),
            "decoder_input_ids": Text(fewer=2),
        },
        d_kv=4,
        relative_attention_num_buckets=32,
    ),
    _read("vision-encoder-decoder", "pixel_values", Noise((3, 16, 16))),
)

# HuggingFace lists it here, though it is shown nothing.
_BLIND: Final = recipe("mistral4", task="image-text", num_key_value_heads=4)

OTHERS: Final[tuple[Recipe, ...]] = (*_TILED, *_FLAT, *_DECODED, _BLIND)
