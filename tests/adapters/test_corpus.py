"""Corpora packed into rows."""

from pathlib import Path
from typing import Any

import pytest

from funlens.adapters import tokenize_and_concatenate
from funlens.data import ModelSpec
from funlens.errors import InputError, OptionError
from tests.adapters.words import (
    BOS,
    EOS,
    FOUR,
    ONE,
    THREE,
    TWO,
)


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


@pytest.mark.parametrize(
    ("corpus", "words"),
    [
        ({"train": ["one two"], "test": ["three"]}, "a mapping of train, test"),
        ([{"text": "one"}, {"text": None}], "text 1 of the corpus is a NoneType"),
        ([{"text": ["one"]}], "text 0 of the corpus is a list"),
        (["one", b"two"], "text 1 of the corpus is a bytes"),
        (Path("nowhere.txt"), "nowhere.txt cannot be read"),
    ],
    ids=str,
)
def test_what_is_no_corpus_is_refused(
    spec: ModelSpec, corpus: Any, words: str, unchecked: None
) -> None:
    """Splits of a dataset, rows that are no text, a file that is not there."""
    with pytest.raises(InputError, match=words):
        tokenize_and_concatenate(spec, corpus, n_ctx=2)


def test_a_corpus_can_be_a_stream(spec: ModelSpec) -> None:
    """A generator is read once, and no further than its end."""
    texts = (text for text in ["one two", "three", "four"])
    rows = tokenize_and_concatenate(spec, texts, n_ctx=4)
    assert [[BOS, ONE, TWO, EOS], [BOS, THREE, EOS, FOUR]] == rows.tolist()
    assert [] == list(texts)
