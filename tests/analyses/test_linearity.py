"""How far to trust an estimate: second derivatives, and what patching really does."""

from functools import cache, partial
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import FOUNDATION, tiny_inputs
from tests.analyses.pairs import (
    metric,
    other_inputs,
    patched,
    per_row,
    source_of,
    spec_of,
    toy,
    toy_tokens,
)

FLOAT32: Final = 1e-6  # where a family computes norms and softmax in float32
STEP: Final = 1e-2  # of the way to the source
# A second difference of a smooth metric, with norms that some compute in float32.
TOLERANCE: Final = 5e-2
# Kinks of ReLU, of clamps, and of routers; tables in bfloat16.
APART: Final = (
    "opt",
    "opt-post_norm",
    "falcon-alibi",
    "mixtral",
    "qwen2_moe",
    "qwen3_moe",
    "gpt_oss",
    "olmo",
)
SMOOTH: Final = tuple(r.name for r in FOUNDATION if r.name not in APART)
PARTS: Final = (fl.resid_pre, fl.z, fl.mlp_out, fl.pattern, fl.attn_scores, fl.q)


def bent(name: str, **how: Any) -> fl.Linearity:
    """The linearity of a tiny model."""
    given: Any = {"metric": metric, **how}
    return fl.linearity(spec_of(name), tiny_inputs(name), source_of(name), **given)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SMOOTH)
def test_curvature_is_the_second_difference_along_the_way(name: str) -> None:
    """At each site: three runs a little way towards the source and away from it."""
    spec, given, source = spec_of(name), tiny_inputs(name), source_of(name)
    has = {info.site for info in spec.sites if not info.read_only}
    sites = [part(1) for part in PARTS if part(1) in has]
    found = bent(name, sites=sites)
    cache = fl.run_with_cache(spec, given, capture=sites).cache

    def after(site: fl.Site, way: float) -> Tensor:
        held = cache[site]
        step = torch.where(source[site] == held, 0.0, source[site] - held)
        return metric(fl.run(spec, given, [fl.Set(site, held + way * step)])).double()

    for site in sites:
        bow = after(site, STEP) + after(site, -STEP) - 2 * after(site, 0.0)
        expected = bow / STEP**2 / 2
        got = per_row(found.rest[site])
        torch.testing.assert_close(expected, got, atol=TOLERANCE, rtol=TOLERANCE)


