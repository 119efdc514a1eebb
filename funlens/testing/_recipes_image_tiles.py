"""The recipes of language models that are shown a picture in some other way."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_causal import INKLING
from funlens.testing._recipes_inputs import (
    Drawing,
    Known,
    Marks,
    Noise,
    PerToken,
    Placed,
    Text,
)
from funlens.testing._recipes_modal_sizes import IMAGE, VIDEO
from funlens.testing._recipes_record import Recipe, recipe

_FULL: Final = "full_attention"
_LINEAR: Final = "linear_attention"
_FIRST_SLIDING: Final = ("sliding_attention", _FULL)
_FIRST_LINEAR: Final = (_LINEAR, _FULL)
_FIRST_DENSE: Final = ("dense", "sparse")


def _shown(
    model_type: str, tokens: int, inputs: Mapping[str, Drawing], **settings: Any
) -> Recipe:
    """Write a row of a model with some placeholders in its text."""
    inputs = {"input_ids": Text((IMAGE,) * tokens), **inputs}
    return recipe(
        model_type, variant="image", task="image-text", inputs=inputs, **settings
    )


_PIXELS: Final = {"pixel_values": Noise((3, 16, 16))}
_TILES: Final = {"pixel_values": Noise((2, 3, 16, 16))}
_WIDE: Final = {
    "pixel_values": Noise((3, 3, 16, 16)),
    "image_sizes": Known((16, 32)),
}
_PATCHES: Final = {"pixel_values": Noise((16, 48)), "spatial_shapes": Known((4, 4)), "pixel_attention_mask": Known((1,) * 16)}
_ROW = {"pixel_values": Noise((1, 3, 4, 64), along=3), "target_sizes": Known((4, 4))}
_SOFT={
    "pixel_values": Noise((16, 48)),
            "image_position_ids": Known(
                tuple((x, y) for y in range(4) for x in range(4))
            ),
            "mm_token_type_ids": Marks(((IMAGE, 1),)),
        }

_SAM: Final = {
    "vision_config.sam_config.global_attn_indexes": (1,),
    "vision_config.sam_config.mlp_dim": 32,
    "vision_config.sam_config.output_channels": 8,
    "vision_config.sam_config.patch_size": 2,
    "vision_config.sam_config.window_size": 2,
}

TILES = (
    _shown("llava_next", 14, _WIDE, image_grid_pinpoints=((16, 32),)),
    _shown("llava_next_video", 14, _WIDE, image_grid_pinpoints=((16, 32),)),
    _shown("llava_onevision", 14, _WIDE, image_grid_pinpoints=((16, 32),)),
    _shown("granite4_vision", 4, _WIDE, image_grid_pinpoints=((16, 32),), deepstack_layer_map=((-1, 0),), spatial_target_layers=(1,), downsample_rate="1/2", nested={"vision_config.hidden_size": 64}),
    _shown("idefics", 0, {**_TILES, "image_attention_mask": PerToken((1, 1))}, nested={"vision_config.embed_dim": 16}),
    _shown("idefics2", 4, _TILES, nested={"perceiver_config.resampler_n_latents":2,}),
    _shown("idefics3", 8, _TILES, scale_factor=2, nested={"vision_config.patch_size": 4}),
    _shown("smolvlm", 8, _TILES, scale_factor=2, nested={"vision_config.patch_size": 4}),
    _shown("granite_docling", 8, {**_TILES, "pixel_attention_mask": Known((True, True))}, nested={"vision_config.patch_size": 4, "vision_config.scale_factor": 2, "vision_config.deepstack_visual_indexes": (0,)}),
    _shown("instructblip", 3, {**_PIXELS, "qformer_input_ids": Text(fewer=2)}, num_query_tokens=3),
    recipe("instructblipvideo", variant="image", task="image-text", inputs={"input_ids": Text((VIDEO,)*6), **_TILES, "qformer_input_ids": Text(fewer=2)}, num_query_tokens=3),
    _shown("video_llava", 4, {"pixel_values_images": Noise((3,16,16))}),
    _shown("deepseek_vl_hybrid", 4, {**_PIXELS, "high_res_pixel_values": Noise((3, 64,64))}, nested={"high_res_vision_config.image_size": 64, "high_res_vision_config.output_channels": 8, "high_res_vision_config.mlp_dim": 32, "high_res_vision_config.global_attn_indexes": (1,), "high_res_vision_config.window_size": 2}),
    _shown("deepseek_ocr2", 145, _PIXELS, nested={**_SAM, "vision_config.sam_config.downsample_channels": (8, 16), "text_config.mlp_layer_types": _FIRST_DENSE, "text_config.num_experts_per_tok": 2}),
    _shown("unlimited_ocr", 7, _PIXELS, nested={**_SAM, "vision_config.sam_config.downsample_channels": (8, 16)}),
    _shown("step3p7", 1, _PIXELS,nested={"vision_config.patch_size": 4}),
    _shown("gemma4_unified", 16, {**_SOFT, "pixel_values": Noise((16, 108))}, nested={"text_config.global_head_dim": 8, "text_config.layer_types": _FIRST_SLIDING, "vision_config.patch_size": 2, "vision_config.mm_embed_dim": 16, "vision_config.mm_posemb_size": 8, "vision_config.output_proj_dims": 16}),
    _shown("diffusion_gemma", 4, {**_SOFT, "decoder_input_ids": Text(fewer=2)},        nested={
            "text_config.global_head_dim": 8,
            "text_config.layer_types": _FIRST_SLIDING,
            "vision_config.patch_size": 4,
            "vision_config.pooling_kernel_size": 2,
            "vision_config.position_embedding_size": 8,
            "text_config.top_k_experts": 2,
        }, canvas_length=5),
    _shown("lfm2_vl", 4, _PATCHES, nested={"vision_config.patch_size": 4, "text_config.layer_types": ("conv", _FULL), "text_config.block_auto_adjust_ff_dim": False, "vision_config.num_patches": 16}),
    _shown("minicpm_ocr", 4, _ROW, nested={"vision_config.patch_size": 4, "text_config.layer_types": _FIRST_LINEAR}),
    _shown("minicpmv4_6", 1, _ROW, nested={"vision_config.patch_size": 4, "text_config.layer_types": _FIRST_LINEAR, "vision_config.insert_layer_id": 0}),
    _shown("minicpmv4_7", 1, {**_ROW, "mm_token_type_ids": Marks(((IMAGE, 1),))}, nested={"vision_config.patch_size": 4, "text_config.layer_types": _FIRST_LINEAR, "vision_config.insert_layer_id": 0}),
    _shown("mistral_large4", 4, {**_PIXELS, "image_sizes": Known((16,16))}, nested={"text_config.num_key_value_heads": 4, "vision_config.patch_size": 4, "vision_config.head_dim": 4}),
    _shown("mistral4", 0, {}, num_key_value_heads=4),
    _shown("molmo2", 4, {"pixel_values": Noise((1, 16, 48), along=0), "image_token_pooling": Known(((0,1,4,5),(2,3,6,7),(8,9,12,13),(10,11,14,15)), step=16), "image_grids": Known((2,2,0,0)), "image_num_crops": Known(1)}, image_patch_id=IMAGE, nested={"vision_config.image_size": (16, 16), "vision_config.patch_size": 4, "adapter_config.vision_feature_layer": (0,), "vision_config.num_key_value_heads": 4, "adapter_config.num_key_value_heads": 4}),
    _shown("nemotron_h_omni", 4, {"pixel_values": Noise((16, 48), along=0), "image_grid_hw": Known((4, 4))}, vision_hidden_size=16, nested={"vision_config.patch_size": 4, "vision_config.max_img_size": 16, "text_config.moe_shared_expert_intermediate_size": 24, "audio_config.subsampling_conv_channels": 8, "audio_config.projection_hidden_size": 16, "audio_config.projection_bias": True}),
    _shown("inkling_mm_model", 4, {"pixel_values": Noise((4, 2, 4, 4, 3), along=0)}, nested={f"text_config.{key}": value for key, value in INKLING.items()}|{"vision_config.patch_size": 4, "vision_config.num_hidden_layers": 5, "text_config.mlp_layer_types": _FIRST_DENSE, "audio_config.mel_vocab_size": 8, "audio_config.n_mel_bins": 4}),
    _shown("kosmos-2.5", 4, {"flattened_patches": Placed(2, 2, 48), "image_embeds_position_mask": Marks(((IMAGE, 1),))}, latent_query_num=4, nested={"vision_config.patch_embed_hidden_size": 48}),
    recipe("pix2struct", variant="image", task="image-text", inputs={"flattened_patches": Placed(2, 2, 48), "decoder_input_ids": Text()}, nested={"vision_config.patch_embed_hidden_size": 48, "vision_config.seq_len": 16, "vision_config.d_kv": 4, "text_config.d_kv": 4}),
    _shown("udop", 0, {**_PIXELS, "bbox": PerToken((0.1, 0.2, 0.4, 0.6)), "decoder_input_ids": Text(fewer=2)}, d_kv=4, relative_attention_num_buckets=32),
    _shown("pi0", 8, {**_TILES, "pixel_attention_mask": Known((True, True)), "state": Noise((8,)), "noise": Noise((3, 8)), "timestep": Known(0.3)}, chunk_size=3, max_state_dim=8, max_action_dim=8, nested={"vlm_config.image_token_id": IMAGE}),
    recipe("pp_formulanet", variant="image", task="image-text", inputs={"pixel_values": Noise((3, 16, 16)), "decoder_input_ids": Text()}, nested={"vision_config.mlp_dim": 32, "vision_config.output_channels": 8, "vision_config.patch_size": 2, "vision_config.window_size": 2, "vision_config.global_attn_indexes": (1,), "vision_config.post_conv_in_channels": 8, "vision_config.post_conv_mid_channels": 8, "vision_config.post_conv_out_channels": 16, "vision_config.decoder_hidden_size": 16}),
    recipe("vision-encoder-decoder", variant="image", task="image-text", inputs={"pixel_values": Noise((3, 16, 16)), "decoder_input_ids": Text()}),
    _shown("emu3", 20, {**_PIXELS, "image_sizes": Known((16,16))}, nested={
            "vq_config.attn_resolutions": (),
            "vq_config.base_channels": 32,
            "vq_config.channel_multiplier": (1, 1, 1),
            "vq_config.num_res_blocks": 1,
            "vq_config.codebook_size": 4,
            "vq_config.hidden_size": 32,
            "vocabulary_map.<image>": IMAGE,
            "vocabulary_map.<|extra_200|>": 26,
            "vocabulary_map.<|visual token 000000|>": 27,
            "vocabulary_map.<|visual token 000001|>": 28,
            "vocabulary_map.<|visual token 000002|>": 29,
            "vocabulary_map.<|visual token 000003|>": 30,
        }),
    _shown("fast_vlm", 16, _PIXELS, nested={"vision_config.model_type": "convnext", "vision_config.hidden_sizes": (8, 16), "vision_config.depths": (1, 1), "vision_config.num_stages": 2, "vision_config.hidden_size": 16, "vision_config.patch_size": 2}),
    _shown("perception_lm", 4, {"pixel_values": Noise((1, 3,16,16))}, nested={"vision_config.model_type": "vit", "vision_config.model_args.embed_dim": 16}),
)
