"""Which tokens are padding."""

from typing import Any, get_args

import pytest
import torch

from funlens.adapters import (
    padding_mask,
    to_tokens,
)
from funlens.adapters._padding import PaddingSide
from funlens.data import ModelSpec
from tests.adapters.words import (
    BOS,
    FULL,
    NO_PAD,
    ONE,
    PAD,
    SAME,
    TWO,
    spec_of,
    word_tokenizer,
)


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
