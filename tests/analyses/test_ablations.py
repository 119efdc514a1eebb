"""Ablations against a loop of runs, and draws against what may be drawn."""

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

NAMES: Final = ("gpt2", "llama", "gptj")
CLOSE: Final = 2e-5
METRIC: Final = fl.log_prob_of(3)


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def part_of(name: str) -> fl.Part:
    """Heads, or what a family without heads adds to its stream."""
    has = {i.site.part for i in spec_of(name).sites if not i.site.stack}
    return fl.z if "z" in has else fl.Part("ssm_out")


def measured(name: str, edits: Sequence[fl.Intervention], given: Any = None) -> Tensor:
    """The metric of one run."""
    given = tiny_inputs(name) if given is None else given
    run = fl.run_with_cache(spec_of(name), given, edits, capture=[METRIC.site])
    return METRIC.function(run.cache[METRIC.site])


def sites_of(name: str, found: fl.Effects) -> list[tuple[tuple[int, ...], fl.Site]]:
    """The cells by layer, and by head where there are heads, with their sites."""
    part = part_of(name)
    shape = found.done.shape
    return [
        (cell, part(int(found.labels["layer"][cell[0]]), **_head(cell)))
        for cell in product(*map(range, shape))
        if found.done[cell]
    ]


def _head(cell: tuple[int, ...]) -> dict[str, int]:
    return {"head": cell[1]} if len(cell) > 1 else {}


def check_zero_and_mean(name: str) -> None:
    """Compare both with runs one by one."""
    spec, given, part = spec_of(name), tiny_inputs(name), part_of(name)
    means = fl.mean_activations(spec, given, [part])
    zero = fl.zero_ablation(spec, given, part, metric=METRIC)
    mean = fl.mean_ablation(spec, given, part, means, metric=METRIC)
    for cell, site in sites_of(name, zero):
        expected = measured(name, [fl.Zero(site)])
        torch.testing.assert_close(zero.rows[cell], expected, atol=CLOSE, rtol=CLOSE)
        expected = measured(name, [fl.Mean(site, means[site])])
        torch.testing.assert_close(mean.rows[cell], expected, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_ablation_is_the_loop(name: str) -> None:
    """With zeros and with means, by layer and head."""
    check_zero_and_mean(name)


@pytest.mark.architectures
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [r.name for r in FOUNDATION if r.name not in NAMES])
def test_ablation_is_the_loop_on_every_architecture(name: str) -> None:
    """Heads, or mixers where there are none."""
    check_zero_and_mean(name)


@pytest.mark.parametrize(
    ("part", "places", "axes"),
    [
        (fl.z, {}, ("layer", "head")),
        (fl.mlp_out, {}, ("layer",)),
        (fl.z, {"head": [1], "layer": [0]}, ("head", "layer")),
        (fl.mlp_post, {"layer": 1, "neuron": range(3)}, ("neuron",)),
        (fl.resid_pre, {"layer": ..., "pos": [0, 2]}, ("layer", "pos")),
    ],
)
def test_places_are_those_of_a_grid(part: Any, places: Any, axes: Any) -> None:
    """All layers, and heads where there are any, if nothing is said."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    found = fl.zero_ablation(spec, given, part, metric=METRIC, memory=2**22, **places)
    assert axes == found.axes
    words = places or dict.fromkeys(axes, ...)
    expected = fl.sweep(spec, given, fl.grid(fl.Zero, part, **words), metric=METRIC)
    torch.testing.assert_close(found.rows, expected.rows, atol=CLOSE, rtol=CLOSE)


def test_means_by_position_are_put_at_their_positions() -> None:
    """Whole, and at one position at a time."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    means = fl.mean_activations(spec, given, [fl.z], by_position=True)
    whole = fl.mean_ablation(spec, given, fl.z, means, metric=METRIC)
    expected = measured("gpt2", [fl.Mean(fl.z(1, head=2), means[fl.z(1)][:, 2])])
    torch.testing.assert_close(whole.rows[1, 2], expected, atol=CLOSE, rtol=CLOSE)
    one = fl.mean_ablation(
        spec, given, fl.z, means, metric=METRIC, layer=..., pos=[4], head=...
    )
    value = means[fl.z(1)][4, 2]
    expected = measured("gpt2", [fl.Mean(fl.z(1, head=2, pos=4), value)])
    torch.testing.assert_close(one.rows[1, 0, 2], expected, atol=CLOSE, rtol=CLOSE)


