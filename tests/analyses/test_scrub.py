"""Causal scrubbing where what is exchanged is known."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import pytest
import torch

import funlens as fl
from funlens import errors
from funlens.testing import FOUNDATION, tiny_hf_model

# Two first tokens, two last ones, in all four ways.
TOKENS: Final = torch.tensor([[1, 9, 5], [2, 9, 5], [1, 9, 6], [2, 9, 6]])
METRIC: Final = fl.log_prob_of(3)
CLOSE: Final = 2e-5


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def scrubbed(hypothesis: Mapping[Any, Any], **more: Any) -> fl.Scrubbed:
    """Scrub the tokens above."""
    given: dict[str, Any] = {"metric": METRIC, "n_draws": 12, "seed": 0, **more}
    return fl.scrub(spec_of("gpt2"), TOKENS, hypothesis, **given)


def own(tokens: torch.Tensor) -> Any:
    """A label that no other example has."""
    return tuple(tokens.tolist())


def test_nothing_changes_where_no_two_examples_are_alike() -> None:
    """Each example can only be given itself."""
    found = scrubbed({fl.resid_post(1): own, fl.z(0): range(4)})
    expected = found.original.expand(12, 4)
    torch.testing.assert_close(found.scrubbed, expected, atol=CLOSE, rtol=CLOSE)
    assert 1.0 == pytest.approx(found.recovered, abs=1e-3)


def test_original_is_the_run_as_it_is() -> None:
    """Without a patch."""
    expected = METRIC(fl.run(spec_of("gpt2"), TOKENS))
    found = scrubbed({fl.z: own})
    torch.testing.assert_close(found.original, expected, atol=CLOSE, rtol=CLOSE)


def test_resampling_gives_each_example_any() -> None:
    """Whatever the labels say: at the last stream it becomes what it is given."""
    found = scrubbed({fl.resid_post(1): own}, n_draws=40)
    near = torch.isclose(
        found.resampled[..., None], found.original[None, None], atol=CLOSE
    )
    assert bool((near.sum(-1) == 1).all())
    assert bool(near.any(0).all())


def test_recovered_is_the_share_of_what_resampling_loses() -> None:
    """Between the means of the examples."""
    found = fl.Scrubbed(
        original=torch.tensor([1.0, 3.0]),
        scrubbed=torch.tensor([[1.0, 2.0], [1.0, 2.0]]),
        resampled=torch.tensor([[0.5, -0.5], [0.0, 0.0]]),
    )
    assert 0.75 == found.recovered
    assert "75% recovered" in repr(found)


@pytest.mark.parametrize(
    "name",
    ["gpt2", "llama", "gptj"],
)
def test_examples_are_given_ones_with_their_label(name: str) -> None:
    """At the last stream an example becomes what it is given."""
    spec = spec_of(name)
    labels = [0, 1, 0, 1]
    found = fl.scrub(
        spec,
        TOKENS,
        {fl.resid_post(spec.n_layers - 1): labels},
        metric=METRIC,
        n_draws=20,
        seed=0,
    )
    seen: set[tuple[int, int]] = set()
    for draw in found.scrubbed:
        near = torch.isclose(draw[:, None], found.original[None], atol=CLOSE)
        assert bool((near.sum(1) == 1).all())
        seen |= {(row, int(given)) for row, given in enumerate(near.int().argmax(1))}
    alike = {(a, b) for a in range(4) for b in range(4) if labels[a] == labels[b]}
    assert alike == seen


def test_the_whole_run_of_a_draw_is_that_of_its_patches() -> None:
    """With two sites that are drawn apart, as many runs as there are ways."""
    labels = [0, 1, 0, 1]
    found = scrubbed({fl.z(0): labels, fl.mlp_out(1): own})
    cache = fl.run_with_cache(spec_of("gpt2"), TOKENS, capture=[fl.z, fl.mlp_out]).cache
    held, kept = cache[fl.z(0)], fl.Patch(fl.mlp_out(1), cache)
    for draw in found.scrubbed:
        for row, alike in enumerate([(0, 2), (1, 3), (0, 2), (1, 3)]):
            possible: list[float] = []
            for other in alike:
                given = held.clone()
                given[row] = held[other]
                edits = [fl.Patch(fl.z(0), given), kept]
                run = fl.run(spec_of("gpt2"), TOKENS, edits)
                possible.append(float(METRIC(run)[row]))
            assert any(abs(float(draw[row]) - one) < CLOSE for one in possible)


@pytest.mark.architectures
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "name", [r.name for r in FOUNDATION if not r.name.startswith(("t5", "bert"))]
)
def test_scrubbing_among_none_changes_nothing_on_every_architecture(name: str) -> None:
    """Every site of the first layer is given its own value."""
    spec = spec_of(name)
    site = fl.resid_post(0)
    found = fl.scrub(spec, TOKENS, {site: own}, metric=METRIC, n_draws=1, seed=0)
    torch.testing.assert_close(
        found.scrubbed[0], found.original, atol=CLOSE, rtol=CLOSE
    )


def test_functions_are_given_texts_or_tokens() -> None:
    """What the caller passed; a label may be a tensor."""
    spec = fl.load("builtin:tiny")
    texts = ["Tom had a ball", "Ben had a ball"]
    met: list[Any] = []
    site = fl.resid_post(1, pos=-1)
    given: dict[str, Any] = {"metric": METRIC, "n_draws": 3, "seed": 0}

    def first(example: Any) -> Any:
        met.append(example)
        return example[1] if isinstance(example, torch.Tensor) else example.split()[0]

    by_text = fl.scrub(spec, texts, {site: first}, **given)
    assert texts == met
    by_token = fl.scrub(spec, fl.to_tokens(spec, texts), {site: first}, **given)
    torch.testing.assert_close(by_text.scrubbed, by_token.scrubbed)
    assert (5,) == tuple(met[-1].shape)


def test_names_and_parts_are_sites() -> None:
    """A part means all layers, each drawn apart."""
    named = scrubbed({"blocks.0.attn.hook_z": [0, 1, 0, 1]})
    site = scrubbed({fl.z(0): torch.tensor([0, 1, 0, 1])})
    assert torch.equal(named.scrubbed, site.scrubbed)
    part = scrubbed({fl.z: [0, 1, 0, 1]})
    every = scrubbed({fl.z(0): [0, 1, 0, 1], fl.z(1): [0, 1, 0, 1]})
    assert torch.equal(part.scrubbed, every.scrubbed)


def test_draws_are_fixed_by_the_seed_alone() -> None:
    """The global generator is not touched."""
    before = torch.get_rng_state()
    one, two, other = (scrubbed({fl.z: [0] * 4}, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.scrubbed, two.scrubbed)
    assert not torch.equal(one.scrubbed, other.scrubbed)
    assert torch.equal(before, torch.get_rng_state())


def test_repr_says_how_much_is_recovered() -> None:
    """In a line."""
    assert "100% recovered" in repr(scrubbed({fl.resid_post(1): own}))


def test_positions_of_padded_rows_are_not_exchanged() -> None:
    """A selected position may be."""
    spec = fl.load("builtin:tiny")
    texts = ["Tom had a ball", "Tom had a big red ball"]
    given: dict[str, Any] = {"metric": METRIC, "n_draws": 1, "seed": 0}
    with pytest.raises(errors.InputError, match="keeps its positions"):
        fl.scrub(spec, texts, {fl.z(1): [0, 0]}, **given)
    found = fl.scrub(spec, texts, {fl.z(1, pos=-1): [0, 0]}, **given)
    assert bool(found.scrubbed.isfinite().all())


@pytest.mark.parametrize(
    ("how", "kind", "fragment"),
    [
        ({"hypothesis": {}}, errors.InputError, "hypothesis is empty"),
        ({"hypothesis": {fl.z(0): [1, 2]}}, errors.ShapeError, "labels of z.0"),
        ({"hypothesis": {fl.z(9): own}}, errors.SiteNotFoundError, "z.9"),
        (
            {"hypothesis": {fl.z: own, fl.z(0): own}},
            errors.InputError,
            "named twice",
        ),
        ({"n_draws": 0}, errors.OptionError, "number of draws"),
        ({"seed": None}, errors.OptionError, "torch.Generator"),
        ({"metric": {"a": METRIC}}, errors.InputError, "several metrics"),
    ],
)
def test_what_cannot_be_scrubbed_is_refused(
    how: Any, kind: Any, fragment: str, unchecked: None
) -> None:
    """With what was wrong and what was expected."""
    given: dict[str, Any] = {"hypothesis": {fl.z(0): own}, **how}
    with pytest.raises(kind, match=fragment):
        scrubbed(given.pop("hypothesis"), **given)
