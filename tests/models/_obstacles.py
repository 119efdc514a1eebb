"""Why model types of transformers that are not verified are not."""

from collections.abc import Mapping
from typing import Final

_TO_BUILD: Final = "its recipe is still to be written"
_TO_DO: Final = "its table is still to be written"
_WITHIN: Final = "patches are merged or convolved within its blocks"
_CONVOLUTIONS: Final = "it is made of convolutions, and has no blocks of a transformer"
_TWO_TOWERS: Final = "it compares a picture and a text: two main stacks"
_BESIDE: Final = "it only runs beside another model, whose states it reads"

# Types that no recipe can build, or that have none.
UNBUILT: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "bit",
            "convnext",
            "convnextv2",
            "efficientnet",
            "hgnet_v2",
            "mobilenet_v1",
            "mobilenet_v2",
            "poolformer",
            "pp_lcnet",
            "regnet",
            "resnet",
            "swiftformer",
            "textnet",
        ),
        _CONVOLUTIONS,
    ),
    "gemma3n": "its vision tower needs a package that transformers does not require",
    "gemma4_assistant": _BESIDE,
    "gemma4_unified_assistant": _BESIDE,
    **dict.fromkeys(("evolla", "focalnet", "mobilevit", "mobilevitv2"), _TO_BUILD),
    "dinat": "it needs a package that transformers does not require",
    "timm_wrapper": "it needs a package that transformers does not require",
}
# Types that can be built, and have no table.
UNDESCRIBED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            "blip",
            "diffusion_gemma",
            "ernie4_5_vl_moe",
            "florence2",
            "glm5_next",
            "granite4_vision",
            "granite_docling",
            "idefics",
            "kosmos-2",
            "kosmos-2.5",
            "minicpmv4_6",
            "minicpmv4_7",
            "mistral_large4",
            "muse_glimmer",
            "muse_spark",
            "pix2struct",
            "pp_formulanet",
            "udop",
            "vision-encoder-decoder",
        ),
        _TO_DO,
    ),
    **dict.fromkeys(("cvt", "hiera", "levit"), _WITHIN),
    **dict.fromkeys(
        ("aimv2", "altclip", "chinese_clip", "flava", "tipsv2"), _TWO_TOWERS
    ),
    "chameleon": "it embeds the picture's code words in a second run of its embedding",
    "dia": "three ids stand at a position, with a row of logits for each",
    "emu3": "it embeds the picture's code words in a second run of its embedding",
    "funnel": "its blocks see ever fewer positions",
    "perceiver": "its stream holds latents, not positions",
    "pi0": "its output is what a robot should do",
    "timesformer": "it attends over frames and over patches in turn",
    "vitdet": "its stream is a grid of patches, not a row",
}
