"""What the recipes of language models that see have in common."""

from collections.abc import Mapping
from typing import Any, Final

from funlens.testing._recipes_drawing import Drawing, Known, Marks, Noise, Text
from funlens.testing._recipes_modal_sizes import IMAGE
from funlens.testing._recipes_record import Recipe, recipe

FULL: Final = "full_attention"
LINEAR: Final = "linear_attention"
SLIDING: Final = "sliding_attention"

FIRST_DENSE: Final = ("dense", "sparse")
FIRST_LINEAR: Final = (LINEAR, FULL)
FIRST_SLIDING: Final = (SLIDING, FULL)

PIXELS: Final = {"pixel_values": Noise((3, 16, 16))}
MARKS: Final = {"mm_token_type_ids": Marks(IMAGE)}
SIZES: Final = {"image_sizes": Known((16, 16))}

GEMMA3_TEXT: Final = {
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "layer_types": FIRST_SLIDING,
}
GEMMA4_TEXT: Final = {"global_head_dim": 8, "layer_types": FIRST_SLIDING}

# Patches of 4 by 4 pixels, in a picture of 4 by 4 patches.
FINE: Final = {"patch_size": 4}

_NOTHING: Final[Mapping[str, object]] = {}


def dotted(**parts: Mapping[str, object]) -> dict[str, object]:
    """Spell settings of the configs inside another, by the name of each."""
    return {
        f"{part}.{key}": value
        for part, settings in parts.items()
        for key, value in settings.items()
    }


def shown(
    model_type: str,
    tokens: int,
    inputs: Mapping[str, Drawing],
    *,
    text: Mapping[str, object] = _NOTHING,
    vision: Mapping[str, object] = _NOTHING,
    nested: Mapping[str, object] = _NOTHING,
    **settings: Any,
) -> Recipe:
    """Write a row of a model that is shown a picture in the middle of its text.

    Args:
        model_type: The `model_type` of the HuggingFace configuration.
        tokens: How many placeholders stand for the picture.
        inputs: How to draw the picture, and what else there is.
        text: Settings of the language half.
        vision: Settings of the half that sees.
        nested: Settings of other inner configs, by their dotted names.
        **settings: Note and settings of the whole.

    Returns:
        The recipe.
    """
    return recipe(
        model_type,
        variant="image",
        task="image-text",
        inputs={"input_ids": Text((IMAGE,) * tokens), **inputs},
        nested={**dotted(text_config=text, vision_config=vision), **nested},
        **settings,
    )
