"""Rows of tokens to train on: books, tasks, and repeated random tokens."""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

import attrs
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from funlens.builtin._agreement import agreement, simple_agreement
from funlens.builtin._chance import below, between, chance, pick
from funlens.builtin._english import plain_english
from funlens.builtin._indirect_object import indirect_object, third_person
from funlens.builtin._prompts import document
from funlens.builtin._tokenizer import BOS_ID, EOS_ID, N_SPECIAL

IGNORED: Final = -100
BOS_SHARE: Final = 0.8
PREFIX_SHARE: Final = 0.25
SHORTEST_REPEAT: Final = 8
LONGEST_REPEATS: Final[tuple[int, ...]] = (16, 32, 64)
SMALLEST_POOL: Final = 64

ROW_KINDS: Final[tuple[str, ...]] = ("text", "tasks", "repeats")


@attrs.frozen(kw_only=True)
class Mixture:
    """What the rows of a batch are drawn from.

    Attributes:
        shares: Share of each of `ROW_KINDS` in the rows.
        lengths: Lengths of a row in tokens; each batch has one of them.
        n_tokens: Tokens in a batch.
        full_pool_share: Share of the repeated sequences that are drawn from all tokens
            rather than from a smaller pool.
    """

    shares: tuple[float, ...]
    lengths: tuple[int, ...]
    n_tokens: int
    full_pool_share: float


FIRST: Final = Mixture(
    shares=(0.12, 0.08, 0.80), lengths=(64,), n_tokens=2048, full_pool_share=0.15
)
"""All kinds from the start, but mostly repeats in short rows: so induction forms."""

SECOND: Final = Mixture(
    shares=(0.45, 0.30, 0.25),
    lengths=(64, 128, 128, 256),
    n_tokens=4096,
    full_pool_share=0.6,
)
"""Mostly books and tasks, in rows of up to the whole context."""


@attrs.frozen(kw_only=True, eq=False)
class Batch:
    """One step's rows.

    Attributes:
        tokens: Token ids, `[batch, pos]`.
        labels: The same ids, or -100 where nothing could predict the token.
        kinds: For each row, which of `ROW_KINDS` it is, by its number.
    """

    tokens: Tensor = attrs.field(repr=False)
    labels: Tensor = attrs.field(repr=False)
    kinds: Tensor = attrs.field(repr=False)


@attrs.frozen(kw_only=True, eq=False)
class Source:
    """What rows are drawn from.

    Attributes:
        text: Token ids of the books, one after another.
        shuffled: All token ids but the special ones, in random order.
        tokenizer: Encoder of the task sentences.
        generator: Source of randomness.
    """

    text: Tensor = attrs.field(repr=False)
    shuffled: Tensor = attrs.field(repr=False)
    tokenizer: PreTrainedTokenizerFast = attrs.field(repr=False)
    generator: torch.Generator = attrs.field(repr=False)


def draw_batch(source: Source, mixture: Mixture) -> Batch:
    """Draw rows of one random length."""
    length = pick(source.generator, mixture.lengths)
    n_rows = mixture.n_tokens // length
    kinds = [_weighted(source.generator, mixture.shares) for _ in range(n_rows)]
    rows = [_row(source, mixture, kind=kind, length=length) for kind in kinds]
    return Batch(
        tokens=torch.stack([tokens for tokens, _ in rows]),
        labels=torch.stack([labels for _, labels in rows]),
        kinds=torch.tensor(kinds),
    )


def repeated_tokens(
    generator: torch.Generator, *, batch: int, length: int, vocab: int
) -> Tensor:
    """Draw random tokens, special ones excepted, and write each row twice.

    Args:
        generator: Source of randomness.
        batch: Number of rows.
        length: Tokens before the repeat.
        vocab: Size of the vocabulary.

    Returns:
        Token ids, `[batch, 2 * length]`, without a beginning-of-text token.
    """
    half = torch.randint(N_SPECIAL, vocab, (batch, length), generator=generator)
    return torch.cat([half, half], dim=1)


