"""Text to tokens and back: policies, single tokens, places, directions."""

from typing import Any, get_args

import pytest
import torch

from funlens.adapters import (
    encode,
    to_chat_tokens,
    to_single_token,
    to_str_tokens,
    to_string,
    to_strings,
    to_tokens,
    token_position,
    tokenize_and_concatenate,
    tokens_to_directions,
)
from funlens.adapters._padding import PaddingSide
from funlens.data import ModelSpec
from funlens.engine import run
from funlens.errors import InputError, OptionError, TokenizerError
from tests.adapters.words import (
    BOS,
    EOS,
    FOUR,
    FULL,
    NO_PAD,
    ONE,
    PAD,
    SAME,
    THREE,
    TWO,
    spec_of,
    word_tokenizer,
)


def test_one_string_is_one_row(spec: ModelSpec) -> None:
    """A string gives a batch of one."""
    assert [[BOS, ONE, TWO]] == to_tokens(spec, "one two").tolist()


@pytest.mark.parametrize(
    ("side", "expected"),
    [("right", [BOS, THREE, PAD]), ("left", [PAD, BOS, THREE])],
)
def test_padding_stands_on_the_side_asked_for(
    spec: ModelSpec, side: PaddingSide, expected: list[int]
) -> None:
    """The argument acts, and the tokenizer's own side does not."""
    tokens = to_tokens(spec, ["one two", "three"], padding_side=side)
    assert [[BOS, ONE, TWO], expected] == tokens.tolist()


def test_the_tokenizer_is_not_changed() -> None:
    """Padding without a pad token sets none on the caller's tokenizer."""
    tokenizer = word_tokenizer(**NO_PAD)
    before = (tokenizer.pad_token, tokenizer.padding_side)
    tokens = to_tokens(spec_of(tokenizer), ["one two", "one"], padding_side="left")
    assert [EOS, BOS, ONE] == tokens[1].tolist()
    assert before == (tokenizer.pad_token, tokenizer.padding_side)


def test_rows_of_one_length_need_no_pad_token() -> None:
    """Only unequal rows are refused where nothing can fill them."""
    spec = spec_of(word_tokenizer(adds_bos=False))
    assert (2, 2) == to_tokens(spec, ["one two", "two one"]).shape
    with pytest.raises(TokenizerError, match="neither a pad token nor"):
        to_tokens(spec, ["one two", "two"])


@pytest.mark.parametrize("adds_bos", [True, False])
@pytest.mark.parametrize("text", ["one", "<s> one"])
def test_bos_policy_is_honored(adds_bos: bool, text: str) -> None:
    """Always is one in front, never is none, whoever would have added it."""
    spec = spec_of(word_tokenizer(adds_bos=adds_bos, **FULL))
    assert [[BOS, ONE]] == to_tokens(spec, text, bos="always").tolist()
    assert [[ONE]] == to_tokens(spec, text, bos="never").tolist()


@pytest.mark.parametrize("adds_bos", [True, False])
def test_the_tokenizer_decides_by_default(adds_bos: bool) -> None:
    """Without a policy the ids are the tokenizer's own."""
    tokenizer = word_tokenizer(adds_bos=adds_bos, **FULL)
    assert [tokenizer("one")["input_ids"]] == to_tokens(
        spec_of(tokenizer), "one"
    ).tolist()


def test_the_policy_of_the_spec_counts_and_can_be_overruled() -> None:
    """An argument goes before the spec's policy."""
    spec = spec_of(word_tokenizer(**FULL), bos="never")
    assert [[ONE]] == to_tokens(spec, "one").tolist()
    assert ("one",) == to_str_tokens(spec, "one")
    assert [[BOS, ONE]] == to_tokens(spec, "one", bos="always").tolist()


def test_always_needs_a_bos_token() -> None:
    """A tokenizer without one is refused."""
    with pytest.raises(TokenizerError, match="no beginning-of-sequence token"):
        to_tokens(spec_of(word_tokenizer(adds_bos=False)), "one", bos="always")


def test_truncation_is_asked_for(spec: ModelSpec) -> None:
    """Rows are cut at the context length only on demand."""
    assert spec.n_ctx is not None
    text = " ".join(["one"] * (spec.n_ctx + 3))
    assert spec.n_ctx + 4 == to_tokens(spec, text).shape[1]
    assert spec.n_ctx == to_tokens(spec, text, truncate=True).shape[1]


def test_no_text_is_refused(spec: ModelSpec) -> None:
    """An empty list is no batch."""
    with pytest.raises(InputError, match="no text"):
        to_tokens(spec, [])


def test_tokens_decode_to_text(spec: ModelSpec) -> None:
    """Rows, batches and single tokens keep special tokens."""
    tokens = to_tokens(spec, ["one two", "three"])
    assert "<s> one two" == to_string(spec, tokens[0])
    assert "one two" == to_string(spec, [ONE, TWO])
    assert ("<s> one two", "<s> three <pad>") == to_strings(spec, tokens)
    assert ("<s>", "three", "<pad>") == to_str_tokens(spec, tokens[1])
    assert ("<s>", "four") == to_str_tokens(spec, "four")


