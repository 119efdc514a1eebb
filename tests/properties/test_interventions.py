"""Lists of interventions on tiny models, whatever is drawn."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any, Final

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import funlens as fl
from funlens.testing import (
    intervention_strategy,
    interventions_strategy,
    selection_strategy,
    site_strategy,
    tiny_hf_model,
    tiny_inputs,
)

pytestmark = [pytest.mark.property, pytest.mark.usefixtures("unchecked")]

NAMES: Final = ("gpt2", "llama")
# float32: adding and taking away leaves the rounding of one sum, which three blocks
# may enlarge a hundred times.
TOLERANCE: Final = 1e-4
WORD_OF: Final = {"kv_head": "head", "d_mlp": "neuron"}


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


@cache
def tokens_of(name: str) -> Tensor:
    """Two rows of five tokens."""
    return tiny_inputs(name, pos=5)["input_ids"]


def drawn_from(strategy: Any, **how: Any) -> Any:
    """Pairs of a model's name and what is drawn for it."""
    return st.one_of(
        st.tuples(st.just(name), strategy(spec_of(name), tokens_of(name), **how))
        for name in NAMES
    )


def run(name: str, edits: Any) -> Tensor:
    """Logits of a run with edits."""
    return fl.run(spec_of(name), tokens_of(name), list(edits))


def same(one: Tensor, other: Tensor) -> bool:
    """Tell whether all numbers are equal; a scale of zero makes NaN, which is NaN."""
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def value_at(name: str, site: fl.Site, edits: Any = ()) -> Tensor:
    """What passes a site."""
    return fl.run_with_cache(
        spec_of(name), tokens_of(name), list(edits), capture=[site]
    ).cache[site]


