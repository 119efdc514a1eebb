"""Named sweeps of patches against a loop of runs, each with one `Patch`."""

from collections.abc import Callable, Mapping
from functools import cache
from itertools import product
from typing import Any, Final

import attrs
import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

# Learned and rotated positions, grouped queries, parallel blocks and a mixture.
NAMES: Final = ("gpt2", "llama", "gptj", "mixtral")
# Reuse of positions runs other shapes; a metric of size 5 is known to 1e-6.
CLOSE: Final = 2e-5
# Looking at a pattern runs HuggingFace's eager attention in that layer, so that a run
# depends on which others are stacked with it.
EAGER_DIFFERS: Final = {"falcon-alibi": "its eager attention adds the bias twice"}
METRIC: Final = fl.log_prob_of(3)
BLOCKS: Final = ("resid_pre", "attn_out", "mlp_out")
HEADS: Final = ("z", "q", "k", "v", "pattern")


@attrs.frozen
class Row:
    """A function, and what the axes of its result select on each part."""

    function: Callable[..., fl.Effects]
    axes: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """Name it in a report."""
        return self.function.__name__


BY_POS: Final = ("layer", "pos")
BY_HEAD: Final = ("layer", "head")
BY_BOTH: Final = ("layer", "pos", "head")
ALONE: Final = (
    Row(fl.patch_resid_pre, BY_POS, {"resid_pre": BY_POS}),
    Row(fl.patch_resid_mid, BY_POS, {"resid_mid": BY_POS}),
    Row(fl.patch_resid_post, BY_POS, {"resid_post": BY_POS}),
    Row(fl.patch_attn_out, BY_POS, {"attn_out": BY_POS}),
    Row(fl.patch_mlp_out, BY_POS, {"mlp_out": BY_POS}),
    Row(fl.patch_heads, BY_HEAD, {"z": BY_HEAD}),
    Row(fl.patch_heads_by_pos, BY_BOTH, {"z": BY_BOTH}),
    Row(fl.patch_patterns, BY_HEAD, {"pattern": BY_HEAD}),
    Row(
        fl.patch_patterns_by_query,
        (*BY_HEAD, "query"),
        {"pattern": (*BY_HEAD, "query")},
    ),
    Row(
        fl.patch_patterns_by_query_key,
        (*BY_HEAD, "query", "key"),
        {"pattern": (*BY_HEAD, "query", "key")},
    ),
)
BESIDE: Final = (
    Row(fl.patch_blocks, ("part", *BY_POS), dict.fromkeys(BLOCKS, BY_POS)),
    Row(fl.patch_all_heads, ("part", *BY_HEAD), dict.fromkeys(HEADS, BY_HEAD)),
    Row(
        fl.patch_all_heads_by_pos,
        ("part", *BY_BOTH),
        {
            **dict.fromkeys(HEADS[:-1], BY_BOTH),
            "pattern": ("layer", "query", "head"),
        },
    ),
)


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


@cache
def source_of(name: str) -> fl.ActivationCache:
    """Every site of the same model on the tokens the other way round."""
    given = {
        word: held.flip(1) if word == "input_ids" else held
        for word, held in tiny_inputs(name).items()
    }
    return fl.run_with_cache(spec_of(name), given).cache


def has(name: str, part: str) -> bool:
    """Whether a model's main stack has a part in every layer."""
    layers = {s.layer for s in source_of(name) if (s.part, s.stack) == (part, "")}
    return layers == set(range(spec_of(name).n_layers))


def patched(name: str, site: fl.Site) -> Tensor:
    """The metric of one run with one patch."""
    edits = [fl.Patch(site, source_of(name))]
    capture = [METRIC.site]
    run = fl.run_with_cache(spec_of(name), tiny_inputs(name), edits, capture=capture)
    return METRIC.function(run.cache[METRIC.site])


