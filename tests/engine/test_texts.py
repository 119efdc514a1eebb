"""Texts of different length: masks and positions are made without being asked for."""

from typing import Any, Final

import pytest
import torch
import torch.nn.functional as F

import funlens as fl
from funlens.testing import tiny_hf_model
from tests.adapters.words import FULL, NO_PAD, SAME, word_tokenizer

NAMES: Final = ("gpt2", "llama", "gptj", "bloom", "opt", "falcon")
TEXTS: Final = ("one two three four two", "three one", "two")
SIDES: Final = ("left", "right")
TOLERANCE: Final = 1e-5  # float32; masked scores are added to a large negative number
SPECIAL: Final = {"full": FULL, "no pad": NO_PAD, "all one": SAME}


def spec_of(name: str, special: str = "full") -> fl.ModelSpec:
    """A tiny model with a tokenizer of words."""
    return fl.from_module(tiny_hf_model(name), word_tokenizer(**SPECIAL[special]))


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", NAMES)
def test_losses_of_padded_texts_are_those_of_each_alone(
    name: str, side: Any, special: str
) -> None:
    """Pad tokens are neither predicted nor predict, and move no position."""
    spec = spec_of(name, special)
    found = fl.loss_per_token(spec, fl.to_tokens(spec, TEXTS, padding_side=side))
    for row, text in zip(found, TEXTS, strict=True):
        alone = fl.loss_per_token(spec, text)[0]
        kept = row[~row.isnan()]
        torch.testing.assert_close(kept, alone, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("side", SIDES)
def test_the_mean_loss_is_huggingfaces(side: Any) -> None:
    """Over an untouched model, with the labels of padding left out."""
    spec = spec_of("llama")
    tokens = fl.to_tokens(spec, TEXTS, padding_side=side)
    mask = tokens != spec.tokenizer.pad_token_id
    positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = tiny_hf_model("llama")(
            tokens, attention_mask=mask, position_ids=positions
        ).logits
    is_predicted = mask[:, 1:] & mask[:, :-1]
    labels = tokens[:, 1:].masked_fill(~is_predicted, -100)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten())
    torch.testing.assert_close(fl.loss(spec, tokens), expected)


@pytest.mark.parametrize("special", SPECIAL)
@pytest.mark.parametrize("name", NAMES)
def test_texts_are_continued_as_each_alone(name: str, special: str) -> None:
    """With the cache, whatever the pad token is."""
    spec = spec_of(name, special)
    together = fl.generate(spec, TEXTS, max_new_tokens=4, do_sample=False)
    alone = tuple(
        fl.generate(spec, text, max_new_tokens=4, do_sample=False) for text in TEXTS
    )
    assert alone == together


@pytest.mark.parametrize("bos", ["tokenizer", "always", "never"])
def test_text_is_read_by_the_specs_policy(bos: Any) -> None:
    """Everywhere that text is taken, it is the same tokens."""
    spec = fl.from_module(tiny_hf_model("llama"), word_tokenizer(**FULL), bos=bos)
    text, tokens = TEXTS[0], fl.to_tokens(spec, TEXTS[0])
    assert ("never" == bos) == (tokens[0, 0] != spec.tokenizer.bos_token_id)
    assert fl.to_str_tokens(spec, text) == fl.to_str_tokens(spec, tokens[0])
    assert torch.equal(fl.run(spec, tokens), fl.run(spec, text))
    assert torch.equal(fl.loss(spec, tokens), fl.loss(spec, text))
    assert fl.token_position(spec, "four", tokens) == fl.token_position(
        spec, "four", text
    )
    made = fl.generate_with_cache(spec, text, max_new_tokens=2, do_sample=False)
    assert torch.equal(tokens[0], made.tokens[0, : tokens.shape[1]])
    rows = fl.tokenize_and_concatenate(spec, [text], n_ctx=4)
    assert torch.equal(tokens[:, :4], rows)
