"""Results of a run: the cache, receipts, and the pair with the logits."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple, TypeAlias

import attrs
import torch
from torch import Tensor

from funlens.data._parts import axis_of
from funlens.data._pick import (
    POSITION_WORDS,
    Padding,
    columns,
    is_of_encoder,
    left_axes,
    pick,
    take,
)
from funlens.data._selections import PerRow, Span
from funlens.data._sites import Part, Site, SiteLike, to_sites
from funlens.errors import InputError, SiteNotCachedError, nearest


@attrs.frozen(kw_only=True, eq=False)
class Receipt:
    """What one intervention did.

    Attributes:
        intervention: Its kind and site.
        count: How often it acted.
        shape: Shape of what it changed, the last time.
        change: L2 norm of the change over all its acts; a tensor without axes.
    """

    intervention: str
    count: int
    shape: tuple[int, ...]
    change: Tensor = attrs.field(repr=False)


_Entries: TypeAlias = Mapping[Site, Tensor] | tuple[tuple[Site, Tensor], ...]


def _pairs(given: _Entries) -> tuple[tuple[Site, Tensor], ...]:
    return tuple(dict(given).items())


@attrs.frozen(kw_only=True, eq=False, slots=False)
class ActivationCache(Mapping[Site, Tensor]):
    """An immutable mapping from site to tensor.

    Looked up by site, by name (`"resid_post.3"`), or by TransformerLens's names
    (`"blocks.5.attn.hook_pattern"`, `("pattern", 5)`). A selection of a site that is
    held whole is cut out at look-up.

    Attributes:
        entries: The sites and their tensors, in the order of the forward pass.
        starts: Column of each row's first real token; None if nothing is padded.
        stops: Column after each row's last real token; None if nothing is padded.
        encoder_starts: The same of an encoder beside the main stack.
        encoder_stops: The same of an encoder beside the main stack.
        has_batch: Whether tensors have a batch axis; `remove_batch_dim` takes it off.
        gated: Whether the model's MLPs are gated, for TransformerLens's `hook_pre`.
        receipts: What each intervention of the run did, in the order given.
    """

    entries: tuple[tuple[Site, Tensor], ...] = attrs.field(converter=_pairs, repr=False)
    starts: tuple[int, ...] | None = None
    stops: tuple[int, ...] | None = None
    encoder_starts: tuple[int, ...] | None = None
    encoder_stops: tuple[int, ...] | None = None
    has_batch: bool = True
    gated: bool = False
    receipts: tuple[Receipt, ...] = ()

    @cached_property
    def _index(self) -> dict[Site, Tensor]:
        return dict(self.entries)

    def __getitem__(self, like: SiteLike) -> Tensor:
        """Look a site up.

        Raises:
            SiteNotCachedError: Neither the site nor the whole of it is held.
            SiteNotFoundError: The name means no site at all.
        """
        for site in to_sites(like, n_layers=0, gated=self.gated):
            if site in self._index:
                return self._index[site]
            if site.whole in self._index:
                return self._picked(site)
        raise SiteNotCachedError(str(like), nearest(str(like), map(str, self._index)))

    def padding(self, *, encoder: bool = False) -> Padding:
        """Tell where the real positions of a stack lie."""
        if encoder:
            return Padding(starts=self.encoder_starts, stops=self.encoder_stops)
        return Padding(starts=self.starts, stops=self.stops)

    def _picked(self, site: Site) -> Tensor:
        whole = self._index[site.whole]
        main, encoder = self.padding(), self.padding(encoder=True)
        if self.has_batch:
            return pick(whole, site, main=main, encoder=encoder)
        return pick(whole[None], site, main=main, encoder=encoder)[0]

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
        """Go through the sites in the order of the forward pass."""
        return iter(self._index)

    def __len__(self) -> int:
        """Count the sites."""
        return len(self.entries)

    def __repr__(self) -> str:
        """Say how much is held, without looking at a value."""
        parts = dict.fromkeys(site.part for site in self)
        names = ", ".join([*parts][:8]) + (", ..." if len(parts) > 8 else "")  # noqa: PLR2004 -- as many as an error lists
        return f"ActivationCache({len(self)} sites: {names})"

    def stack(self, part: Part) -> Tensor:
        """Stack one part over its layers, in order: `[layer, ...]`.

        Raises:
            SiteNotCachedError: No layer of it is held.
        """
        held = [
            tensor
            for site, tensor in self.entries
            if site.whole == site and (site.part, site.stack) == (part.name, part.stack)
        ]
        if not held:
            raise SiteNotCachedError(
                str(part), nearest(str(part), map(str, self._index))
            )
        return torch.stack(held)

    def to(self, device: torch.device | str) -> "ActivationCache":
        """Give a cache on another device; a tensor held twice moves once."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        return attrs.evolve(self, entries=_once_each(self.entries, move))

    def rows(self, start: int, stop: int) -> "ActivationCache":
        """Give a cache of some rows of the batch, counted as by a slice.

        Raises:
            InputError: There are no such rows, or no batch.
        """
        self._check_batch("rows")
        window = slice(start, stop)
        for site, held in self.entries:
            if not len(range(len(held))[window]):
                problem = f"rows {start} to {stop} of {len(held)} at {site} are none"
                raise InputError(problem, "at least one row", "Choose other rows")

        def cut(tensor: Tensor) -> Tensor:
            return tensor[window]

        pairs = _once_each(self.entries, cut)
        return attrs.evolve(
            self,
            entries=tuple((_of_rows(site, window), held) for site, held in pairs),
            starts=_cut(self.starts, window),
            stops=_cut(self.stops, window),
            encoder_starts=_cut(self.encoder_starts, window),
            encoder_stops=_cut(self.encoder_stops, window),
        )

    def positions(self, start: int | None, stop: int | None) -> "ActivationCache":
        """Give a cache of some positions of the main stack, without its padding.

        Positions are real ones: they count from each row's first real token, negative
        ones from its last. Patterns keep these positions on both axes. What an encoder
        had stays whole.

        Args:
            start: First position; None for the first.
            stop: Position after the last; None for the end of every row.

        Raises:
            SelectionError: A row has no such positions, or fewer than another.
            InputError: A site is held at some positions only, or there is no batch.
        """
        self._check_batch("positions")
        span = Span(start, stop)
        return attrs.evolve(
            self,
            entries={
                site: self._within(site, held, span) for site, held in self.entries
            },
            starts=None,
            stops=None,
        )

    def remove_batch_dim(self) -> "ActivationCache":
        """Give a cache without the batch axis, of a batch of one row.

        Raises:
            InputError: There are several rows, or no batch any more.
        """
        self._check_batch("remove_batch_dim")
        for site, held in self.entries:
            if len(held) != 1:
                problem = f"{site} has {len(held)} rows"
                raise InputError(problem, "one", "Choose one with `rows`")

        def first(tensor: Tensor) -> Tensor:
            return tensor[0]

        return attrs.evolve(
            self, entries=_once_each(self.entries, first), has_batch=False
        )

    def _check_batch(self, name: str) -> None:
        if not self.has_batch:
            raise InputError(
                f"this cache has no batch, which `{name}` needs",
                "a cache as a run returned it",
                "Call it before `remove_batch_dim`",
            )

    def _within(self, site: Site, held: Tensor, span: Span) -> Tensor:
        for word, _ in site.selections:
            if _is_moving(site, site.axes[axis_of(site.part, word)]):
                problem = f"{site} is held at some positions only"
                raise InputError(problem, "whole sites", "Capture it whole")
        for at, axis in enumerate(left_axes(site)):
            if _is_moving(site, axis):
                found = columns(
                    span,
                    held.shape[at],
                    n_rows=len(held),
                    site=str(site),
                    starts=self.starts,
                    stops=self.stops,
                )
                held = take(held, at, found)
        return held


