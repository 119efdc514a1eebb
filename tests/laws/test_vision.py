"""The laws on everything that sees without a language model beside it."""

from collections.abc import Mapping
from typing import Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.adapters import described
from funlens.errors import (
    ConflictError,
    InputError,
    OptionError,
    SelectionError,
    ShapeError,
    UnsupportedConfigError,
)
from funlens.testing import RECIPES, tiny_hf_model, tiny_inputs
from tests.laws.every_law import check_every_law, marked

_WITHIN: Final = "patches are merged, or convolved, within its blocks"
_TWO_TOWERS: Final = "it compares a picture and a text: two main stacks"
# Without a table, or with one for another class of theirs, and why.
WITHOUT: Final = {
    "aimv2-base": _TWO_TOWERS,
    "altclip-base": _TWO_TOWERS,
    "blip-base": _TWO_TOWERS,
    "chinese_clip-base": _TWO_TOWERS,
    "clip-base": _TWO_TOWERS,
    "cvt-base": _WITHIN,
    "cvt-image_classifier": _WITHIN,
    "flava-base": _TWO_TOWERS,
    "hiera-base": _WITHIN,
    "hiera-image_classifier": _WITHIN,
    "levit-base": _WITHIN,
    "levit-image_classifier": _WITHIN,
    "metaclip_2-base": _TWO_TOWERS,
    "perceiver-base": "its stream holds latents, not positions",
    "perceiver-image_classifier": "its stream holds latents, not positions",
    "shieldgemma2-image_classifier": "its logits are two words of a language model's",
    "siglip-base": _TWO_TOWERS,
    "siglip2-base": _TWO_TOWERS,
    "timesformer-base": "it attends over frames and over patches in turn",
    "tipsv2-base": _TWO_TOWERS,
    "vitdet-base": "its stream is a grid of patches, not a row",
}
KNOWN: Final = frozenset(described())
EYES: Final = {"pixel_values", "inputs"}
SEEING: Final = [
    row
    for row in RECIPES
    if row.task == "image-classifier"
    or (row.task == "base" and EYES & dict(row.inputs).keys())
    or row.name == "imagegpt-base"
]
DESCRIBED: Final = [row for row in SEEING if row.name not in WITHOUT]
A_FEW: Final = frozenset(
    {
        "beit-base",
        "internvl_vision-base",
        "mlcd_vision_model-base",
        "pixtral-base",
        "segformer-base",
        "vit-image_classifier",
    }
)
PATCHES: Final = 5  # four, and the class token


@pytest.mark.parametrize("name", marked(DESCRIBED, A_FEW))
def test_every_law_holds(name: str, unchecked: None) -> None:
    """Each law holds that applies, against a model that funlens never saw."""
    check_every_law(name)


def test_the_rest_is_without_a_table() -> None:
    """What is left out is refused, with a reason; all else has a table."""
    assert set() == set(WITHOUT) - {row.name for row in SEEING}
    assert set() == {row.model_type for row in DESCRIBED} - KNOWN
    # two classes of these have a table each, and theirs is another
    apart = {row.model_type for row in SEEING if row.name in WITHOUT} & KNOWN
    assert {"clip", "metaclip_2", "siglip", "siglip2"} <= apart


def test_stages_have_sizes_of_their_own() -> None:
    """Where patches are merged, each layer has its own width and positions."""
    name = "swin-base"
    spec, picture = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    _, cache = fl.run_with_cache(spec, picture)
    sizes = [tuple(cache[fl.resid_post(layer)].shape) for layer in range(2)]
    assert [(2, 64, 8), (2, 16, 16)] == sizes
    declared = {info.site: info.shape for info in fl.sites(spec)}
    assert 8 == declared[fl.attn_out(0)][-1]
    for layer, shape in enumerate(sizes):
        edit = fl.Set(fl.resid_post(layer), torch.zeros(shape))
        fl.check(spec, picture, [edit])
        fl.dry_run(spec, picture, [edit], capture=[fl.resid_post])
    with pytest.raises(OptionError, match="merged between its stages"):
        fl.run(spec, picture, start_at_layer=1, residual=cache[fl.resid_pre(1)])


def test_two_towers_are_refused() -> None:
    """A model that compares pictures and texts says that it has no main stack."""
    with pytest.raises(UnsupportedConfigError, match="compares pictures and texts"):
        fl.from_module(tiny_hf_model("clip-base"))


@pytest.fixture(name="vit")
def _vit() -> fl.ModelSpec:
    return fl.from_module(tiny_hf_model("vit-image_classifier"))


