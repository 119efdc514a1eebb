"""The rows that training reads, and which of their tokens count."""

from typing import Final

import attrs
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from funlens.builtin._batches import (
    FIRST,
    IGNORED,
    ROW_KINDS,
    SECOND,
    Mixture,
    Source,
    draw_batch,
    repeated_tokens,
)
from funlens.builtin._tokenizer import N_SPECIAL, VOCAB

LENGTH: Final = 64


def source(tokenizer: PreTrainedTokenizerFast, *, seed: int = 0) -> Source:
    """Rows from a counted-up text in place of the books."""
    generator = torch.Generator().manual_seed(seed)
    n_words = VOCAB - N_SPECIAL
    return Source(
        text=N_SPECIAL + torch.arange(1000) % n_words,
        shuffled=N_SPECIAL + torch.randperm(n_words, generator=generator),
        tokenizer=tokenizer,
        generator=generator,
    )


def only(kind: str) -> Mixture:
    """A mixture of rows of one kind."""
    shares = tuple(float(name == kind) for name in ROW_KINDS)
    return attrs.evolve(FIRST, shares=shares, lengths=(LENGTH,), n_tokens=20 * LENGTH)


@pytest.mark.parametrize("mixture", [FIRST, SECOND], ids=["first", "second"])
def test_a_batch_holds_the_tokens_asked_for(
    tokenizer: PreTrainedTokenizerFast, mixture: Mixture
) -> None:
    """All rows have one of the lengths, and fill the batch."""
    batch = draw_batch(source(tokenizer), mixture)
    assert batch.tokens.shape[1] in mixture.lengths
    assert mixture.n_tokens == batch.tokens.numel()
    assert batch.tokens.shape == batch.labels.shape
    assert batch.tokens.shape[:1] == batch.kinds.shape


def test_the_seed_fixes_a_batch(tokenizer: PreTrainedTokenizerFast) -> None:
    """The same seed gives the same rows, another seed others."""
    first, again, other = (
        draw_batch(source(tokenizer, seed=seed), SECOND).tokens for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", ROW_KINDS)
def test_a_label_is_its_token_or_ignored(
    tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    """Labels are not shifted: the training program does that."""
    batch = draw_batch(source(tokenizer), only(kind))
    counted = batch.labels != IGNORED
    assert {ROW_KINDS.index(kind)} == set(batch.kinds.tolist())
    assert torch.equal(batch.tokens[counted], batch.labels[counted])


@pytest.mark.parametrize("kind", ["text", "tasks"])
def test_every_token_of_a_text_counts(
    tokenizer: PreTrainedTokenizerFast, kind: str
) -> None:
    """Books and sentences are predicted from end to end."""
    batch = draw_batch(source(tokenizer), only(kind))
    assert torch.equal(batch.tokens, batch.labels)


def test_what_counts_among_repeats_was_there_before(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """A label after an ignored token is a token that its row held before."""
    batch = draw_batch(source(tokenizer), only("repeats"))
    n_found = 0
    for tokens, labels in zip(batch.tokens, batch.labels, strict=True):
        start = int((labels == IGNORED).nonzero()[0])
        for at in range(start, LENGTH):
            if labels[at] != IGNORED:
                n_found += 1
                assert bool((tokens[:at] == labels[at]).any())
    assert n_found > 0


def test_random_tokens_are_written_twice_and_are_not_special() -> None:
    """The halves are equal, and no id is one of the special ones."""
    generator = torch.Generator().manual_seed(0)
    tokens = repeated_tokens(generator, batch=3, length=200, vocab=VOCAB)
    assert (3, 400) == tokens.shape
    assert torch.equal(tokens[:, :200], tokens[:, 200:])
    assert int(tokens.min()) >= N_SPECIAL
