"""Text to tokens and back: policies, padding on either side, corpora."""

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from funlens.adapters._registry import from_module
from funlens.adapters._tokens import (
    PaddingSide,
    apply_chat_template,
    padding_mask,
    to_single_token,
    to_str_tokens,
    to_string,
    to_strings,
    to_tokens,
    token_position,
    tokenize_and_concatenate,
    tokens_to_directions,
)
from funlens.data import ModelSpec
from funlens.errors import InputError, OptionError, TokenizerError
from funlens.testing._recipes import tiny_hf_model

BOS, EOS, PAD, UNK = range(4)
WORDS = ("<s>", "</s>", "<pad>", "<unk>", "one", "two", "three", "four")
ONE, TWO, THREE, FOUR = range(4, 8)


def word_tokenizer(*, adds_bos: bool = True, **special: str) -> Any:
    """Make a tokenizer of words; the special tokens are those that are named."""
    words = {word: at for at, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(words, unk_token=WORDS[UNK]))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if adds_bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", BOS)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=WORDS[UNK], **special
    )


def spec_of(tokenizer: Any = None, **options: Any) -> ModelSpec:
    """Describe a tiny model that has this tokenizer."""
    return from_module(tiny_hf_model("llama"), tokenizer, **options)


NO_PAD = {"bos_token": "<s>", "eos_token": "</s>"}
FULL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SAME = {"bos_token": "<s>", "eos_token": "<s>", "pad_token": "<s>"}


@pytest.fixture
def spec() -> ModelSpec:
    """Give a model whose tokenizer has every special token, and puts BOS in front."""
    return spec_of(word_tokenizer(**FULL))


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


def test_a_corpus_is_packed_without_padding(spec: ModelSpec) -> None:
    """Texts are joined by EOS, each row starts with BOS, the rest is left out."""
    rows = tokenize_and_concatenate(spec, ["one two", "three", "four"], n_ctx=4)
    assert [[BOS, ONE, TWO, EOS], [BOS, THREE, EOS, FOUR]] == rows.tolist()
    rows = tokenize_and_concatenate(spec, ["one two", "three"], n_ctx=3, bos="never")
    assert [[ONE, TWO, EOS]] == rows.tolist()


def test_a_corpus_can_be_a_dataset_or_a_file(spec: ModelSpec, tmp_path: Path) -> None:
    """Records with a text column, and a text file, which is one text."""
    dataset = [{"text": "one two"}, {"text": "three"}]
    rows = tokenize_and_concatenate(spec, dataset, n_ctx=5)
    assert [[BOS, ONE, TWO, EOS, THREE]] == rows.tolist()
    file = tmp_path / "corpus.txt"
    file.write_text("one two\nthree four\n")
    rows = tokenize_and_concatenate(spec, file, n_ctx=3)
    assert [[BOS, ONE, TWO], [BOS, THREE, FOUR]] == rows.tolist()


def test_a_corpus_that_cannot_be_packed_is_refused(spec: ModelSpec) -> None:
    """Too short, a wrong column, no room for text, a string in place of strings."""
    with pytest.raises(InputError, match="does not fill one row of 9 tokens"):
        tokenize_and_concatenate(spec, ["one"], n_ctx=9)
    with pytest.raises(OptionError, match="'story'"):
        tokenize_and_concatenate(spec, [{"text": "one"}], n_ctx=2, column="story")
    with pytest.raises(OptionError, match="no room"):
        tokenize_and_concatenate(spec, ["one"], n_ctx=1)
    with pytest.raises(InputError, match="single string"):
        tokenize_and_concatenate(spec, "one two", n_ctx=2)


def test_chat_templates_write_their_own_special_tokens() -> None:
    """The template's text is tokenized, and nothing is added."""
    tokenizer = word_tokenizer(**FULL)
    spec = spec_of(tokenizer)
    messages = [{"role": "user", "content": "one"}]
    with pytest.raises(TokenizerError, match="no chat template"):
        apply_chat_template(spec, messages)
    tokenizer.chat_template = (
        "<s> {% for m in messages %}{{ m.content }} {% endfor %}"
        "{% if add_generation_prompt %}two{% endif %}"
    )
    assert [[BOS, ONE, TWO]] == apply_chat_template(spec, messages).tolist()
    closed = apply_chat_template(spec, messages, add_generation_prompt=False)
    assert [[BOS, ONE]] == closed.tolist()


@pytest.mark.parametrize("side", get_args(PaddingSide))
@pytest.mark.parametrize("special", [FULL, SAME], ids=["apart", "same"])
@pytest.mark.parametrize("bos", ["always", "never"])
def test_the_mask_tells_padding_from_content(
    side: PaddingSide, special: dict[str, str], bos: Any
) -> None:
    """What `to_tokens` filled is masked, also where pad, BOS and EOS are one token."""
    spec = spec_of(word_tokenizer(**special), bos=bos)
    texts = ["one two three", "four"]
    mask = padding_mask(spec, to_tokens(spec, texts, padding_side=side))
    lengths = [to_tokens(spec, text).shape[1] for text in texts]
    short = [True] * lengths[1] + [False] * 2
    expected = [[True] * lengths[0], short if side == "right" else short[::-1]]
    assert mask is not None
    assert expected == mask.tolist()


def test_a_pad_token_of_its_own_is_padding_in_a_single_row(spec: ModelSpec) -> None:
    """Only runs at the ends count."""
    mask = padding_mask(spec, torch.tensor([[PAD, ONE, PAD, TWO, PAD, PAD]]))
    assert mask is not None
    assert [[False, True, True, True, False, False]] == mask.tolist()


def test_shared_runs_of_an_end_token_are_content() -> None:
    """As many as every row has belong to the text; a single row has no padding."""
    spec = spec_of(word_tokenizer(**SAME))
    assert padding_mask(spec, torch.tensor([[BOS, BOS, ONE, BOS]])) is None
    mask = padding_mask(spec, torch.tensor([[BOS, ONE, TWO], [BOS, BOS, ONE]]))
    assert mask is not None
    assert [[True, True, True], [False, True, True]] == mask.tolist()


def test_eos_fills_where_there_is_no_pad_token() -> None:
    """The mask follows the same rule as the padding."""
    spec = spec_of(word_tokenizer(**NO_PAD))
    mask = padding_mask(spec, to_tokens(spec, ["one two", "three"]))
    assert mask is not None
    assert [[True, True, True], [True, True, False]] == mask.tolist()


def test_nothing_padded_needs_no_mask(spec: ModelSpec) -> None:
    """None where rows are full, and where there is no tokenizer or no pad token."""
    tokens = torch.tensor([[BOS, ONE], [BOS, PAD]])
    assert padding_mask(spec, tokens[:1]) is None
    assert padding_mask(spec_of(), tokens) is None
    assert padding_mask(spec_of(word_tokenizer(adds_bos=False)), tokens) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda spec: to_tokens(spec, "one"),
        lambda spec: to_string(spec, [ONE]),
        lambda spec: to_single_token(spec, "one"),
        lambda spec: apply_chat_template(spec, []),
        lambda spec: tokenize_and_concatenate(spec, ["one"], n_ctx=2),
    ],
)
def test_text_needs_a_tokenizer(call: Any) -> None:
    """Without one the error says how to give it."""
    with pytest.raises(TokenizerError, match="has no tokenizer") as caught:
        call(spec_of())
    assert "from_module" in caught.value.advice
