"""torch.func and torch.compile through runs."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jvp, vmap

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gemma2", "t5", "bert", "gptj")
TOLERANCE: Final = 1e-4  # float32 inside, summed in another order
EXACT: Final = 1e-6  # float64: a central difference errs by step ** 2 times curvature
# These compute norms or attention in float32 whatever the dtype, so a difference is
# known to 1e-7 / step only.
ROUNDED: Final = ("llama", "gemma2", "t5", "gptj")


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model in float64, loaded once."""
    return fl.from_module(tiny_hf_model(name).double())


@cache
def inputs_of(name: str) -> dict[str, Tensor]:
    """Tokens, drawn outside any transform."""
    return tiny_inputs(name)


@pytest.fixture(autouse=True)
def _built(request: pytest.FixtureRequest) -> None:
    """Build the model before any transform is active, whichever test comes first."""
    name = (
        request.node.callspec.params["name"]
        if "name" in request.fixturenames
        else "gpt2"
    )
    spec_of(name)
    inputs_of(name)


def precision(name: str) -> tuple[float, float]:
    """The step of a difference, and its tolerance."""
    return (1e-3, 2e-3) if name in ROUNDED else (1e-5, EXACT)


def metric(name: str, vector: Tensor, **how: Any) -> Tensor:
    """A number that depends on a vector added to the stream."""
    site = fl.resid_pre(1, pos=-1)
    logits = fl.run(spec_of(name), inputs_of(name), [fl.Add(site, vector)], **how)
    return logits[:, -1, :5].logsumexp(-1).sum()


def drawn(*shape: int) -> Tensor:
    """Normal numbers, the same each time."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_vmap_equals_loop(name: str) -> None:
    """Many vectors at once, or one after the other."""
    vectors = drawn(3, 16)
    expected = torch.stack([metric(name, vector) for vector in vectors])
    got = vmap(lambda vector: metric(name, vector))(vectors)
    tolerance = TOLERANCE if name in ROUNDED else EXACT
    torch.testing.assert_close(expected, got, atol=tolerance, rtol=0)


def difference(name: str, vector: Tensor, direction: Tensor) -> Tensor:
    """The central difference of the metric."""
    step, _ = precision(name)
    ahead = metric(name, vector + step * direction)
    return (ahead - metric(name, vector - step * direction)) / (2 * step)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "t5"])
def test_grad_equals_finite_difference(name: str) -> None:
    """The slope along one direction."""
    vector, direction = drawn(2, 16)
    found = grad(lambda v: metric(name, v))(vector)
    expected = difference(name, vector, direction)
    slope, (_, tolerance) = found @ direction, precision(name)
    torch.testing.assert_close(expected, slope, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_jvp_equals_finite_difference(name: str) -> None:
    """Forward mode gives the same slope."""
    vector, direction = drawn(2, 16)
    _, found = jvp(lambda v: metric(name, v), (vector,), (direction,))
    expected = difference(name, vector, direction)
    torch.testing.assert_close(expected, found, atol=precision(name)[1], rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_hessian_is_square_and_symmetric(name: str) -> None:
    """Forward over reverse."""
    found = hessian(lambda v: metric(name, v))(drawn(16))
    assert (16, 16) == found.shape
    torch.testing.assert_close(found, found.T, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gptj"])
def test_grad_with_respect_to_params(name: str) -> None:
    """Weights that are passed in can be differentiated."""
    parameter, held = next(iter(spec_of(name).module.named_parameters()))
    held = held.detach()

    def total(weight: Tensor) -> Tensor:
        logits = fl.run(spec_of(name), inputs_of(name), params={parameter: weight})
        return logits[..., :3].sum()

    found = grad(total)(held)
    direction = drawn(*held.shape)
    step, tolerance = precision(name)
    ahead = total(held + step * direction) - total(held - step * direction)
    expected = ahead / (2 * step)
    slope = (found * direction).sum()
    torch.testing.assert_close(expected, slope, atol=0, rtol=tolerance)


def test_value_that_requires_grad_gets_one() -> None:
    """No transform: a graph is recorded where a value asks for it."""
    vector = drawn(16).requires_grad_()
    metric("gpt2", vector).backward()
    assert vector.grad is not None
    assert not metric("gpt2", vector, grad=False).requires_grad


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_compiled_run_equals_plain_run(name: str) -> None:
    """One graph, the same numbers."""
    spec, tokens = spec_of(name), tiny_inputs(name)["input_ids"]
    expected = fl.run(spec, tokens)
    torch.compiler.reset()
    compiled = torch.compile(
        lambda given: fl.run(spec, given), fullgraph=True, backend="eager"
    )
    torch.testing.assert_close(expected, compiled(tokens), atol=EXACT, rtol=0)


@pytest.mark.usefixtures("unchecked")
def test_first_run_of_a_model_compiles() -> None:
    """Nothing need have run before."""
    spec, tokens = fl.from_module(tiny_hf_model("llama")), tiny_inputs("llama")
    torch.compiler.reset()
    compiled = torch.compile(
        lambda given: fl.run(spec, given), fullgraph=True, backend="eager"
    )
    got = compiled(tokens["input_ids"])
    torch.testing.assert_close(fl.run(spec, tokens), got, atol=0, rtol=0)
