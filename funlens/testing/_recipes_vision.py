"""The recipes of models that name what they see."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_inputs import Drawing, Known, Noise, Text
from funlens.testing._recipes_record import Recipe, recipe

_PIXELS: Final = {"pixel_values": Noise((3, 16, 16))}

# From stage to stage there are fewer and wider patches.
_STAGES: Final = {"depths": (1, 1), "embed_dim": 8, "num_heads": (2, 4), "patch_size": 2, "window_size": 4}
_PYRAMID: Final = {
    "depths": (1, 1),
    "hidden_sizes": (8, 16),
    "mlp_ratios": (2, 2),
    "num_attention_heads": (2, 4),
    "num_encoder_blocks": 2,
    "strides": (4, 2),
}


def _named(
    model_type: str, inputs: Mapping[str, Drawing] = _PIXELS, **settings: Any
) -> Recipe:
    """Write a row of a model that names what it sees."""
    return recipe(
        model_type,
        variant="image_classifier",
        task="image-classifier",
        inputs=inputs,
        **settings,
    )


_PLAIN: Final = ("beit", "clip", "data2vec-vision", "dinov2", "dinov2_with_registers", "ijepa", "metaclip_2", "siglip", "vit", "vit_msn")

VISION = (
    *(_named(name) for name in _PLAIN),
    _named("cvt", depth=(1, 2), embed_dim=(8, 16), num_heads=(2, 4), patch_sizes=(4,2), patch_stride=(4,2), patch_padding=(0,0), mlp_ratio=(2.0, 2.0), qkv_bias=(True,True), cls_token=(False, True), qkv_projection_method=("dw_bn", "dw_bn"), kernel_qkv=(3,3), padding_kv=(1,1), stride_kv=(2,2), padding_q=(1,1), stride_q=(1,1), drop_rate=(0.0, 0.0), attention_drop_rate=(0.0,0.0), drop_path_rate=(0.0,0.0)),
    _named("deit", architectures=("DeiTForImageClassification",)),
    _named("donut-swin", **_STAGES),
    _named("hiera", image_size=(16, 16), embed_dim=8, depths=(1,1), num_heads=(2,4), masked_unit_size=(2,2), patch_size=(3,3), patch_padding=(1,1), patch_stride=(2,2), num_query_pool=1, masked_unit_attention=(True, False)),
    _named("imagegpt", {"input_ids": Text()}),
    _named("levit", {"pixel_values": Noise((3, 64, 64))}, architectures=("LevitForImageClassification",), hidden_sizes=(8,16,24), num_attention_heads=(2,4,4), depths=(1,1,1), key_dim=(4,4,4), image_size=64, patch_size=16),
    _named("mobilevit", hidden_act="tanh", hidden_sizes=(8,16,16), neck_hidden_sizes=(4,8,8,8,16,16,16), image_size=32, patch_size=2),
    _named("perceiver", {"inputs": Noise((3, 16, 16))}, architectures=("PerceiverForImageClassificationConvProcessing",), num_latents=4, d_latents=16, num_self_attends_per_block=2, num_self_attention_heads=4, num_cross_attention_heads=1),
    _named("pvt", num_labels=2, sequence_reduction_ratios=(2, 1), patch_sizes=(4,2), **_PYRAMID),
    _named("pvt_v2", sr_ratios=(2, 1), patch_sizes=(7,3), **_PYRAMID),
    _named("segformer", sr_ratios=(2, 1), patch_sizes=(7,3), **_PYRAMID),
    _named("siglip2", {"pixel_values": Noise((16, 48)), "spatial_shapes": Known((4, 4)), "pixel_attention_mask": Known((1,) * 16)}, nested={"vision_config.patch_size": 4, "vision_config.num_patches": 16}),
    _named("swin", **_STAGES),
    _named("swinv2", pretrained_window_sizes=(0, 0), **_STAGES),
)
