"""Sweeps: what a loop of runs gives, for less."""

from functools import cache
from itertools import product
from typing import Any, Final

import pytest
import torch
from torch import Tensor, nn

import funlens as fl
from funlens import errors
from funlens.adapters import ACTIVE
from funlens.engine import _sweep
from funlens.testing import CAUSAL, FOUNDATION, tiny_hf_model, tiny_inputs

# A table without a rotation, a rotated one, parallel blocks, windows, a mixture, a
# recurrence beside attention, one that shares keys between layers, and two stacks.
NAMES: Final = (
    "gpt2",
    "llama",
    "gptj",
    "gemma2",
    "mixtral",
    "falcon_h1",
    "bloom",
    "t5",
)
REFUSED: Final = ("rwkv-rescaled", "reformer")
# Reuse of positions runs other shapes; a metric of size 5 is known to 1e-6.
CLOSE: Final = 2e-5


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once; RWKV's after the run that it wants."""
    module = tiny_hf_model(name)
    if name == "rwkv":
        module(**tiny_inputs(name))
    return fl.from_module(module)


@cache
def source_of(name: str) -> fl.ActivationCache:
    """Every site of the same model on the tokens the other way round."""
    given = {
        word: held.flip(1) if word == "input_ids" else held
        for word, held in tiny_inputs(name).items()
    }
    return fl.run_with_cache(spec_of(name), given).cache


def parts_of(name: str) -> list[fl.Part]:
    """The parts that are swept, of those that the source holds."""
    met = {site.part for site in source_of(name) if not site.stack}
    wanted = ("resid_pre", "streams_pre", "z", "mlp_out", "ssm_out")
    return [fl.Part(part) for part in wanted if part in met]


def layers_of(name: str, part: fl.Part) -> list[int]:
    """The layers at which the source holds a part."""
    sites = (site for site in source_of(name) if not site.stack)
    return [s.layer for s in sites if s.part == part.name and s.layer is not None]


def check_against_the_loop(name: str, metric: fl.Metric) -> None:
    """Compare sweeps of several parts with runs one by one."""
    spec, given, source = spec_of(name), tiny_inputs(name), source_of(name)
    for part in parts_of(name):
        layers, places = layers_of(name, part), [1, -2]
        if part.name == "z":
            places = [0, 1]
        word = "head" if part.name == "z" else "pos"
        words: dict[str, Any] = {"layer": layers, word: places}
        grid = fl.grid(fl.Patch, part, source=source, **words)
        found = fl.sweep(spec, given, grid, metric=metric)
        assert found.is_complete
        for row, layer in enumerate(layers):
            for column, place in enumerate(places):
                edit = fl.Patch(part(layer, **{word: place}), source)
                expected = measured(name, metric, [edit])
                got = found.rows[row, column]
                torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)


def measured(name: str, metric: fl.Metric, edits: list[fl.Intervention]) -> Tensor:
    """The metric of one run, by itself."""
    spec, given = spec_of(name), tiny_inputs(name)
    run = fl.run_with_cache(spec, given, edits, capture=[metric.site])
    return metric.function(run.cache[metric.site])


@pytest.mark.parametrize("name", NAMES)
def test_sweep_is_the_loop(name: str) -> None:
    """Residuals, heads and MLPs by layer and place."""
    check_against_the_loop(name, fl.log_prob_of(3))


@pytest.mark.architectures
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "name",
    [r.name for r in (*FOUNDATION, *CAUSAL) if r.name not in {*NAMES, *REFUSED}],
)
def test_sweep_is_the_loop_on_every_architecture(name: str) -> None:
    """The same over the rest of the table."""
    check_against_the_loop(name, fl.log_prob_of(3))


@pytest.mark.parametrize(
    "metric",
    [
        fl.logit_diff(3, 5),
        fl.prob_of(3, pos=2),
        fl.rank_of(7),
        fl.kl_divergence(torch.zeros(2, 32)),
        fl.reads(fl.resid_post(0, pos=-1), lambda value: value.sum(-1)),
        fl.reads(fl.pattern(1, head=1, query=-1, key=0), lambda value: value),
        fl.reads(fl.logits(), lambda value: value.std((1, 2))),
        fl.reads(fl.logits(pos=torch.tensor([1, 4])), lambda value: value[:, 3]),
    ],
    ids=lambda metric: str(metric.site),
)
def test_every_metric_is_that_of_the_run(metric: fl.Metric) -> None:
    """At one position, at several, of inner sites, and of whole ones."""
    check_against_the_loop("llama", metric)


