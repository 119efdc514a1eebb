"""The recipes of models that see or hear, without a head."""

from collections.abc import Mapping
from typing import Any, Final

import attrs

from funlens.testing._recipes_drawing import Drawing, Noise, Text
from funlens.testing._recipes_image_rows import PIXELS, dotted
from funlens.testing._recipes_record import Recipe, recipe
from funlens.testing._recipes_sound import (
    BINS,
    FRAMES,
    LONG_WAVE,
    SORTED,
    WHISPER,
    WORDS,
)
from funlens.testing._recipes_vision import FLAT, FLAT_SIZES, PERCEIVER, VISION

# Without a head these take other inputs, or there are none without.
_OTHERWISE: Final = frozenset(
    {
        "clip",
        "metaclip_2",
        "perceiver",
        "shieldgemma2",
        "siglip",
        "siglip2",
        "whisper",
    }
)

# A picture and a text are compared.
_COMPARED: Final = (
    "aimv2",
    "altclip",
    "blip",
    "chinese_clip",
    "clip",
    "flava",
    "metaclip_2",
    "siglip",
    "tipsv2",
)

_SEEING: Final = (
    "aimv2_vision_model",
    "chinese_clip_vision_model",
    "clip_vision_model",
    "idefics3_vision",
    "internvl_vision",
    "mlcd_vision_model",
    "pixio",
    "pixtral",
    "sapiens2",
    "siglip_vision_model",
    "smolvlm_vision",
    "vitdet",
)

_FILM: Final = {"pixel_values": Noise((4, 3, 16, 16))}


def _bare(row: Recipe) -> Recipe:
    """Take the head off a classifier."""
    return attrs.evolve(row, name=f"{row.model_type}-base", task="base")


def _base(model_type: str, inputs: Mapping[str, Drawing], **settings: Any) -> Recipe:
    """Write a row of a model without a head."""
    return recipe(model_type, variant="base", task="base", inputs=inputs, **settings)


MODAL_BASES: Final[tuple[Recipe, ...]] = (
    *(_bare(row) for row in (*VISION, *SORTED) if row.model_type not in _OTHERWISE),
    *(_base(name, {"input_ids": Text(), **PIXELS}) for name in _COMPARED),
    *(_base(name, PIXELS) for name in _SEEING),
    _base("dinov3_vit", PIXELS, num_register_tokens=2),
    _base("lasr_encoder", FRAMES, conv_kernel_size=3),
    _base("moonshine", {**LONG_WAVE, **WORDS}),
    _base("parakeet_encoder", FRAMES),
    _base("perceiver", {"inputs": Noise((5, 16))}, nested=PERCEIVER),
    _base("qwen2_audio_encoder", BINS, nested=WHISPER),
    _base("radio", PIXELS, max_img_size=16),
    _base(
        "siglip2",
        {"input_ids": Text(), **FLAT},
        nested=dotted(vision_config=FLAT_SIZES),
    ),
    _base("siglip2_vision_model", FLAT, nested=FLAT_SIZES),
    _base("speech_to_text", {**FRAMES, **WORDS}),
    _base("timesformer", _FILM, num_frames=4),
    _base("videomae", _FILM, num_frames=4),
    _base(
        "vit_mae",
        {**PIXELS, "noise": Noise((4,))},
        note="the noise chooses which patches it sees",
    ),
    _base("vivit", _FILM, num_frames=4),
    _base("voxtral_encoder", BINS, nested=WHISPER),
    _base("whisper", {**BINS, **WORDS}, nested=WHISPER),
    _base("yolos", PIXELS, image_size=(16, 16)),
)