def check_against_the_loop(name: str, row: Row, *, most: int) -> None:
    """Compare some cells of each part with runs one by one."""
    spec, given = spec_of(name), tiny_inputs(name)
    found = row.function(spec, given, source_of(name), metric=METRIC)
    assert row.axes == found.axes
    is_beside = "part" in row.axes
    assert not is_beside or tuple(row.words) == found.labels["part"]
    for at, (part, words) in enumerate(row.words.items()):
        rows = found.rows[at] if is_beside else found.rows
        done = found.done[at] if is_beside else found.done
        every = list(product(*map(range, done.shape)))
        for cell in every[:: max(1, len(every) // most)]:
            where = dict(zip(words, cell, strict=True))
            if not done[cell]:
                assert where["head"] >= spec.n_kv_heads
                assert bool(rows[cell].isnan().all())
                continue
            expected = patched(name, fl.Part(part)(**where))
            torch.testing.assert_close(rows[cell], expected, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.name)
@pytest.mark.parametrize("name", NAMES)
def test_patching_is_the_loop(name: str, row: Row) -> None:
    """Every function of one part."""
    if not all(has(name, part) for part in row.words):
        with pytest.raises(errors.SiteNotFoundError):
            row.function(
                spec_of(name), tiny_inputs(name), source_of(name), metric=METRIC
            )
        return
    check_against_the_loop(name, row, most=6)


@pytest.mark.parametrize("row", BESIDE, ids=lambda row: row.name)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_patching_several_parts_is_the_loop(name: str, row: Row) -> None:
    """Those that patch several parts in one sweep."""
    check_against_the_loop(name, row, most=6)


@pytest.mark.architectures
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("row", [*ALONE, *BESIDE], ids=lambda row: row.name)
@pytest.mark.parametrize("name", [recipe.name for recipe in FOUNDATION])
def test_patching_is_the_loop_on_every_architecture(name: str, row: Row) -> None:
    """All functions whose parts a family has, over the table."""
    if not all(has(name, part) for part in row.words):
        with pytest.raises((errors.SiteNotFoundError, ExceptionGroup)):
            row.function(
                spec_of(name), tiny_inputs(name), source_of(name), metric=METRIC
            )
        return
    if name in EAGER_DIFFERS and "pattern" in row.words:
        found = row.function(
            spec_of(name), tiny_inputs(name), source_of(name), metric=METRIC
        )
        assert bool(found.rows[found.done].isfinite().all())
        return
    check_against_the_loop(name, row, most=4)


@pytest.mark.parametrize("part", [fl.q, fl.k, fl.v], ids=str)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_heads_of_other_parts_are_the_loop(name: str, part: fl.Part) -> None:
    """Grouped queries have fewer keys and values, and as short an axis."""
    spec, given, source = spec_of(name), tiny_inputs(name), source_of(name)
    n_heads = spec.n_heads if part == fl.q else spec.n_kv_heads
    found = fl.patch_heads(spec, given, source, metric=METRIC, part=part)
    by_pos = fl.patch_heads_by_pos(spec, given, source, metric=METRIC, part=part)
    n_pos = given["input_ids"].shape[1]
    assert (spec.n_layers, n_heads) == tuple(found.values.shape)
    assert (spec.n_layers, n_pos, n_heads) == tuple(by_pos.values.shape)
    for layer, head in product(range(spec.n_layers), range(n_heads)):
        whole = patched(name, part(layer, head=head))
        torch.testing.assert_close(
            found.rows[layer, head], whole, atol=CLOSE, rtol=CLOSE
        )
        alone = patched(name, part(layer, head=head, pos=2))
        torch.testing.assert_close(
            by_pos.rows[layer, 2, head], alone, atol=CLOSE, rtol=CLOSE
        )


def test_parts_beside_each_other_are_the_parts_alone() -> None:
    """One sweep gives what three give."""
    spec, given, source = spec_of("llama"), tiny_inputs("llama"), source_of("llama")
    found = fl.patch_blocks(spec, given, source, metric=METRIC)
    for at, function in enumerate(
        (fl.patch_resid_pre, fl.patch_attn_out, fl.patch_mlp_out)
    ):
        alone = function(spec, given, source, metric=METRIC)
        torch.testing.assert_close(found.rows[at], alone.rows, atol=CLOSE, rtol=CLOSE)
        assert torch.equal(alone.baseline, found.baseline)


def test_the_whole_stream_of_the_source_gives_the_source_s_answer() -> None:
    """One position is all there is: patching the stream anywhere is the other run."""
    spec = spec_of("gpt2")
    clean, corrupted = torch.tensor([[5]]), torch.tensor([[9]])
    run = fl.run_with_cache(spec, clean, capture=[fl.resid_pre])
    found = fl.patch_resid_pre(spec, corrupted, run.cache, metric=METRIC)
    expected = METRIC(run.logits).expand(spec.n_layers, 1, 1)
    torch.testing.assert_close(found.rows, expected, atol=CLOSE, rtol=CLOSE)


def test_options_go_on_to_the_sweep() -> None:
    """Several metrics, a limit of memory, and what was done before."""
    spec, given, source = spec_of("gpt2"), tiny_inputs("gpt2"), source_of("gpt2")
    metrics = {"answer": METRIC, "rank": fl.rank_of(3)}
    found = fl.patch_all_heads(spec, given, source, metric=metrics, memory=2**20)
    assert ("metric", "part", "layer", "head") == found.axes
    again = fl.patch_all_heads(spec, given, source, metric=metrics, resume=found)
    assert torch.equal(found.rows, again.rows)


def test_padded_rows_are_patched_by_their_own_positions() -> None:
    """Both runs padded alike: the last real position of each row."""
    spec = fl.load("builtin:tiny")
    clean = fl.to_tokens(spec, ["Tom had a ball", "Tom had a red ball"])
    corrupted = fl.to_tokens(spec, ["Ben had a ball", "Ben had a red ball"])
    source = fl.run_with_cache(spec, clean, capture=[fl.z]).cache
    found = fl.patch_heads(spec, corrupted, source, metric=METRIC)
    alone = fl.run_with_cache(spec, "Tom had a ball", capture=[fl.z]).cache
    expected = fl.patch_heads(spec, "Ben had a ball", alone, metric=METRIC)
    torch.testing.assert_close(
        found.rows[..., 0], expected.rows[..., 0], atol=1e-4, rtol=1e-4
    )


# what goes wrong


def test_source_that_lacks_a_part_names_the_capture() -> None:
    """Before anything runs, and with what to write."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    some = fl.run_with_cache(spec, given, capture=[fl.z(0), fl.q]).cache
    with pytest.raises(errors.SiteNotCachedError) as caught:
        fl.patch_heads(spec, given, some, metric=METRIC)
    assert "z.1" == caught.value.site
    assert any("capture=[funlens.z]" in note for note in caught.value.__notes__)
    with pytest.raises(ExceptionGroup) as several:
        fl.patch_all_heads(spec, given, some, metric=METRIC)
    sites = {getattr(error, "site", "") for error in several.value.exceptions}
    assert {"z.1", "k.0", "v.0", "pattern.0"} == sites


def test_source_of_one_position_lacks_the_whole() -> None:
    """A selection that was captured is not the part."""
    spec, given = spec_of("llama"), tiny_inputs("llama")
    some = fl.run_with_cache(spec, given, capture=[fl.z(0, pos=-1), fl.z(1)]).cache
    with pytest.raises(errors.SiteNotCachedError, match=r"z\.0"):
        fl.patch_heads(spec, given, some, metric=METRIC)


@pytest.mark.parametrize(
    ("rows", "columns"), [(slice(1), slice(None)), (slice(None), slice(-1))]
)
def test_source_of_other_rows_or_positions_is_refused(
    rows: slice, columns: slice
) -> None:
    """They would not stand beside each other."""
    spec = spec_of("gpt2")
    tokens = tiny_inputs("gpt2")["input_ids"]
    source = fl.run_with_cache(spec, tokens[rows, columns], capture=[fl.z]).cache
    with pytest.raises(errors.ShapeError, match=r"the source at z\.0"):
        fl.patch_heads(spec, tokens, source, metric=METRIC)


def test_what_is_no_cache_is_refused(unchecked: None) -> None:
    """A tensor does not say what it belongs to."""
    source: Any = torch.zeros(1)
    with pytest.raises(errors.InputError, match="cache of another run"):
        fl.patch_resid_pre(spec_of("gpt2"), tiny_inputs("gpt2"), source, metric=METRIC)


def test_parts_without_heads_are_refused() -> None:
    """There is nothing to go over."""
    with pytest.raises(errors.SelectionError, match="no head axis"):
        fl.patch_heads(
            spec_of("gpt2"),
            tiny_inputs("gpt2"),
            source_of("gpt2"),
            metric=METRIC,
            part=fl.mlp_out,
        )


def test_parallel_blocks_have_nothing_between(unchecked: None) -> None:
    """Their middle is an error that names the nearest sites."""
    with pytest.raises(errors.SiteNotFoundError):
        fl.patch_resid_mid(
            spec_of("gptj"), tiny_inputs("gptj"), source_of("gptj"), metric=METRIC
        )
