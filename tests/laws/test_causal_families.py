"""The laws, on every causal language model of transformers that has a table."""

import pytest

import funlens as fl
from funlens.adapters import described
from funlens.errors import UnsupportedConfigError
from funlens.testing import CAUSAL, tiny_hf_model
from tests.laws.every_law import check_every_law

# The whole recipe of these is built from a part of the family's config.
PARTS = {
    "emu3": "emu3_text_model",
    "musicgen": "musicgen_decoder",
    "musicgen_melody": "musicgen_melody_decoder",
}
REFUSED = {
    "reformer": "global generator",
    "rwkv-rescaled": "divides weights in place",
}
TYPES = {recipe.name: recipe.model_type for recipe in CAUSAL}
NAMES = [name for name in TYPES if name not in REFUSED]


@pytest.mark.architectures
@pytest.mark.parametrize("name", NAMES)
def test_every_law_holds(name: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    check_every_law(name)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_used_says_why(name: str) -> None:
    """What HuggingFace's own code would do to its owner is named."""
    with pytest.raises(UnsupportedConfigError, match=REFUSED[name]):
        fl.from_module(tiny_hf_model(name))


def test_every_type_has_a_table() -> None:
    """No causal language model of transformers is left without a table."""
    wanted = {PARTS.get(name, of) for name, of in TYPES.items()}
    assert set() == wanted - set(described())
