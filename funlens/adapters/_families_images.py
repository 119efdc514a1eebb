"""The tables of language models that are shown pictures."""

from typing import Final

from funlens.adapters._families_common import PRE_NORM, causal
from funlens.adapters._families_towers import ROTARY, VIT, tower
from funlens.adapters._language import Architecture, Around

_TEXTS: Final[tuple[Architecture, ...]] = ()

_AROUND: Final[tuple[Around, ...]] = (
    Around(
        model_types=("llava", "llava_next", "llava_next_video", "llava_onevision", "vipllava",
                     "aria", "aya_vision", "cohere2_vision", "paligemma"),
        others=tower("vision_tower.encoder.layers"),
    ),
    Around(
        model_types=("deepseek_vl","janus"),
        others=tower("vision_model.encoder.layers"),
    ),
)

IMAGES: Final[tuple[Architecture | Around, ...]] = (*_TEXTS, *_AROUND)
"""Tables of models that see."""
