"""Integrated gradients: completeness, and hand-written loops over points of the way."""

from typing import Any, Final

import attrs
import pytest
import torch

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

EXACT: Final = 1e-10  # float64, summed in another order
FLOAT32: Final = 1e-6  # where a family computes norms and softmax in float32
STEPS: Final = 100
# Midpoints of so many parts: what is left falls with the square of their number, and
# corners of ReLU and of bfloat16 tables add a few 1e-4.
COMPLETE: Final = 2e-3
APART: Final = {
    "falcon-alibi": "its alibi is computed in bfloat16",
    "mixtral": "its router jumps from expert to expert",
    "qwen2_moe": "its router jumps",
    "qwen3_moe": "its router jumps",
    "gpt_oss": "its router jumps",
    "olmo": "it clamps values",
}
SMOOTH: Final = tuple(r.name for r in FOUNDATION if r.name not in APART)
PARTS: Final = (fl.resid_pre, fl.z, fl.mlp_out, fl.pattern, fl.attn_scores)


def integrated(name: str, **how: Any) -> fl.Attributions:
    """Integrated gradients on a tiny model."""
    given: Any = {"metric": metric, **how}
    return fl.integrated_gradients(
        spec_of(name), tiny_inputs(name), source_of(name), **given
    )


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", SMOOTH)
def test_along_activations_a_site_sums_to_what_patching_it_does(name: str) -> None:
    """Completeness: of the stream, heads, MLPs and patterns, each for itself."""
    has = {info.site for info in spec_of(name).sites if not info.read_only}
    sites = [part(1) for part in PARTS if part(1) in has]
    found = integrated(name, along="activations", steps=STEPS, sites=sites)
    assert sorted(map(str, sites)) == sorted(map(str, found))
    for site in sites:
        expected, got = patched(name, site), per_row(found[site])
        torch.testing.assert_close(expected, got, atol=COMPLETE, rtol=COMPLETE)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
def test_along_inputs_the_embedding_sums_to_the_other_run(name: str) -> None:
    """Completeness of what the inputs are, an encoder's too."""
    found = integrated(name, steps=STEPS)
    first = metric(fl.run(spec_of(name), tiny_inputs(name)))
    last = metric(fl.run(spec_of(name), other_inputs(name)))
    embeds = [site for site in found if site.part == "embed"]
    got = sum(per_row(found[site]) for site in embeds)
    torch.testing.assert_close(last - first, got, atol=COMPLETE, rtol=COMPLETE)
    assert (name == "t5") == (len(embeds) > 1)


def test_completeness_comes_with_steps() -> None:
    """What is left falls as the steps grow, by about the square."""
    site = fl.resid_pre(1)
    left = [
        (
            per_row(
                integrated("gpt2", along="activations", steps=n, sites=[site])[site]
            )
            - patched("gpt2", site)
        )
        .abs()
        .max()
        for n in (2, 8, 32)
    ]
    assert left[0] > 8 * left[1] > 64 * left[2] > 0


def test_along_inputs_is_the_mean_of_gradients_in_between() -> None:
    """Against a loop of runs with interpolated embeddings, one at a time."""
    name, steps = "gpt2", 3
    spec, given, source = spec_of(name), tiny_inputs(name), source_of(name)
    cache = fl.run_with_cache(spec, given).cache
    found = integrated(name, steps=steps)
    embed = fl.embed()
    sites = [fl.resid_pre(0), fl.z(1), fl.mlp_out(0), fl.pattern(1)]
    expected = {site: torch.zeros(()).double() for site in sites}
    for step in range(steps):
        at = cache[embed] + (step + 0.5) / steps * (source[embed] - cache[embed])
        run = fl.run_with_grads(spec, given, metric, interventions=[fl.Set(embed, at)])
        for site in sites:
            product = (source[site] - cache[site]) * run.grads[site] / steps
            expected[site] = expected[site] + (
                product if site.part == "pattern" else product.sum(-1)
            )
    for site in sites:
        torch.testing.assert_close(expected[site], found[site], atol=EXACT, rtol=0)


