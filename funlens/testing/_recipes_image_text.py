"""The recipes of language models that are shown a whole picture, as LLaVA is."""

from typing import Final

from funlens.testing._recipes_causal import LLAMA4
from funlens.testing._recipes_drawing import Known, Marks, Noise, PerToken, Text
from funlens.testing._recipes_image_rows import (
    FINE,
    GEMMA3_TEXT,
    GEMMA4_TEXT,
    MARKS,
    PIXELS,
    SIZES,
    dotted,
    shown,
)
from funlens.testing._recipes_modal_sizes import IMAGE
from funlens.testing._recipes_record import Recipe

# The shared settings are enough.
_PLAIN: Final = ("deepseek_vl", "llava", "ovis2")

_GEMMA3: Final = {**PIXELS, "token_type_ids": Marks(IMAGE)}

# Patches in any order, each with its column and its row.
_GEMMA4: Final = {
    "pixel_values": Noise((16, 48)),
    "image_position_ids": Known(tuple((x, y) for y in range(4) for x in range(4))),
    **MARKS,
}
_GEMMA4_VISION: Final = {
    **FINE,
    "pooling_kernel_size": 2,
    "position_embedding_size": 8,
}

_GEMMA: Final = (
    shown(
        "diffusion_gemma",
        4,
        {**_GEMMA4, "decoder_input_ids": Text(fewer=2)},
        canvas_length=5,
        text={**GEMMA4_TEXT, "top_k_experts": 2},
        vision=_GEMMA4_VISION,
    ),
    shown("gemma3", 4, _GEMMA3, mm_tokens_per_image=4, text=GEMMA3_TEXT, vision=FINE),
    shown("gemma4", 4, _GEMMA4, text=GEMMA4_TEXT, vision=_GEMMA4_VISION),
    shown(
        "gemma4_unified",
        16,
        {**_GEMMA4, "pixel_values": Noise((16, 108))},
        text=GEMMA4_TEXT,
        vision={
            "mm_embed_dim": 16,
            "mm_posemb_size": 8,
            "output_proj_dims": 16,
            "patch_size": 2,
        },
    ),
    shown(
        "shieldgemma2",
        4,
        _GEMMA3,
        mm_tokens_per_image=4,
        text=GEMMA3_TEXT,
        vision=FINE,
    ),
    shown(
        "t5gemma2",
        4,
        {**PIXELS, "decoder_input_ids": Text(fewer=2)},
        nested={
            "encoder.mm_tokens_per_image": 4,
            "encoder.vision_config.patch_size": 4,
        },
    ),
)

_PIXTRAL: Final = {**FINE, "head_dim": 4}
_SIZED: Final = {**PIXELS, **SIZES}

# The picture is a list of code words, which are words of the language too.
_CODED: Final = (
    shown(
        "chameleon",
        4,
        PIXELS,
        nested=dotted(
            vq_config={
                "base_channels": 32,
                "channel_multiplier": (1, 1, 1, 1),
                "embed_dim": 8,
                "latent_channels": 8,
                "num_embeddings": 4,
                "num_res_blocks": 1,
                "resolution": 16,
            },
            vocabulary_map={
                "<image>": IMAGE,
                **{f"IMGIMG{letter}Z": 27 + n for n, letter in enumerate("ABCD")},
            },
        ),
    ),
    shown(
        "emu3",
        20,
        _SIZED,
        nested=dotted(
            vq_config={
                "attn_resolutions": (),
                "base_channels": 32,
                "channel_multiplier": (1, 1, 1),
                "codebook_size": 4,
                "hidden_size": 32,
                "num_res_blocks": 1,
            },
            vocabulary_map={
                "<image>": IMAGE,
                "<|extra_200|>": 26,
                **{f"<|visual token {n:06}|>": 27 + n for n in range(4)},
            },
        ),
        note="each row of the picture ends with a token of its own",
    ),
)

# As in Segment Anything, whose convolutions leave one patch of 16.
_SAM: Final = {
    "global_attn_indexes": (1,),
    "mlp_dim": 32,
    "output_channels": 8,
    "patch_size": 2,
    "window_size": 2,
}
_TWO_TOWERS: Final = dotted(sam_config={**_SAM, "downsample_channels": (8, 16)})

