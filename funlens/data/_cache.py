"""Results of a run: the cache, receipts, and the pair with the logits."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import NamedTuple, TypeAlias

import attrs
import torch
from torch import Tensor

from funlens.data._pick import pick
from funlens.data._sites import Part, Site, SiteLike, to_sites
from funlens.errors import SiteNotCachedError, nearest


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
        gated: Whether the model's MLPs are gated, for TransformerLens's `hook_pre`.
        receipts: What each intervention of the run did, in the order given.
    """

    entries: tuple[tuple[Site, Tensor], ...] = attrs.field(converter=_pairs, repr=False)
    starts: tuple[int, ...] | None = None
    stops: tuple[int, ...] | None = None
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
                whole = self._index[site.whole]
                return pick(whole, site, starts=self.starts, stops=self.stops)
        raise SiteNotCachedError(str(like), nearest(str(like), map(str, self._index)))

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
        moved: dict[int, Tensor] = {}
        for _, tensor in self.entries:
            if id(tensor) not in moved:
                moved[id(tensor)] = tensor.to(device)
        return attrs.evolve(
            self, entries={site: moved[id(held)] for site, held in self.entries}
        )

    def rows(self, start: int, stop: int) -> "ActivationCache":
        """Give a cache of some rows of the batch."""
        window = slice(start, stop)
        return attrs.evolve(
            self,
            entries={site: held[window] for site, held in self.entries},
            starts=None if self.starts is None else self.starts[window],
            stops=None if self.stops is None else self.stops[window],
        )


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
