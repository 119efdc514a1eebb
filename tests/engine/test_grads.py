"""Gradients at every site, against differences and against HuggingFace's own graph."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.adapters import described
from funlens.testing import CAUSAL, tiny_hf_model, tiny_inputs

# Each has something of its own: a fused projection, parallel blocks with one norm, a
# norm on the stream, rows that are run flat, values that are clamped or added in place,
# a shared embedding between two stacks, a recurrence, experts, a block whose end is no
# plain sum, attention that is passed twice.
NAMES: Final = (
    "gpt2",
    "llama",
    "opt",
    "phi",
    "bert",
    "olmo",
    "olmo2",
    "falcon",
    "t5",
    "mamba",
    "mixtral",
    "gemma4_text",
    "diffllama",
)
# What cannot be differenced, or not be loaded as it is.
APART: Final = {
    "falcon-alibi": "its alibi is computed in bfloat16",
    "inkling2_text": "a product of its attention is of float32 numbers alone",
    "minicpm3": "its runs are rounded to 1e-5: a difference is known to a few percent",
    "xglm": "its mask overflows in float64",
    "reformer": "funlens refuses it",
    "rwkv-rescaled": "its first run divides its weights; funlens wants it run before",
}
OTHERS: Final = [
    recipe.name
    for recipe in CAUSAL
    if recipe.name not in {*NAMES, *APART} and recipe.model_type in described()
]
STEP: Final = 3e-4  # along a direction as long as the value is
# Many families compute norms and attention in float32: a metric of size 3 is known to
# 1e-6, its difference to 2e-3; curvature and the corners of ReLU add as much again.
TOLERANCE: Final = 1e-2
UNSEEN: Final = -1e3  # scores below are of keys that are not seen
EXACT: Final = 1e-10  # float64, summed in another order


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model in float64, loaded once."""
    module: Any = tiny_hf_model(name).double()
    module.set_experts_implementation("eager")  # the kernels take no float64
    return fl.from_module(module)


def metric(logits: Tensor) -> Tensor:
    """One smooth number for each row."""
    return logits[:, -1, :5].logsumexp(-1)


def grads_of(name: str, sites: Any, edits: Any = (), **how: Any) -> fl.RunWithGrads:
    """Gradients at some sites."""
    return fl.run_with_grads(
        spec_of(name),
        tiny_inputs(name),
        metric,
        interventions=edits,
        capture=sites,
        **how,
    )


def slope(name: str, site: fl.Site, direction: Tensor) -> Tensor:
    """The central difference of the metric along a direction at one site."""

    def moved(step: float) -> Tensor:
        edit = fl.Apply(site, lambda value: value + step * direction)
        return metric(fl.run(spec_of(name), tiny_inputs(name), [edit])).sum()

    return (moved(STEP) - moved(-STEP)) / (2 * STEP)


def check_every_site(name: str) -> None:
    """Compare the gradient at each site with the difference of two edited runs."""
    generator = torch.Generator().manual_seed(1)
    run = grads_of(name, fl.EVERY)
    sites = [info.site for info in spec_of(name).sites if not info.read_only]
    wrong: dict[str, tuple[float, float]] = {}
    for site in filter(run.grads.__contains__, sites):
        held = run.cache[site]
        direction = torch.randn(held.shape, generator=generator).to(held)
        direction *= held[held > UNSEEN].norm() / direction.norm()
        expected = float(slope(name, site, direction))
        found = float((run.grads[site] * direction).nan_to_num(0.0).sum())
        if not abs(expected - found) <= TOLERANCE * max(1.0, abs(expected)):
            wrong[str(site)] = (expected, found)
    assert {} == wrong


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_the_difference_that_an_edit_makes(name: str) -> None:
    """At every site: what the metric gains by a small change of that site alone."""
    check_every_site(name)


@pytest.mark.architectures
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", OTHERS)
def test_gradient_is_the_difference_on_every_causal_family(name: str) -> None:
    """The same over the rest of the table."""
    check_every_site(name)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["mixtral", "gpt2"])
def test_indices_have_no_gradient(name: str) -> None:
    """They are kept among the activations, and left out of the gradients."""
    run = grads_of(name, fl.EVERY)
    integer = {s for s in run.cache if not run.cache[s].is_floating_point()}
    assert {*run.cache} - integer == {*run.grads}
    assert (name == "mixtral") == bool(integer)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "gptj"])
def test_gradient_of_the_stream_is_huggingface_s(name: str) -> None:
    """Against autograd through the hidden states of a module funlens never saw."""
    model: Any = tiny_hf_model(name).double()
    out = model(**tiny_inputs(name), output_hidden_states=True)
    hidden = out.hidden_states[1]
    (expected,) = torch.autograd.grad(metric(out.logits).sum(), hidden)
    got = grads_of(name, [fl.resid_pre(1)]).grads[fl.resid_pre(1)]
    torch.testing.assert_close(expected, got, atol=EXACT, rtol=0)


