"""Estimates of patching, against gradients, against differences, and against truth."""

from functools import partial
from typing import Any, Final

import attrs
import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs
from tests.analyses.pairs import (
    metric,
    other_inputs,
    per_row,
    source_of,
    spec_of,
    toy,
    toy_tokens,
)

# Two sequences and two norms on the stream stand beside the causal families, and a
# recurrence that is passed twice.
NAMES: Final = tuple(recipe.name for recipe in FOUNDATION)
OTHERS: Final = ("t5", "bert", "gemma4_text", "mamba")
DIFFERENCED: Final = ("gpt2", "llama", "gptj", "olmo2", "bert", "t5")
EXACT: Final = 1e-10  # float64, summed in another order
STEP: Final = 1e-4  # of the way to the source
# A central difference of a smooth metric; norms and attention of some are in float32.
TOLERANCE: Final = 2e-3
FLOAT32: Final = 2e-6  # a metric of size 10, computed twice
DIFF: Final = fl.logit_diff(3, 5)


def attributed(name: str, **how: Any) -> fl.Attributions:
    """The estimates on a tiny model."""
    given: Any = {"metric": metric, **how}
    return fl.attribution_patching(
        spec_of(name), tiny_inputs(name), source_of(name), **given
    )


def by_hand(name: str, site: fl.Site, run: fl.RunWithGrads) -> Tensor:
    """The step times the gradient that `run_with_grads` keeps."""
    value, source = run.cache[site], source_of(name)[site]
    return torch.where(source == value, 0.0, source - value) * run.grads[site]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [*NAMES, *OTHERS])
def test_estimate_is_the_step_times_the_gradient_at_every_site(name: str) -> None:
    """Of all sites that can be patched, and no others."""
    found = attributed(name)
    run = fl.run_with_grads(spec_of(name), tiny_inputs(name), metric)
    lacking = {i.site for i in spec_of(name).sites if i.read_only}
    assert {*run.grads} - lacking == {*found}
    for site in found:
        product = by_hand(name, site, run)
        expected = product.flatten(found[site].ndim - 1)
        if product.ndim > found[site].ndim:
            expected = product.flatten(found[site].ndim).sum(-1)
        got = found[site].reshape(expected.shape)
        torch.testing.assert_close(expected, got, atol=EXACT, rtol=0)
    assert any(found[site].any() for site in found)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", DIFFERENCED)
def test_estimate_is_the_difference_of_a_small_part_of_the_patch(name: str) -> None:
    """At every site: two runs a little way towards the source and away from it."""
    spec, given, source = spec_of(name), tiny_inputs(name), source_of(name)
    found = attributed(name)
    cache = fl.run_with_cache(spec, given).cache

    def after(site: fl.Site, way: float) -> Tensor:
        held = cache[site]
        step = torch.where(source[site] == held, 0.0, source[site] - held)
        return metric(fl.run(spec, given, [fl.Set(site, held + way * step)]))

    for site in found:
        expected = (after(site, STEP) - after(site, -STEP)) / (2 * STEP)
        got = per_row(found[site])
        torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=TOLERANCE)