def _is_moving(site: Site, axis: str) -> bool:
    """Tell whether an axis counts the main stack's positions."""
    return axis in POSITION_WORDS and not is_of_encoder(site, axis)


def _once_each(
    entries: tuple[tuple[Site, Tensor], ...], change: Callable[[Tensor], Tensor]
) -> tuple[tuple[Site, Tensor], ...]:
    """Change every tensor, one that several sites share once."""
    made: dict[int, Tensor] = {}
    for _, tensor in entries:
        if id(tensor) not in made:
            made[id(tensor)] = change(tensor)
    return tuple((site, made[id(tensor)]) for site, tensor in entries)


def _of_rows(site: Site, window: slice) -> Site:
    """Keep the part of a selection by row that belongs to some rows."""
    cut = {
        word: PerRow(chosen.indices[window])
        for word, chosen in site.selections
        if isinstance(chosen, PerRow)
    }
    return attrs.evolve(site, **cut)


def _cut(places: tuple[int, ...] | None, window: slice) -> tuple[int, ...] | None:
    return None if places is None else places[window]


class Run(NamedTuple):
    """Logits of a run, and what was captured."""

    logits: Tensor
    cache: ActivationCache


class RunWithGrads(NamedTuple):
    """A run, the metric's value, and the metric's gradient at each captured site."""

    logits: Tensor
    cache: ActivationCache
    value: Tensor
    grads: ActivationCache