@pytest.fixture(name="picture")
def _picture() -> Mapping[str, Tensor]:
    return tiny_inputs("vit-image_classifier")


def test_positions_are_patches(
    vit: fl.ModelSpec, picture: Mapping[str, Tensor]
) -> None:
    """Selections count patches from either end, though only the run knows them."""
    _, cache = fl.run_with_cache(vit, picture, capture=[fl.resid_post(0)])
    whole = cache[fl.resid_post(0)]
    assert (2, PATCHES, vit.d_model) == tuple(whole.shape)
    last = fl.resid_post(0, pos=-1)
    _, one = fl.run_with_cache(vit, picture, capture=[last])
    assert one[last].equal(whole[:, -1])
    rows = fl.resid_post(0, pos=torch.tensor([0, -1]))
    _, two = fl.run_with_cache(vit, picture, capture=[rows])
    assert two[rows].equal(torch.stack([whole[0, 0], whole[1, -1]]))
    assert cache[last].equal(whole[:, -1])


def test_an_edit_of_one_patch_leaves_the_others(
    vit: fl.ModelSpec, picture: Mapping[str, Tensor]
) -> None:
    """Zero at a patch is zero there, and nowhere else in that layer's output."""
    site = fl.resid_post(0)
    base = fl.run_with_cache(vit, picture, capture=[site]).cache[site]
    edit = fl.Zero(fl.resid_post(0, pos=(1, -1)))
    run = fl.run_with_cache(vit, picture, [edit], capture=[site])
    expected = base.clone()
    expected[:, [1, -1]] = 0
    assert run.cache[site].equal(expected)
    (receipt,) = run.cache.receipts
    assert (2, 2, vit.d_model) == receipt.shape


def test_a_position_beyond_the_end_is_named(
    vit: fl.ModelSpec, picture: Mapping[str, Tensor]
) -> None:
    """The error names the site and the number of patches, before or in the run."""
    edit = fl.Zero(fl.resid_post(1, pos=7))
    for call in (fl.run, fl.check, fl.dry_run):
        with pytest.raises(SelectionError, match=r"resid_post.*7 of 5") as caught:
            call(vit, picture, [edit])
        assert "pos=7" in str(caught.value)


def test_check_knows_the_patches(
    vit: fl.ModelSpec, picture: Mapping[str, Tensor]
) -> None:
    """A value for another number of patches is found without running the model."""
    wrong = torch.zeros(2, PATCHES + 1, vit.d_model)
    with pytest.raises(ShapeError) as caught:
        fl.check(vit, picture, [fl.Set(fl.resid_post(1), wrong)])
    assert (2, PATCHES, vit.d_model) == caught.value.expected
    shapes = {info.site: info.shape for info in fl.dry_run(vit, picture)}
    assert (2, vit.n_heads, PATCHES, PATCHES) == shapes[fl.pattern(1)]


def test_conflicts_are_found_where_positions_are_not_known(
    vit: fl.ModelSpec, picture: Mapping[str, Tensor]
) -> None:
    """Two edits of one patch are refused; of two patches they are not."""
    value = torch.zeros(2, vit.d_model)
    first = fl.Set(fl.resid_post(0, pos=1), value)
    with pytest.raises(ConflictError):
        fl.run(vit, picture, [first, fl.Set(fl.resid_post(0, pos=1), value + 1)])
    fl.run(vit, picture, [first, fl.Set(fl.resid_post(0, pos=2), value)])


def test_no_position_is_generated(
    vit: fl.ModelSpec, picture: Mapping[str, Tensor]
) -> None:
    """Nothing is generated from patches, so that the word means nothing there."""
    with pytest.raises(SelectionError, match="generated"):
        fl.run(vit, picture, [fl.Zero(fl.resid_post(0, pos=fl.generated))])


def test_a_residual_of_another_length_is_refused(
    vit: fl.ModelSpec, picture: Mapping[str, Tensor]
) -> None:
    """Where a run starts, the run itself knows how many patches there are."""
    wrong = torch.zeros(2, PATCHES + 1, vit.d_model)
    with pytest.raises(ShapeError) as caught:
        fl.run(vit, picture, start_at_layer=1, residual=wrong)
    assert (2, PATCHES, vit.d_model) == caught.value.expected


@pytest.mark.parametrize(
    "pixels", [torch.zeros(3), torch.zeros(2, 3, 16, 16, dtype=torch.uint8)]
)
def test_what_is_no_picture_is_refused(vit: fl.ModelSpec, pixels: Tensor) -> None:
    """Pixels come in rows, as the processor makes them."""
    with pytest.raises(InputError, match="pixel_values"):
        fl.run(vit, {"pixel_values": pixels})
