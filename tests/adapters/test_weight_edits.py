"""Weights exchanged as values: the old model keeps its own."""

import copy
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn

import funlens as fl
from funlens.adapters import weights_of
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

NAMES: Final = [recipe.name for recipe in FOUNDATION]
CLOSE: Final = 1e-5  # float32, one product more or less


def parameters(module: nn.Module) -> dict[str, Tensor]:
    """Parameters under all of their names, apart from the graph."""
    named = module.named_parameters(remove_duplicate=False)
    return {name: held.detach() for name, held in named}


def where(module: nn.Module) -> dict[str, int]:
    """Where each parameter lies."""
    return {name: held.data_ptr() for name, held in parameters(module).items()}


@pytest.mark.parametrize("name", NAMES)
def test_new_weights_act_and_the_rest_is_shared(name: str) -> None:
    """The logits are those of a model that was built with the value."""
    module, changed = tiny_hf_model(name), tiny_hf_model(name)
    spec = fl.from_module(module)
    target = next(n for n, p in parameters(module).items() if p.ndim == 2)
    value = parameters(module)[target] * 0.5
    with torch.no_grad():
        dict(changed.named_parameters())[target].mul_(0.5)
        expected = changed(**tiny_inputs(name)).logits
        before = module(**tiny_inputs(name)).logits
    edited = fl.with_weights(spec, {target: value})
    assert torch.equal(expected, fl.run(edited, tiny_inputs(name)))
    assert torch.equal(before, fl.run(spec, tiny_inputs(name)))
    moved = {n for n, at in where(edited.module).items() if at != where(module)[n]}
    tied = {n for n, at in where(module).items() if at == where(module)[target]}
    assert tied == moved
    assert value.data_ptr() == where(edited.module)[target]


@pytest.mark.parametrize("name", ["gpt2", "t5"])
def test_tied_weights_stay_tied(name: str) -> None:
    """Whichever name is used, one tensor stands under all of them."""
    spec = fl.from_module(tiny_hf_model(name))
    held = weights_of(spec.module)
    tied = [n for n in held if held[n] is held["lm_head.weight"]]
    assert len(tied) > 1
    for target in tied:
        new = weights_of(fl.with_weights(spec, {target: torch.ones(32, 16)}).module)
        assert len({id(new[n]) for n in tied}) == 1
        assert bool((new[target] == 1).all())


def test_tied_weights_part_where_both_are_named() -> None:
    """Each name gets its own, and the private config says so."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    first, last = "transformer.wte.weight", "lm_head.weight"
    edited = fl.with_weights(
        spec, {first: fl.W_E(spec).detach(), last: torch.ones(32, 16)}
    )
    assert torch.equal(fl.W_E(spec), fl.W_E(edited))
    assert bool((fl.W_U(edited) == 1).all())
    config: Any = edited.module.config
    assert not config.tie_word_embeddings
    assert spec.engine.config.tie_word_embeddings


def test_names_given_one_tensor_are_tied() -> None:
    """What was apart becomes one parameter."""
    spec = fl.from_module(tiny_hf_model("llama"))
    both = torch.ones(32, 16)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    held = weights_of(fl.with_weights(spec, dict.fromkeys(names, both)).module)
    assert held[names[0]] is held[names[1]]


def test_faults_are_all_found_before_anything_is_made() -> None:
    """Names, shapes and dtypes, each as an error of its own."""
    spec = fl.from_module(tiny_hf_model("llama"))
    values = {
        "model.norm.wieght": torch.ones(16),
        "model.norm.weight": torch.ones(8),
        "lm_head.weight": torch.ones(32, 16, dtype=torch.float64),
    }
    with pytest.raises(ExceptionGroup) as caught:
        fl.with_weights(spec, values)
    unknown, shape, dtype = caught.value.exceptions
    assert isinstance(unknown, fl.errors.OptionError)
    assert "model.norm.weight" == unknown.near[0]
    assert isinstance(shape, fl.errors.ShapeError)
    assert ((8,), (16,)) == (shape.shape, shape.expected)
    assert isinstance(dtype, fl.errors.DtypeError)
    assert "values['lm_head.weight']" == dtype.where
    with pytest.raises(fl.errors.ShapeError, match="updates"):
        fl.add_low_rank(
            spec,
            {"lm_head.weight": fl.FactoredMatrix(torch.ones(16, 1), torch.ones(1, 32))},
        )


def test_low_rank_updates_are_added() -> None:
    """In HuggingFace's own layout, scaled, to tied weights together."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    update = fl.FactoredMatrix(torch.randn(32, 2), torch.randn(2, 16))
    edited = fl.add_low_rank(spec, {"lm_head.weight": update}, scale=-0.5)
    expected = fl.W_E(spec) - 0.5 * update.A @ update.B
    torch.testing.assert_close(fl.W_E(edited), expected, atol=CLOSE, rtol=0)
    assert fl.W_U(edited).data_ptr() == fl.W_E(edited).data_ptr()


