"""Edits of gradients."""

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

NAMES = ("gpt2", "llama", "gptj")
SITE = fl.resid_post(0)


def metric(logits: Tensor) -> Tensor:
    """Some number of the last position."""
    return logits[:, -1, :5].logsumexp(-1)


def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model."""
    return fl.from_module(tiny_hf_model(name))


def hooked_gradient(name: str, factor: float) -> Tensor:
    """The embedding's gradient, by torch's own hook on a model funlens never saw."""
    module = tiny_hf_model(name, attn_implementation="eager")
    ids = tiny_inputs(name)["input_ids"]
    embeds = module.get_input_embeddings()(ids).detach().requires_grad_()
    body = module.base_model
    blocks = body.layers if hasattr(body, "layers") else body.h

    def hook(_: object, __: object, out: Tensor | tuple[Tensor, ...]) -> None:
        held = out if isinstance(out, Tensor) else out[0]
        held.register_hook(lambda grad: grad * factor)

    blocks[0].register_forward_hook(hook)
    logits = module(inputs_embeds=embeds, use_cache=False).logits
    return torch.autograd.grad(metric(logits).sum(), embeds)[0]


@pytest.mark.parametrize("name", NAMES)
def test_scaled_gradient_equals_a_tensor_hook(name: str) -> None:
    """What arrives at the embedding is what a hook of torch's would have let pass."""
    edit = fl.Backward(fl.Scale(SITE, -2.0))
    spec = fl.from_module(tiny_hf_model(name, attn_implementation="eager"))
    found = fl.run_with_grads(
        spec,
        tiny_inputs(name)["input_ids"],
        metric,
        interventions=[edit],
        capture=[fl.embed],
    )
    torch.testing.assert_close(
        hooked_gradient(name, -2.0), found.grads[fl.embed], atol=1e-6, rtol=1e-5
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_value_stays(name: str) -> None:
    """Logits and activations are those of a run without the edit."""
    spec, tokens = spec_of(name), tiny_inputs(name)["input_ids"]
    edit = fl.Backward(fl.Zero(SITE))
    plain = fl.run_with_grads(spec, tokens, metric, capture=[SITE])
    edited = fl.run_with_grads(
        spec, tokens, metric, interventions=[edit], capture=[SITE]
    )
    assert torch.equal(plain.logits, edited.logits)
    assert torch.equal(plain.cache[SITE], edited.cache[SITE])


def test_kept_gradient_is_the_changed_one() -> None:
    """At the selected position it is zero, elsewhere as it was."""
    spec, tokens = spec_of("gpt2"), tiny_inputs("gpt2")["input_ids"]
    edit = fl.Backward(fl.Zero(fl.resid_post(0, pos=2)))
    plain = fl.run_with_grads(spec, tokens, metric, capture=[SITE]).grads[SITE]
    found = fl.run_with_grads(
        spec, tokens, metric, interventions=[edit], capture=[SITE]
    ).grads[SITE]
    expected = plain.clone()
    expected[:, 2] = 0
    assert plain[:, 2].abs().max() > 0
    assert torch.equal(expected, found)


def test_gradient_edit_works_under_grad_and_vmap() -> None:
    """Through torch.func, one vector or many."""
    spec, inputs = spec_of("gpt2"), tiny_inputs("gpt2")
    edits = [fl.Backward(fl.Scale(fl.resid_post(1), 3.0))]

    def value(vector: Tensor, *more: fl.Intervention) -> Tensor:
        add = fl.Add(fl.resid_pre(1, pos=-1), vector)
        return metric(fl.run(spec, inputs, [add, *more])).sum()

    def slope(vector: Tensor) -> Tensor:
        return torch.func.grad(lambda v: value(v, *edits))(vector)

    vectors = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    plain = torch.stack([torch.func.grad(value)(vector) for vector in vectors])
    torch.testing.assert_close(3.0 * plain, torch.vmap(slope)(vectors))


def test_gradient_edit_without_a_graph_is_refused() -> None:
    """Nothing would happen, so nothing runs."""
    spec, inputs = spec_of("gpt2"), tiny_inputs("gpt2")
    with pytest.raises(fl.errors.OptionError, match="records no graph"):
        fl.run(spec, inputs, [fl.Backward(fl.Zero(SITE))])


def test_gradient_edit_that_meets_none_is_refused() -> None:
    """The metric looks at the first position, which the last cannot change."""
    spec, tokens = spec_of("gpt2"), tiny_inputs("gpt2")["input_ids"]
    edit = fl.Backward(fl.Zero(SITE))

    def constant(logits: Tensor) -> Tensor:
        return logits.detach().sum() + torch.zeros((), requires_grad=True)

    with pytest.raises(fl.errors.NeverActedError, match="Backward"):
        fl.run_with_grads(spec, tokens, constant, interventions=[edit], capture=[SITE])


@pytest.mark.usefixtures("unchecked")
def test_backward_of_a_backward_is_refused() -> None:
    """A gradient edit holds a plain edit."""
    with pytest.raises(fl.errors.InputError, match="Backward holds a Backward"):
        fl.Backward(fl.Backward(fl.Zero(SITE)))  # pyright: ignore[reportArgumentType] (the fault)
