"""How a model is made, written and read back."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from funlens.builtin import _tokenizer
from funlens.builtin._corpus import Corpus
from funlens.builtin._model import new_model, read, read_tokenizer, save
from funlens.builtin._tokenizer import train_tokenizer


def test_the_seed_fixes_the_weights(tokenizer: PreTrainedTokenizerFast) -> None:
    """The same seed gives the same bits, another seed others."""
    first, again, other = (
        new_model(tokenizer, seed=seed).lm_head.weight for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_saved_model_is_read_back(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """Weights that came from half precision, as the shipped ones, keep every bit."""
    save(model, tokenizer, folder=tmp_path / "copy")
    found = read(tmp_path / "copy")
    for name, expected in model.state_dict().items():
        assert torch.equal(expected, found.state_dict()[name]), name
    assert {torch.float32} == {weight.dtype for weight in found.parameters()}
    assert not found.training


def test_a_saved_tokenizer_is_read_back(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """The copy encodes as the original does."""
    save(model, tokenizer, folder=tmp_path)
    text = "When Mary and John went to the store,"
    assert tokenizer.encode(text) == read_tokenizer(tmp_path).encode(text)


def test_too_little_text_for_the_vocabulary_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sentences alone do not fill 2048 tokens, and the message says how many."""
    monkeypatch.setattr(_tokenizer, "TEMPLATE_TEXTS", 50)
    monkeypatch.setattr(_tokenizer, "WORD_WEIGHT", 2)
    corpus = Corpus(training="One line.", validation="", digest="")
    with pytest.raises(RuntimeError, match=r"\d+ tokens, and these words are split"):
        train_tokenizer(corpus, seed=0)
