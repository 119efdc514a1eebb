"""Runs compiled once: the numbers of plain runs, and no graph more for other values."""

import subprocess
import sys
from typing import Any, Final

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.func import grad, vmap

import funlens as fl
from funlens import errors
from funlens.testing import tiny_hf_model, tiny_inputs

CAPTURE: Final = (fl.resid_pre, fl.pattern)
pytestmark = pytest.mark.usefixtures("unchecked")
# Dynamo sees through no class whose construction the shape checks' import hook wraps.
is_hooked: Final = hasattr(fl.compiled, "__wrapped__")
in_one_graph = pytest.mark.skipif(is_hooked, reason="run by the test of a new process")


@pytest.mark.skipif(not is_hooked, reason="this is that process")
def test_graphs_in_a_process_without_the_import_hook() -> None:
    """Runs the tests below that compile."""
    plain = ["-p", "no:jaxtyping", "-p", "no:cacheprovider", "-o", "addopts=", "-q"]
    command = [sys.executable, "-m", "pytest", *plain, __file__]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert 0 == done.returncode, done.stdout[-4000:]


def edits(times: float) -> list[fl.Intervention]:
    """One structure, with values that depend on a number."""
    vector = times * torch.ones(16)
    return [
        fl.Zero(fl.z(0, head=1)),
        fl.Add(fl.resid_pre(1, pos=-1), vector, scale=times),
        fl.Patch(fl.resid_mid(0, pos=2), vector),
        fl.Scale(fl.pattern(1, head=0), times / 2),
        fl.Clamp(fl.mlp_out(1), low=-times / 10),
        fl.ProjectOut(fl.resid_post(1, pos=1), vector),
        fl.Apply(fl.mlp_out(0), torch.tanh),
    ]


@in_one_graph
@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_compiled_run_is_the_run_and_compiles_once(name: str) -> None:
    """Bit for bit where the backend runs the same kernels, with any values."""
    spec, tokens = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)["input_ids"]
    counter: Any = CompileCounter()
    call = fl.compiled(spec, edits(1.0), CAPTURE, backend=counter)
    for times in (1.0, 2.0, 3.0):
        given = edits(times)
        runs = call(tokens, given), call(tokens, *call.values(given))
        expected = fl.run_with_cache(spec, tokens, given, capture=CAPTURE)
        for got in runs:  # the first of a model, too
            assert torch.equal(expected.logits, got.logits)
            assert list(expected.cache) == list(got.cache)
            assert all(torch.equal(v, got.cache[s]) for s, v in expected.cache.items())
            for ours, theirs in zip(
                got.cache.receipts, expected.cache.receipts, strict=True
            ):
                assert (theirs.count, theirs.shape) == (ours.count, ours.shape)
                torch.testing.assert_close(theirs.change, ours.change)
    assert 1 == counter.frame_count


@in_one_graph
def test_gradients_of_many_values_are_one_graph() -> None:
    """`compile(vmap(grad))`, and the gradients of plain runs."""
    spec, tokens = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    site = fl.resid_pre(1, pos=-1)
    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    call = fl.compiled(spec, [fl.Add(site, vectors[0])], [fl.resid_post])
    function = call.function(tokens)

    def metric(vector: Tensor) -> Tensor:
        return function(vector)[0][:, -1, :3].logsumexp(-1).sum()

    def plain(vector: Tensor) -> Tensor:
        logits = fl.run(spec, tokens, [fl.Add(site, vector)])
        return logits[:, -1, :3].logsumexp(-1).sum()

    torch.compiler.reset()
    many: Any = torch.compile(vmap(grad(metric)), fullgraph=True, backend="eager")
    expected = torch.stack([grad(plain)(vector) for vector in vectors])
    torch.testing.assert_close(expected, many(vectors))


@pytest.mark.parametrize(
    ("other", "fragment"),
    [
        ([fl.Zero(fl.z(1, head=1))], "more than its value"),
        ([fl.Add(fl.z(0, head=1), torch.ones(4))], "more than its value"),
        ([], "0 interventions"),
    ],
)
def test_other_structure_is_refused(other: Any, fragment: str) -> None:
    """Another kind, another site, another number of them."""
    spec, tokens = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    call = fl.compiled(spec, [fl.Zero(fl.z(0, head=1))], CAPTURE, backend="eager")
    with pytest.raises(errors.InputError, match=fragment):
        call(tokens, other)


@pytest.mark.parametrize(
    ("wrong", "backend"),
    [
        ([fl.Noise(fl.resid_pre(0), std=1.0, seed=0)], "eager"),
        ([fl.Backward(fl.Zero(fl.resid_pre(0)))], "eager"),
        ([], "egaer"),
    ],
)
def test_what_no_graph_holds_is_refused(wrong: Any, backend: str) -> None:
    """Before anything is compiled."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    with pytest.raises(errors.OptionError):
        fl.compiled(spec, wrong, CAPTURE, backend=backend)


def test_function_that_no_graph_holds_is_named() -> None:
    """Dynamo's reason comes in an error of ours."""
    spec, tokens = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")

    def branches(value: Tensor) -> Tensor:
        return value if value.sum() > 0 else -value

    call = fl.compiled(
        spec, [fl.Apply(fl.mlp_out(0), branches)], CAPTURE, backend="eager"
    )
    with pytest.raises(errors.UnsupportedConfigError, match="one graph"):
        call(tokens)