@pytest.mark.parametrize(
    "site",
    [
        fl.resid_post(0, pos=-1),
        fl.z(0, head=1),
        fl.z(0, head=(0, 2), pos=slice(1, 4)),
        fl.pattern(1, head=2, query=-1, key=0),
        fl.mlp_post(0, neuron=(3, 5)),
        fl.resid_mid(0, pos=torch.tensor([1, 3])),
    ],
    ids=str,
)
def test_gradient_of_a_selection_is_the_whole_s_part(site: fl.Site) -> None:
    """Selecting first or last is the same, in the activations as in the gradients."""
    whole, part = grads_of("gpt2", [site.whole]), grads_of("gpt2", [site])
    assert torch.equal(whole.grads[site], part.grads[site])
    assert torch.equal(whole.cache[site], part.cache[site])
    assert [site] == [*part.grads] == [*part.cache]
    assert part.grads[site].any()


@pytest.mark.parametrize("name", ["gpt2", "gemma4_text", "bert", "opt"])
def test_capturing_more_changes_no_gradient(name: str) -> None:
    """A site's gradient does not depend on what else is looked at."""
    site = fl.resid_pre(0)
    alone, among = grads_of(name, [site]), grads_of(name, fl.EVERY)
    expected, got = alone.grads[site], among.grads[site]
    # SDPA and eager attention, in float32 within where the family wants it so
    torch.testing.assert_close(expected, got, atol=1e-5, rtol=0)


def test_gradient_needs_no_weight_that_requires_one() -> None:
    """A frozen module has the same gradients, where the stream is read-only too."""
    frozen: Any = tiny_hf_model("gemma4_text").double().requires_grad_(False)
    run = fl.run_with_grads(
        fl.from_module(frozen), tiny_inputs("gemma4_text"), metric, capture=fl.EVERY
    )
    expected = grads_of("gemma4_text", fl.EVERY).grads
    assert [*expected] == [*run.grads]
    for site, grad in expected.items():
        torch.testing.assert_close(grad, run.grads[site], atol=EXACT, rtol=0)


def test_logits_and_activations_are_the_run_s() -> None:
    """A run with gradients is a run: the same bits, without a graph."""
    logits, kept = fl.run_with_cache(spec_of("gpt2"), tiny_inputs("gpt2"))
    run = grads_of("gpt2", fl.EVERY)
    assert torch.equal(logits, run.logits)
    assert torch.equal(metric(logits), run.value)
    assert [*kept] == [*run.cache] == [*run.grads]
    for site in kept:
        assert torch.equal(kept[site], run.cache[site]), site
        assert not run.cache[site].requires_grad
        assert not run.grads[site].requires_grad


def test_gradient_is_zero_where_the_metric_does_not_look() -> None:
    """Later positions and other rows have no part in an earlier position's logits."""
    run = fl.run_with_grads(
        spec_of("gpt2"),
        tiny_inputs("gpt2"),
        lambda logits: logits[0, 2, :5].sum(),
        capture=[fl.resid_pre(0)],
    )
    grad = run.grads[fl.resid_pre(0)]
    assert grad[0, :3].abs().amin() > 0
    assert not grad[0, 3:].any()
    assert not grad[1].any()


def test_gradient_is_taken_in_the_edited_run() -> None:
    """Against torch.func, with the same edit."""
    edit = fl.Zero(fl.z(1, head=1))
    expected = torch.func.grad(
        lambda vector: metric(
            fl.run(
                spec_of("gpt2"),
                tiny_inputs("gpt2"),
                [fl.Add(fl.resid_pre(0), vector), edit],
            )
        ).sum()
    )(torch.zeros(16, dtype=torch.float64))
    run = grads_of("gpt2", [fl.resid_pre(0)], [edit])
    got = run.grads[fl.resid_pre(0)].sum((0, 1))
    torch.testing.assert_close(expected, got, atol=EXACT, rtol=0)
    assert 1 == run.cache.receipts[0].count


def test_metric_sees_the_last_real_position_with_logits_at() -> None:
    """Padding on the right, and a metric that looks at the last column."""
    spec, tokens = spec_of("gpt2"), tiny_inputs("gpt2")["input_ids"]
    mask = torch.ones_like(tokens)
    mask[1, -2:] = 0
    run = fl.run_with_grads(
        spec,
        tokens,
        metric,
        attention_mask=mask,
        logits_at=-1,
        capture=[fl.resid_pre(0)],
    )
    alone = fl.run_with_grads(spec, tokens[1:, :-2], metric, capture=[fl.resid_pre(0)])
    expected, got = alone.grads["resid_pre.0"][0], run.grads["resid_pre.0"][1, :-2]
    torch.testing.assert_close(expected, got, atol=1e-8, rtol=0)