def test_along_activations_is_the_mean_of_gradients_in_between() -> None:
    """Against a loop of runs of the whole model that move one site."""
    name, steps = "llama", 3
    spec, given, source = spec_of(name), tiny_inputs(name), source_of(name)
    cache = fl.run_with_cache(spec, given).cache
    sites = [fl.resid_post(0), fl.z(1), fl.mlp_post(1)]
    found = integrated(name, steps=steps, along="activations", sites=sites)
    for site in sites:
        way = source[site] - cache[site]
        expected = torch.zeros(())
        for step in range(steps):
            edit = fl.Set(site, cache[site] + (step + 0.5) / steps * way)
            run = fl.run_with_grads(
                spec, given, metric, interventions=[edit], capture=[site]
            )
            expected = expected + (way * run.grads[site]).sum(-1) / steps
        torch.testing.assert_close(expected, found[site], atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("along", ["inputs", "activations"])
def test_points_run_together_or_apart_give_the_same(along: str) -> None:
    """Whatever memory allows; one byte allows one point at a time."""
    sites = [fl.resid_pre, fl.z]
    together = integrated("llama", along=along, steps=4, sites=sites, memory=2**40)
    apart = integrated("llama", along=along, steps=4, sites=sites, memory=1)
    for site in together:
        torch.testing.assert_close(together[site], apart[site], atol=EXACT, rtol=0)


@pytest.mark.parametrize("along", ["inputs", "activations"])
def test_rows_do_not_mix(along: str) -> None:
    """A pair among others is estimated as it is alone, its own answer too."""
    spec, ours, theirs = spec_of("gpt2"), tiny_inputs("gpt2"), other_inputs("gpt2")
    answers = torch.tensor([3, 8])
    how: Any = {"along": along, "steps": 2, "sites": [fl.resid_pre, fl.z]}
    every = integrated("gpt2", **{**how, "metric": fl.log_prob_of(answers)})
    for row in range(2):
        alone = fl.integrated_gradients(
            spec,
            ours["input_ids"][row : row + 1],
            theirs["input_ids"][row : row + 1],
            metric=fl.log_prob_of(answers[row : row + 1]),
            **how,
        )
        for site in alone:
            got = every[site][row : row + 1]
            torch.testing.assert_close(alone[site], got, atol=EXACT, rtol=0)


def test_on_a_linear_site_one_step_is_attribution_patching() -> None:
    """The gradient is the same everywhere on the way."""
    spec, (ours, theirs) = toy(), toy_tokens()
    how: Any = {"metric": fl.logit_diff(3, 5), "sites": [fl.z, fl.pattern, fl.v]}
    expected = fl.attribution_patching(spec, ours, theirs, **how)
    got = fl.integrated_gradients(
        spec, ours, theirs, along="activations", steps=3, **how
    )
    for site in expected:
        torch.testing.assert_close(expected[site], got[site], atol=EXACT, rtol=0)
    assert torch.equal(expected.baseline, got.baseline)


def test_metric_of_an_earlier_site_ends_the_way() -> None:
    """Sites behind it have zeros, wherever runs begin."""
    read = fl.reads(fl.resid_post(0, pos=-1), lambda held: held.square().sum(-1))
    found = integrated(
        "gpt2", metric=read, along="activations", sites=[fl.z], steps=STEPS
    )
    assert found[fl.z(0)].any()
    assert not found[fl.z(1)].any()


@pytest.mark.parametrize(
    ("how", "error", "fragment"),
    [
        ({"steps": 0}, errors.OptionError, "not a number of steps"),
        ({"memory": 0}, errors.OptionError, "memory"),
        ({"along": "outputs"}, errors.OptionError, "activations"),
        ({"metric": fl.rank_of(3)}, errors.InputError, "no derivative"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_faulty_options_are_refused(
    how: Any, error: type[Exception], fragment: str
) -> None:
    """Before the model runs, but for a metric without a derivative."""
    with pytest.raises(error, match=fragment):
        integrated("gpt2", **how)


def test_source_that_lacks_the_embedding_is_refused() -> None:
    """Along inputs; along activations it is not needed."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    some = fl.run_with_cache(spec, other_inputs("gpt2"), capture=[fl.z]).cache
    how: Any = {"metric": metric, "sites": [fl.z]}
    with pytest.raises(errors.SiteNotCachedError, match="embed"):
        fl.integrated_gradients(spec, given, some, **how)
    assert fl.integrated_gradients(spec, given, some, along="activations", **how)


def test_pictures_are_moved_as_texts_are() -> None:
    """Their embedding is linear in them: half of the way is half of the picture."""
    spec, given = spec_of("vit-base"), tiny_inputs("vit-base")
    other = {name: held.flip(-1) for name, held in given.items()}
    read = fl.reads(fl.resid_post(1), lambda held: held.square().sum((1, 2)).log())
    found = fl.integrated_gradients(spec, given, other, metric=read, steps=STEPS)
    runs = [
        fl.run_with_cache(spec, each, capture=[read.site]).cache[read.site]
        for each in (given, other)
    ]
    expected = read.function(runs[1]) - read.function(runs[0])
    got = per_row(found[fl.embed()])
    torch.testing.assert_close(expected, got, atol=COMPLETE, rtol=COMPLETE)


def test_model_without_an_embedding_has_no_path_of_inputs() -> None:
    """The other path is named."""
    kept = tuple(i for i in spec_of("gpt2").sites if i.site != fl.embed())
    spec = attrs.evolve(spec_of("gpt2"), sites=kept)
    ours, theirs = tiny_inputs("gpt2"), other_inputs("gpt2")
    with pytest.raises(errors.SiteNotFoundError, match="activations"):
        fl.integrated_gradients(spec, ours, theirs, metric=metric, sites=[fl.z])
