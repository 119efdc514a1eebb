"""Means over a dataset against sums by hand, and what they are put into."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.engine._inputs import Frame, Prepared
from funlens.engine._rows import rows_of
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

TEXTS: Final = [
    "Tom had a ball.",
    "Once upon a time there was a girl.",
    "The dog",
    "Ben saw a big red ball.",
    "Tom",
]
CLOSE: Final = 1e-5


@cache
def tiny() -> fl.ModelSpec:
    """The built-in model."""
    return fl.load("builtin:tiny")


@cache
def alone(site: fl.Site) -> list[Tensor]:
    """A site in runs of one text each, without padding or batch."""
    runs = (fl.run_with_cache(tiny(), text, capture=[site]) for text in TEXTS)
    return [run.cache[site][0] for run in runs]


@pytest.mark.parametrize("batch_size", [1, 2, 8])
@pytest.mark.parametrize("site", [fl.resid_pre(2), fl.z(1), fl.mlp_post(3)], ids=str)
def test_mean_is_over_all_real_positions(site: fl.Site, batch_size: int) -> None:
    """Texts of other lengths are padded, and padding does not count."""
    means = fl.mean_activations(tiny(), TEXTS, [site], batch_size=batch_size)
    expected = torch.cat(alone(site)).mean(0)
    torch.testing.assert_close(means[site], expected, atol=CLOSE, rtol=CLOSE)
    assert len(TEXTS) == means.n_rows


@pytest.mark.parametrize("side", ["left", "right", ""])
@pytest.mark.parametrize("batch_size", [2, 8])
def test_means_by_position_are_over_the_rows_that_have_it(
    side: Any, batch_size: int
) -> None:
    """Counted from the first real token, wherever the padding is."""
    site = fl.z(2)
    tokens: Any = TEXTS  # which are padded batch by batch, to other lengths
    if side:
        tokens = fl.to_tokens(tiny(), TEXTS, padding_side=side)
    means = fl.mean_activations(
        tiny(), tokens, [site], by_position=True, batch_size=batch_size
    )
    rows = alone(site)
    expected = torch.stack(
        [
            torch.stack([row[at] for row in rows if len(row) > at]).mean(0)
            for at in range(max(map(len, rows)))
        ]
    )
    torch.testing.assert_close(means[site], expected, atol=CLOSE, rtol=CLOSE)


def test_sites_that_a_model_has_once_have_means() -> None:
    """The embedding, and one logit's position."""
    embedded, last = fl.embed(), fl.logits(pos=-1)
    means = fl.mean_activations(tiny(), TEXTS, [embedded, last], batch_size=2)
    expected = torch.cat(alone(embedded)).mean(0)
    torch.testing.assert_close(means[embedded], expected, atol=CLOSE, rtol=CLOSE)
    expected = torch.stack(alone(last)).mean(0)
    torch.testing.assert_close(means[last], expected, atol=1e-4, rtol=1e-4)


def test_inputs_that_all_examples_share_are_no_rows() -> None:
    """Positions given once stay whole; pictures in one strip cannot be told apart."""
    spec, tokens = fl.from_module(tiny_hf_model("gpt2")), torch.arange(12).reshape(3, 4)
    given = {"input_ids": tokens, "position_ids": torch.arange(4)[None]}
    means = fl.mean_activations(spec, given, [fl.z(0)], batch_size=2)
    expected = fl.mean_activations(spec, tokens, [fl.z(0)])
    torch.testing.assert_close(means[fl.z(0)], expected[fl.z(0)])
    for strip in (torch.zeros(1, 3, 8, 8), torch.zeros(4, 2)):
        frames = {"": Frame(batch=3, n_pos=4)}
        prepared = Prepared(kwargs={"pixel_values": strip}, frames=frames)
        with pytest.raises(errors.InputError, match="for 3 examples"):
            rows_of(prepared, [0])


def test_a_mask_tells_what_is_real() -> None:
    """Where the tokens alone do not."""
    spec, tokens = (
        fl.from_module(tiny_hf_model("gpt2")),
        tiny_inputs("gpt2")["input_ids"],
    )
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    site = fl.resid_post(0)
    means = fl.mean_activations(spec, tokens, [site], attention_mask=mask)
    run = fl.run_with_cache(spec, tokens, capture=[site], attention_mask=mask)
    expected = run.cache[site][mask.bool()].mean(0)
    torch.testing.assert_close(means[site], expected, atol=CLOSE, rtol=CLOSE)


def test_selected_places_are_averaged_over_rows() -> None:
    """One position of each row, its last real one; several are averaged."""
    last, first = fl.resid_post(3, pos=-1), fl.resid_post(3, pos=slice(0, 2))
    means = fl.mean_activations(tiny(), TEXTS, [last, first], batch_size=3)
    ends = torch.stack([row[-1] for row in alone(fl.resid_post(3))]).mean(0)
    starts = torch.stack([row[:2].mean(0) for row in alone(fl.resid_post(3))]).mean(0)
    torch.testing.assert_close(means[last], ends, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(means[first], starts, atol=CLOSE, rtol=CLOSE)


def test_patterns_are_averaged_number_by_number() -> None:
    """In rows of one length, with positions kept apart."""
    texts = ["Tom had a ball.", "Ben had a ball.", "Tom saw a dog."]
    means = fl.mean_activations(
        tiny(), texts, [fl.pattern(1)], by_position=True, batch_size=2
    )
    whole = fl.run_with_cache(tiny(), texts, capture=[fl.pattern(1)]).cache
    expected = whole[fl.pattern(1)].mean(0)
    torch.testing.assert_close(means[fl.pattern(1)], expected, atol=CLOSE, rtol=CLOSE)
    torch.testing.assert_close(means[fl.pattern(1, head=2, query=3)], expected[2, 3])


@pytest.mark.architectures
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [recipe.name for recipe in FOUNDATION])
def test_means_of_every_architecture(name: str) -> None:
    """Every site that has one is the mean of its capture."""
    spec, given = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    every = fl.run_with_cache(spec, given).cache
    sites = [site for site in every if every[site].is_floating_point()]
    means = fl.mean_activations(spec, given, sites, by_position=True, batch_size=1)
    assert sites == list(means)
    for site in sites:
        expected = every[site].double().mean(0).float()  # masks are near the lowest
        torch.testing.assert_close(means[site], expected, atol=1e-4, rtol=1e-4)


