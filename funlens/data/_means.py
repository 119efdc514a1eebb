"""`Means`: what sites are on average, over a dataset."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TypeAlias

import attrs
from torch import Tensor

from funlens.data._parts import axis_of
from funlens.data._pick import POSITION_WORDS, columns, drops_axis, left_axes, take
from funlens.data._selections import PerRow, Selection, Span
from funlens.data._sites import Part, Site, SiteLike, to_sites
from funlens.errors import SelectionError, SiteNotCachedError, nearest

AVERAGED = ("batch", "pos", "source")
"""The axes that a mean goes over, where it does not keep positions apart."""

_Entries: TypeAlias = Mapping[Site, Tensor] | tuple[tuple[Site, Tensor], ...]


def _pairs(given: _Entries) -> tuple[tuple[Site, Tensor], ...]:
    return tuple(dict(given).items())


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Means(Mapping[Site, Tensor]):
    """An immutable mapping from site to its mean, which `Mean` takes as a value.

    A selection of a site that is held whole is cut out at look-up; a mean over
    positions is the same at each of them.

    Attributes:
        entries: The sites and their means, without a batch axis, and without positions
            unless these are kept apart.
        by_position: Whether each position has a mean of its own.
        n_rows: Over how many examples.
    """

    entries: tuple[tuple[Site, Tensor], ...] = attrs.field(converter=_pairs, repr=False)
    by_position: bool
    n_rows: int

    @cached_property
    def _index(self) -> dict[Site, Tensor]:
        return dict(self.entries)

    def __getitem__(self, like: SiteLike) -> Tensor:
        """Look a site up.

        Raises:
            SiteNotCachedError: Neither the site nor the whole of it is held.
            SelectionError: Another place is selected in each row.
        """
        for site in to_sites(like, n_layers=0):
            if site in self._index:
                return self._index[site]
            if site.whole in self._index:
                return self._cut(site)
        error = SiteNotCachedError(str(like), nearest(str(like), map(str, self)))
        error.add_note("these are means: `mean_activations(spec, dataset, [...])`")
        raise error

    # A mapping would compare tensors with `==`: like every record, go by identity.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] (a mapping has none)

    def __contains__(self, like: object) -> bool:
        """Tell whether a look-up would succeed."""
        if not isinstance(like, (Site, Part, str, tuple)):
            return False
        try:
            self[like]
        except LookupError:
            return False
        return True

    def __iter__(self) -> Iterator[Site]:
        """Go through the sites."""
        return iter(self._index)

    def __len__(self) -> int:
        """Count the sites."""
        return len(self.entries)

    def __repr__(self) -> str:
        """Say what is held, without looking at a value."""
        how = "by position" if self.by_position else "over positions"
        return f"Means({len(self)} sites, {how}, of {self.n_rows} examples)"

    def _cut(self, site: Site) -> Tensor:
        held = self._index[site.whole]
        axes = axes_of_mean(site.whole, by_position=self.by_position)
        dropped: list[int] = []
        for word, chosen in site.selections:
            axis = site.axes[axis_of(site.part, word)]
            if axis not in axes:
                continue
            if isinstance(chosen, PerRow) or (word in POSITION_WORDS and _ends(chosen)):
                problem = "it means another place in each row"
                expected = "places that count from the first, alike in all rows"
                raise SelectionError(str(site), problem, expected)
            at = axes.index(axis)
            found = columns(chosen, held.shape[at], n_rows=1, site=str(site))
            held = take(held, at, found)
            if drops_axis(chosen):
                dropped.append(at)
        for at in sorted(dropped, reverse=True):
            held = held.squeeze(at)
        return held


def axes_of_mean(site: Site, *, by_position: bool) -> tuple[str, ...]:
    """Name the axes that the mean of a site has."""
    gone = AVERAGED[:1] if by_position else AVERAGED
    return tuple(axis for axis in left_axes(site) if axis not in gone)


def _ends(chosen: Selection) -> bool:
    """Tell whether a selection counts from the end, which rows do not share."""
    match chosen:
        case Span(start=start, stop=stop):
            return any(at is not None and at < 0 for at in (start, stop))
        case int():
            return chosen < 0
        case tuple():
            return any(at < 0 for at in chosen)
        case _:
            return False
