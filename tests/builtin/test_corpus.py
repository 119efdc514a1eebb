"""The books are found, cleaned and split."""

from pathlib import Path

import pytest

from funlens.builtin._corpus import BOOKS, read_corpus


def write_books(folder: Path) -> None:
    """Write a made-up text for each book, some folders down."""
    below = folder / "package" / "data"
    below.mkdir(parents=True)
    for name in BOOKS:
        parts = [f"_Part_ {at}\r\nof {name}" for at in range(100)]
        (below / name).write_text("\n\n\n".join(parts), encoding="utf-8")


def test_a_paragraph_is_one_clean_line(tmp_path: Path) -> None:
    """Line breaks inside a paragraph go, and so do the marks of italics."""
    write_books(tmp_path)
    assert f"Part 0 of {BOOKS[0]}" == read_corpus(tmp_path).training.split("\n")[0]


def test_each_book_is_cut_once(tmp_path: Path) -> None:
    """Both parts together are all paragraphs, each book's end for measuring."""
    write_books(tmp_path)
    corpus = read_corpus(tmp_path)
    training, validation = corpus.training.split("\n"), corpus.validation.split("\n")
    assert 100 * len(BOOKS) == len(set(training) | set(validation))
    assert set() == set(training) & set(validation)
    assert {f"Part 99 of {name}" for name in BOOKS} <= set(validation)


def test_the_digest_tells_texts_apart(tmp_path: Path) -> None:
    """The same books give the same digest, others another."""
    write_books(tmp_path)
    first, again = read_corpus(tmp_path), read_corpus(tmp_path)
    path = next(tmp_path.rglob(BOOKS[0]))
    path.write_text(path.read_text(encoding="utf-8") + " more", encoding="utf-8")
    assert first.digest == again.digest
    assert first.digest != read_corpus(tmp_path).digest


def test_a_missing_book_is_named(tmp_path: Path) -> None:
    """The message says which file is wanted, and what to do."""
    write_books(tmp_path)
    next(tmp_path.rglob(BOOKS[3])).unlink()
    with pytest.raises(FileNotFoundError) as caught:
        read_corpus(tmp_path)
    for fragment in (BOOKS[3], "unpack"):
        assert fragment in str(caught.value)
