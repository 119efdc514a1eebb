"""Why model types of transformers that are not verified are not."""

from collections.abc import Mapping
from typing import Final

# Types that no recipe can build.
UNBUILT: Final[Mapping[str, str]] = {
    "gemma3n": "its vision tower needs a package that transformers does not require",
    "gemma4_assistant": "it only runs beside another model, whose states it reads",
    "gemma4_unified_assistant": "it only runs beside another model",
}
# Types that can be built, and have no table.
UNDESCRIBED: Final[Mapping[str, str]] = {
    "funnel": "its blocks see ever fewer positions",
    "perceiver": "its stream holds latents, not positions",
}
