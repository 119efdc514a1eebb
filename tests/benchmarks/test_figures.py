"""The measures measure what they say; memory, which needs no clock, is held here."""

import pytest
import torch
from torch import Tensor

import funlens as fl
from tests.benchmarks._figures import FIGURES, Figure, extra_memory
from tests.benchmarks._memory import peak
from tests.benchmarks._models import subject

KIB = 1024


def block(n: int) -> Tensor:
    """So many kibibytes."""
    return torch.zeros(n * KIB, dtype=torch.uint8)


def test_peak_counts_what_lives_at_once() -> None:
    """Three blocks of which two are there at the same time, and views of them."""
    outer = block(64)

    def call() -> Tensor:
        first = block(3)
        second = first.view(3, KIB)[1:].flatten() + 1
        del first
        third = block(4) * 2
        outer.add_(1)
        outer[:KIB].mul_(1)
        return torch.cat([second, third])

    # 2 and 4 and 4 before `third` is made, then 2 and 4 and what they are put into
    assert 12 * KIB == peak(call)
    assert 0 == peak(lambda: outer.view(-1, 2))


@pytest.mark.parametrize("n_layer", [2, 4, 16])
def test_kept_residual_costs_itself_at_any_depth(unchecked: None, n_layer: int) -> None:
    """The peak of the run grows by the one tensor at most."""
    assert extra_memory(n_layer) <= 1.0


def test_all_residuals_kept_cost_more_with_depth(unchecked: None) -> None:
    """The measure sees it where memory does grow."""

    def extra(n_layer: int) -> int:
        sized = subject(n_layer=n_layer, n_embd=64, n_head=2, vocab_size=64)

        def keep() -> fl.Run:
            return fl.run_with_cache(sized.spec, sized.tokens, capture=[fl.resid_post])

        return peak(keep) - peak(sized.forward())

    assert extra(8) > 2 * extra(2)


def test_figures_have_names_of_their_own() -> None:
    """The JSON has one entry for each."""
    assert len(FIGURES) == len({figure.name for figure in FIGURES})


def test_bound_is_the_most_or_the_least() -> None:
    """Times are at most, gains at least; the bound itself holds."""
    most = Figure(name="", measure=float, bound=1.0)
    least = Figure(name="", measure=float, bound=1.0, is_least=True)
    assert [True, True, False] == [most.holds(value) for value in (0.5, 1.0, 1.5)]
    assert [False, True, True] == [least.holds(value) for value in (0.5, 1.0, 1.5)]
