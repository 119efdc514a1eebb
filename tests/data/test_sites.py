"""Sites: names, selections, and what is refused."""

import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from funlens.data import (
    AXES,
    LAYER_PARTS,
    MODEL_PARTS,
    Part,
    PerRow,
    Site,
    Span,
    generated,
    to_sites,
    transformer_lens_names,
)
from funlens.data._parts import SELECTED_AXES, TRANSFORMER_LENS, TRANSFORMER_LENS_MODEL
from funlens.errors import SelectionError, SiteNotFoundError

_INDICES = st.integers(-9, 9)
_ENDS = st.none() | _INDICES
_SELECTIONS = st.one_of(
    _INDICES,
    st.lists(_INDICES, min_size=1, max_size=4, unique=True).map(tuple),
    st.builds(Span, _ENDS, _ENDS, st.none() | st.integers(1, 3) | st.just(-1)),
    st.lists(_INDICES, min_size=1, max_size=4).map(lambda rows: ("rows", *rows)),
    st.just(generated),
)


@st.composite
def fields(draw: st.DrawFn) -> dict[str, Any]:
    """Draw what makes a site; the shape checks forbid to make it in here."""
    part = draw(st.sampled_from(sorted(AXES)))
    words = [
        word for word, axes in SELECTED_AXES.items() if set(axes) & set(AXES[part])
    ]
    chosen = draw(st.lists(st.sampled_from(words), unique=True)) if words else []
    return {
        "part": part,
        "layer": draw(st.integers(0, 99)) if part in LAYER_PARTS else None,
        "stack": draw(st.sampled_from(["", "encoder"])),
        **{word: draw(_SELECTIONS) for word in chosen},
    }


def made(given: dict[str, Any]) -> Site:
    """Make the site that was drawn."""
    return Site(
        **{
            name: PerRow(value[1:])
            if isinstance(value, tuple) and value[0] == "rows"
            else value
            for name, value in given.items()
        }
    )


@pytest.mark.property
@given(fields())
def test_a_name_reads_back_as_its_site(drawn: dict[str, Any]) -> None:
    """`parse` undoes `str`, whatever is selected."""
    site = made(drawn)
    assert site == Site.parse(str(site))


@pytest.mark.property
@given(fields())
def test_sites_pickle_and_hash(drawn: dict[str, Any]) -> None:
    """A site from another process finds its own entry."""
    site = made(drawn)
    again = pickle.loads(pickle.dumps(site))  # noqa: S301 -- our own bytes
    assert (site, hash(site)) == (again, hash(again))


@pytest.mark.property
@given(st.text(alphabet="z.9[]()=,:-apos hed", max_size=20))
def test_any_text_is_a_site_or_our_error(text: str) -> None:
    """Nothing but an error of ours comes from a name."""
    try:
        site = Site.parse(text)
    except (SiteNotFoundError, SelectionError):
        return
    assert site == Site.parse(str(site))


@pytest.mark.parametrize(("theirs", "part"), TRANSFORMER_LENS.items())
def test_transformer_lens_names_of_a_block(theirs: str, part: str) -> None:
    """Every name within a block is read."""
    expected = Site(part=part, layer=5)
    assert expected == Site.parse(f"blocks.5.{theirs}")


@pytest.mark.parametrize(("theirs", "part"), TRANSFORMER_LENS_MODEL.items())
def test_transformer_lens_names_of_the_model(theirs: str, part: str) -> None:
    """Every name outside the blocks is read."""
    assert Site(part=part) == Site.parse(theirs)


def test_hook_pre_is_the_gate_on_a_gated_mlp() -> None:
    """TransformerLens's hook_pre depends on the MLP, hook_pre_linear does not."""
    name = "blocks.1.mlp.hook_pre"
    assert Site.parse(name).part == "mlp_pre"
    assert Site.parse(name, gated=True).part == "mlp_gate"
    assert Site.parse(name + "_linear", gated=True).part == "mlp_pre"
    assert to_sites(("pre", 1), n_layers=2, gated=True)[0].part == "mlp_gate"


@pytest.mark.parametrize(
    ("selector", "selection", "text"),
    [
        (3, 3, "3"),
        (-1, -1, "-1"),
        ([0, 2], (0, 2), "(0,2)"),
        ((4,), (4,), "(4)"),
        (slice(1, 4), Span(1, 4), "1:4"),
        (slice(None), Span(), ":"),
        (slice(None, None, 2), Span(None, None, 2), "::2"),
        (torch.tensor(3), 3, "3"),
        (torch.tensor([3, 3]), PerRow((3, 3)), "rows(3,3)"),
        (generated, generated, "generated"),
    ],
)
def test_every_kind_of_selection(
    selector: object, selection: object, text: str
) -> None:
    """Each becomes something frozen, and has a name."""
    site = Part("z")(0, pos=selector)
    assert site.pos == selection
    assert f"z.0[pos={text}]" == str(site)


