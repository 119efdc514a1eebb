"""Several caches as one."""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from funlens.data._cache import ActivationCache
from funlens.data._pick import (
    NO_PADDING,
    POSITION_WORDS,
    Padding,
    is_of_encoder,
    left_axes,
)
from funlens.data._selections import PerRow
from funlens.data._sites import Site
from funlens.errors import InputError


def concatenate_caches(caches: Sequence[ActivationCache]) -> ActivationCache:
    """Put the rows of several caches below each other, and receipts likewise.

    Args:
        caches: Caches of the same sites, with equal shapes but for the rows.

    Raises:
        InputError: There are none, they differ in more than rows, or have no batch.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> runs = [fl.run_with_cache(spec, text) for text in ("A dog", "The sun")]
        >>> fl.concatenate_caches([run.cache for run in runs])["z.0"].shape[0]
        2
    """
    if not caches or not caches[0].entries or not caches[0].has_batch:
        raise InputError(
            "there is nothing that has rows",
            "caches as runs return them",
            "Concatenate before `remove_batch_dim`",
        )
    for cache in caches:
        if _form(cache) != _form(caches[0]):
            problem = "the caches differ in sites, shapes, dtypes or devices"
            raise InputError(problem, "caches of like runs", "Capture the same sites")
    main, encoder = (_padding(caches, encoder=which) for which in (False, True))
    entries = zip(*(cache.entries for cache in caches), strict=True)
    return ActivationCache(
        entries=dict(_below(pairs) for pairs in entries),
        starts=main.starts,
        stops=main.stops,
        encoder_starts=encoder.starts,
        encoder_stops=encoder.stops,
        gated=caches[0].gated,
        receipts=tuple(receipt for cache in caches for receipt in cache.receipts),
    )


def _form(cache: ActivationCache) -> tuple[Any, ...]:
    """Give all that must be equal: everything but the rows."""
    entries = (
        (_with_rows(site, ()), held.shape[1:], held.dtype, held.device)
        for site, held in cache.entries
    )
    return (cache.has_batch, cache.gated, *entries)


def _with_rows(site: Site, sites: Sequence[Site]) -> Site:
    """Give a site that selects by row what several sites select, one after another."""
    joined = {
        word: PerRow(tuple(at for each in sites for at in getattr(each, word).indices))
        for word, chosen in site.selections
        if isinstance(chosen, PerRow)
    }
    return attrs.evolve(site, **joined)


def _below(pairs: Sequence[tuple[Site, Tensor]]) -> tuple[Site, Tensor]:
    sites = [site for site, _ in pairs]
    return _with_rows(sites[0], sites), torch.cat([held for _, held in pairs])


def _padding(caches: Sequence[ActivationCache], *, encoder: bool) -> Padding:
    """Join the real positions; where a cache is not padded, all of them are."""
    n_pos = _n_pos(caches[0], encoder=encoder)
    each = [cache.padding(encoder=encoder) for cache in caches]
    if n_pos is None or set(each) == {NO_PADDING}:
        return NO_PADDING
    counts = [len(cache.entries[0][1]) for cache in caches]
    both = list(zip(each, counts, strict=True))
    return Padding(
        starts=tuple(at for pad, n in both for at in pad.starts or (0,) * n),
        stops=tuple(at for pad, n in both for at in pad.stops or (n_pos,) * n),
    )


def _n_pos(cache: ActivationCache, *, encoder: bool) -> int | None:
    """Count the positions of a stack; None where no site shows them."""
    for site, held in cache.entries:
        chosen = dict(site.selections)
        for at, axis in enumerate(left_axes(site)):
            counts = axis in POSITION_WORDS or axis == "source"
            is_whole = counts and axis not in chosen and "key" not in chosen
            if is_whole and is_of_encoder(site, axis) == encoder:
                return held.shape[at]
    return None