def test_stops_after_the_last_layer_that_is_averaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No more of the model runs than is needed."""
    spec = fl.from_module(tiny_hf_model("llama"))
    ran: list[str] = []
    for path in spec.engine.blocks:
        block: Any = spec.engine.tapped(eager=False).get_submodule(path)
        inner = block.forward

        def forward(*args: Any, inner: Any = inner, path: str = path, **kwargs: Any):  # noqa: ANN202 -- what a block gives
            ran.append(path)
            return inner(*args, **kwargs)

        monkeypatch.setattr(block, "forward", forward)
    fl.mean_activations(spec, tiny_inputs("llama"), [fl.z(0)])
    assert spec.engine.blocks[0] in ran
    assert spec.engine.blocks[1] not in ran


# what means are put into


def test_mean_takes_its_value_from_means() -> None:
    """The selection is cut out; a mean over positions is the same at each."""
    means = fl.mean_activations(tiny(), TEXTS, [fl.z])
    whole = means[fl.z(2)]
    assert (4, 32) == tuple(whole.shape)
    assert torch.equal(whole, fl.Mean(fl.z(2), means).value)
    assert torch.equal(whole[1], fl.Mean(fl.z(2, head=1), means).value)
    assert torch.equal(whole[1], fl.Mean(fl.z(2, head=1, pos=-1), means).value)
    assert torch.equal(whole[1:3], fl.Mean(fl.z(2, head=(1, 2)), means).value)
    by_position = fl.mean_activations(tiny(), TEXTS, [fl.z], by_position=True)
    there = fl.Mean(fl.z(2, head=1, pos=3), by_position).value
    assert torch.equal(by_position[fl.z(2)][3, 1], there)


def test_means_are_a_mapping() -> None:
    """Names work, and what is not held is not in it."""
    means = fl.mean_activations(tiny(), TEXTS, [fl.z(1), fl.z(2)])
    assert [fl.z(1), fl.z(2)] == list(means)
    assert torch.equal(means[fl.z(1)], means["blocks.1.attn.hook_z"])
    assert "z.1" in means
    assert fl.q(1) not in means
    assert 3 not in means
    assert 2 == len(means)
    assert "Means(2 sites, over positions, of 5 examples)" == repr(means)


def test_what_means_do_not_hold_is_an_error() -> None:
    """With what they are, and where they are from."""
    means = fl.mean_activations(tiny(), TEXTS, [fl.z(1)])
    with pytest.raises(errors.SiteNotCachedError) as caught:
        fl.Mean(fl.z(2), means)
    assert any("mean_activations" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    "pos", [-1, (0, -1), slice(-2, None), torch.tensor([0, 1, 2, 1, 0])], ids=str
)
def test_means_by_position_do_not_count_from_the_end(pos: Any) -> None:
    """Rows end at other positions."""
    means = fl.mean_activations(tiny(), TEXTS, [fl.z(1)], by_position=True)
    with pytest.raises(errors.SelectionError, match="another place in each row"):
        fl.Mean(fl.z(1, pos=pos), means)


@pytest.mark.parametrize(
    ("how", "kind", "fragment"),
    [
        ({"sites": [fl.pattern(1)]}, errors.SelectionError, "by_position=True"),
        ({"sites": []}, errors.InputError, "empty"),
        ({"sites": [fl.z(99)]}, errors.SiteNotFoundError, "z.99"),
        ({"dataset": []}, errors.InputError, "dataset is empty"),
        ({"batch_size": 0}, errors.OptionError, "number of examples"),
        (
            {"sites": [fl.pattern(1)], "by_position": True},
            errors.InputError,
            "rows are padded",
        ),
        (
            {"sites": [fl.pattern(1)], "by_position": True, "batch_size": 1},
            errors.InputError,
            "in some examples",
        ),
    ],
)
def test_what_has_no_mean_is_refused(how: Any, kind: Any, fragment: str) -> None:
    """With what was wrong and what was expected."""
    given: dict[str, Any] = {"dataset": TEXTS, "sites": [fl.z(0)], **how}
    with pytest.raises(kind, match=fragment):
        fl.mean_activations(tiny(), given.pop("dataset"), given.pop("sites"), **given)


def test_numbers_of_experts_have_no_mean() -> None:
    """They are names, not amounts."""
    spec = fl.from_module(tiny_hf_model("mixtral"))
    with pytest.raises(errors.SelectionError, match="numbers of experts"):
        fl.mean_activations(spec, tiny_inputs("mixtral"), [fl.router_indices])
