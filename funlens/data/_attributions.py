"""`Attributions`: estimates of what patching each place would do, site by site."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from funlens.data._cache import ActivationCache
from funlens.data._effects import Effects
from funlens.data._parts import MODEL_PARTS, SELECTED_AXES, axis_of
from funlens.data._pick import POSITION_WORDS, Padding, is_of_encoder, left_axes, take
from funlens.data._sites import Part, Site, SiteLike
from funlens.errors import SelectionError, SiteNotCachedError, nearest

WIDTHS: Final = frozenset(
    {
        "d_model",
        "d_head",
        "d_mlp",
        "d_latent",
        "d_key",
        "d_value",
        "d_inner",
        "d_ssm_proj",
        "d_ssm_params",
        "d_conv",
        "d_decay",
        "vocab",
        "label",
        "one",
    }
)
"""Axes that are no places: what stands on them is one vector."""


def places_of(site: Site, *, neurons: bool = False) -> tuple[str, ...]:
    """Name the axes that a site leaves and that are places; those of a vector follow.

    Args:
        site: The site.
        neurons: Whether each unit of an MLP is a place.
    """
    widths = WIDTHS - {"d_mlp"} if neurons else WIDTHS
    return tuple(axis for axis in left_axes(site) if axis not in widths)


@attrs.frozen(kw_only=True, eq=False, slots=False)
class Attributions(Mapping[Site, Tensor]):
    """What patching each place is estimated to add to a metric.

    A mapping from site to one number for each example and place: `[batch, pos]` of a
    residual, `[batch, pos, head]` of `z`, `[batch, head, query, key]` of a pattern.
    Looked up like an `ActivationCache`, with a selection too. Numbers of one site add
    up to the estimate for patching all of them; those of different sites do not, since
    what one adds passes the others.

    Attributes:
        entries: The numbers of each site, in the order of the forward pass.
        baseline: The metric of each example before patching.
        metric: Name of the metric.
        is_joint: Whether the metric is one number for all examples, so that a place is
            patched in all of them at once.
        labels: The tokens of a single text, to name positions by.
    """

    entries: ActivationCache = attrs.field(repr=False)
    baseline: Float[Tensor, " batch"] = attrs.field(repr=False)
    metric: str
    is_joint: bool = False
    labels: tuple[str, ...] = attrs.field(default=(), repr=False)

    def __getitem__(self, like: SiteLike) -> Tensor:
        """Look a site up.

        Raises:
            SiteNotCachedError: The site is not among them.
            SelectionError: A selection is of no place.
        """
        return self.entries[like]

    def __contains__(self, like: object) -> bool:
        """Tell whether a look-up would succeed."""
        return like in self.entries

    def __iter__(self) -> Iterator[Site]:
        """Go through the sites in the order of the forward pass."""
        return iter(self.entries)

    def __len__(self) -> int:
        """Count the sites."""
        return len(self.entries)

    # A mapping would compare tensors with `==`: like every record, go by identity.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType] (a mapping has none)

    def __repr__(self) -> str:
        """Say how much is held, without looking at a value."""
        return f"Attributions({self.metric}: {len(self)} sites)"

    def effects(self, where: Part | Site, *axes: str) -> Effects:
        """Lay one part out as a sweep of `Patch` over the same axes would.

        Each cell holds the metric of the unpatched run plus the estimate, so that
        `change` is the estimate; axes that are not named are patched whole. Positions
        count from each row's first real token; a row that has no such position has
        nothing to patch there.

        Args:
            where: A part in all its layers, such as `z`; or a site, with a selection of
                what all cells share.
            axes: `layer`, `head`, `pos`, `query`, `key`, `neuron`, `expert`, `stream`,
                in the order that the result shall have; none for the whole of a site.

        Raises:
            SiteNotCachedError: No layer of the part is held.
            SelectionError: An axis does not exist, was summed over, or stands twice.
        """
        words = _checked_words(where, axes)
        layers = self._layers(where)
        laid = [self._laid(site, words) for site in layers]
        sizes = [max(each) for each in zip(*(one.shape for one in laid), strict=True)]
        padded = [_padded(one, sizes) for one in laid]
        estimates = torch.stack(padded) if "layer" in axes else padded[0]
        if "layer" in axes:
            estimates = estimates.movedim(0, axes.index("layer"))
        done = ~estimates.isnan().all(-1)
        if self.is_joint:
            estimates = estimates.sum(-1, keepdim=True).expand(estimates.shape)
        rows = self.baseline.cpu() + estimates
        return Effects(
            values=rows.mean(-1),
            rows=rows,
            baseline=self.baseline.cpu(),
            axes=axes,
            labels=self._labels(where, axes, layers=layers, rows=rows),
            metric=(self.metric,),
            done=done,
        )

    def _layers(self, where: Part | Site) -> list[Site]:
        """Find the sites that are meant, in order of their layers."""
        if isinstance(where, Site):
            self[where]
            return [where]
        wanted = (where.name, where.stack)
        held = [site for site in self if (site.part, site.stack) == wanted]
        if not held:
            raise SiteNotCachedError(str(where), nearest(str(where), map(str, self)))
        return sorted(held, key=_layer_of)

    def _laid(self, site: Site, words: Sequence[str]) -> Tensor:
        """Give the numbers of one site, `[*words, batch]`, other axes summed."""
        held = self[site].float().cpu()
        names = list(left_axes(site)[: held.ndim])
        wanted: list[str] = []
        for word in words:
            axis = site.axes[axis_of(site.part, word)]
            if axis not in names:
                problem = f"its {word} axis was summed over"
                raise SelectionError(str(site), problem, f"one of {', '.join(names)}")
            wanted.append(axis)
            if word in POSITION_WORDS:
                padding = self.entries.padding(encoder=is_of_encoder(site, axis))
                held = _from_first(held, names.index(axis), padding)
        summed = [at for at, name in enumerate(names) if name not in {"batch", *wanted}]
        if summed:
            held = held.sum(summed)
        left = [name for name in names if name in {"batch", *wanted}]
        return held.permute([left.index(name) for name in (*wanted, "batch")])

    def _labels(
        self,
        where: Part | Site,
        axes: Sequence[str],
        *,
        layers: Sequence[Site],
        rows: Tensor,
    ) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for axis, size in zip(axes, rows.shape, strict=False):
            is_of_text = axis in POSITION_WORDS and not where.stack
            if axis == "layer":
                found[axis] = tuple(str(site.layer) for site in layers)
            elif is_of_text and len(self.labels) == size:
                found[axis] = self.labels
            else:
                found[axis] = tuple(map(str, range(size)))
        return found


def _layer_of(site: Site) -> int:
    return site.layer or 0


def _checked_words(where: Part | Site, axes: Sequence[str]) -> tuple[str, ...]:
    """Look the names of axes through, and give those that are no layer.

    Raises:
        SelectionError: They are no axes of what is meant.
    """
    known = ("layer", *SELECTED_AXES)
    has_layers = isinstance(where, Part) and where.name not in MODEL_PARTS
    selected = () if isinstance(where, Part) else where.selections
    problems = {
        "an axis stands twice": len(set(axes)) < len(axes),
        f"{', '.join(axes)} are no axes": not set(axes) <= set(known),
        "it is in all layers, and `layer` is no axis": has_layers > ("layer" in axes),
        "it is in no other layer": has_layers < ("layer" in axes),
        "an axis is selected already": any(word in axes for word, _ in selected),
    }
    for problem, is_so in problems.items():
        if is_so:
            expected = f"some of {', '.join(known)}, each once"
            raise SelectionError(str(where), problem, expected)
    return tuple(axis for axis in axes if axis != "layer")


def _from_first(held: Tensor, at: int, padding: Padding) -> Tensor:
    """Count an axis from each row's first real token; 0 where a row has ended."""
    if padding.starts is None or padding.stops is None:
        return held
    bounds = [*zip(padding.starts, padding.stops, strict=True)]
    longest = max(stop - start for start, stop in bounds)
    found = tuple(
        tuple(min(start + index, stop - 1) for index in range(longest))
        for start, stop in bounds
    )
    counts = torch.tensor([stop - start for start, stop in bounds])
    is_real = torch.arange(longest) < counts[:, None]
    shape = [1] * held.ndim
    shape[0], shape[at] = is_real.shape
    return take(held, at, found) * is_real.view(shape)


def _padded(held: Tensor, sizes: Sequence[int]) -> Tensor:
    """Lengthen axes with NaN, for a layer that has fewer places than others."""
    pairs = zip(reversed(held.shape), reversed(sizes), strict=True)
    widths = [width for short, long in pairs for width in (0, long - short)]
    return F.pad(held, widths, value=torch.nan) if any(widths) else held
