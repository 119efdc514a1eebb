"""What a task asks, and which of its prompts training never sees."""

import re
import zlib
from typing import Final

import attrs

HELD_OUT_PERCENT: Final = 15
ALWAYS_HELD_OUT: Final[frozenset[frozenset[str]]] = frozenset(
    (
        frozenset(("Mary", "John")),
        frozenset(("Alice", "Tom")),
        frozenset(("key", "cabinet")),
    )
)
"""Pairs of the textbook sentences, kept for measuring."""


@attrs.frozen(kw_only=True)
class Prompt:
    """A sentence cut before a word that shows a skill.

    Attributes:
        text: What comes before the answer, with no space at its end.
        answer: The right next word, with its leading space.
        wrong: The tempting wrong one, with its leading space.
        rest: How the sentence goes on in training.
        kind: Which variant of the task this is.
    """

    text: str
    answer: str
    wrong: str
    rest: str
    kind: str


def document(prompt: Prompt) -> str:
    """Write the prompt out with its answer, as training reads it."""
    return prompt.text + prompt.answer + prompt.rest


def with_articles(text: str) -> str:
    """Write "an" for "a" before a vowel, so that templates need not care."""
    return re.sub(r"\ba (?=[aeio])", "an ", text)


def is_held_out(*words: str) -> bool:
    """Say whether these words may only meet in measuring, in whatever order."""
    if frozenset(words) in ALWAYS_HELD_OUT:
        return True
    return zlib.crc32("|".join(sorted(words)).encode()) % 100 < HELD_OUT_PERCENT
