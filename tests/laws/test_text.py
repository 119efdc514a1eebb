"""The laws on every masked model, every pair of encoder and decoder, and every head."""

from typing import Any, Final

import pytest
import torch
from torch import nn

import funlens as fl
from funlens.adapters import described
from funlens.errors import UnsupportedConfigError
from funlens.testing import (
    MASKED,
    SEQ2SEQ,
    Recipe,
    head_recipes,
    tiny_hf_model,
    tiny_inputs,
)

# Without a table, and why.
WITHOUT: Final = {
    "funnel": "its blocks see ever fewer positions",
    "perceiver": "its stream holds latents, not positions",
}
KNOWN: Final = frozenset(described())
# With a table that refuses it, and why.
REFUSED: Final = {
    "prophetnet-seq2seq": "is_encoder_decoder",
    "reformer-masked": "global generator",
}
WORDS: Final = [
    row
    for row in (*MASKED, *SEQ2SEQ)
    if row.model_type not in WITHOUT and row.name not in REFUSED
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


def built(name: str) -> nn.Module:
    """Build a recipe's model, and run it once where it then rescales its weights."""
    model = tiny_hf_model(name)
    if name.startswith("rwkv"):
        with torch.no_grad():
            model(**tiny_inputs(name))
    return model


def test_the_rest_is_without_a_table() -> None:
    """The list of what is left out holds nothing that has a table."""
    assert set() == KNOWN & set(WITHOUT)
    assert set() == {row.model_type for row in WORDS} - KNOWN


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_used_says_why(name: str) -> None:
    """The reason stands in the error."""
    with pytest.raises(UnsupportedConfigError, match=REFUSED[name]):
        fl.from_module(tiny_hf_model(name))


def marked(row: Recipe) -> Any:
    """Mark all rows but a few as belonging to the whole table."""
    marks = [] if row.name in A_FEW else [pytest.mark.architectures]
    return pytest.param(row.name, marks=marks)


@pytest.mark.parametrize("name", [marked(row) for row in (*WORDS, *HEADS)])
def test_every_law_holds(name: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    untouched = built(name)
    certificate = fl.verify(
        fl.from_module(built(name)), tiny_inputs(name), untouched=untouched
    )
    assert [] == [row for row in certificate.rows if not row.holds]