@pytest.mark.parametrize(
    "selector",
    [
        True,
        (),
        (1, 1),
        (0, True),
        slice(0, 4, 0),
        torch.tensor([0.5]),
        torch.tensor([True]),
        torch.tensor([[0]]),
        torch.tensor([], dtype=torch.long),
    ],
    ids=repr,
)
def test_a_selection_that_means_nothing_is_refused(selector: object) -> None:
    """Bools, floats, repeats and empty ones are errors."""
    with pytest.raises(SelectionError):
        Part("z")(0, pos=selector)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resid_pst.3", "resid_post"),
        ("patern.0", "pattern"),
        ("blocks.0.attn.hook_patern", "attn.hook_pattern"),
        ("decoder.z.0", "z"),
    ],
)
def test_a_wrong_name_is_told_the_nearest(name: str, near: str) -> None:
    """The nearest names are in the error, at most eight."""
    with pytest.raises(SiteNotFoundError) as caught:
        Site.parse(name)
    assert caught.value.site == name
    assert len(caught.value.near) <= 8
    if len(near) > 1:
        assert near in caught.value.near


@pytest.mark.parametrize(
    "name",
    [
        "z.9[head=abc]",
        "z.9[head]",
        "z.9[bad=1]",
        "z.9[head=6,head=7]",
        "z.9[pos=rows()]",
        "z.9[pos=1:2:3:4]",
        "z.9[neuron=1]",
        "resid_post.2[head=1]",
    ],
)
def test_a_wrong_selection_in_a_name_is_refused(name: str) -> None:
    """Malformed selections are errors of ours."""
    with pytest.raises(SelectionError):
        Site.parse(name)


@pytest.mark.parametrize("part", sorted(LAYER_PARTS))
def test_negative_layers_are_refused(part: str) -> None:
    """Layers count from 0 and are never wrapped."""
    with pytest.raises(SelectionError, match="layer -1 is negative"):
        Part(part)(-1)
    with pytest.raises(SelectionError):
        Part(part)()


@pytest.mark.parametrize("part", sorted(MODEL_PARTS))
def test_parts_of_the_whole_model_have_no_layer(part: str) -> None:
    """`embed(0)` is an error, `embed()` a site."""
    assert part == str(Part(part)())
    with pytest.raises(SelectionError):
        Part(part)(0)


def test_a_part_without_a_name_of_ours_is_refused() -> None:
    """A part is checked when it is made, and so is its stack."""
    with pytest.raises(SiteNotFoundError) as caught:
        Part("patern")
    assert caught.value.near[0] == "pattern"
    with pytest.raises(SiteNotFoundError):
        Part("z", stack="decoder")


def test_a_bare_part_means_every_layer() -> None:
    """Uncalled, a part stands for all layers; a name of a part does too."""
    expected = (Site(part="z", layer=0), Site(part="z", layer=1))
    assert expected == to_sites(Part("z"), n_layers=2)
    assert expected == to_sites("z", n_layers=2)
    assert (Site(part="embed"),) == to_sites(Part("embed"), n_layers=2)
    assert "encoder.z" == str(Part("z", stack="encoder"))


def test_whole_and_axes() -> None:
    """A site without its selection has the part's axes."""
    site = Part("pattern")(2, head=1, query=-1)
    assert Site(part="pattern", layer=2) == site.whole
    assert ("batch", "head", "query", "key") == site.axes
    whole = site.whole
    assert whole is whole.whole


@pytest.mark.parametrize("layer", [True, 1.0, "1"])
def test_a_layer_is_a_whole_number(unchecked: None, layer: Any) -> None:
    """True is not layer 1, and 1.0 is not either."""
    with pytest.raises(SelectionError, match="no int"):
        Part("resid_pre")(layer)


@pytest.mark.parametrize("word", ["scale", "normalized"])
def test_a_short_name_of_two_hooks_is_refused(word: str) -> None:
    """TransformerLens has `ln1.hook_scale` and `ln2.hook_scale`: neither is guessed."""
    with pytest.raises(SiteNotFoundError) as caught:
        to_sites((word, 1), n_layers=2)
    assert (f"ln1_{word}", f"ln2_{word}") == caught.value.near


def test_a_stack_s_part_in_all_layers_has_a_name() -> None:
    """`str` of a part is read as that part."""
    for part in (Part("resid_post"), Part("resid_post", "encoder")):
        sites = to_sites(str(part), n_layers=2)
        assert sites == to_sites(part, n_layers=2) == (part(0), part(1))


def test_every_hook_of_transformer_lens_is_listed_once() -> None:
    """With a gate and without one, each name with a site of its own."""
    for gated in (False, True):
        pairs = transformer_lens_names(2, gated=gated)
        assert len(pairs) == len(dict(pairs)) == len({site for _, site in pairs})
        for name, site in pairs:
            assert site == Site.parse(name, gated=gated)
