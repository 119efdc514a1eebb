"""Edits that read other sites of the same run."""

from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gptj", "gemma2", "mixtral", "bloom", "t5", "bert")


def second(value: Tensor, read: Tensor) -> Tensor:
    """Give what was read."""
    del value
    return read.clone()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_read_is_what_the_run_had(name: str) -> None:
    """Putting the MLP's earlier input there is what setting it does."""
    spec, inputs = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    earlier = fl.mlp_in(0)
    source = fl.run_with_cache(spec, inputs, capture=[earlier]).cache
    expected = fl.run(spec, inputs, [fl.Set(fl.mlp_in(1), source[earlier])])
    edit = fl.Apply(fl.mlp_in(1), second, reads=[earlier])
    torch.testing.assert_close(fl.run(spec, inputs, [edit]), expected, rtol=0, atol=0)


def test_what_is_read_has_passed_its_edits() -> None:
    """An edited site is read as the model went on with it."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    edits = [
        fl.Scale(fl.mlp_in(0), 3.0),
        fl.Apply(fl.mlp_in(1), second, reads=[fl.mlp_in(0)]),
    ]
    cache = fl.run_with_cache(spec, inputs, edits).cache
    assert torch.equal(cache[fl.mlp_in(0)], cache[fl.mlp_in(1)])


def test_in_a_sweep_each_cell_reads_its_own_run() -> None:
    """Stacked cells, which differ before what is read, give what the loop gives."""
    spec, inputs = fl.from_module(tiny_hf_model("llama")), tiny_inputs("llama")
    read = fl.Apply(fl.mlp_in(1), second, reads=[fl.mlp_in(0)])
    cells: list[list[fl.Intervention]] = [
        [fl.Scale(fl.resid_mid(0), factor), read] for factor in (0.5, 1.0, 2.0)
    ]
    metric = fl.reads(fl.resid_post(1), lambda value: value.square().sum((1, 2)))
    found = fl.sweep(spec, inputs, [*cells, [fl.Zero(fl.z(1))]], metric=metric)
    for at, cell in enumerate(cells):
        cache = fl.run_with_cache(spec, inputs, cell, capture=[fl.resid_post(1)]).cache
        expected = metric.function(cache[fl.resid_post(1)])
        torch.testing.assert_close(found.rows[at], expected, rtol=1e-5, atol=1e-5)


def test_transforms_pass_what_is_read() -> None:
    """A gradient flows through it, and vmap maps it."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    read = fl.Apply(fl.mlp_in(1), second, reads=[fl.mlp_in(0)])

    def total(vector: Tensor) -> Tensor:
        edits = [fl.Add(fl.mlp_in(0), vector), read]
        return fl.run(spec, inputs, edits).square().sum()

    vectors = 0.1 * torch.randn(
        3, spec.d_model, generator=torch.Generator().manual_seed(0)
    )
    expected = torch.stack([total(vector) for vector in vectors])
    torch.testing.assert_close(torch.func.vmap(total)(vectors), expected)
    gradient = torch.func.grad(total)(vectors[0])
    step = 1e-3 * vectors[1]
    expected = total(vectors[0] + step) - total(vectors[0] - step)
    found = 2 * gradient @ step
    torch.testing.assert_close(found.detach(), expected.detach(), rtol=2e-2, atol=1e-3)


def test_generating_reads_each_step() -> None:
    """While generating, what is read is that of the step."""
    spec = fl.load("builtin:tiny")
    read = fl.Apply(fl.mlp_in(1), second, reads=[fl.mlp_in(0)])
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
    with_cache = fl.generate(spec, "Tom had a", [read], **options)
    without = fl.generate(spec, "Tom had a", [read], use_cache=False, **options)
    assert with_cache == without


@pytest.mark.parametrize(
    ("reads", "error", "fragment"),
    [
        ([fl.mlp_in(1)], errors.InputError, "does not pass before"),
        ([fl.resid_post(1)], errors.InputError, "does not pass before"),
        ([fl.ssm_in(0)], errors.SiteNotFoundError, "ssm_in.0"),
    ],
)
def test_a_site_that_was_not_passed_before_is_refused(
    reads: list[fl.Site], error: type[Exception], fragment: str
) -> None:
    """Itself, a later site, and one that the model does not have."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    with pytest.raises(error, match=fragment):
        fl.run(spec, inputs, [fl.Apply(fl.mlp_in(1), second, reads=reads)])
    with pytest.raises(error, match=fragment):
        fl.check(spec, inputs, [fl.Apply(fl.mlp_in(1), second, reads=reads)])


@pytest.mark.parametrize(
    ("reads", "fragment"),
    [
        ([fl.z(0, head=1)], "only whole sites"),
        (fl.mlp_in(0), "no list of sites"),
        (["nothing.3"], "nothing"),
    ],
)
def test_what_is_no_list_of_whole_sites_is_refused(reads: Any, fragment: str) -> None:
    """Selections, one site, and names that mean none."""
    with pytest.raises(errors.SiteError, match=fragment):
        fl.Apply(fl.mlp_in(1), second, reads=reads)


def test_a_function_of_what_is_read_is_called_by_check() -> None:
    """Its fault is found before anything runs."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    edit = fl.Apply(fl.q(1), second, reads=[fl.mlp_in(0)])
    with pytest.raises(errors.UserFunctionError, match="shape"):
        fl.check(spec, inputs, [edit])


def test_a_run_that_begins_later_is_refused() -> None:
    """What is read would not be passed."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    residual = fl.run(spec, inputs, stop_at_layer=1)
    edit = fl.Apply(fl.mlp_in(1), second, reads=[fl.mlp_in(0)])
    with pytest.raises(errors.NeverActedError):
        fl.run(spec, inputs, [edit], start_at_layer=1, residual=residual)


def test_a_gradient_s_edit_reads_nothing() -> None:
    """There is no value beside a gradient."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    edit = fl.Backward(fl.Apply(fl.mlp_in(1), second, reads=[fl.mlp_in(0)]))
    with pytest.raises(errors.InputError, match="gradient"):
        fl.run(spec, inputs, [edit], grad=True)