def test_curvature_is_the_hessian_s() -> None:
    """Against `torch.func.hessian` at heads of a layer, place by place."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")["input_ids"][:1]
    other = other_inputs("gpt2")["input_ids"][:1]
    site = fl.z(1, pos=-1)
    value, source = (
        fl.run_with_cache(spec, tokens, capture=[site]).cache[site]
        for tokens in (given, other)
    )

    def of(moved: Tensor) -> Tensor:
        return metric(fl.run(spec, given, [fl.Set(site, moved)])).sum()

    hessian = torch.func.hessian(of)(value)[0, :, :, 0]
    step = (source - value)[0]
    expected = torch.einsum("hd,hdgc,gc->h", step, hessian, step) / 2
    found = fl.linearity(spec, given, other, metric=metric, sites=[site])
    torch.testing.assert_close(expected, found.rest[site][0], atol=1e-8, rtol=0)
    first = fl.attribution_patching(spec, given, other, metric=metric)[site]
    torch.testing.assert_close(first, found.first[site], atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bert"])
def test_first_order_is_attribution_patching_s(name: str) -> None:
    """At every site, at each place."""
    spec, given, source = spec_of(name), tiny_inputs(name), source_of(name)
    expected = fl.attribution_patching(spec, given, source, metric=metric)
    sites = [info.site for info in spec.sites if info.site.layer in {None, 1}]
    got = bent(name, sites=[site for site in sites if site in expected])
    for site in got.first:
        torch.testing.assert_close(
            expected[site], got.first[site], atol=FLOAT32, rtol=0
        )


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_with_steps_the_two_orders_are_the_patch(name: str) -> None:
    """First and rest together: what patching a site, or some of it, really does."""
    sites = [
        fl.resid_pre(1),
        fl.z(0),
        fl.z(0, head=1),
        fl.resid_post(0, pos=-1),
        fl.resid_pre(1, pos=torch.tensor([1, 3])),
        fl.mlp_post(0, neuron=(3, 5)),
        fl.pattern(1, head=2),
    ]
    found = bent(name, sites=sites, steps=40)
    for site in sites:
        expected = patched(name, site)
        got = per_row(found.first[site]) + per_row(found.rest[site])
        torch.testing.assert_close(expected, got, atol=2e-3, rtol=2e-3)


def test_linear_site_has_no_error_bar() -> None:
    """On attention without norms: what heads write, and where they look."""
    spec, (ours, theirs) = toy(), toy_tokens()
    sites = [fl.z, fl.v, fl.pattern, fl.attn_out, fl.resid_post, fl.logits]
    found = fl.linearity(
        spec, ours, theirs, metric=fl.logit_diff(3, 5), sites=sites, steps=2
    )
    for part, axes in [
        (fl.z, ("layer", "head")),
        (fl.pattern, ("layer", "head", "query")),
        (fl.resid_post, ("layer", "pos")),
        (fl.logits, ("pos",)),
    ]:
        bars, scores = found.error_bars(part, *axes), found.scores(part, *axes)
        assert float(bars.rows.abs().max()) <= 1e-6
        assert float(scores.rows.min()) >= 1 - 1e-3
    bent_site = fl.linearity(
        spec, ours, theirs, metric=fl.logit_diff(3, 5), sites=[fl.attn_scores(0)]
    )
    assert float(bent_site.error_bars(fl.attn_scores(0)).values) > 1e-3


@cache
def builtin() -> tuple[fl.ModelSpec, Tensor, Tensor, fl.Metric]:
    """The built-in model, and a name that is exchanged."""
    spec = fl.load("builtin:tiny")
    clean = fl.to_tokens(spec, "Tom had a big red ball.")
    corrupted = fl.to_tokens(spec, "Ben had a big red ball.")
    right, wrong = (fl.to_single_token(spec, name) for name in (" Tom", " Ben"))
    return spec, clean, corrupted, fl.logit_diff(right, wrong)


@pytest.mark.parametrize(("steps", "least", "within"), [(1, 0.7, 8.0), (4, 0.99, 1.2)])
def test_error_bars_tell_where_estimates_are_wrong(
    steps: int, least: float, within: float
) -> None:
    """On the trained model: bars follow the errors that true patching shows."""
    spec, clean, corrupted, measure = builtin()
    parts = (fl.z, fl.mlp_out, fl.attn_scores, fl.pattern, fl.v, fl.ln1_normalized)
    how: Any = {"metric": measure, "sites": parts}
    estimate = fl.attribution_patching(spec, corrupted, clean, **how)
    found = fl.linearity(spec, corrupted, clean, steps=steps, **how)
    source = fl.run_with_cache(spec, clean, capture=parts).cache
    wrong: list[Tensor] = []
    bars: list[Tensor] = []
    for part in parts:
        grid = fl.grid(fl.Patch, part, layer=..., source=source)
        truth = fl.sweep(spec, corrupted, grid, metric=measure).change
        wrong.append((truth - estimate.effects(part, "layer").change).abs())
        bars.append(found.error_bars(part, "layer").values)
    errors_made, error_bars = torch.cat(wrong), torch.cat(bars)
    both = torch.stack([errors_made, error_bars]).clamp(min=1e-3).log()
    assert float(torch.corrcoef(both)[0, 1]) > least
    large = errors_made > 0.05
    ratio = (error_bars / errors_made)[large]
    assert int(large.sum()) >= 3
    assert bool(((ratio < within) & (ratio > 1 / within)).all())


def test_first_layer_s_residual_is_flagged() -> None:
    """Where the estimate is most wrong, the score is below one half."""
    spec, clean, corrupted, measure = builtin()
    sites = [fl.resid_pre(0), fl.resid_post(3)]
    found = fl.linearity(spec, corrupted, clean, metric=measure, sites=sites, steps=1)
    low, high = (float(found.scores(site).values) for site in sites)
    assert low < 0.5
    assert high > 0.9
    estimate = fl.attribution_patching(spec, corrupted, clean, metric=measure)
    source = fl.run_with_cache(spec, clean).cache
    base = measure(fl.run(spec, corrupted))
    off = [
        float(
            measure(fl.run(spec, corrupted, [fl.Patch(site, source)]))
            - base
            - estimate[site].sum()
        )
        for site in sites
    ]
    assert abs(off[0]) > 5 * abs(off[1])


def test_score_is_one_where_nothing_happens() -> None:
    """Sites behind what the metric reads."""
    read = fl.reads(fl.resid_post(0, pos=-1), partial(torch.sum, dim=-1))
    found = bent("gpt2", metric=read, sites=[fl.z])
    assert torch.equal(torch.ones(2), found.scores(fl.z(1)).rows)
    assert not found.error_bars(fl.z(1)).rows.any()


def test_rows_do_not_mix() -> None:
    """A pair among others has the curvature it has alone."""
    sites = [fl.resid_pre(1), fl.z(0, pos=-1)]
    every = bent("llama", sites=sites, steps=2)
    for row in range(2):
        alone = fl.linearity(
            spec_of("llama"),
            tiny_inputs("llama")["input_ids"][row : row + 1],
            other_inputs("llama")["input_ids"][row : row + 1],
            metric=metric,
            sites=sites,
            steps=2,
        )
        for site in sites:
            got = every.rest[site][row : row + 1]
            torch.testing.assert_close(alone.rest[site], got, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"steps": 0}, errors.OptionError),
        ({"memory": -1}, errors.OptionError),
        ({"sites": []}, errors.InputError),
        ({"metric": fl.rank_of(3), "sites": [fl.z]}, errors.InputError),
        ({"sites": [fl.z(0, head=9)]}, errors.SelectionError),
    ],
)
def test_faulty_options_are_refused(how: Any, error: type[Exception]) -> None:
    """With funlens's own errors."""
    with pytest.raises(error):
        bent("gpt2", **how)
