"""The table of what is supported says what running finds."""

from typing import Final

import pytest

import funlens as fl
from funlens.adapters import described
from funlens.errors import UnsupportedArchitectureError
from funlens.testing import tiny_hf_model
from tests.models.__main__ import PAGE, as_json, listed
from tests.models._obstacles import UNBUILT, UNDESCRIBED
from tests.models._page import good_types, page
from tests.models._tasks import TITLES, types_of
from tests.models._verified import NO_TABLE, every_recipe, verify

LEAST: Final = {
    "causal-lm": 183,
    "masked-lm": 47,
    "seq2seq-lm": 35,
    "image-text": 68,
    "speech": 18,
    "ctc": 13,
    "audio-classifier": 12,
    "image-classifier": 19,
    "token-classification": 90,
    "sequence-classification": 115,
}
SAMPLES: Final = ("bert", "gpt2", "mamba", "t5-base", "opt-sequence-classification")


def test_every_recipe_was_run() -> None:
    """Nothing is listed that has no recipe, and no recipe is left out."""
    assert {r.name for r in every_recipe()} == {row.name for row in listed()}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_row_is_what_running_finds(name: str, unchecked: None) -> None:
    """Sites, laws and excuses of a few are found again."""
    (recipe,) = (r for r in every_recipe() if r.name == name)
    (expected,) = (row for row in listed() if row.name == name)
    (found,) = as_json([verify(recipe)])["rows"]
    assert expected.n_sites == found["n_sites"]
    assert len(expected.excused) == len(found["excused"])
    assert len(expected.broken) == len(found["broken"])


def test_the_page_is_what_the_file_says() -> None:
    """docs/models.md is made of the file, and was not written by hand."""
    assert page(listed()) == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("task", LEAST)
def test_so_many_types_are_verified(task: str) -> None:
    """Of the model types that transformers has for a head."""
    good = good_types(row for row in listed() if row.task == task)
    assert LEAST[task] <= len(good & types_of(task))


def test_no_law_is_broken() -> None:
    """A law that does not hold is mended, or its excuse is found."""
    assert {} == {row.name: row.broken for row in listed() if row.broken}


def test_what_is_not_built_or_described_has_a_reason() -> None:
    """Each language model that is not verified is refused, or an obstacle is named."""
    for task in LEAST:
        rows = [row for row in listed() if row.task == task]
        left = {row.model_type for row in rows if row.refused == NO_TABLE}
        assert set() == left - set(UNDESCRIBED), TITLES[task]
    for task in ("causal-lm", "masked-lm", "seq2seq-lm", "speech", "image-classifier"):
        rows = {row.model_type for row in listed() if row.task == task}
        assert set() == types_of(task) - rows - set(UNBUILT), TITLES[task]


def test_types_without_a_table_are_refused() -> None:
    """The error names the nearest types that have one."""
    with pytest.raises(UnsupportedArchitectureError) as caught:
        fl.from_module(tiny_hf_model("funnel"))
    assert "funnel" == caught.value.model_type


def test_tables_that_were_not_run_are_told_apart() -> None:
    """They come without a task, and are not verified."""
    rest = [row for row in fl.supported() if not row.task]
    assert not any(row.is_verified for row in rest)
    assert {row.model_type for row in rest} <= set(described())
