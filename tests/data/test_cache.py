"""The cache: look-ups, and what is made of it."""

import copy
import pickle
from typing import Any

import pytest
import torch

from funlens.data import (
    ActivationCache,
    Part,
    Receipt,
    Run,
    Site,
    SiteLike,
    concatenate_caches,
    same_record,
)
from funlens.errors import (
    InputError,
    SelectionError,
    SiteNotCachedError,
    SiteNotFoundError,
)

_PATTERN = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
_RESID = torch.rand(3, 2, 6, 8, generator=torch.Generator().manual_seed(1))


def small_cache(*, padded: bool = False) -> ActivationCache:
    """Three layers of a stream and one pattern; padded, the second row lacks two."""
    stream = {Site(part="resid_post", layer=at): _RESID[at] for at in range(3)}
    return ActivationCache(
        entries={**stream, Site(part="pattern", layer=1): _PATTERN},
        starts=(0, 2) if padded else None,
        stops=(6, 6) if padded else None,
        receipts=(
            Receipt(
                intervention="Zero z.0",
                count=1,
                shape=(2, 6),
                change=torch.tensor(2.5),
            ),
        ),
    )


@pytest.mark.parametrize(
    "like",
    [
        Part("pattern")(1),
        "pattern.1",
        "blocks.1.attn.hook_pattern",
        ("pattern", 1),
    ],
    ids=str,
)
def test_a_site_is_found_by_every_name(like: SiteLike) -> None:
    """Site, name, and TransformerLens's two spellings are the same entry."""
    cache = small_cache()
    assert cache[like] is _PATTERN
    assert like in cache
    assert cache.get(like) is _PATTERN


def test_transformer_lens_short_names() -> None:
    """`("resid_post", 2)` is TransformerLens's short form."""
    assert torch.equal(_RESID[2], small_cache()["resid_post", 2])


def test_a_selection_is_cut_out_at_look_up() -> None:
    """A selection of a site that is held whole needs no run of its own."""
    cache = small_cache()
    assert torch.equal(_PATTERN[:, 2], cache[Part("pattern")(1, head=2)])
    assert torch.equal(
        _PATTERN[:, [0, 3], 1:3, -1],
        cache[Part("pattern")(1, head=(0, 3), query=slice(1, 3), key=-1)],
    )
    assert torch.equal(
        torch.stack([_RESID[0][0, 1], _RESID[0][1, 4]]),
        cache[Part("resid_post")(0, pos=torch.tensor([1, 4]))],
    )


def test_positions_count_from_the_first_real_token() -> None:
    """With padding, each row has its own columns."""
    cache = small_cache(padded=True)
    first = torch.stack([_RESID[0][0, 0], _RESID[0][1, 2]])
    assert torch.equal(first, cache[Part("resid_post")(0, pos=0)])
    assert torch.equal(_RESID[0][:, 5], cache[Part("resid_post")(0, pos=-1)])
    both = torch.stack([_RESID[0][0, 1:3], _RESID[0][1, 3:5]])
    assert torch.equal(both, cache[Part("resid_post")(0, pos=slice(1, 3))])
    with pytest.raises(SelectionError, match="index 4 of 4"):
        cache[Part("resid_post")(0, pos=4)]


def test_heads_are_not_positions() -> None:
    """Padding moves positions only."""
    picked = small_cache(padded=True)[Part("pattern")(1, head=0)]
    assert torch.equal(_PATTERN[:, 0], picked)


def test_what_is_not_held_is_a_key_error() -> None:
    """`in` and `.get` work, and the error says what is held."""
    cache, missing = small_cache(), Part("pattern")(2)
    with pytest.raises(SiteNotCachedError) as caught:
        cache[missing]
    assert isinstance(caught.value, KeyError)
    assert ("pattern.2", "pattern.1") == (caught.value.site, caught.value.near[0])
    assert missing not in cache
    assert cache.get(missing) is None
    assert "nope.1" not in cache
    assert 3 not in cache
    with pytest.raises(SiteNotFoundError):
        cache["patern.1"]


def test_a_part_is_stacked_over_its_layers() -> None:
    """`stack` gives the layers in order, and refuses what is not held."""
    assert torch.equal(_RESID, small_cache().stack(Part("resid_post")))
    with pytest.raises(SiteNotCachedError):
        small_cache().stack(Part("z"))


def test_rows_take_the_padding_along() -> None:
    """Rows keep their own starts and stops."""
    second = small_cache(padded=True).rows(1, 2)
    assert ((2,), (6,)) == (second.starts, second.stops)
    assert torch.equal(_PATTERN[1:], second["pattern.1"])
    assert small_cache().rows(0, 1).starts is None


def test_rows_narrow_a_selection_by_row() -> None:
    """A cache of one row holds that row's own position."""
    site = Part("resid_post")(0, pos=torch.tensor([1, 4]))
    held = ActivationCache(entries={site: small_cache()[site]})
    second = held.rows(1, 2)
    expected = Part("resid_post")(0, pos=torch.tensor([4]))
    assert [expected] == [*second]
    assert torch.equal(_RESID[0][1:, 4], second[expected])


