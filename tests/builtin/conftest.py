"""The embedded model, read once for all tests of this folder."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from funlens.builtin import folder


@pytest.fixture(scope="session")
def model() -> LlamaForCausalLM:
    """The shipped model, read as any user of transformers reads it."""
    return AutoModelForCausalLM.from_pretrained(
        folder("tiny"), attn_implementation="eager"
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """The shipped tokenizer, read as any user of transformers reads it."""
    return AutoTokenizer.from_pretrained(folder("tiny"))


@pytest.fixture
def generator() -> torch.Generator:
    """A source of randomness that neither training nor `training.json` used."""
    return torch.Generator().manual_seed(20_250)