def test_buffers_of_a_checkpoint_can_be_exchanged() -> None:
    """What a checkpoint holds beside parameters has a name as well."""
    module = tiny_hf_model("gpt2")
    module.register_buffer("correction", torch.zeros(3))
    spec = fl.from_module(module)
    edited = fl.with_weights(spec, {"correction": torch.ones(3)})
    assert torch.equal(torch.ones(3), edited.module.get_buffer("correction"))
    assert not spec.module.get_buffer("correction").any()


@pytest.mark.parametrize("name", NAMES)
def test_between_two_checkpoints_lie_their_means(name: str) -> None:
    """At 0 and 1 it is those models to the bit, and halfway the mean."""
    one = fl.from_module(tiny_hf_model(name))
    other = fl.from_module(tiny_hf_model(name, seed=1))
    inputs = tiny_inputs(name)
    for fraction, end in ((0.0, one), (1.0, other)):
        mixed = fl.interpolate(one, other, fraction)
        assert torch.equal(fl.run(end, inputs), fl.run(mixed, inputs))
    middle = fl.interpolate(one, other, 0.5).module
    assert len({*where(one.module).values()}) == len({*where(middle).values()})
    ours, theirs = parameters(one.module), parameters(other.module)
    for key, held in parameters(middle).items():
        expected = (ours[key] + theirs[key]) / 2
        torch.testing.assert_close(held, expected, atol=CLOSE, rtol=0)


def test_checkpoints_that_differ_are_refused() -> None:
    """Another architecture, another dtype, no number."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    with pytest.raises(fl.errors.InputError, match="only the"):
        fl.interpolate(spec, fl.from_module(tiny_hf_model("llama")), 0.5)
    with pytest.raises(fl.errors.InputError, match=r"float32.*float64"):
        fl.interpolate(spec, fl.from_module(tiny_hf_model("gpt2").double()), 0.5)
    with pytest.raises(fl.errors.OptionError, match="finite"):
        fl.interpolate(spec, spec, float("nan"))


def test_whole_numbers_are_not_mixed() -> None:
    """A buffer of indices must be the same in both."""
    modules = [tiny_hf_model("gpt2") for _ in range(2)]
    for at, module in enumerate(modules):
        module.register_buffer("index", torch.tensor([at]))
    one, other = (fl.from_module(module) for module in modules)
    other_of_same = copy.deepcopy(modules[0])
    assert fl.interpolate(one, fl.from_module(other_of_same), 0.5)
    with pytest.raises(fl.errors.InputError, match="whole numbers"):
        fl.interpolate(one, other, 0.5)


def test_an_edited_spec_is_a_spec_like_any_other() -> None:
    """It takes edits, captures and params, is copied, and described again."""
    spec = fl.from_module(tiny_hf_model("llama"))
    inputs = tiny_inputs("llama")
    target = "model.layers.1.mlp.down_proj.weight"
    zeros = torch.zeros_like(parameters(spec.module)[target])
    edited = fl.with_weights(spec, {target: zeros})
    expected = fl.run(spec, inputs, params={target: zeros})
    torch.testing.assert_close(fl.run(edited, inputs), expected, atol=CLOSE, rtol=0)
    assert not fl.run_with_cache(edited, inputs).cache[fl.mlp_out(1)].any()
    again = fl.from_module(copy.deepcopy(edited.module))
    assert torch.equal(fl.run(edited, inputs), fl.run(again, inputs))
    back = fl.run(edited, inputs, params={target: parameters(spec.module)[target]})
    torch.testing.assert_close(back, fl.run(spec, inputs), atol=CLOSE, rtol=0)
