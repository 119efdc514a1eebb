"""The recipes of causal models that write music: a row of codes for each codebook."""

from typing import Final

from funlens.testing._recipes_record import Recipe
from funlens.testing._recipes_record import recipe as _recipe

MUSIC: Final[tuple[Recipe, ...]] = (
    _recipe(
        "musicgen",
        config_type="musicgen_decoder",
        extra=("input_ids", "encoder_hidden_states"),
        note="four rows of ids, one for each codebook, are one row of the stream",
    ),
    _recipe(
        "musicgen_melody",
        config_type="musicgen_melody_decoder",
        extra=("input_ids", "encoder_hidden_states"),
        note="as musicgen; what conditions it stands before the codes",
    ),
)
