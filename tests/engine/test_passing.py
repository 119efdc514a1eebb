"""Gradients that are looked at as they pass."""

import weakref
from collections import Counter
from functools import cache

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.engine._inputs import prepare
from funlens.engine._passing import passing
from funlens.testing import tiny_hf_model, tiny_inputs


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def every(name: str) -> list[fl.Site]:
    """The sites that have gradients of their own."""
    return [info.site for info in spec_of(name).sites if not info.read_only]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_gradients_are_gone_when_they_have_passed(name: str) -> None:
    """At no time are more than a few alive: those of one sum share a tensor."""
    seen: list[weakref.ref[Tensor]] = []
    most = 0

    def look(site: fl.Site, value: Tensor, gradient: Tensor) -> None:
        del site, value
        nonlocal most
        seen.append(weakref.ref(gradient))
        most = max(most, len({id(held()) for held in seen if held() is not None}))

    prepared = prepare(spec_of(name), tiny_inputs(name))
    metric = fl.logit_diff(3, 5)
    values = passing(spec_of(name), prepared, metric, every(name), look)
    assert len(seen) >= len(every(name)) > 40
    assert 0 < most < 12
    expected = metric(fl.run(spec_of(name), tiny_inputs(name)))
    torch.testing.assert_close(expected, values[0], atol=1e-6, rtol=0)


def shown(name: str, metric: fl.Metric) -> Counter[fl.Site]:
    """How often each site is shown with a gradient that is not zero."""
    counts: Counter[fl.Site] = Counter()

    def look(site: fl.Site, value: Tensor, gradient: Tensor) -> None:
        assert value.shape == gradient.shape
        assert not value.requires_grad
        counts[site] += int(bool(gradient.any()))

    prepared = prepare(spec_of(name), tiny_inputs(name))
    passing(spec_of(name), prepared, metric, every(name), look)
    assert {*every(name)} == {*counts}
    return counts


def test_site_that_is_passed_twice_is_shown_twice() -> None:
    """Attention that runs once for each half of its values."""
    counts = shown("diffllama", fl.logit_diff(3, 5))
    assert (2, 1) == (counts[fl.pattern(1)], counts[fl.q(1)])


def test_site_that_the_metric_does_not_depend_on_is_shown_zeros() -> None:
    """What comes after that which is read."""
    metric = fl.reads(fl.resid_mid(0), lambda held: held.square().sum((1, 2)))
    counts = shown("gpt2", metric)
    assert (1, 1, 0, 0) == tuple(
        counts[site] for site in (fl.z(0), fl.resid_mid(0), fl.mlp_in(0), fl.z(1))
    )
