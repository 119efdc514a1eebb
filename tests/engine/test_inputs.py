"""Inputs of every kind give HuggingFace's logits, and wrong ones are refused."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerFast

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

TOLERANCE: Final = 1e-5  # float32: keys that are masked out change the order of sums
ODD: Final = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]])

PAD, WORD = "<pad>", "b"


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def theirs(name: str, **given: Any) -> Tensor:
    """Logits of a module funlens never saw."""
    with torch.no_grad():
        return tiny_hf_model(name)(**given).logits


def tokens_of(name: str) -> Tensor:
    """Two rows of seven tokens."""
    return tiny_inputs(name)["input_ids"]


def refused(name: str, given: Any, **how: Any) -> str:
    """The text with which inputs are refused."""
    with pytest.raises(fl.errors.InputError) as caught:
        fl.run(spec_of(name), given, **how)
    return str(caught.value)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert"])
def test_mapping_is_what_huggingface_is_given(name: str) -> None:
    """A tokenizer's mapping with a mask of ones."""
    tokens = tokens_of(name)
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    assert torch.equal(theirs(name, **given), fl.run(spec_of(name), given))


def test_what_a_tokenizer_returns_can_be_run() -> None:
    """HuggingFace's own mapping type, padded on the right."""
    words = {PAD: 0, "a": 4, WORD: 5}
    inner = Tokenizer(models.WordLevel(words, unk_token=WORD))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token=PAD)
    given = tokenizer(["a b a", WORD], return_tensors="pt", padding=True)
    assert isinstance(given, BatchEncoding)
    got = fl.run(spec_of("gpt2"), given)
    alone = theirs("gpt2", input_ids=torch.tensor([[5]]))
    torch.testing.assert_close(alone[0, 0], got[1, 0], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_embeddings_in_place_of_tokens(name: str) -> None:
    """The embeddings of some tokens give those tokens' logits."""
    tokens = tokens_of(name)
    embedded = tiny_hf_model(name).get_input_embeddings()(tokens).detach()
    got = fl.run(spec_of(name), {"inputs_embeds": embedded})
    assert torch.equal(theirs(name, input_ids=tokens), got)


@pytest.mark.parametrize("edits", [[], [fl.Zero(fl.z(0, head=0))]])
def test_embeddings_that_require_a_gradient_get_one(edits: Any) -> None:
    """A graph is recorded, as for any value that the caller passes."""
    embedded = torch.ones(1, 4, 16, requires_grad=True)
    fl.run(spec_of("gpt2"), {"inputs_embeds": embedded}, edits).sum().backward()
    assert embedded.grad is not None
    assert embedded.grad.any()


def test_caller_s_mapping_stays_as_it_was() -> None:
    """No key comes or goes."""
    given = {"input_ids": tokens_of("gpt2"), "attention_mask": ODD}
    before = dict(given)
    fl.run(spec_of("gpt2"), given)
    assert [*before.items()] == [*given.items()]


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_position_ids_of_the_caller_are_kept(name: str) -> None:
    """Against HuggingFace with the same positions."""
    given = {"input_ids": tokens_of(name), "attention_mask": ODD.flip(1)}
    positions = torch.arange(7).expand(2, 7) + 3
    expected = theirs(name, **given, position_ids=positions)
    got = fl.run(spec_of(name), {**given, "position_ids": positions})
    assert torch.equal(expected[ODD.flip(1).bool()], got[ODD.flip(1).bool()])


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.float32])
def test_mask_of_any_dtype_is_the_same_mask(dtype: torch.dtype) -> None:
    """Ones and zeros, however they are stored."""
    expected = fl.run(spec_of("gpt2"), tokens_of("gpt2"), attention_mask=ODD)
    mask = ODD.to(dtype)
    got = fl.run(spec_of("gpt2"), tokens_of("gpt2"), attention_mask=mask)
    assert torch.equal(expected, got)


def test_segments_that_mean_nothing_are_passed_over() -> None:
    """Many tokenizers name one segment for every model; two are not passed over."""
    tokens = tokens_of("llama")
    given = {"input_ids": tokens, "token_type_ids": torch.zeros_like(tokens)}
    expected = theirs("llama", input_ids=tokens)
    assert torch.equal(expected, fl.run(spec_of("llama"), given))
    given["token_type_ids"] = torch.ones_like(tokens)
    assert "token_type_ids" in refused("llama", given)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("wrong", ["attn_mask", "inputs", "return_dict"])
def test_input_that_no_part_of_the_model_takes_is_refused(
    name: str, wrong: str
) -> None:
    """HuggingFace would pass over it, and the mask with it."""
    text = refused(name, {**tiny_inputs(name), wrong: torch.ones(2, 7)})
    assert repr(wrong) in text
    assert "attention_mask" in refused(name, {**tiny_inputs(name), "attn_mask": ODD})


