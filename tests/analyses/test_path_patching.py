"""Path patching, against the method written out by hand."""

from collections.abc import Sequence
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import tiny_hf_model

NAMES: Final = ("gpt2", "llama", "gptj", "mixtral")
CLOSE: Final = 1e-4
METRIC: Final = fl.logit_diff(3, 5)


def subject(name: str) -> tuple[fl.ModelSpec, Tensor, Tensor]:
    """A tiny model and two texts."""
    generator = torch.Generator().manual_seed(2)
    here, there = torch.randint(2, 30, (2, 2, 6), generator=generator)
    return fl.from_module(tiny_hf_model(name)), here, there


def by_hand(
    spec: fl.ModelSpec,
    texts: tuple[Tensor, Tensor],
    sender: fl.Site,
    receivers: Sequence[fl.Site],
    through: Sequence[fl.Site] = (),
) -> Tensor:
    """Wang et al.'s two runs: one with all others frozen, one with what was read."""
    here, there = texts
    own = fl.run_with_cache(spec, here).cache
    other = fl.run_with_cache(spec, there).cache
    free = {sender, *through}
    frozen = [
        fl.Freeze(site, own) for site in fl.graph(spec).senders[1:] if site not in free
    ]
    wholes = [site.whole for site in receivers]
    edits: list[Any] = [fl.Patch(sender, other), *frozen]
    first = fl.run_with_cache(spec, here, edits, capture=wholes)
    if receivers == [fl.resid_post(spec.n_layers - 1)]:
        return METRIC(first.logits)
    second = [fl.Patch(site, first.cache) for site in receivers]
    return METRIC(fl.run(spec, here, second))


@pytest.mark.parametrize("name", NAMES)
def test_the_direct_path_to_the_logits(name: str) -> None:
    """Every head and MLP, with all others frozen."""
    spec, here, there = subject(name)
    last = [fl.resid_post(spec.n_layers - 1)]
    senders = fl.graph(spec).senders[1:]
    found = fl.path_patching(spec, here, there, metric=METRIC, senders=senders)
    expected = torch.stack([by_hand(spec, (here, there), s, last) for s in senders])
    torch.testing.assert_close(found.rows, expected, rtol=CLOSE, atol=CLOSE)
    assert found.axes == ("sender",)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_the_path_to_a_head(name: str, part: str) -> None:
    """Into what a head of the last layer reads; MLPs frozen, or recomputed."""
    spec, here, there = subject(name)
    receiver = fl.data.Site(part=part, layer=1, head=1)
    for through in ((), [fl.mlp_out(0)]):
        found = fl.path_patching(
            spec, here, there, metric=METRIC, receivers=[receiver], through=through
        )
        assert found.axes == ("layer", "head")
        senders = [fl.z(layer, head=h) for layer in (0, 1) for h in range(4)]
        for sender, row in zip(senders, found.rows.flatten(0, 1), strict=True):
            if sender.layer == 1:
                expected = METRIC(fl.run(spec, here))
            else:
                expected = by_hand(spec, (here, there), sender, [receiver], through)
            torch.testing.assert_close(row, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", [*NAMES, "gemma2", "deepseek_v3"])
def test_all_paths_are_activation_patching(name: str) -> None:
    """Through everything to the logits: as if the sender had been patched."""
    spec, here, there = subject(name)
    graph = fl.graph(spec)
    sender = graph.senders[1]
    found = fl.path_patching(
        spec,
        here,
        there,
        metric=METRIC,
        senders=[sender],
        through=graph.senders[1:],
    )
    edge = fl.Circuit.from_nodes(graph, [s for s in graph.senders if s != sender])
    edits = fl.circuit_edits(spec, edge, here, there)
    expected = METRIC(fl.run(spec, here, edits))
    row = found.rows.flatten(0, -2)[0]
    torch.testing.assert_close(row, expected, rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_frozen_norms_make_direct_effects_add_up(name: str) -> None:
    """With its scale held, the last norm is linear: effects of all senders sum."""
    spec, here, there = subject(name)
    senders = fl.graph(spec).senders
    found = fl.path_patching(
        spec, here, there, metric=METRIC, senders=senders, norms="frozen"
    )
    last, scale = fl.resid_post(spec.n_layers - 1), fl.ln_final_scale()
    own = fl.run_with_cache(spec, here, capture=[last, scale]).cache
    other = fl.run_with_cache(spec, there, capture=[last]).cache
    edits = [fl.Patch(last, other), fl.Freeze(scale, own)]
    expected = METRIC(fl.run(spec, here, edits)) - METRIC(fl.run(spec, here))
    total = (found.rows - found.baseline).sum(0)
    torch.testing.assert_close(total, expected, rtol=1e-3, atol=1e-3)


def test_frozen_norms_differ_at_a_head() -> None:
    """Holding the scale before a receiver changes what it reads."""
    spec, here, there = subject("gpt2")
    plain, frozen = (
        fl.path_patching(
            spec, here, there, metric=METRIC, receivers=[fl.v(1, head=0)], norms=norms
        )
        for norms in ("recomputed", "frozen")
    )
    assert not torch.equal(plain.rows, frozen.rows)
    torch.testing.assert_close(plain.rows[1], frozen.rows[1])  # after the receiver


def test_mistakes_are_refused() -> None:
    """What is no sender, no receiver, no word; frozen norms in between."""
    spec, here, there = subject("gpt2")
    with pytest.raises(errors.InputError, match="no sender"):
        fl.path_patching(spec, here, there, metric=METRIC, senders=[fl.q(0, head=0)])
    with pytest.raises(errors.InputError, match="no sender is a q"):
        fl.path_patching(spec, here, there, metric=METRIC, senders=fl.q)
    with pytest.raises(errors.InputError, match="no receiver"):
        fl.path_patching(spec, here, there, metric=METRIC, receivers=[fl.z(0, head=0)])
    with pytest.raises(errors.OptionError, match="recomputed"):
        fl.path_patching(
            spec, here, there, metric=METRIC, norms="frozen", through=fl.mlp_out
        )