def test_means_by_position_are_refused_where_columns_are_not_positions() -> None:
    """Rows padded on the left; at one position at a time they are right."""
    spec = fl.load("builtin:tiny")
    texts = ["Tom had a ball", "Tom had a big red ball"]
    left = fl.to_tokens(spec, texts, padding_side="left")
    means = fl.mean_activations(spec, texts, [fl.z], by_position=True)
    with pytest.raises(errors.InputError, match="padded on the left"):
        fl.mean_ablation(spec, left, fl.z, means, metric=METRIC)
    found = fl.mean_ablation(
        spec, left, fl.z, means, metric=METRIC, layer=[1], head=..., pos=[2]
    )
    right = fl.to_tokens(spec, texts, padding_side="right")
    expected = fl.mean_ablation(
        spec, right, fl.z, means, metric=METRIC, layer=[1], head=..., pos=[2]
    )
    torch.testing.assert_close(found.rows, expected.rows, atol=1e-4, rtol=1e-4)


# resampling


@pytest.mark.parametrize("name", NAMES)
def test_resampling_from_one_other_is_patching_from_it(name: str) -> None:
    """Two examples have only each other to be given."""
    spec, given = spec_of(name), tiny_inputs(name)
    found = fl.resample_ablation(
        spec, given, fl.z, given, metric=METRIC, n_draws=2, seed=0
    )
    assert ("draw", "layer", "head") == found.axes
    cache = fl.run_with_cache(spec, given, capture=[fl.z]).cache
    for layer, head in product(range(spec.n_layers), range(spec.n_heads)):
        site = fl.z(layer, head=head)
        expected = measured(name, [fl.Patch(site, cache[site].flip(0))])
        for draw in range(2):
            got = found.rows[draw, layer, head]
            torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)


def test_each_draw_is_one_of_the_others() -> None:
    """Never the same tokens, and all others in the end."""
    spec = spec_of("gpt2")
    tokens = torch.tensor([[1, 2, 3, 4]])
    dataset = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 9, 9]])
    grid = {"layer": [1], "head": [0]}
    found = fl.resample_ablation(
        spec, tokens, fl.z, dataset, metric=METRIC, n_draws=30, seed=1, **grid
    )
    cache = fl.run_with_cache(spec, dataset, capture=[fl.z]).cache
    site = fl.z(1, head=0)
    possible = [
        measured("gpt2", [fl.Patch(site, cache.rows(at, at + 1))], tokens)
        for at in (1, 2)
    ]
    near = torch.stack(
        [torch.isclose(found.rows[:, 0, 0, 0], one, atol=CLOSE) for one in possible]
    )
    assert bool((near.sum(0) == 1).all())
    assert 5 < int(near[0].sum()) < 25


def test_draws_are_fixed_by_the_seed_alone() -> None:
    """A number or a generator; the global generator stays."""
    spec, rows = spec_of("gpt2"), torch.arange(24).reshape(6, 4)

    def drawn(seed: Any) -> Tensor:
        return fl.resample_ablation(
            spec, rows, fl.z, rows, metric=METRIC, n_draws=2, seed=seed
        ).rows

    before = torch.get_rng_state()
    one, two, other = drawn(3), drawn(3), drawn(4)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(one, drawn(torch.Generator().manual_seed(3)))
    assert torch.equal(before, torch.get_rng_state())


def test_padded_examples_are_given_ones_of_their_length() -> None:
    """Columns that are padding in one are not real in the other."""
    spec = fl.load("builtin:tiny")
    texts = [
        "Tom had a ball",
        "Ben had a ball",
        "Tom had a red ball",
        "A red hat was a",
    ]
    found = fl.resample_ablation(
        spec, texts, fl.resid_post, texts, metric=METRIC, n_draws=3, seed=0, layer=[3]
    )
    baseline = found.baseline
    expected = torch.stack([baseline[1], baseline[0], baseline[3], baseline[2]])
    torch.testing.assert_close(
        found.rows[:, 0], expected.expand(3, 4), atol=1e-4, rtol=1e-4
    )


