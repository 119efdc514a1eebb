"""Runs, captures and every kind of intervention, against a computation by hand."""

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gemma2", "mixtral", "t5", "bert", "mamba", "gptj")
# Sums of a few terms of size 1 in float32, in another order.
TOLERANCE: Final = 1e-5


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def kept(name: str, site: fl.Site, edits: Any = ()) -> Tensor:
    """What passes a site."""
    found = fl.run_with_cache(spec_of(name), tiny_inputs(name), edits, capture=[site])
    return found.cache[site]


def drawn(*shape: int, seed: int = 3) -> Tensor:
    """Normal numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
def test_run_equals_untouched_copy(name: str) -> None:
    """Logits are those of a module funlens never saw, bit for bit."""
    with torch.no_grad():
        expected = tiny_hf_model(name)(**tiny_inputs(name)).logits
    assert torch.equal(expected, fl.run(spec_of(name), tiny_inputs(name)))
    logits, _ = fl.run_with_cache(
        spec_of(name), tiny_inputs(name), capture=[fl.resid_post]
    )
    assert torch.equal(expected, logits)


@pytest.mark.parametrize("name", NAMES)
def test_stop_gives_the_captured_residual(name: str) -> None:
    """Stopping at a layer gives what enters it."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    expected = kept(name, fl.resid_pre(1))
    assert torch.equal(expected, fl.run(spec, inputs, stop_at_layer=1))
    last = kept(name, fl.resid_post(spec.n_layers - 1))
    assert torch.equal(last, fl.run(spec, inputs, stop_at_layer=spec.n_layers))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "t5"])
def test_start_goes_on_from_the_captured_residual(name: str) -> None:
    """A run from layer 1 gives the logits of the whole run, without block 0."""
    spec, inputs = spec_of(name), tiny_inputs(name)
    residual = kept(name, fl.resid_pre(1))
    got = fl.run(spec, inputs, start_at_layer=1, residual=residual)
    torch.testing.assert_close(fl.run(spec, inputs), got, atol=TOLERANCE, rtol=0)
    mlp = fl.mlp_out(0) if name != "mamba" else fl.ssm_out(0)
    calls: list[int] = []

    def count(value: Tensor) -> Tensor:
        calls.append(1)
        return value

    with pytest.raises(fl.errors.NeverActedError):
        fl.run(
            spec,
            inputs,
            [fl.Apply(mlp, count)],
            start_at_layer=1,
            residual=residual,
        )
    assert [] == calls


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("chosen", [-1, (0, 2), slice(1, 3)])
def test_logits_at_unembeds_only_these(name: str, chosen: Any) -> None:
    """The axis of positions stays, with the chosen ones."""
    whole = fl.run(spec_of(name), tiny_inputs(name))
    index = [chosen] if isinstance(chosen, int) else chosen
    expected = whole[:, list(index) if isinstance(index, tuple) else index]
    got = fl.run(spec_of(name), tiny_inputs(name), logits_at=chosen)
    torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_receipt_tells_count_shape_and_change(name: str) -> None:
    """One edit acted once, on its selection, by its own size."""
    spec, vector = spec_of(name), drawn(16)
    site = fl.resid_pre(1, pos=-1)
    _, cache_ = fl.run_with_cache(
        spec, tiny_inputs(name), [fl.Add(site, vector)], capture=[site]
    )
    (receipt,) = cache_.receipts
    assert (1, (2, 16)) == (receipt.count, receipt.shape)
    expected = vector.norm() * 2**0.5
    torch.testing.assert_close(expected, receipt.change, atol=1e-4, rtol=0)


def basis_of(directions: Tensor) -> Tensor:
    """The projector onto the span of some rows."""
    return torch.linalg.pinv(directions) @ directions


V, SOURCE, D = drawn(16), drawn(2, 7, 16), drawn(2, 16)
LINEAR: Final = torch.nn.Linear(16, 16).requires_grad_(requires_grad=False)
Make = Callable[[fl.Site], fl.Intervention]
KINDS: Final[dict[str, tuple[Make, Callable[[Tensor], Tensor]]]] = {
    "Zero": (fl.Zero, lambda x: x * 0),
    "Mean": (lambda s: fl.Mean(s, V), V.expand_as),
    "Set": (lambda s: fl.Set(s, 0.5), lambda x: x * 0 + 0.5),
    "Add": (lambda s: fl.Add(s, V, scale=2.0), lambda x: x + 2 * V),
    "Scale": (lambda s: fl.Scale(s, V), lambda x: x * V),
    "Patch": (lambda s: fl.Patch(s, SOURCE), lambda x: SOURCE),
    "Freeze": (lambda s: fl.Freeze(s, SOURCE), lambda x: SOURCE),
    "Project": (lambda s: fl.Project(s, D), lambda x: x @ basis_of(D)),
    "ProjectOut": (lambda s: fl.ProjectOut(s, D), lambda x: x - x @ basis_of(D)),
    "Clamp": (lambda s: fl.Clamp(s, low=-0.1, high=0.2), lambda x: x.clamp(-0.1, 0.2)),
    "Noise": (
        lambda s: fl.Noise(s, std=0.5, seed=7),
        lambda x: x + 0.5 * drawn(2, 7, 16, seed=7),
    ),
    "Interchange": (
        lambda s: fl.Interchange(s, SOURCE, directions=D),
        lambda x: x + (SOURCE - x) @ basis_of(D),
    ),
    "Splice": (lambda s: fl.Splice(s, LINEAR), LINEAR),
    "Apply": (lambda s: fl.Apply(s, torch.sin), torch.sin),
}


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj", "mamba"])
@pytest.mark.parametrize("kind", KINDS)
def test_kind_equals_hand_computation(name: str, kind: str) -> None:
    """Every kind does to the residual what its name says."""
    make, by_hand = KINDS[kind]
    site = fl.resid_pre(1)
    expected = by_hand(kept(name, site))
    got = kept(name, site, [make(site)])
    torch.testing.assert_close(expected, got, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "site",
    [
        fl.z(1, head=2, pos=-1),
        fl.z(1, head=(0, 2), pos=-1),
        fl.pattern(0, head=1, query=3, key=(0, 2)),
        fl.mlp_post(1, pos=torch.tensor([1, 3]), neuron=5),
    ],
    ids=str,
)
def test_several_selections_mean_their_product(name: str, site: fl.Site) -> None:
    """What is kept is cut out of the whole, and an edit changes just that."""
    spec, inputs = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    _, whole = fl.run_with_cache(spec, inputs, capture=[site.whole])
    _, part = fl.run_with_cache(spec, inputs, capture=[site])
    assert torch.equal(whole[site], part[site])
    _, edited = fl.run_with_cache(
        spec, inputs, [fl.Set(site, part[site] + 1.0)], capture=[site.whole]
    )
    moved = edited[site.whole] != whole[site.whole]
    assert torch.equal(whole[site] + 1.0, edited[site])
    assert part[site].numel() == moved.sum()