def test_estimate_is_a_hand_written_autograd_loop() -> None:
    """Against a module that funlens never saw, at the stream and at heads."""
    module: Any = tiny_hf_model("gpt2").double()

    def kept(tokens: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        heads: list[Tensor] = []

        def keep(_: Any, args: Any) -> None:
            heads.append(args[0])

        hooks = [
            block.attn.c_proj.register_forward_pre_hook(keep)
            for block in module.transformer.h
        ]
        out = module(tokens, output_hidden_states=True)
        for hook in hooks:
            hook.remove()
        return metric(out.logits), list(out.hidden_states[:-1]), heads

    ours, theirs = tiny_inputs("gpt2")["input_ids"], other_inputs("gpt2")["input_ids"]
    value, hidden, heads = kept(ours)
    grads = torch.autograd.grad(value.sum(), [*hidden, *heads])
    _, far_hidden, far_heads = kept(theirs)
    found = attributed("gpt2")
    n_layers = len(hidden)
    for layer in range(n_layers):
        step = far_hidden[layer] - hidden[layer]
        expected = (step * grads[layer]).sum(-1)
        got = found[fl.resid_pre(layer)]
        torch.testing.assert_close(expected, got, atol=EXACT, rtol=0)
        step = far_heads[layer] - heads[layer]
        product = step * grads[n_layers + layer]
        expected = product.unflatten(-1, (4, -1)).sum(-1)
        got = found[fl.z(layer)]
        torch.testing.assert_close(expected, got, atol=EXACT, rtol=0)


@pytest.mark.parametrize(
    ("part", "axes"),
    [
        (fl.z, ("layer", "head")),
        (fl.z, ("head", "layer", "pos")),
        (fl.v, ("layer", "pos")),
        (fl.pattern, ("layer", "head", "query")),
        (fl.attn_out, ("layer", "pos")),
        (fl.resid_post, ("layer", "pos")),
        (fl.logits, ("pos",)),
    ],
    ids=str,
)
def test_linear_site_is_estimated_as_it_is_patched(
    part: fl.Part, axes: tuple[str, ...]
) -> None:
    """On attention without norms: the sweep of the same grid, cell by cell and row."""
    spec, (ours, theirs) = toy(), toy_tokens()
    source = fl.run_with_cache(spec, theirs).cache
    words: dict[str, Any] = dict.fromkeys(axes, ...)
    grid = fl.grid(fl.Patch, part, source=source, **words)
    expected = fl.sweep(spec, ours, grid, metric=DIFF)
    found = fl.attribution_patching(spec, ours, source, metric=DIFF)
    got = found.effects(part, *axes)
    assert (expected.axes, expected.labels) == (got.axes, got.labels)
    assert expected.metric == got.metric
    for one, other in [
        (expected.rows, got.rows),
        (expected.values, got.values),
        (expected.baseline, got.baseline),
    ]:
        torch.testing.assert_close(one, other, atol=FLOAT32, rtol=0)
    assert float(got.change.abs().max()) > 1e-3
    assert got.is_complete


def test_source_may_be_the_other_inputs() -> None:
    """They are run, and give what their cache gives."""
    name = "llama"
    expected = attributed(name)
    got = fl.attribution_patching(
        spec_of(name), tiny_inputs(name), other_inputs(name), metric=metric
    )
    assert [*expected] == [*got]
    for site in expected:
        assert torch.equal(expected[site], got[site])


def test_rows_do_not_mix() -> None:
    """A pair among others is estimated as it is alone."""
    spec, ours, theirs = spec_of("llama"), tiny_inputs("llama"), other_inputs("llama")
    every = attributed("llama")
    for row in range(2):
        alone = fl.attribution_patching(
            spec,
            ours["input_ids"][row : row + 1],
            theirs["input_ids"][row : row + 1],
            metric=metric,
        )
        for site in every:
            got = every[site][row : row + 1]
            torch.testing.assert_close(alone[site], got, atol=EXACT, rtol=0)


def test_one_source_serves_all_rows_where_it_has_no_batch() -> None:
    """A cache without a batch axis is each row's source, as for `Patch`."""
    spec, ours = spec_of("gpt2"), tiny_inputs("gpt2")["input_ids"]
    twice = ours[:1].repeat(2, 1)
    source = source_of("gpt2").rows(1, 2)
    expected = fl.attribution_patching(spec, ours[:1], source, metric=metric)
    got = fl.attribution_patching(spec, twice, source.remove_batch_dim(), metric=metric)
    for site in expected:
        for row in range(2):
            one = got[site][row : row + 1]
            torch.testing.assert_close(expected[site], one, atol=EXACT, rtol=0)


def test_one_number_for_the_batch_patches_all_rows_at_once() -> None:
    """As in a sweep: every row holds the metric of the whole batch."""
    spec, (ours, theirs) = toy(), toy_tokens()
    source = fl.run_with_cache(spec, theirs).cache

    def total(logits: Tensor) -> Tensor:
        return logits[:, -1, 3].sum()

    grid = fl.grid(fl.Patch, fl.z, layer=..., head=..., source=source)
    expected = fl.sweep(spec, ours, grid, metric=total)
    found = fl.attribution_patching(spec, ours, source, metric=total)
    got = found.effects(fl.z, "layer", "head")
    assert found.is_joint
    torch.testing.assert_close(expected.rows, got.rows, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama", "olmo2"])
def test_metric_of_an_earlier_site_gives_nothing_to_later_ones(name: str) -> None:
    """Sites behind the one that is read have estimates of zero; those before do not."""
    read = fl.reads(fl.resid_post(0, pos=-1), partial(torch.sum, dim=-1))
    found = attributed(name, metric=read)
    later = [fl.z(1), fl.mlp_out(1), fl.logits()]
    assert not any(found[site].any() for site in later)
    exact = (
        source_of(name)[read.site]
        - fl.run_with_cache(spec_of(name), tiny_inputs(name)).cache[read.site]
    ).sum(-1)
    got = per_row(found[fl.resid_post(0)])
    torch.testing.assert_close(exact, got, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    "measure",
    [
        fl.logit_diff(3, 5),
        fl.log_prob_of(torch.tensor([3, 5])),
        fl.prob_of(3, pos=2),
        fl.kl_divergence(torch.zeros(2, 32, dtype=torch.float64)),
        fl.reads(fl.pattern(1, head=1, query=-1, key=0), torch.exp),
        fl.reads(fl.logits(pos=torch.tensor([1, 4])), partial(torch.mean, dim=-1)),
    ],
    ids=lambda measure: measure.name,
)
def test_any_smooth_metric_is_differentiated(measure: fl.Metric) -> None:
    """Against a gradient of the same number, with and without the whole logits."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    site = fl.resid_pre(1)
    value = fl.run_with_cache(spec, given, capture=[site]).cache[site]

    def of(resid: Tensor) -> Tensor:
        run = fl.run_with_cache(
            spec, given, [fl.Set(site, resid)], capture=[measure.site]
        )
        return measure.function(run.cache[measure.site]).sum()

    grad = torch.func.grad(of)(value)
    expected = ((source_of("gpt2")[site] - value) * grad).sum(-1)
    for sites in ([site], fl.EVERY):
        got = attributed("gpt2", metric=measure, sites=sites)[site]
        # SDPA and eager attention
        torch.testing.assert_close(expected, got, atol=1e-8, rtol=1e-6)


def test_neurons_are_kept_apart_where_they_are_selected() -> None:
    """They sum to the site's estimate, and a look-up gives some."""
    chosen = fl.mlp_post(0, neuron=slice(None))
    apart = attributed("gpt2", sites=[chosen, fl.mlp_post(1)])
    whole = attributed("gpt2", sites=[fl.mlp_post])
    assert [fl.mlp_post(0), fl.mlp_post(1)] == [*apart] == [*whole]
    assert (2, 7, 64) == tuple(apart[fl.mlp_post(0)].shape)
    summed = apart[fl.mlp_post(0)].sum(-1)
    torch.testing.assert_close(whole[fl.mlp_post(0)], summed, atol=EXACT, rtol=0)
    assert torch.equal(apart[fl.mlp_post(1)], whole[fl.mlp_post(1)])
    one = apart[fl.mlp_post(0, neuron=5, pos=-1)]
    assert torch.equal(apart[fl.mlp_post(0)][:, -1, 5], one)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_padding_changes_no_estimate(name: str, side: str) -> None:
    """A padded pair is estimated as it is alone, and laid out from its first token."""
    # float32: HuggingFace casts the lowest float64 to float32's minus infinity
    spec, tokens = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)["input_ids"]
    other = tokens.flip(1)
    mask = torch.ones_like(tokens)
    mask[1, slice(0, 2) if side == "left" else slice(-2, None)] = 0
    measure = fl.logit_diff(3, 5)
    found = fl.attribution_patching(
        spec,
        {"input_ids": tokens, "attention_mask": mask},
        {"input_ids": other, "attention_mask": mask},
        metric=measure,
    )
    real = mask[1].bool()
    alone = fl.attribution_patching(
        spec, tokens[1:, real], other[1:, real], metric=measure
    )
    for part, axes in [
        (fl.resid_pre, ("layer", "pos")),
        (fl.z, ("layer", "head")),
        (fl.pattern, ("layer", "query", "key")),
    ]:
        got = found.effects(part, *axes).rows[..., 1]
        expected = alone.effects(part, *axes).rows[..., 0]
        places = [slice(0, size) for size in expected.shape]
        torch.testing.assert_close(expected, got[*places], atol=1e-5, rtol=0)
    behind = found.effects(fl.resid_pre, "layer", "pos")
    assert torch.equal(
        behind.rows[:, 5:, 1], behind.baseline[1].expand(behind.rows[:, 5:, 1].shape)
    )


def test_nothing_is_left_behind() -> None:
    """No parameter has a gradient, no hook stays, and twice is once."""
    module = tiny_hf_model("gpt2")
    spec = fl.from_module(module)
    ours, theirs = tiny_inputs("gpt2"), other_inputs("gpt2")
    first, second = (
        fl.attribution_patching(spec, ours, theirs, metric=metric) for _ in range(2)
    )
    for held in (module, spec.module):
        assert all(parameter.grad is None for parameter in held.parameters())
    for site in first:
        assert torch.equal(first[site], second[site])
        assert not first[site].requires_grad


def test_frozen_module_has_the_same_estimates() -> None:
    """No weight need require a gradient."""
    frozen: Any = tiny_hf_model("gpt2").double().requires_grad_(False)
    got = fl.attribution_patching(
        fl.from_module(frozen),
        tiny_inputs("gpt2"),
        source_of("gpt2"),
        metric=metric,
    )
    expected = attributed("gpt2")
    assert [*expected] == [*got]
    for site in expected:
        torch.testing.assert_close(expected[site], got[site], atol=EXACT, rtol=0)


def test_half_precision_is_summed_in_full() -> None:
    """Products of bfloat16 are summed as float32."""
    spec = fl.from_module(tiny_hf_model("gpt2").to(torch.bfloat16))
    found = fl.attribution_patching(
        spec, tiny_inputs("gpt2"), other_inputs("gpt2"), metric=metric
    )
    assert {torch.float32} == {found[site].dtype for site in found}
    expected, got = attributed("gpt2"), found
    site = fl.resid_pre(0)
    torch.testing.assert_close(expected[site], got[site].double(), atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize(
    ("measure", "fragment"),
    [
        (fl.rank_of(3), "rank has no derivative"),
        (lambda logits: logits[:, -1].argmax(-1), "no derivative"),
        (lambda logits: logits[:, -1, 0].detach(), "no derivative"),
        (lambda logits: logits[:, -1], "gave shape"),
        (lambda logits: 3.0, "gave float"),
        ("rank", "is a str"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_metric_without_a_derivative_is_refused(measure: Any, fragment: str) -> None:
    """With the reason; so is what is no number for each row."""
    with pytest.raises(errors.InputError, match=fragment):
        attributed("gpt2", metric=measure)


def test_source_of_another_length_is_refused() -> None:
    """As a cache and as inputs, before anything runs."""
    spec, tokens = spec_of("gpt2"), tiny_inputs("gpt2")["input_ids"]
    short = fl.run_with_cache(spec, tokens[:, :5], capture=[fl.z, fl.resid_pre]).cache
    with pytest.raises(ExceptionGroup) as caught:
        fl.attribution_patching(spec, tokens, short, metric=metric, sites=[fl.z])
    assert all(isinstance(e, errors.ShapeError) for e in caught.value.exceptions)
    with pytest.raises(errors.InputError, match="2 rows of 5"):
        fl.attribution_patching(spec, tokens, tokens[:, :5], metric=metric)
    with pytest.raises(errors.ShapeError, match=r"source\[z\.0\]"):
        fl.attribution_patching(spec, tokens, short, metric=metric, sites=[fl.z(0)])


def test_source_padded_elsewhere_is_refused() -> None:
    """Positions would be paired that are not each other's."""
    spec, tokens = spec_of("gpt2"), tiny_inputs("gpt2")["input_ids"]
    mask = torch.ones_like(tokens)
    mask[1, :2] = 0
    padded = {"input_ids": tokens, "attention_mask": mask}
    source = fl.run_with_cache(spec, padded).cache
    for each in (source, padded):
        with pytest.raises(errors.InputError, match="same real positions"):
            fl.attribution_patching(spec, tokens, each, metric=metric)


def test_source_that_lacks_a_site_is_refused() -> None:
    """Every site of all that lack is named."""
    some = fl.run_with_cache(
        spec_of("gpt2"), other_inputs("gpt2"), capture=[fl.z(0)]
    ).cache
    with pytest.raises(errors.SiteNotCachedError):
        fl.attribution_patching(
            spec_of("gpt2"), tiny_inputs("gpt2"), some, metric=metric, sites=[fl.z(1)]
        )
    with pytest.raises(ExceptionGroup):
        fl.attribution_patching(
            spec_of("gpt2"), tiny_inputs("gpt2"), some, metric=metric
        )


def test_source_of_another_dtype_is_refused() -> None:
    """A cache of float32 in a model of float64."""
    source = fl.run_with_cache(
        fl.from_module(tiny_hf_model("gpt2")), other_inputs("gpt2"), capture=[fl.z(0)]
    ).cache
    with pytest.raises(errors.DtypeError, match="float32"):
        fl.attribution_patching(
            spec_of("gpt2"), tiny_inputs("gpt2"), source, metric=metric, sites=[fl.z(0)]
        )


def test_source_that_is_not_finite_is_refused() -> None:
    """NaN in one place is not passed on as an estimate."""
    source = source_of("gpt2")
    spoilt = source[fl.resid_mid(1)].clone()
    spoilt[0, 2, 3] = torch.nan
    entries = {**dict(source.entries), fl.resid_mid(1): spoilt}
    with pytest.raises(errors.NonFiniteError) as caught:
        fl.attribution_patching(
            spec_of("gpt2"),
            tiny_inputs("gpt2"),
            attrs.evolve(source, entries=entries),
            metric=metric,
        )
    assert "resid_mid.1" == caught.value.site


@pytest.mark.parametrize(
    ("name", "site", "error"),
    [
        ("gpt2", fl.z(9), errors.SiteNotFoundError),
        ("gpt2", fl.ssm_out(0), errors.SiteNotFoundError),
        ("gpt2", fl.z(0, head=7), errors.SelectionError),
        ("mixtral", fl.router_indices(0), errors.ReadOnlySiteError),
        ("gemma4_text", fl.resid_mid(0), errors.ReadOnlySiteError),
    ],
    ids=str,
)
def test_site_that_cannot_be_patched_is_refused(
    name: str, site: fl.Site, error: type[Exception]
) -> None:
    """With the error that a run has for it."""
    with pytest.raises(error):
        attributed(name, sites=[site])


def test_metric_of_a_site_that_is_not_there_is_refused() -> None:
    """Before anything runs."""
    with pytest.raises(errors.SiteNotFoundError):
        attributed("gpt2", metric=fl.reads(fl.z(9), torch.sum))