@pytest.mark.parametrize("window", [(2, 3), (1, 1), (-1, -2)])
def test_rows_that_are_not_there_are_refused(window: tuple[int, int]) -> None:
    """An empty batch is a slip."""
    with pytest.raises(InputError, match="rows"):
        small_cache().rows(*window)


def test_positions_are_cut_on_every_axis_that_has_them() -> None:
    """Streams on one axis, patterns on both."""
    cut = small_cache().positions(1, 4)
    assert torch.equal(_RESID[1][:, 1:4], cut["resid_post.1"])
    assert torch.equal(_PATTERN[:, :, 1:4, 1:4], cut["pattern.1"])
    assert [*small_cache()] == [*cut]


def test_positions_count_by_row_and_take_the_padding_off() -> None:
    """The second row begins at its third column."""
    cut = small_cache(padded=True).positions(1, 3)
    expected = torch.stack([_RESID[0][0, 1:3], _RESID[0][1, 3:5]])
    assert torch.equal(expected, cut["resid_post.0"])
    expected = torch.stack([_PATTERN[0, :, 1:3, 1:3], _PATTERN[1, :, 3:5, 3:5]])
    assert torch.equal(expected, cut["pattern.1"])
    assert cut.starts is cut.stops is None
    assert torch.equal(cut["resid_post.0"][:, 0], cut[Part("resid_post")(0, pos=0)])


def test_positions_may_count_from_the_end() -> None:
    """The last two real tokens of each row."""
    cut = small_cache(padded=True).positions(-2, None)
    assert torch.equal(_RESID[0][:, 4:], cut["resid_post.0"])


def test_positions_of_rows_of_unequal_length_are_refused() -> None:
    """All from the second on: five in one row, three in the other."""
    with pytest.raises(SelectionError, match="another number"):
        small_cache(padded=True).positions(1, None)
    with pytest.raises(SelectionError, match="empty"):
        small_cache().positions(6, 9)


@pytest.mark.parametrize("pos", [-1, (0, 2), torch.tensor([1, 4])])
def test_positions_of_what_is_held_at_some_are_refused(pos: Any) -> None:
    """It cannot be said what is left of them."""
    site = Part("resid_post")(0, pos=pos)
    held = ActivationCache(entries={site: small_cache()[site]})
    with pytest.raises(InputError, match="some positions"):
        held.positions(0, 1)


def two_stacks() -> ActivationCache:
    """An encoder of five positions, three of them real in the second row."""
    return ActivationCache(
        entries={
            Part("resid_post", "encoder")(0): _RESID[0][:, :5],
            Part("cross_pattern")(1): _PATTERN[:, :, :4, :5],
            Part("resid_post")(1): _RESID[1][:, :4],
        },
        encoder_starts=(0, 0),
        encoder_stops=(5, 3),
    )


def test_each_stack_s_positions_count_by_its_own_padding() -> None:
    """The encoder's, also where the decoder attends to them."""
    cache = two_stacks()
    last = torch.stack([_RESID[0][0, 4], _RESID[0][1, 2]])
    assert torch.equal(last, cache[Part("resid_post", "encoder")(0, pos=-1)])
    looked_at = torch.stack([_PATTERN[0, :, :4, 4], _PATTERN[1, :, :4, 2]])
    assert torch.equal(looked_at, cache[Part("cross_pattern")(1, key=-1)])
    assert torch.equal(_RESID[1][:, 3], cache[Part("resid_post")(1, pos=-1)])
    assert ((0,), (3,)) == (
        cache.rows(1, 2).encoder_starts,
        cache.rows(1, 2).encoder_stops,
    )


def test_positions_are_the_main_stack_s() -> None:
    """What an encoder had stays whole, with its padding."""
    cut = two_stacks().positions(1, 3)
    assert (2, 5, 8) == cut[Part("resid_post", "encoder")(0)].shape
    assert torch.equal(_PATTERN[:, :, 1:3, :5], cut["cross_pattern.1"])
    assert torch.equal(_RESID[1][:, 1:3], cut["resid_post.1"])
    assert (5, 3) == cut.encoder_stops


def test_without_a_batch_selections_mean_what_they_meant() -> None:
    """One row, its axis taken off, looked up in every way."""
    one = small_cache(padded=True).rows(1, 2)
    bare = one.remove_batch_dim()
    assert torch.equal(_RESID[0][1], bare["resid_post.0"])
    for site in (
        Part("resid_post")(0, pos=0),
        Part("resid_post")(0, pos=slice(1, 3)),
        Part("pattern")(1, head=2, query=-1),
    ):
        assert torch.equal(one[site][0], bare[site])
    assert (3, 6, 8) == bare.stack(Part("resid_post")).shape


