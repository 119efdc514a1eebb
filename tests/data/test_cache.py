"""The cache: look-ups, and what is made of it."""

import copy
import pickle

import pytest
import torch

from funlens.data import (
    ActivationCache,
    Part,
    Receipt,
    Run,
    Site,
    SiteLike,
    same_record,
)
from funlens.errors import SelectionError, SiteNotCachedError, SiteNotFoundError

_PATTERN = torch.rand(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
_RESID = torch.rand(3, 2, 6, 8, generator=torch.Generator().manual_seed(1))


def small_cache(*, padded: bool = False) -> ActivationCache:
    """Three layers of a stream and one pattern; the second row is padded by two."""
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
