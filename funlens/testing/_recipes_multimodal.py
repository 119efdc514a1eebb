"""The recipes of models that see or hear."""

from typing import Final

from funlens.testing._recipes_image_grid import GRIDS
from funlens.testing._recipes_image_others import OTHERS
from funlens.testing._recipes_image_text import WHOLE
from funlens.testing._recipes_modal_bases import MODAL_BASES
from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_sound import SOUND
from funlens.testing._recipes_vision import VISION

MULTIMODAL: Final[tuple[Recipe, ...]] = (
    *WHOLE,
    *GRIDS,
    *OTHERS,
    *SOUND,
    *VISION,
    *MODAL_BASES,
)