def test_several_metrics_are_measured_at_once() -> None:
    """The first axis tells them apart."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    grid = fl.grid(fl.Zero, fl.z, layer=..., head=...)
    metrics = {"answer": fl.log_prob_of(3), "all": lambda logits: logits.mean()}
    found = fl.sweep(spec, given, grid, metric=metrics)
    assert ("metric", "layer", "head") == found.axes
    assert ("answer", "all") == found.labels["metric"]
    alone = fl.sweep(spec, given, grid, metric=metrics["answer"])
    torch.testing.assert_close(found.values[0], alone.values, atol=CLOSE, rtol=CLOSE)


def test_lists_of_edits_are_cells() -> None:
    """Of any kinds and lengths; an empty one is the run as it is."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    cells: list[list[fl.Intervention]] = [
        [],
        [fl.Zero(fl.z(0, head=1)), fl.Scale(fl.mlp_out(1), 2.0)],
        [fl.Noise(fl.resid_pre(1), std=1.0, seed=3)],
        [fl.Apply(fl.resid_mid(0, pos=2), lambda value: value.flip(-1))],
        [fl.Zero(fl.pattern(1, head=0, query=3, key=1))],
        [fl.Add(fl.embed(pos=1), torch.ones(16))],
        [fl.Set(fl.logits(pos=-1), 0.0)],
    ]
    found = fl.sweep(spec, given, cells, metric=fl.log_prob_of(3))
    assert ("cell",) == found.axes
    for index, cell in enumerate(cells):
        expected = measured("llama", fl.log_prob_of(3), cell)
        got = found.rows[index]
        torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(found.rows[0], found.baseline)
    assert 0.0 == float(found.change[0])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_count_their_own_positions(side: str) -> None:
    """The last real position of each row is read and edited."""
    spec = fl.load("builtin:tiny")
    texts = ["Once upon a time", "Once upon a time there was a little girl"]
    tokens = fl.to_tokens(spec, texts, padding_side=side)  # pyright: ignore[reportArgumentType] (parametrized)
    grid = fl.grid(fl.Zero, fl.resid_pre, layer=..., pos=[0, -1])
    metric = fl.log_prob_of(5)
    found = fl.sweep(spec, tokens, grid, metric=metric)
    for row, text in enumerate(texts):
        alone = fl.sweep(spec, text, grid, metric=metric)
        got = found.rows[..., row]
        torch.testing.assert_close(got, alone.values, atol=1e-4, rtol=1e-4)


def test_positions_are_named_by_their_tokens() -> None:
    """Axes carry what stands at each place."""
    spec = fl.load("builtin:tiny")
    grid = fl.grid(fl.Zero, fl.resid_pre, layer=[1, 2], pos=...)
    found = fl.sweep(spec, "Once upon", grid, metric=fl.log_prob_of(5))
    assert ("1", "2") == found.labels["layer"]
    assert ("0 <bos>", "1 Once", "2  upon") == found.labels["pos"]
    assert "layer 2, pos 3" in repr(found)


