"""`Linearity`: how far a first-order estimate can be trusted, site by site."""

import attrs
import torch
from torch import Tensor

from funlens.data._attributions import Attributions
from funlens.data._effects import Effects
from funlens.data._sites import Part, Site


@attrs.frozen(kw_only=True, eq=False)
class Linearity:
    """What the first order says of patching each site, and what it leaves out.

    Attributes:
        first: The first-order estimate at each place, as of `attribution_patching`.
        rest: What curvature adds to it as the whole site is moved, at each place.
    """

    first: Attributions
    rest: Attributions

    def error_bars(self, where: Part | Site, *axes: str) -> Effects:
        """Lay out how far each estimate may be off, in the metric's unit.

        Args:
            where: As for `Attributions.effects`.
            axes: As for `Attributions.effects`; none for one site.

        Returns:
            The size of what the first order leaves out, never negative.
        """
        _, rest = self._changes(where, axes)
        return _laid(rest, rest.rows.abs(), "error bar of ")

    def scores(self, where: Part | Site, *axes: str) -> Effects:
        """Lay out which share of the change is linear: 1 is all, 0 nothing.

        Args:
            where: As for `Attributions.effects`.
            axes: As for `Attributions.effects`; none for one site.

        Returns:
            `|first| / (|first| + |rest|)` of each example and place; 1 where nothing
            happens at all.
        """
        first, rest = self._changes(where, axes)
        total = first.rows.abs() + rest.rows.abs()
        share = first.rows.abs() / torch.where(total > 0, total, 1.0)
        return _laid(rest, torch.where(total > 0, share, 1.0), "linearity of ")

    def _changes(
        self, where: Part | Site, axes: tuple[str, ...]
    ) -> tuple[Effects, Effects]:
        """Lay both out, as changes."""
        none = torch.zeros_like(self.first.baseline)
        first, rest = (
            attrs.evolve(each, baseline=none).effects(where, *axes)
            for each in (self.first, self.rest)
        )
        return first, rest


def _laid(like: Effects, rows: Tensor, name: str) -> Effects:
    named = tuple(name + metric for metric in like.metric)
    return attrs.evolve(like, rows=rows, values=rows.mean(-1), metric=named)