def places(site: fl.Site, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Indices of a selection's places, as Python's own lists would choose them."""
    chosen = dict(site.selections)
    columns: list[list[int]] = []
    for axis, size in zip(site.axes, shape, strict=True):
        what: Any = chosen.get(WORD_OF.get(axis, axis), slice(None))
        every = list(range(size))
        what = what.to_slice() if hasattr(what, "to_slice") else what
        if isinstance(what, slice):
            columns.append(every[what])
        else:
            columns.append(
                [every[at] for at in (what if isinstance(what, tuple) else [what])]
            )
    return torch.meshgrid(*map(torch.tensor, columns), indexing="ij")


def squeezed(site: fl.Site, part: Tensor) -> Tensor:
    """Leave out the axes of which one index was taken."""
    chosen = dict(site.selections)
    for at in reversed(range(part.ndim)):
        if type(chosen.get(WORD_OF.get(site.axes[at], site.axes[at]))) is int:
            part = part.squeeze(at)
    return part


@given(drawn_from(interventions_strategy), st.randoms(use_true_random=False))
def test_edits_at_different_sites_commute(drawn: Any, random: Any) -> None:
    """In any order, bit for bit."""
    name, edits = drawn
    shuffled = random.sample(edits, len(edits))
    assert same(run(name, edits), run(name, shuffled))


@given(drawn_from(selection_strategy))
def test_zero_twice_is_zero_once(drawn: Any) -> None:
    """At any selection."""
    name, site = drawn
    once, twice = run(name, [fl.Zero(site)]), run(name, [fl.Zero(site)] * 2)
    assert same(once, twice)


@given(drawn_from(selection_strategy), st.integers(0, 99))
def test_adding_and_subtracting_is_nothing(drawn: Any, seed: int) -> None:
    """The same vector, at the same selection."""
    name, site = drawn
    (info,) = fl.dry_run(spec_of(name), tokens_of(name), capture=[site])
    shape = tuple(int(size) for size in info.shape)
    vector = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    there, back = fl.Add(site, vector), fl.Add(site, vector, scale=-1.0)
    expected = value_at(name, site)
    got = value_at(name, site, [there, back])
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=TOLERANCE)


@given(drawn_from(intervention_strategy))
def test_edit_of_a_selection_is_the_whole_s_by_hand(drawn: Any) -> None:
    """Against `Apply` at the whole site, with the places counted by Python's lists."""
    name, edit = drawn

    def by_hand(whole: Tensor) -> Tensor:
        at = places(edit.site, tuple(whole.shape))
        part = squeezed(edit.site, whole[at])
        new = BY_HAND[type(edit)](edit, part)
        changed = whole.clone()
        changed[at] = new.reshape(at[0].shape)
        return changed

    whole = edit.site.whole
    expected = value_at(name, whole, [fl.Apply(whole, by_hand)])
    got = value_at(name, whole, [edit])
    torch.testing.assert_close(
        expected, got, atol=TOLERANCE, rtol=TOLERANCE, equal_nan=True
    )


def noise(edit: fl.Noise, part: Tensor) -> Tensor:
    """Draw from the seed."""
    generator = torch.Generator().manual_seed(edit.seed)
    return edit.std * torch.randn(part.shape, generator=generator)


def projected(directions: Tensor, part: Tensor) -> Tensor:
    """Project with the pseudo-inverse."""
    return part @ torch.linalg.pinv(directions) @ directions


BY_HAND: Final[dict[type, Callable[[Any, Tensor], Tensor]]] = {
    fl.Zero: lambda edit, part: part * 0,
    fl.Set: lambda edit, part: torch.zeros_like(part) + edit.value,
    fl.Add: lambda edit, part: part + edit.scale * edit.vector,
    fl.Scale: lambda edit, part: part * edit.factor,
    fl.Clamp: lambda edit, part: part.clamp(edit.low, edit.high),
    fl.Noise: lambda edit, part: part + noise(edit, part),
    fl.Project: lambda edit, part: projected(edit.directions, part),
    fl.ProjectOut: lambda edit, part: part - projected(edit.directions, part),
}


@given(drawn_from(selection_strategy))
def test_selection_that_is_kept_is_the_whole_s_part(drawn: Any) -> None:
    """Kept, looked up, or indexed by hand: the same bits."""
    name, site = drawn
    whole = fl.run_with_cache(spec_of(name), tokens_of(name), capture=[site.whole])
    held = whole.cache[site.whole]
    expected = squeezed(site, held[places(site, tuple(held.shape))])
    assert torch.equal(expected, whole.cache[site])
    assert torch.equal(expected, value_at(name, site))


@given(drawn_from(interventions_strategy))
def test_every_intervention_acts_once_and_is_found_right(drawn: Any) -> None:
    """`check` finds no fault, and each receipt counts one act."""
    name, edits = drawn
    fl.check(spec_of(name), tokens_of(name), edits)
    kept = fl.run_with_cache(
        spec_of(name), tokens_of(name), edits, capture=[fl.logits()]
    ).cache
    assert [1] * len(edits) == [receipt.count for receipt in kept.receipts]


@given(drawn_from(interventions_strategy))
def test_edited_run_leaves_the_model_as_it_was(drawn: Any) -> None:
    """The next plain run gives an untouched module's logits."""
    name, edits = drawn
    run(name, edits)
    with torch.no_grad():
        expected = untouched(name)(tokens_of(name)).logits
    assert torch.equal(expected, run(name, []))


@cache
def untouched(name: str) -> Any:
    """A module funlens never saw."""
    return tiny_hf_model(name)


@given(drawn_from(interventions_strategy, max_size=5))
def test_lists_are_as_long_as_asked_for_and_each_site_stands_once(drawn: Any) -> None:
    """The strategy keeps to what it says."""
    name, edits = drawn
    sites = [edit.site.whole for edit in edits]
    assert len(sites) <= 5
    assert len(sites) == len(set(sites))
    assert {info.site for info in spec_of(name).sites} >= set(sites)


def test_every_site_can_be_drawn_and_none_that_is_read_only() -> None:
    """Of a model in which one site is read-only."""
    spec = spec_of("gpt2")
    first, *rest = spec.sites
    spec = attrs.evolve(spec, sites=(attrs.evolve(first, read_only="no"), *rest))
    assert {info.site for info in rest} == {*site_strategy(spec).elements}


WITHOUT: Final = """
import sys
sys.modules["hypothesis"] = None
import funlens.testing
print(funlens.testing.recipe_names()[0])
"""


def test_testing_works_without_hypothesis() -> None:
    """It is a dependency of tests, and of nobody who only loads a tiny model."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, check=True, text=True
    )
    assert done.stdout.strip() in set(chain(NAMES))