def test_grids_beside_each_other_are_the_grids_alone() -> None:
    """On one more axis; what one goes over and another does not is no cell."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    grids = {
        "z": fl.grid(fl.Zero, fl.z, layer=[1], head=...),
        "k": fl.grid(fl.Zero, fl.k, layer=..., head=[1]),
    }
    metric = fl.log_prob_of(3)
    found = fl.sweep(spec, given, grids, metric=metric)
    assert ("part", "layer", "head") == found.axes
    assert ("z", "k") == found.labels["part"]
    done = [[[False] * 4, [True] * 4], [[False, True, False, False]] * 2]
    assert done == found.done.tolist()
    assert torch.equal(found.done, ~found.values.isnan())
    z = fl.sweep(spec, given, grids["z"], metric=metric)
    k = fl.sweep(spec, given, grids["k"], metric=metric)
    torch.testing.assert_close(found.rows[0, 1], z.rows[0], atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(
        found.rows[1, :, 1], k.rows[:, 0], atol=CLOSE, rtol=CLOSE
    )


def test_new_axis_of_grids_has_any_name() -> None:
    """And the places keep the order in which all grids name them."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    factors = {
        str(by): fl.grid(fl.Scale, fl.z, layer=[1, 0], head=..., factor=by)
        for by in (0.0, 0.5)
    }
    metric = fl.log_prob_of(3)
    found = fl.sweep(spec, given, fl.Grids(factors, axis="factor"), metric=metric)
    assert ("factor", "layer", "head") == found.axes
    assert (("0.0", "0.5"), ("1", "0")) == (
        found.labels["factor"],
        found.labels["layer"],
    )
    zero = fl.sweep(
        spec, given, fl.grid(fl.Zero, fl.z, layer=[1, 0], head=...), metric=metric
    )
    torch.testing.assert_close(found.rows[0], zero.rows, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize(
    ("grids", "more", "kind", "fragment"),
    [
        ({}, {}, errors.InputError, "no grid"),
        ({"z": [[]]}, {}, errors.InputError, "z is a list"),
        (
            {"z": fl.grid(fl.Zero, fl.z, layer=...)},
            {"axis": "layer"},
            errors.InputError,
            "a new axis",
        ),
        (
            {
                "z": fl.grid(fl.Zero, fl.z, layer=..., head=...),
                "q": fl.grid(fl.Zero, fl.q, layer=..., pos=...),
            },
            {},
            errors.SelectionError,
            "q goes over layer, pos",
        ),
    ],
)
def test_grids_that_do_not_fit_beside_each_other_are_refused(
    grids: Any, more: Any, kind: Any, fragment: str, unchecked: None
) -> None:
    """Before a model is there."""
    with pytest.raises(kind, match=fragment):
        fl.Grids(grids, **more)


# the plan


def counted(
    spec: fl.ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[int], list[int]]:
    """Count the positions that enter each block, and those that leave it."""
    entered, left = list[int](), list[int]()
    for path in spec.engine.blocks:
        block: Any = spec.engine.tapped(eager=False).get_submodule(path)
        inner = block.forward

        def forward(*args: Any, inner: Any = inner, path: str = path, **kwargs: Any):  # noqa: ANN202 -- what a block gives
            active = ACTIVE.get()
            if active is not None and active.skips(path):
                return inner(*args, **kwargs)
            n_positions = args[0].shape[0] * args[0].shape[1]
            entered.append(n_positions)
            out = inner(*args, **kwargs)
            left.append(n_positions)
            return out

        monkeypatch.setattr(block, "forward", forward)
    return entered, left


@pytest.mark.parametrize("metric", [fl.log_prob_of(3), fl.logit_diff(3, 5, pos=4)])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bloom", "mixtral"])
def test_plan_says_what_is_computed(
    name: str, metric: fl.Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predicted token-layers are those that pass the blocks, or enter them only."""
    spec, given = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    grid = fl.grid(fl.Patch, fl.resid_pre, layer=..., pos=..., source=source_of(name))
    plan = fl.plan_sweep(spec, given, grid, metric=metric)
    entered, left = counted(spec, monkeypatch)
    fl.sweep(spec, given, grid, metric=metric)
    assert plan.token_layers == sum(left)
    assert plan.key_layers == sum(entered) - sum(left)
    assert plan.token_layers < plan.naive_token_layers


def test_plan_leaves_out_layers_and_positions() -> None:
    """Cells begin at their own layer, and at their own position where keys are kept."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    grid = fl.grid(fl.Zero, fl.resid_pre, layer=[1], pos=[5])
    plan = fl.plan_sweep(spec, given, grid, metric=fl.log_prob_of(3))
    (group,) = plan.groups
    assert ((1,), 2, 5, 6) == (group.starts, group.stop, group.since, group.only)
    assert 2 * (1 + 7 * 2) == plan.token_layers
    assert 2 * 2 == plan.key_layers
    assert "1 cells in 1 runs" in repr(plan)


def test_last_position_passes_the_last_layer_whole_where_an_edit_asks() -> None:
    """An edit within the last layer lets all positions pass it."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    grid = fl.grid(fl.Zero, fl.z, layer=..., head=[0])
    plan = fl.plan_sweep(spec, given, grid, metric=fl.log_prob_of(3))
    assert {(0,): 6, (1,): None} == {group.starts: group.only for group in plan.groups}


def test_edits_of_what_enters_the_last_layer_act_once() -> None:
    """What is added there is not added again where one position goes on alone."""
    grid = fl.grid(fl.Scale, fl.resid_pre, layer=..., pos=..., factor=2.0)
    for metric in (fl.logit_diff(3, 5), fl.log_prob_of(3, pos=3)):
        found = fl.sweep(spec_of("llama"), tiny_inputs("llama"), grid, metric=metric)
        for layer, pos in product(range(2), range(7)):
            edit = fl.Scale(fl.resid_pre(layer, pos=pos), 2.0)
            expected = measured("llama", metric, [edit])
            got = found.rows[layer, pos]
            torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize(
    ("name", "cap", "is_plain"),
    [
        ("llama", None, True),
        ("gpt2", None, True),
        ("gemma2", None, True),
        ("gemma2", 3.0, False),
        ("gemma2", 30.0, False),
        ("cohere", None, False),
    ],
)
def test_two_logits_are_computed_where_the_head_is_a_plain_map(
    name: str, cap: float | None, is_plain: bool
) -> None:
    """A cap or a scale behind it needs the model's own logits; numbers agree."""
    module = tiny_hf_model(name)
    module.config.final_logit_softcapping = cap
    spec = fl.from_module(module)
    tokens = tiny_inputs("llama")["input_ids"]
    rows = torch.tensor([3, 4])
    cells = [[fl.Scale(fl.resid_pre(layer), 2.0)] for layer in range(2)]
    for metric in (fl.logit_diff(3, 5), fl.logit_diff(rows, 5, pos=2)):
        plan = fl.plan_sweep(spec, tokens, cells, metric=metric)
        assert is_plain == plan.columns
        found = fl.sweep(spec, tokens, cells, metric=metric)
        for row, cell in zip(found.rows, cells, strict=True):
            expected = metric(fl.run(spec, tokens, cell))
            torch.testing.assert_close(row, expected, atol=CLOSE, rtol=CLOSE)
        plain = metric(fl.run(spec, tokens))
        torch.testing.assert_close(found.baseline, plain, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize(
    "metrics",
    [
        {"one": fl.logit_diff(3, 5), "all": fl.log_prob_of(3)},
        {"here": fl.logit_diff(3, 5), "there": fl.logit_diff(3, 5, pos=1)},
    ],
)
def test_all_logits_are_computed_where_one_metric_reads_them(metrics: Any) -> None:
    """Or where metrics look at two positions."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    cells = [[fl.Scale(fl.resid_pre(1), 2.0)]]
    assert not fl.plan_sweep(spec, given, cells, metric=metrics).columns
    found = fl.sweep(spec, given, cells, metric=metrics)
    for got, metric in zip(found.rows[:, 0], metrics.values(), strict=True):
        expected = measured("llama", metric, cells[0])
        torch.testing.assert_close(got, expected, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("answer", [32, torch.tensor([3])])
def test_token_that_has_no_logit_is_refused(answer: Any, unchecked: None) -> None:
    """Where only its column would be computed, too."""
    cells = [[fl.Scale(fl.resid_pre(1), 2.0)]]
    metric = fl.logit_diff(answer, 5)
    with pytest.raises((errors.InputError, errors.ShapeError), match="token"):
        fl.sweep(spec_of("llama"), tiny_inputs("llama"), cells, metric=metric)


def test_plan_stops_where_the_metric_looks() -> None:
    """A metric of layer 0 needs no layer 1."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    metric = fl.reads(fl.resid_post(0, pos=-1), lambda value: value.sum(-1))
    grid = fl.grid(fl.Zero, fl.z, layer=[0], head=...)
    plan = fl.plan_sweep(spec, given, grid, metric=metric)
    assert {1} == {group.stop for group in plan.groups}


@pytest.mark.parametrize(
    ("name", "fragment"),
    [
        ("bloom", "take no other rows"),
        ("falcon-alibi", "patterns take no other rows"),
        ("t5", "rows come with more"),
        ("gemma4_text", "more than the residual"),
    ],
)
def test_plan_says_what_a_family_cannot(name: str, fragment: str) -> None:
    """Runs that cannot join each other are stacked by layer, or run whole."""
    grid = fl.grid(fl.Zero, fl.resid_pre, layer=..., pos=[1])
    given = tiny_inputs(name)
    plan = fl.plan_sweep(spec_of(name), given, grid, metric=fl.log_prob_of(3))
    assert fragment in plan.alone
    assert not any(group.joins for group in plan.groups)


def test_recurrences_run_all_positions() -> None:
    """A state is no key: positions before an edit are run again."""
    grid = fl.grid(fl.Zero, fl.resid_pre, layer=..., pos=[5])
    plan = fl.plan_sweep(
        spec_of("mamba"), tiny_inputs("mamba"), grid, metric=fl.log_prob_of(3)
    )
    assert {0} == {group.since for group in plan.groups}
    assert "more than keys and values" in plan.again


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_stacks_keep_to_the_memory_that_is_given(rows: int) -> None:
    """No group has more rows than the limit holds, and the numbers stay."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    grid = fl.grid(fl.Zero, fl.z, layer=..., head=...)
    metric = fl.log_prob_of(3)
    size = fl.plan_sweep(spec, given, grid, metric=metric).row_bytes
    plan = fl.plan_sweep(spec, given, grid, metric=metric, memory=2 * rows * size)
    n_most = min(rows, 4)  # half of the 8 cells are in the last layer, and apart
    assert n_most == max(len(group.cells) for group in plan.groups)
    found = fl.sweep(spec, given, grid, metric=metric, memory=2 * rows * size)
    whole = fl.sweep(spec, given, grid, metric=metric)
    torch.testing.assert_close(found.rows, whole.rows, atol=CLOSE, rtol=CLOSE)


# what goes wrong


def test_stack_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it fits; no cell is run twice."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    grid = fl.grid(fl.Zero, fl.z, layer=..., head=...)
    expected = fl.sweep(spec, given, grid, metric=fl.log_prob_of(3))
    sizes: list[int] = []
    wave = _sweep.wave

    def tight(spec: Any, prepared: Any, cells: Any, *rest: Any, **more: Any) -> Any:
        if len(cells) > 2:
            raise torch.OutOfMemoryError
        sizes.append(len(cells))
        return wave(spec, prepared, cells, *rest, **more)

    monkeypatch.setattr(_sweep, "wave", tight)
    found = fl.sweep(spec, given, grid, metric=fl.log_prob_of(3))
    torch.testing.assert_close(found.rows, expected.rows, atol=CLOSE, rtol=CLOSE)
    assert (8, 2) == (sum(sizes), max(sizes))


def test_interrupted_sweep_gives_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """And goes on from there, without running a cell again."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    grid = fl.grid(fl.Zero, fl.z, layer=..., head=...)
    metric = fl.log_prob_of(3)
    size = fl.plan_sweep(spec, given, grid, metric=metric).row_bytes
    expected = fl.sweep(spec, given, grid, metric=metric)
    wave, ran = _sweep.wave, list[int]()

    def broken(spec: Any, prepared: Any, cells: Any, *rest: Any, **more: Any) -> Any:
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append(len(cells))
        return wave(spec, prepared, cells, *rest, **more)

    monkeypatch.setattr(_sweep, "wave", broken)
    with pytest.warns(fl.SweepWarning, match="5 of 8 cells"):
        part = fl.sweep(spec, given, grid, metric=metric, memory=2 * size)
    assert 3 == int(part.done.sum())
    assert "5 not run" in repr(part)
    monkeypatch.setattr(_sweep, "wave", wave)
    plan_before = len(ran)
    whole = fl.sweep(spec, given, grid, metric=metric, resume=part)
    assert 3 == plan_before
    assert whole.is_complete
    torch.testing.assert_close(whole.rows, expected.rows, atol=CLOSE, rtol=CLOSE)


def test_fault_of_one_cell_names_it() -> None:
    """Found beforehand, or by the function of the caller's while it runs."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    good: list[fl.Intervention] = [fl.Zero(fl.z(0, head=1))]
    wrong: list[fl.Intervention] = [fl.Add(fl.resid_pre(0), torch.ones(3))]
    with pytest.raises(errors.ShapeError) as caught:
        fl.sweep(spec, given, [good, wrong], metric=fl.log_prob_of(3))
    assert any("cells[1]" in note for note in caught.value.__notes__)
    fails: list[fl.Intervention] = [fl.Apply(fl.resid_pre(1), lambda value: value[0])]
    with pytest.raises(errors.UserFunctionError) as raised:
        fl.sweep(spec, given, [good, good, fails], metric=fl.log_prob_of(3))
    assert any("cells[2]" in note for note in raised.value.__notes__)


@pytest.mark.parametrize(
    ("how", "kind", "fragment"),
    [
        ({"cells": []}, errors.InputError, "a grid"),
        ({"cells": "z"}, errors.InputError, "a grid"),
        ({"metric": {}}, errors.InputError, "no metric"),
        ({"metric": 3}, errors.InputError, "a function"),
        ({"metric": lambda logits: logits}, errors.InputError, "one number"),
        ({"memory": 0}, errors.OptionError, "number of bytes"),
        (
            {"cells": [[fl.Add(fl.resid_pre(0), torch.ones(16).requires_grad_())]]},
            errors.InputError,
            "requires a gradient",
        ),
    ],
)
def test_what_cannot_be_swept_is_refused(
    how: Any, kind: Any, fragment: str, unchecked: None
) -> None:
    """With what was wrong and what was expected."""
    given: dict[str, Any] = {
        "cells": [[fl.Zero(fl.z(0, head=1))]],
        "metric": fl.log_prob_of(3),
        **how,
    }
    with pytest.raises(kind, match=fragment):
        fl.sweep(spec_of("gpt2"), tiny_inputs("gpt2"), **given)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (fl.z, {"layer": 1}),
        (fl.z, {"layer": ..., "neuron": ...}),
        (fl.z, {"layer": [0, "1"]}),
        (fl.z, {"layer": []}),
        (fl.z(1), {"head": ...}),
    ],
)
def test_grid_that_goes_over_nothing_is_refused(
    part: Any, words: Any, unchecked: None
) -> None:
    """An axis that the part lacks, or that is none."""
    with pytest.raises(errors.SelectionError):
        fl.grid(fl.Zero, part, **words)


def test_word_that_nobody_takes_is_refused() -> None:
    """It neither selects nor goes to the intervention; the nearest are named."""
    with pytest.raises(errors.OptionError, match="layer"):
        fl.grid(fl.Zero, fl.z, layr=..., head=...)
    with pytest.raises(errors.OptionError, match="source"):
        fl.grid(fl.Patch, fl.z, layer=..., sorce=torch.zeros(1))


def test_grid_of_a_part_that_is_not_there_names_the_nearest() -> None:
    """As for any site."""
    grid = fl.grid(fl.Zero, fl.router_logits, layer=...)
    with pytest.raises(errors.SiteNotFoundError):
        fl.sweep(spec_of("gpt2"), tiny_inputs("gpt2"), grid, metric=fl.log_prob_of(3))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ({"layer": [0, 9]}, errors.SiteNotFoundError),
        ({"layer": ..., "head": [0, 9]}, ExceptionGroup),
    ],
)
def test_places_that_no_layer_has_are_errors(words: Any, kind: Any) -> None:
    """They were asked for by number, so they are no holes in the result."""
    grid = fl.grid(fl.Zero, fl.z, **words)
    with pytest.raises(kind):
        fl.sweep(spec_of("gpt2"), tiny_inputs("gpt2"), grid, metric=fl.log_prob_of(3))


def test_layers_with_fewer_heads_leave_holes() -> None:
    """A rectangle is filled where a layer has the head, and NaN elsewhere."""
    spec, given = spec_of("mimo_v2_flash"), tiny_inputs("mimo_v2_flash")
    grid = fl.grid(fl.Zero, fl.k, layer=..., head=...)
    found = fl.sweep(spec, given, grid, metric=fl.log_prob_of(3))
    n_heads = [info.shape[2] for info in fl.sites(spec) if info.site.part == "k"]
    assert len(set(n_heads)) > 1
    assert n_heads == found.done.sum(1).tolist()
    assert bool(found.values[~found.done].isnan().all())


def test_resuming_with_another_metric_is_refused() -> None:
    """Its numbers are not those that were asked for."""
    spec, given = spec_of("gpt2"), tiny_inputs("gpt2")
    grid = fl.grid(fl.Zero, fl.z, layer=..., head=...)
    part = fl.sweep(spec, given, grid, metric=fl.log_prob_of(3))
    with pytest.raises(errors.InputError, match="log-probability"):
        fl.sweep(spec, given, grid, metric=fl.rank_of(3), resume=part)


def test_metrics_of_other_sites_take_no_logits() -> None:
    """Called by hand, they say where they belong."""
    metric = fl.reads(fl.resid_post(0), lambda value: value.sum((1, 2)))
    with pytest.raises(errors.InputError, match="metric of `sweep`"):
        metric(torch.zeros(1, 2, 3))
    with pytest.raises(errors.InputError, match="one column"):
        fl.log_prob_of(1, pos=(0, 1))(torch.zeros(1, 2, 3))


def test_owner_s_module_is_as_it_was() -> None:
    """No hook, no attribute, no weight."""
    module: nn.Module = tiny_hf_model("llama")
    before = {name: p.clone() for name, p in module.named_parameters()}
    spec = fl.from_module(module)
    grid = fl.grid(fl.Zero, fl.resid_pre, layer=..., pos=...)
    fl.sweep(spec, tiny_inputs("llama"), grid, metric=fl.log_prob_of(3))
    assert all(torch.equal(before[n], p) for n, p in module.named_parameters())
    assert not any(part._forward_hooks for part in module.modules())
