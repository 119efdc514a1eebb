"""The laws on every masked model, every pair of encoder and decoder, and every head."""

from typing import Final

import pytest

import funlens as fl
from funlens.adapters import described
from funlens.errors import UnsupportedConfigError
from funlens.testing import (
    MASKED,
    SEQ2SEQ,
    head_recipes,
    tiny_hf_model,
)
from tests.laws.every_law import check_every_law, marked
from tests.models._obstacles import UNDESCRIBED

KNOWN: Final = frozenset(described())
# With a table that refuses it, and why.
REFUSED: Final = {
    "prophetnet-seq2seq": "is_encoder_decoder",
    "reformer-masked": "global generator",
}
WORDS: Final = [
    row
    for row in (*MASKED, *SEQ2SEQ)
    if row.model_type not in UNDESCRIBED and row.name not in REFUSED
]
HEADS: Final = [
    row
    for row in head_recipes()
    if row.model_type in KNOWN and not row.name.startswith(("rwkv-rescaled", *REFUSED))
]
A_FEW: Final = frozenset(
    {
        "albert-groups",
        "bart-seq2seq",
        "bert-base",
        "bert-sequence-classification",
        "bert-token-classification",
        "deberta",
        "gpt2-sequence-classification",
        "longformer",
        "squeezebert",
        "t5gemma2",
    }
)


def test_the_rest_is_without_a_table() -> None:
    """The list of what is left out holds nothing that has a table."""
    assert set() == KNOWN & set(UNDESCRIBED)
    assert set() == {row.model_type for row in WORDS} - KNOWN


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_used_says_why(name: str) -> None:
    """The reason stands in the error."""
    with pytest.raises(UnsupportedConfigError, match=REFUSED[name]):
        fl.from_module(tiny_hf_model(name))


@pytest.mark.parametrize("name", marked([*WORDS, *HEADS], A_FEW))
def test_every_law_holds(name: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    check_every_law(name)