def test_no_parameter_gets_a_gradient() -> None:
    """Neither on the owner's module nor on the copy; twice is once."""
    module = tiny_hf_model("gpt2")
    spec = fl.from_module(module)
    first, second = (
        fl.run_with_grads(spec, tiny_inputs("gpt2"), metric) for _ in range(2)
    )
    for held in (module, spec.module):
        assert all(parameter.grad is None for parameter in held.parameters())
    for site in first.grads:
        assert torch.equal(first.grads[site], second.grads[site]), site


@pytest.mark.parametrize(
    ("faulty", "error", "fragment"),
    [
        (lambda logits: logits[..., 0], fl.errors.ShapeError, "the metric"),
        (lambda logits: 3.0, fl.errors.UserFunctionError, "float"),
        (
            lambda logits: logits.detach().sum(),
            fl.errors.UserFunctionError,
            "does not depend",
        ),
    ],
)
def test_faulty_metric_is_refused(
    faulty: Any, error: type[Exception], fragment: str
) -> None:
    """Too many numbers, no tensor, or one without a way back."""
    with pytest.raises(error, match=fragment):
        fl.run_with_grads(spec_of("gpt2"), tiny_inputs("gpt2"), faulty)


def test_selection_out_of_range_is_refused() -> None:
    """Before the model runs, as in a run without gradients."""
    with pytest.raises(fl.errors.SelectionError):
        grads_of("gpt2", [fl.resid_pre(0, pos=7)])


def test_edit_of_a_gradient_is_a_hook_on_the_tensor() -> None:
    """Against a backward hook on the hidden state of an untouched module."""
    model: Any = tiny_hf_model("gpt2").double()

    def halve_first_row(grad: Tensor) -> Tensor:
        return torch.cat([0.5 * grad[:1], grad[1:]])

    def watch(module: Any, args: Any, output: Tensor) -> None:
        output.register_hook(halve_first_row)

    model.transformer.h[0].register_forward_hook(watch)
    out = model(**tiny_inputs("gpt2"), output_hidden_states=True)
    (expected,) = torch.autograd.grad(metric(out.logits).sum(), out.hidden_states[0])
    edit = fl.Backward(fl.Apply(fl.resid_post(0), halve_first_row))
    run = grads_of("gpt2", [fl.resid_pre(0)], [edit])
    got = run.grads[fl.resid_pre(0)]
    torch.testing.assert_close(expected, got, atol=EXACT, rtol=0)


def test_edit_of_a_gradient_changes_no_value() -> None:
    """The logits have the bits they had."""
    edit = fl.Backward(fl.Apply(fl.resid_post(0), torch.zeros_like))
    run = grads_of("gpt2", [fl.resid_pre(0)], [edit])
    expected = fl.run(spec_of("gpt2"), tiny_inputs("gpt2"))
    assert torch.equal(expected, run.logits)
    assert not run.grads[fl.resid_pre(0)].any()


def test_edit_of_a_gradient_works_under_func() -> None:
    """Mapped slopes, with the gradient doubled on its way."""
    spec, inputs = spec_of("gpt2"), tiny_inputs("gpt2")
    vectors = torch.randn(
        3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )

    def slopes(edits: Any) -> Tensor:
        def value(vector: Tensor) -> Tensor:
            first = fl.Add(fl.resid_pre(0), vector)
            return metric(fl.run(spec, inputs, [first, *edits])).sum()

        return torch.func.vmap(torch.func.grad(value))(vectors)

    doubled = fl.Backward(fl.Apply(fl.resid_pre(1), lambda grad: 2 * grad))
    expected, got = 2 * slopes([]), slopes([doubled])
    torch.testing.assert_close(expected, got, atol=EXACT, rtol=0)


def test_edit_of_a_gradient_without_a_graph_is_refused() -> None:
    """It would do nothing, without a word."""
    edit = fl.Backward(fl.Apply(fl.resid_post(0), torch.zeros_like))
    with pytest.raises(fl.errors.OptionError, match="records no graph"):
        fl.run(spec_of("gpt2"), tiny_inputs("gpt2"), [edit])
    recorded = fl.run(spec_of("gpt2"), tiny_inputs("gpt2"), [edit], grad=True)
    assert recorded.requires_grad


def test_faulty_function_of_a_gradient_is_refused() -> None:
    """A forgotten `return` is found on the way back."""
    edit = fl.Backward(fl.Apply(fl.resid_post(0), lambda grad: None))
    with pytest.raises(fl.errors.UserFunctionError, match=r"return. forgotten"):
        grads_of("gpt2", [fl.resid_pre(0)], [edit])
