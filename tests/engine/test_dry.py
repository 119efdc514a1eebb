"""Runs on tensors without values."""

import pytest
import torch

import funlens as fl
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

NAMES = [recipe.name for recipe in FOUNDATION]


@pytest.mark.parametrize("name", NAMES)
def test_dry_run_gives_the_shapes_of_a_run(name: str) -> None:
    """Each site is named with the shape that a real run gives it."""
    spec, inputs = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    _, cache = fl.run_with_cache(spec, inputs)
    expected = {site: tuple(held.shape) for site, held in cache.items()}
    found = {info.site: info.shape for info in fl.dry_run(spec, inputs)}
    assert expected == found


def test_no_weight_is_touched() -> None:
    """A model whose weights are on no device has shapes all the same."""
    spec = fl.from_module(tiny_hf_model("llama").to("meta"))
    site = fl.z(1, head=2, pos=-1)
    tokens = tiny_inputs("llama")["input_ids"]
    (found,) = fl.dry_run(spec, {"input_ids": tokens.to("meta")}, capture=[site])
    assert (("batch", "d_head"), (2, 4)) == (found.axes, found.shape)


def test_faulty_function_is_found_without_a_run() -> None:
    """A function that returns another shape, found on fake tensors."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    edit = fl.Apply(fl.resid_pre(1), lambda held: held[:, :1])
    with pytest.raises(fl.errors.UserFunctionError, match="returned shape"):
        fl.dry_run(spec, inputs, [edit])


def test_nothing_stays_fake() -> None:
    """A real run afterwards gives the bits that it gave before."""
    spec, inputs = fl.from_module(tiny_hf_model("mixtral")), tiny_inputs("mixtral")
    before = fl.run(spec, inputs)
    fl.dry_run(spec, inputs)
    assert torch.equal(before, fl.run(spec, inputs))