def _row(
    source: Source, mixture: Mixture, *, kind: int, length: int
) -> tuple[Tensor, Tensor]:
    """Draw one row and its labels."""
    generator, name = source.generator, ROW_KINDS[kind]
    tokens = torch.empty(0, dtype=torch.long)
    if chance(generator, BOS_SHARE):
        tokens = torch.tensor([BOS_ID])
    if name == "text":
        tokens = torch.cat([tokens, _crop(source, length)])
    elif chance(generator, PREFIX_SHARE):
        tokens = torch.cat([tokens, _crop(source, between(generator, 1, length // 2))])
    labels = tokens.clone()
    if name == "tasks":
        tokens = torch.cat([tokens, _packed(source, length - len(tokens))])
        labels = tokens.clone()
    elif name == "repeats":
        repeats, targets = _repeats(source, mixture, length - len(tokens))
        tokens, labels = torch.cat([tokens, repeats]), torch.cat([labels, targets])
    return tokens[:length], labels[:length]


def _crop(source: Source, length: int) -> Tensor:
    start = below(source.generator, len(source.text) - length)
    return source.text[start : start + length]


def _packed(source: Source, length: int) -> Tensor:
    """Fill a row with sentences, joined in one of three ways."""
    tokenizer, generator = source.tokenizer, source.generator
    joint = pick(generator, (" ", "\n", ""))
    weights = [weight for _, weight in DOCUMENTS]
    pieces: list[list[int]] = []
    while sum(map(len, pieces)) < length:
        write, _ = DOCUMENTS[_weighted(generator, weights)]
        sentence = write(generator)
        if pieces and joint:
            sentence = joint + sentence
        elif pieces:
            pieces.append([EOS_ID, BOS_ID])
        pieces.append(tokenizer.encode(sentence, add_special_tokens=False))
    return torch.tensor(list(chain.from_iterable(pieces)))


def _repeats(source: Source, mixture: Mixture, length: int) -> tuple[Tensor, Tensor]:
    """Fill a row with repeated sequences; only the repeats are to be predicted."""
    pieces: list[Tensor] = []
    labels: list[Tensor] = []
    left = length
    while left > 0:
        longest = min(pick(source.generator, LONGEST_REPEATS), left // 2)
        n_half = between(
            source.generator, SHORTEST_REPEAT, max(SHORTEST_REPEAT, longest)
        )
        is_full = chance(source.generator, mixture.full_pool_share)
        half = _random_tokens(source, n_half, from_all=is_full)
        ignored = torch.full((n_half + 1,), IGNORED)
        pieces += [half, half]
        labels += [ignored, half[1:]]
        left -= 2 * n_half
    return torch.cat(pieces)[:length], torch.cat(labels)[:length]


def _random_tokens(source: Source, n: int, *, from_all: bool) -> Tensor:
    """Draw different tokens, from all of them or from a pool of random size.

    The pools lie inside each other. A small one is soon mastered, and what is learned
    there spreads to the larger ones; with all tokens alone, induction takes very long.
    """
    generator, size = source.generator, len(source.shuffled)
    if not from_all:
        exponent = float(torch.rand((), generator=generator))
        size = int(SMALLEST_POOL * (size / SMALLEST_POOL) ** exponent)
    return source.shuffled[torch.randperm(size, generator=generator)[:n]]


def _weighted(generator: torch.Generator, weights: Sequence[float]) -> int:
    """Draw a number, by its weight."""
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator))


def _indirect_object(generator: torch.Generator) -> str:
    return document(indirect_object(generator, held_out=False))


def _agreement(generator: torch.Generator) -> str:
    return document(agreement(generator, held_out=False))


DOCUMENTS: Final[tuple[tuple[Callable[[torch.Generator], str], float], ...]] = (
    (_indirect_object, 0.40),
    (third_person, 0.07),
    (_agreement, 0.25),
    (simple_agreement, 0.03),
    (plain_english, 0.25),
)
"""Writers of the sentences in task rows, and the share of each."""