def test_batch_of_several_is_not_taken_off() -> None:
    """Nor one that is off already; and what needs a batch says so."""
    with pytest.raises(InputError, match="2 rows"):
        small_cache().remove_batch_dim()
    bare = small_cache().rows(0, 1).remove_batch_dim()
    for needs_batch in (
        bare.remove_batch_dim,
        lambda: bare.rows(0, 1),
        lambda: bare.positions(0, 1),
        lambda: concatenate_caches([bare, bare]),
    ):
        with pytest.raises(InputError, match="batch"):
            needs_batch()


def test_what_is_made_of_a_cache_leaves_it_alone() -> None:
    """Each gives a new cache, and shares what two sites shared."""
    sites = Part("resid_post")(0), Part("resid_pre")(1)
    cache = ActivationCache(entries=dict.fromkeys(sites, _PATTERN))
    for made in (
        cache.rows(0, 1),
        cache.rows(0, 1).remove_batch_dim(),
        cache.to("cpu"),
    ):
        assert made is not cache
        assert made[sites[0]] is made[sites[1]]
    assert cache[sites[0]] is _PATTERN


# concatenation


def test_concatenated_rows_are_the_rows() -> None:
    """Cut apart and put together again."""
    cache = small_cache(padded=True)
    again = concatenate_caches([cache.rows(0, 1), cache.rows(1, 2)])
    assert [*cache] == [*again]
    assert all(torch.equal(cache[site], again[site]) for site in cache)
    assert (cache.starts, cache.stops) == (again.starts, again.stops)
    assert [*cache.receipts, *cache.receipts] == [*again.receipts]


def test_concatenated_with_a_padded_one_every_position_is_real() -> None:
    """A cache without padding has all its positions."""
    both = concatenate_caches([small_cache(), small_cache(padded=True)])
    assert ((0, 0, 0, 2), (6, 6, 6, 6)) == (both.starts, both.stops)
    assert concatenate_caches([small_cache(), small_cache()]).starts is None
    stacks = concatenate_caches([two_stacks(), two_stacks()])
    assert (5, 3, 5, 3) == stacks.encoder_stops


def test_concatenated_selections_by_row_are_joined() -> None:
    """Each row keeps its own position."""
    site = Part("resid_post")(0, pos=torch.tensor([1, 4]))
    held = ActivationCache(entries={site: small_cache()[site]})
    both = concatenate_caches([held, held])
    expected = Part("resid_post")(0, pos=torch.tensor([1, 4, 1, 4]))
    assert [expected] == [*both]


def test_padding_without_any_position_is_left_out() -> None:
    """Where only single positions are held, nothing can be counted."""
    padded = small_cache(padded=True)
    site = Part("resid_post")(0, pos=-1)
    held = ActivationCache(
        entries={site: padded[site]}, starts=padded.starts, stops=padded.stops
    )
    assert concatenate_caches([held, held]).stops is None


@pytest.mark.parametrize(
    "caches",
    [
        [],
        [ActivationCache(entries={})],
        [small_cache(), small_cache().positions(0, 3)],
        [small_cache(), ActivationCache(entries={Part("z")(0): _RESID[0]})],
        [
            ActivationCache(entries={Part("z")(0): _RESID[0]}),
            ActivationCache(entries={Part("z")(0): _RESID[0].double()}),
        ],
    ],
    ids=["none", "empty", "other lengths", "other sites", "other dtypes"],
)
def test_caches_that_do_not_fit_are_refused(caches: list[ActivationCache]) -> None:
    """There must be rows, of one shape, at the same sites."""
    with pytest.raises(InputError):
        concatenate_caches(caches)


def test_a_tensor_that_is_held_twice_moves_once() -> None:
    """Sites that share a tensor still share it on the other device."""
    sites = Part("resid_post")(0), Part("resid_pre")(1)
    shared = ActivationCache(entries=dict.fromkeys(sites, _RESID[0]))
    moved = shared.to("meta")
    assert moved[sites[0]] is moved[sites[1]]
    assert torch.device("meta") == moved[sites[0]].device


def test_a_cache_is_a_mapping_in_order() -> None:
    """Iteration, length and repr."""
    cache = small_cache()
    assert ["resid_post.0", "resid_post.1", "resid_post.2", "pattern.1"] == [
        *map(str, cache)
    ]
    assert 4 == len(cache)
    assert "ActivationCache(4 sites: resid_post, pattern)" == repr(cache)


def test_caches_compare_by_identity() -> None:
    """`==` compares no tensors, and a cache can be a key."""
    cache = small_cache()
    assert cache == cache  # noqa: PLR0124 -- the law
    assert cache != small_cache()
    assert {cache: 1}[cache] == 1


def test_pickled_is_equal() -> None:
    """A cache and a run come out of a pickle as they went in, used or not."""
    cache = small_cache(padded=True)
    for _ in range(2):
        run = Run(_RESID[0], cache)
        again = pickle.loads(pickle.dumps(run))  # noqa: S301 -- our own bytes
        assert same_record(run.cache, again.cache)
        assert torch.equal(run.logits, again.logits)
        assert same_record(cache, copy.deepcopy(cache))
        assert "pattern.1" in cache