def test_single_tokens(spec: ModelSpec) -> None:
    """No special token is added, and two tokens are an error that shows them."""
    assert FOUR == to_single_token(spec, "four")
    with pytest.raises(TokenizerError, match=r"2 tokens: \['one', 'two'\]"):
        to_single_token(spec, "one two")


def test_positions_of_a_token(spec: ModelSpec) -> None:
    """First or last, in text or ids, for a word or an id."""
    tokens = to_tokens(spec, "one two one")
    assert 1 == token_position(spec, "one", tokens)
    assert 3 == token_position(spec, "one", tokens[0], which="last")
    assert 0 == token_position(spec, "one", "one two", bos="never")
    assert 2 == token_position(spec_of(), TWO, tokens)
    with pytest.raises(TokenizerError, match="is not among these 4 tokens"):
        token_position(spec, "four", tokens)


def test_directions_are_rows_of_the_unembedding(spec: ModelSpec) -> None:
    """Any shape of ids, one id, or one word."""
    weight = spec.module.get_submodule("lm_head").weight
    ids = torch.tensor([[ONE, TWO], [THREE, FOUR]])
    assert torch.equal(weight[ids], tokens_to_directions(spec, ids))
    assert torch.equal(weight[TWO], tokens_to_directions(spec, TWO))
    assert torch.equal(weight[TWO], tokens_to_directions(spec, "two"))
    with pytest.raises(InputError, match=r"ids in 0\.\."):
        tokens_to_directions(spec, torch.tensor([-1]))


@pytest.mark.parametrize(
    "call",
    [
        lambda spec: to_tokens(spec, "one"),
        lambda spec: to_string(spec, [ONE]),
        lambda spec: to_single_token(spec, "one"),
        lambda spec: to_chat_tokens(spec, []),
        lambda spec: tokenize_and_concatenate(spec, ["one"], n_ctx=2),
    ],
)
def test_text_needs_a_tokenizer(call: Any) -> None:
    """Without one the error says how to give it."""
    with pytest.raises(TokenizerError, match="has no tokenizer") as caught:
        call(spec_of())
    assert "from_module" in caught.value.advice


@pytest.mark.parametrize(
    ("call", "option"),
    [
        (lambda spec: to_tokens(spec, "one", bos="Never"), "bos"),
        (
            lambda spec: to_tokens(spec, ["one", "two"], padding_side="Left"),
            "padding_side",
        ),
        (lambda spec: token_position(spec, ONE, "one", which="frist"), "which"),
    ],
)
def test_a_misspelled_word_is_refused(
    spec: ModelSpec, call: Any, option: str, unchecked: None
) -> None:
    """It would have acted as another."""
    with pytest.raises(OptionError) as caught:
        call(spec)
    assert option == caught.value.option


@pytest.mark.parametrize(
    "call",
    [
        lambda spec: to_string(spec, torch.tensor([[ONE], [TWO]])),
        lambda spec: to_str_tokens(spec, torch.tensor([[ONE], [TWO]])),
        lambda spec: token_position(spec, ONE, torch.tensor([[ONE], [TWO]])),
        lambda spec: to_tokens(spec, [[ONE, TWO]]),
        lambda spec: tokens_to_directions(spec, torch.tensor([0.5])),
    ],
)
def test_other_shapes_and_kinds_are_refused(
    spec: ModelSpec, call: Any, unchecked: None
) -> None:
    """Several rows for one, ids for text, numbers for ids."""
    with pytest.raises(InputError):
        call(spec)


@pytest.mark.parametrize("side", get_args(PaddingSide))
def test_texts_are_masked_by_their_length(side: PaddingSide) -> None:
    """Also where the pad token ends a text, or begins it."""
    spec = spec_of(word_tokenizer(**SAME))
    texts = ["<s> one <s>", "one two three four one"]
    found = encode(spec, texts, padding_side=side)
    assert found.mask is not None
    lengths = [to_tokens(spec, text).shape[1] for text in texts]
    assert lengths == found.mask.sum(1).tolist()
    rows = [row[kept] for row, kept in zip(found.tokens, found.mask, strict=True)]
    for text, row in zip(texts, rows, strict=True):
        assert torch.equal(to_tokens(spec, text)[0], row)
    assert encode(spec, texts[:1]).mask is None


def test_texts_that_end_in_the_pad_token_run_as_alone() -> None:
    """A batch of texts gives what each text gives."""
    spec = spec_of(word_tokenizer(**SAME))
    texts = ["one <s> <s>", "one two three four"]
    both = run(spec, texts)
    for row, text in enumerate(texts):
        alone = run(spec, text)[0]
        torch.testing.assert_close(both[row, : len(alone)], alone)