_SEGMENTING: Final = (
    shown(
        "deepseek_ocr2",
        145,
        PIXELS,
        text={
            "max_position_embeddings": 256,
            "mlp_layer_types": ("dense", "sparse"),
            "num_experts_per_tok": 2,
        },
        vision=_TWO_TOWERS,
        note="at least 144 queries, and a separator",
    ),
    shown(
        "deepseek_vl_hybrid",
        4,
        {**PIXELS, "high_res_pixel_values": Noise((3, 64, 64))},
        nested=dotted(
            high_res_vision_config={**_SAM, "image_size": 64, "patch_size": 8}
        ),
    ),
    shown("got_ocr2", 4, PIXELS, vision=_SAM),
    shown("pp_chart2table", 4, PIXELS, vision=_SAM),
    shown(
        "unlimited_ocr",
        7,
        PIXELS,
        text={"num_key_value_heads": 4},
        vision=_TWO_TOWERS,
    ),
)

_INTERN: Final = {"image_size": (16, 16), "patch_size": (4, 4)}

_PROJECTED: Final = (
    shown("blip-2", 4, PIXELS, num_query_tokens=4),
    shown("aria", 3, PIXELS, nested={"projector_patch_to_query_dict.4": 3}),
    shown("aya_vision", 4, PIXELS, vision=FINE),
    shown("blip", 0, PIXELS, note="sees through cross-attention"),
    shown("cohere2_vision", 4, PIXELS, alignment_intermediate_size=32, vision=FINE),
    shown(
        "fast_vlm",
        16,
        PIXELS,
        vision={
            "depths": (1, 1),
            "hidden_size": 16,
            "hidden_sizes": (8, 16),
            "model_type": "convnext",
            "num_stages": 2,
            "patch_size": 2,
        },
        note="with ConvNeXt in the place of a tower from timm",
    ),
    shown(
        "florence2",
        5,
        {**PIXELS, "decoder_input_ids": Text(fewer=2)},
        vision={
            "depths": (1, 1),
            "embed_dim": (8, 16),
            "max_position_embeddings": 8,
            "max_temporal_embeddings": 4,
            "num_groups": (2, 4),
            "num_heads": (2, 4),
            "patch_padding": (3, 1),
            "patch_prenorm": (False, True),
            "patch_size": (7, 3),
            "patch_stride": (4, 2),
            "window_size": 3,
        },
    ),
    shown("fuyu", 4, {"pixel_values": Noise((4, 192))}),
    shown("git", 0, PIXELS, note="the picture stands in front of the text"),
    shown("internvl", 4, PIXELS, vision=_INTERN),
    shown(
        "janus",
        4,
        PIXELS,
        vision={"num_image_tokens": 4},
        nested=dotted(
            vq_config={
                "base_channels": 32,
                "channel_multiplier": (1, 1),
                "image_token_embed_dim": 16,
                "latent_channels": 8,
                "num_embeddings": 8,
            }
        ),
    ),
    shown(
        "kosmos-2",
        4,
        {**PIXELS, "image_embeds_position_mask": Marks(IMAGE)},
        latent_query_num=4,
    ),
    shown("lighton_ocr", 4, _SIZED, vision=_PIXTRAL),
    shown(
        "llama4",
        4,
        PIXELS,
        text=LLAMA4,
        vision={
            **FINE,
            "intermediate_size": 64,
            "projector_input_dim": 24,
            "projector_output_dim": 24,
            "vision_output_dim": 24,
        },
    ),
    shown("mistral3", 4, _SIZED, vision=_PIXTRAL),
    shown(
        "mistral_large4",
        4,
        _SIZED,
        text={"num_key_value_heads": 4},
        vision=_PIXTRAL,
    ),
    shown("paligemma", 4, {**PIXELS, "token_type_ids": PerToken(0)}),
    shown(
        "perception_lm",
        4,
        {"pixel_values": Noise((1, 3, 16, 16))},
        vision={"model_args.embed_dim": 16, "model_type": "vit"},
        note="with ViT in the place of a tower from timm",
    ),
    shown("qianfan_ocr", 4, PIXELS, vision=_INTERN),
    shown("step3p7", 1, PIXELS, vision=FINE),
    shown("video_llava", 4, {"pixel_values_images": Noise((3, 16, 16))}),
    shown("vipllava", 4, PIXELS, vision_feature_layer=(-2, -1)),
)

WHOLE: Final[tuple[Recipe, ...]] = (
    *(shown(name, 4, PIXELS) for name in _PLAIN),
    *_PROJECTED,
    *_CODED,
    *_SEGMENTING,
    *_GEMMA,
)