def test_single_positions_are_given_by_rows_of_any_length() -> None:
    """The last position of one is put at the last of the other, wherever it stands."""
    spec = fl.load("builtin:tiny")
    texts = ["Tom had a ball", "Tom had a big red ball"]
    places: dict[str, Any] = {"layer": [3], "pos": [-1]}
    found = fl.resample_ablation(
        spec, texts, fl.resid_post, texts, metric=METRIC, n_draws=1, seed=0, **places
    )
    expected = found.baseline.flip(0)
    torch.testing.assert_close(found.rows[0, 0, 0], expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(errors.InputError, match="row 0"):
        fl.resample_ablation(
            spec, texts, fl.resid_post, texts, metric=METRIC, n_draws=1, seed=0
        )


def test_average_and_spread_of_draws() -> None:
    """Of the values, and of each example's."""
    spec, rows = spec_of("gpt2"), torch.arange(24).reshape(6, 4)
    found = fl.resample_ablation(
        spec, rows, fl.z, rows, metric=METRIC, n_draws=4, seed=0
    )
    mean = fl.average_over(found, "draw")
    assert ("layer", "head") == mean.axes
    assert {"layer", "head"} == set(mean.labels)
    assert mean.is_complete
    torch.testing.assert_close(mean.rows, found.rows.mean(0))
    torch.testing.assert_close(mean.values, found.values.mean(0))
    torch.testing.assert_close(mean.change, found.change.mean(0))
    torch.testing.assert_close(fl.spread_over(found, "draw"), found.values.std(0))


def test_averages_of_several_metrics_keep_them_apart() -> None:
    """Metrics are no axis to average over."""
    spec, rows = spec_of("gpt2"), torch.arange(24).reshape(6, 4)
    metrics = {"answer": METRIC, "rank": fl.rank_of(3)}
    found = fl.resample_ablation(
        spec, rows, fl.z, rows, metric=metrics, n_draws=2, seed=0
    )
    assert ("metric", "draw", "layer", "head") == found.axes
    mean = fl.average_over(found, "draw")
    assert ("metric", "layer", "head") == mean.axes
    assert mean.done.shape == mean.values.shape[1:]
    torch.testing.assert_close(mean.change, found.change.mean(1))
    for axis in ("metric", "part"):
        with pytest.raises(errors.SelectionError, match="no axis"):
            fl.average_over(found, axis)


def test_one_draw_has_no_spread() -> None:
    """It would be NaN."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    found = fl.resample_ablation(
        spec, given, fl.z, given, metric=METRIC, n_draws=1, seed=0
    )
    with pytest.raises(errors.InputError, match="one draw"):
        fl.spread_over(found, "draw")


@pytest.mark.parametrize(
    ("how", "kind", "fragment"),
    [
        ({"n_draws": 0}, errors.OptionError, "number of draws"),
        ({"seed": "x"}, errors.OptionError, "torch.Generator"),
        ({"dataset": torch.tensor([[1, 2, 3]])}, errors.InputError, "3 positions"),
        ({"dataset": torch.tensor([[1, 2, 3, 4]])}, errors.InputError, "row 0"),
        ({"layr": ...}, errors.OptionError, "layr"),
        ({"layer": [7]}, errors.SiteNotCachedError, "z.7"),
    ],
)
def test_what_cannot_be_resampled_is_refused(
    how: Any, kind: Any, fragment: str, unchecked: None
) -> None:
    """Before the sweep begins."""
    given: dict[str, Any] = {
        "dataset": torch.tensor([[5, 6, 7, 8]]),
        "metric": METRIC,
        "seed": 0,
        **how,
    }
    tokens = torch.tensor([[1, 2, 3, 4]])
    with pytest.raises(kind, match=fragment):
        fl.resample_ablation(
            spec_of("gpt2"), tokens, fl.z, given.pop("dataset"), **given
        )


def test_means_that_lack_a_layer_are_refused() -> None:
    """Rather than ablated in some layers."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    means = fl.mean_activations(spec, given, [fl.z(0)])
    with pytest.raises(errors.SiteNotCachedError, match=r"z\.1"):
        fl.mean_ablation(spec, given, fl.z, means, metric=METRIC)
