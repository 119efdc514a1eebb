"""Attributions laid out on named axes, made by hand."""

import copy
import pickle
from typing import Any, Final

import attrs
import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.data import AXES, MODEL_PARTS, places_of

SEED: Final = 0


def drawn(*shape: int) -> Tensor:
    """Numbers that all differ."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(SEED))


def made(entries: dict[fl.Site, Tensor], **fields: Any) -> fl.Attributions:
    """Attributions of two examples."""
    starts, stops = fields.pop("starts", None), fields.pop("stops", None)
    cache = fl.ActivationCache(entries=entries, starts=starts, stops=stops)
    baseline = torch.tensor([10.0, 20.0])
    return fl.Attributions(
        **{"entries": cache, "baseline": baseline, "metric": "m", **fields}
    )


def test_every_axis_of_every_part_is_a_place_or_a_width() -> None:
    """Places come first, so that a look-up may select among them."""
    for part in AXES:
        site = fl.Site(part=part, layer=None if part in MODEL_PARTS else 0)
        places = places_of(site)
        assert site.axes[: len(places)] == places
        assert "batch" in places
    assert ("batch", "pos", "d_mlp") == places_of(fl.mlp_post(0), neurons=True)
    assert ("batch", "pos") == places_of(fl.z(0, head=1))


def test_axes_are_summed_and_ordered_as_named() -> None:
    """Each cell is the baseline and the sum over what is not named."""
    layers = [drawn(2, 5, 3), 2 * drawn(2, 5, 3)]
    found = made({fl.z(0): layers[0], fl.z(1): layers[1]})
    effects = found.effects(fl.z, "head", "layer")
    assert (3, 2) == tuple(effects.values.shape)
    for head in range(3):
        for layer in range(2):
            expected = layers[layer][:, :, head].sum(1) + found.baseline
            torch.testing.assert_close(expected, effects.rows[head, layer])
    torch.testing.assert_close(effects.rows.mean(-1), effects.values)
    assert {"head": ("0", "1", "2"), "layer": ("0", "1")} == effects.labels
    assert effects.is_complete


def test_layers_are_in_order_and_named() -> None:
    """Whatever order they were asked for in."""
    found = made({fl.z(7): drawn(2, 5, 3), fl.z(2): drawn(2, 5, 3)})
    assert ("2", "7") == found.effects(fl.z, "layer").labels["layer"]


def test_site_with_a_selection_is_laid_out() -> None:
    """What all cells share is selected; no axis at all is the whole of it."""
    held = drawn(2, 5, 3)
    found = made({fl.z(0): held})
    effects = found.effects(fl.z(0, head=1), "pos")
    torch.testing.assert_close(held[:, :, 1].T + found.baseline, effects.rows)
    whole = found.effects(fl.z(0))
    torch.testing.assert_close(held.sum((1, 2)) + found.baseline, whole.rows)
    assert () == whole.axes == tuple(whole.values.shape)
    assert "Effects(m:" in repr(whole)


def test_layer_with_fewer_places_is_not_run_there() -> None:
    """As in a sweep: NaN, and not done."""
    found = made({fl.z(0): drawn(2, 5, 3), fl.z(1): drawn(2, 5, 2)})
    effects = found.effects(fl.z, "layer", "head")
    assert [[True, True, True], [True, True, False]] == effects.done.tolist()
    assert bool(effects.values[1, 2].isnan())
    assert not effects.is_complete


def test_positions_count_from_the_first_real_token() -> None:
    """Padding on either side; what a row does not have adds nothing."""
    held = drawn(2, 5)
    found = made({fl.resid_pre(0): held}, starts=(2, 0), stops=(5, 4))
    change = found.effects(fl.resid_pre(0), "pos").rows - found.baseline
    expected = torch.zeros(4, 2)
    expected[:3, 0], expected[:, 1] = held[0, 2:], held[1, :4]
    torch.testing.assert_close(expected, change, atol=1e-5, rtol=0)


def test_positions_of_one_text_are_named_by_its_tokens() -> None:
    """Those of an encoder are not."""
    words = ("0 one", "1 two", "2 three")
    held, site = drawn(2, 3), fl.encoder.resid_pre(0)
    found = made({fl.resid_pre(0): held, site: held}, labels=words)
    assert words == found.effects(fl.resid_pre(0), "pos").labels["pos"]
    assert ("0", "1", "2") == found.effects(site, "pos").labels["pos"]


def test_one_number_for_the_batch_is_the_sum_of_its_rows() -> None:
    """Every row holds it."""
    held = drawn(2, 5)
    found = made({fl.resid_pre(0): held}, is_joint=True)
    rows = found.effects(fl.resid_pre(0), "pos").rows
    expected = held.sum(0)[:, None] + found.baseline
    torch.testing.assert_close(expected, rows)


@pytest.mark.parametrize(
    ("where", "axes", "fragment"),
    [
        (fl.z, ("head",), "`layer` is no axis"),
        (fl.z(0), ("layer",), "no other layer"),
        (fl.z, ("layer", "layer"), "twice"),
        (fl.z, ("layer", "width"), "are no axes"),
        (fl.z, ("layer", "query"), "no query axis"),
        (fl.z(0, head=1), ("head",), "selected already"),
        (fl.mlp_post, ("layer", "neuron"), "was summed over"),
    ],
    ids=str,
)
def test_axes_that_cannot_be_are_refused(
    where: Any, axes: tuple[str, ...], fragment: str
) -> None:
    """With what is wrong about them."""
    found = made({fl.z(0): drawn(2, 5, 3), fl.mlp_post(0): drawn(2, 5)})
    with pytest.raises(errors.SelectionError, match=fragment):
        found.effects(where, *axes)


def test_site_that_is_not_held_is_refused() -> None:
    """A part as well as a site."""
    found = made({fl.z(0): drawn(2, 5, 3)})
    for where in (fl.v, fl.z(1)):
        with pytest.raises(errors.SiteNotCachedError):
            found.effects(where, *(("layer",) if isinstance(where, fl.Part) else ()))
    assert fl.z(0) in found
    assert fl.z(1) not in found


def test_attributions_are_a_record() -> None:
    """Frozen, pickled and copied whole; equal to itself alone; its repr is short."""
    found = made({fl.z(0): drawn(2, 5, 3)})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found.metric = "other"  # pyright: ignore[reportAttributeAccessIssue] (that is tested)
    for again in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):  # noqa: S301 -- our own bytes
        assert torch.equal(found[fl.z(0)], again[fl.z(0)])
        assert found != again
    assert "Attributions(m: 1 sites)" == repr(found)
    assert [fl.z(0)] == [*found]
    assert 1 == len({found, found})


def test_scores_are_shares_of_what_the_first_order_says() -> None:
    """Example by example; 1 where nothing happens."""
    first, rest = torch.tensor([[3.0, 0.0], [0.0, -1.0]]), torch.zeros(2, 2)
    rest[0, 0], rest[1, 0], rest[1, 1] = -1.0, 2.0, 1.0
    site = fl.resid_pre(0)
    trust = fl.Linearity(first=made({site: first}), rest=made({site: rest}))
    expected = torch.tensor([[0.75, 0.0], [1.0, 0.5]])
    scores = trust.scores(site, "pos")
    torch.testing.assert_close(expected, scores.rows)
    torch.testing.assert_close(expected.mean(-1), scores.values)
    bars = trust.error_bars(site, "pos")
    torch.testing.assert_close(rest.abs().T, bars.rows)
    torch.testing.assert_close(bars.values, bars.change)
    assert ("error bar of m",) == bars.metric
