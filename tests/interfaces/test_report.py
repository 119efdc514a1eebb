"""The demonstration's numbers, and its page."""

from functools import cache as cached
from pathlib import Path

import attrs
import pytest
import torch

from funlens.adapters import load
from funlens.errors import InputError
from funlens.interfaces import Demonstration, Grid, demonstration, report
from funlens.interfaces._demo import _found, _pair, _patching
from funlens.interfaces._report import heatmap


@cached
def found() -> Demonstration:
    """The demonstration on the built-in model."""
    return demonstration(load("builtin:tiny"))


def test_induction_heads_matter_more_than_others() -> None:
    """Without them the repeat costs more than without any random others."""
    ablation = found().ablation
    assert ablation.after > max(ablation.others) + 1 > ablation.before


def test_patching_restores_from_nothing_to_everything() -> None:
    """Before the swapped name nothing changes; at that name all of it comes back."""
    patching = found().patching
    assert patching is not None
    columns = patching.restored.columns
    at = len(columns) - 1 - columns[::-1].index(" John")
    first = patching.restored.values[0]
    assert first[at] == pytest.approx(1.0, abs=1e-3)
    assert 0.0 == pytest.approx(max(map(abs, first[:at])), abs=1e-3)


def test_steering_changes_the_text() -> None:
    """The text turns from hot to cold."""
    steering = found().steering
    assert " hot" in steering.before.splitlines()[0]
    assert " cold" in steering.after.splitlines()[0]


def test_the_page_needs_nothing_else() -> None:
    """No script, and nothing that would be fetched."""
    page = report(found())
    assert [] == [
        word for word in ("<script", "http", "src=", "@import") if word in page
    ]


def test_what_a_model_writes_is_escaped() -> None:
    """Tokens and texts that look like HTML stay text."""
    nasty = "<b>&"
    steering = attrs.evolve(found().steering, before=nasty)
    page = report(
        attrs.evolve(
            found(), model=nasty, tokens=(nasty,), notes=(nasty,), steering=steering
        )
    )
    assert nasty not in page
    assert page.count("&lt;b&gt;&amp;") >= 5


def test_colors_diverge_from_white_at_zero() -> None:
    """Zero is white, the largest size is full, signs differ, NaN is left empty."""
    page = heatmap(
        Grid(rows=("r",), columns=("a",) * 4, values=((0.0, 2.0, -2.0, float("nan")),))
    )
    for color in ("rgb(255,255,255)", "rgb(178,24,43)", "rgb(33,102,172)"):
        assert 1 == page.count(color)
    assert 'title="no attention"></td>' in page


def test_without_a_clear_head_the_best_is_taken_and_said() -> None:
    """One head is ablated, with a note."""
    heads, notes = _found(torch.tensor([[0.1, 0.0], [0.0, 0.2]]))
    assert ((1, 1),) == heads
    assert len(notes) == 1


def test_names_that_do_not_line_up_are_refused() -> None:
    """Two names of different lengths in tokens make no pair."""
    assert _pair(load("builtin:tiny"), ("Mary", "Bartholomew")) is None


def test_without_names_patching_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output says why."""
    monkeypatch.setattr("funlens.interfaces._demo._NAMES", (("Mary", "Bartholomew"),))
    patching, notes = _patching(load("builtin:tiny"))
    assert patching is None
    assert "line up" in notes[0]
    assert "Where the answer" not in report(
        attrs.evolve(found(), patching=None, notes=notes)
    )


def test_a_model_that_does_not_continue_text_is_refused() -> None:
    """An encoder has no next token."""
    with pytest.raises(InputError):
        demonstration(attrs.evolve(load("builtin:tiny"), is_causal=False))


@pytest.mark.parametrize("name", ["stories15M", "stories260K"])
def test_the_demonstration_works_on_real_models(
    weights_folder: Path, name: str
) -> None:
    """Whatever the tokenizer does to names, there is a report."""
    assert name in report(demonstration(load(weights_folder / name)))
