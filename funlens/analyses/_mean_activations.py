"""What sites are on average, over a dataset."""

from collections.abc import Sequence
from typing import Final

import attrs
import torch
from torch import Tensor
from torch.nn.functional import pad

from funlens.data import (
    ENTERING,
    INTEGER_PARTS,
    ActivationCache,
    Means,
    ModelSpec,
    Site,
    SiteLike,
    axes_of_mean,
    left_axes,
)
from funlens.engine import Inputs, captured_sites, run_with_cache
from funlens.engine._rows import batches
from funlens.errors import InputError, SelectionError

_COUNTED: Final = frozenset({"pos", "source"})
_CROSSED: Final = frozenset({"query", "key"})
_PADDED: Final = frozenset({"", "encoder"})  # stacks of which a cache knows the padding


@attrs.frozen(eq=False)
class _Sum:
    """A sum over examples so far, and of how many; of each position, or of all."""

    total: Tensor
    count: Tensor

    def __add__(self, more: "_Sum") -> "_Sum":
        """Add another; positions that one of them lacks are 0 there."""
        longest = max(_length(self), _length(more))
        one, two = _lengthened(self, longest), _lengthened(more, longest)
        return _Sum(one.total + two.total, one.count + two.count)


def mean_activations(
    spec: ModelSpec,
    dataset: Inputs,
    sites: Sequence[SiteLike],
    *,
    by_position: bool = False,
    batch_size: int = 8,
    attention_mask: Tensor | None = None,
) -> Means:
    """Average sites over the examples of a dataset, and over their positions.

    Padding counts nowhere. Give the means to `Mean`, or to `mean_ablation`.

    Args:
        spec: The model.
        dataset: Texts, tokens `[batch, pos]`, or what a tokenizer or processor returns.
        sites: What is averaged: sites, parts in all layers, or names.
        by_position: Keep positions apart: each has the mean over the examples that
            are long enough to have it, counted from their first real token.
        batch_size: Examples that are run at once.
        attention_mask: As for `run`, for tokens.

    Returns:
        A mapping from site to its mean, without a batch axis; without positions
        unless they are kept apart. Sums are made in float64, means have the site's
        dtype.

    Raises:
        FunlensError: As for `run_with_cache`.
        SelectionError: The site holds numbers of experts, or has two axes of positions
            and these are not kept apart.
        InputError: Patterns are averaged over rows that are padded, or differ in
            length.
        OptionError: `batch_size` is below 1.

    Costs a run of each example, up to the last layer that is averaged. Memory: the
    means, and one batch.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> texts = ["Tom had a ball.", "Once upon a time there was a girl."]
        >>> means = fl.mean_activations(spec, texts, [fl.z])
        >>> fl.Mean(fl.z(2, head=1), means).value.shape
        torch.Size([32])
    """
    sums: dict[Site, _Sum] = {}
    dtypes: dict[Site, torch.dtype] = {}
    n_rows = 0
    for given in batches(spec, dataset, batch_size, attention_mask=attention_mask):
        wanted = captured_sites(spec, sites, given)
        _check(wanted, by_position=by_position)
        stop = _stop(spec, wanted)
        cache = run_with_cache(spec, given, capture=wanted, stop_at_layer=stop).cache
        for site in wanted:
            here = _summed(cache, site, by_position=by_position)
            sums[site] = _together(sums[site], here, site) if site in sums else here
            dtypes[site] = cache[site].dtype
        n_rows += len(cache[wanted[0]])
    means = {site: _mean(held).to(dtypes[site]) for site, held in sums.items()}
    return Means(entries=means, by_position=by_position, n_rows=n_rows)


def _check(sites: Sequence[Site], *, by_position: bool) -> None:
    for site in sites:
        if site.part in INTEGER_PARTS:
            problem = "it holds numbers of experts, which have no mean"
            raise SelectionError(str(site), problem, "a site of activations")
        if not by_position and _CROSSED & set(axes_of_mean(site, by_position=False)):
            problem = "its axes of positions are not averaged"
            raise SelectionError(str(site), problem, "`by_position=True`")


def _stop(spec: ModelSpec, sites: Sequence[Site]) -> int | None:
    """Find the layer before which all sites were met; None for the whole model."""
    layers = [site.layer for site in sites if site.layer is not None]
    if len(layers) < len(sites) or any(site.stack for site in sites):
        return None
    end = Site(part=ENTERING[spec.n_streams > 1], layer=max(layers) + 1)
    return end.layer if any(info.site == end for info in spec.sites) else None


def _summed(cache: ActivationCache, site: Site, *, by_position: bool) -> _Sum:
    """Sum one batch over its examples, and over positions unless they stay apart."""
    value, axes = cache[site], left_axes(site)
    wide = torch.float32 if value.device.type == "mps" else torch.float64
    is_padded = cache.starts is not None or cache.encoder_starts is not None
    if is_padded and (_CROSSED & set(axes) or site.stack not in _PADDED):
        raise InputError(
            f"rows are padded, and {site} is averaged column by column",
            "rows of one length",
            "Average rows of other lengths apart",
        )
    if _CROSSED & set(axes) or not _COUNTED & set(axes):
        count = torch.tensor(len(value), device=value.device)
        return _Sum(value.sum(0, dtype=wide), count)
    value, real = _aligned(cache, site)
    over = (0,) if by_position else (0, 1)
    kept = torch.where(_beside(real, value), value, 0.0)
    return _Sum(kept.sum(over, dtype=wide), real.sum(over))


def _aligned(cache: ActivationCache, site: Site) -> tuple[Tensor, Tensor]:
    """Move each row's first real position to the front, and say what is real."""
    value = cache[site]
    n_rows, n_columns = value.shape[:2]
    is_encoder = site.stack == "encoder" or "source" in site.axes
    padding = cache.padding(encoder=is_encoder)
    columns = torch.arange(n_columns, device=value.device).expand(n_rows, n_columns)
    chosen = {word for word, _ in site.selections}
    if padding.starts is None or padding.stops is None or {"pos", "key"} & chosen:
        return value, columns >= 0
    first = torch.tensor(padding.starts, device=value.device)[:, None]
    length = torch.tensor(padding.stops, device=value.device)[:, None] - first
    index = (columns + first) % n_columns
    rows = torch.arange(n_rows, device=value.device)[:, None]
    return value[rows, index], columns < length


def _together(one: _Sum, two: _Sum, site: Site) -> _Sum:
    if one.count.ndim == 0 and one.total.shape != two.total.shape:
        raise InputError(
            f"{site} has shape {tuple(one.total.shape)} in some examples and "
            f"{tuple(two.total.shape)} in others",
            "rows of one length",
            "Average rows of other lengths apart",
        )
    return one + two


def _length(held: _Sum) -> int:
    return held.count.shape[0] if held.count.ndim else 0


def _lengthened(held: _Sum, length: int) -> _Sum:
    more = length - _length(held)
    if not more or not held.count.ndim:
        return held
    below = (*[0] * 2 * (held.total.ndim - 1), 0, more)
    return _Sum(pad(held.total, below), pad(held.count, (0, more)))


def _mean(held: _Sum) -> Tensor:
    """Divide, without the positions that no example has."""
    if not held.count.ndim:
        return held.total / held.count
    known = held.count > 0
    total, count = held.total[known], held.count[known]
    return total / _beside(count, total)


def _beside(few: Tensor, many: Tensor) -> Tensor:
    """Give a tensor of the first axes of another the others, of length 1."""
    return few.reshape(*few.shape, *[1] * (many.ndim - few.ndim))
