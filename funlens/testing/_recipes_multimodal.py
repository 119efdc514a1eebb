"""The recipes of models that see or hear."""

from typing import Final

from funlens.testing._recipes_image_text import IMAGE_TEXT
from funlens.testing._recipes_image_grid import GRID
from funlens.testing._recipes_image_tiles import TILES
from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_sound import SOUND
from funlens.testing._recipes_vision import VISION

MULTIMODAL: Final[tuple[Recipe, ...]] = (*IMAGE_TEXT, *GRID, *TILES, *SOUND, *VISION)