@pytest.mark.parametrize("shift", [1000, -40])
def test_token_outside_the_vocabulary_is_refused(shift: int) -> None:
    """Before the embedding looks for its row."""
    assert "ids in 0..31" in refused("gpt2", tokens_of("gpt2") + shift)


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        (torch.ones(7, dtype=torch.long), r"shape \(7,\)"),
        (torch.ones(2, 0, dtype=torch.long), r"shape \(2, 0\)"),
        (torch.ones(2, 7), "torch.float32"),
        (torch.ones(2, 7, dtype=torch.bool), "torch.bool"),
        (torch.ones(2, 65, dtype=torch.long), "65 positions"),
        ({"inputs_embeds": torch.ones(2, 7)}, r"shape \(2, 7\)"),
        ({"labels": torch.ones(2, 7, dtype=torch.long)}, "labels"),
        ({}, "hold nothing"),
    ],
)
def test_input_of_another_kind_is_refused(given: Any, fragment: str) -> None:
    """Another rank, none, other dtypes, too long, or no tokens at all."""
    with pytest.raises(fl.errors.InputError, match=fragment):
        fl.run(spec_of("gpt2"), given)


@pytest.mark.parametrize(
    "mask",
    [torch.ones(2, 6), torch.ones(7), torch.ones(1, 7), torch.zeros(2, 7)],
    ids=lambda mask: str(tuple(mask.shape)),
)
def test_mask_of_other_tokens_is_refused(mask: Tensor) -> None:
    """Another shape, or a row without any token."""
    assert "mask" in refused("gpt2", tokens_of("gpt2"), attention_mask=mask)


def test_text_without_a_tokenizer_is_refused() -> None:
    """The model cannot read."""
    with pytest.raises(fl.errors.TokenizerError):
        fl.run(spec_of("gpt2"), "text")


def test_texts_are_padded_and_masked() -> None:
    """Each text's last real position has the logits that the text has alone."""
    spec, texts = fl.load("builtin:tiny"), ["The weather is", "When Mary and John"]
    both = fl.run(spec, texts, logits_at=-1)
    alone = torch.cat([fl.run(spec, text, logits_at=-1) for text in texts])
    torch.testing.assert_close(alone, both, atol=1e-4, rtol=0)


# An encoder and a decoder, each with tokens, positions and padding of its own.


def test_two_stacks_with_masks_equal_huggingface() -> None:
    """Padding in the encoder's and in the decoder's part."""
    given = tiny_inputs("t5")
    given["attention_mask"] = ODD
    given["decoder_attention_mask"] = ODD.flip(1)[:, :5]
    assert torch.equal(theirs("t5", **given), fl.run(spec_of("t5"), given))


def test_padding_of_the_encoder_changes_nothing() -> None:
    """Two more tokens that are masked out."""
    given = tiny_inputs("t5")
    padded = torch.cat([given["input_ids"], given["input_ids"][:, :2]], dim=1)
    mask = (torch.arange(9) < 7).long().expand(2, 9)
    got = fl.run(spec_of("t5"), {**given, "input_ids": padded, "attention_mask": mask})
    torch.testing.assert_close(theirs("t5", **given), got, atol=TOLERANCE, rtol=0)


def test_positions_of_each_stack_count_by_its_own_padding() -> None:
    """Seen while running and looked up afterwards, -1 is the last real token."""
    given = {**tiny_inputs("t5"), "attention_mask": ODD}
    sites = [
        fl.encoder.resid_post(1, pos=-1),
        fl.encoder.pattern(0, query=-1, key=-2),
        fl.cross_pattern(0, key=-1),
        fl.cross_k(1, key=-1),
        fl.resid_post(1, pos=-1),
    ]
    whole = [site.whole for site in sites]
    kept = fl.run_with_cache(spec_of("t5"), given, capture=sites).cache
    looked_up = fl.run_with_cache(spec_of("t5"), given, capture=whole).cache
    for site in sites:
        assert torch.equal(kept[site], looked_up[site]), site
    last = looked_up[fl.encoder.resid_post(1)]
    expected = torch.stack([last[0, 6], last[1, 4]])
    assert torch.equal(expected, kept[fl.encoder.resid_post(1, pos=-1)])


def test_decoder_s_part_begins_with_the_config_s_start_token() -> None:
    """Text alone, as for HuggingFace's own generation."""
    module: Any = tiny_hf_model("t5")
    module.config.decoder_start_token_id = 3
    got = fl.run(fl.from_module(module), tokens_of("t5"))
    start = torch.full((2, 1), 3)
    expected = theirs("t5", input_ids=tokens_of("t5"), decoder_input_ids=start)
    assert torch.equal(expected, got)


def test_decoder_without_a_start_is_refused() -> None:
    """The config names no token, and none is passed."""
    module: Any = tiny_hf_model("t5")
    module.config.decoder_start_token_id = None
    with pytest.raises(fl.errors.InputError, match="decoder_input_ids"):
        fl.run(fl.from_module(module), tokens_of("t5"))


def test_decoder_s_part_of_another_kind_is_refused() -> None:
    """It is looked at as the encoder's part is."""
    given = {"input_ids": tokens_of("t5"), "decoder_input_ids": torch.ones(2, 5)}
    assert "torch.float32" in refused("t5", given)


def test_embeddings_of_the_decoder_s_part() -> None:
    """In place of its tokens."""
    given = tiny_inputs("t5")
    table = tiny_hf_model("t5").get_input_embeddings()
    embedded = table(given.pop("decoder_input_ids")).detach()
    expected = theirs("t5", **tiny_inputs("t5"))
    got = fl.run(spec_of("t5"), {**given, "decoder_inputs_embeds": embedded})
    assert torch.equal(expected, got)
