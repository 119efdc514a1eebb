"""TransformerLens's hooks, for code that comes from there."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import attrs
from torch import Tensor

from funlens.data import (
    Apply,
    ModelSpec,
    Part,
    Site,
    SiteLike,
    transformer_lens_names,
)
from funlens.engine._plan import sites_meant
from funlens.errors import InputError, SelectionError


@attrs.frozen
class HookPoint:
    """What TransformerLens hands to a hook, for its name.

    Attributes:
        name: Name of the site, as it was given.
        index: Layer of the site; None for one that a model has once.
    """

    name: str
    index: int | None

    def layer(self) -> int:
        """Give the layer, by TransformerLens's name for it.

        Raises:
            SelectionError: The site has none.
        """
        if self.index is None:
            raise SelectionError(self.name, "it has no layer", "a site of a layer")
        return self.index


def from_hooks(
    spec: ModelSpec,
    fwd_hooks: Iterable[
        tuple[SiteLike | Callable[[str], bool], Callable[..., Tensor | None]]
    ],
) -> tuple[Apply, ...]:
    """Turn TransformerLens's `fwd_hooks` into interventions.

    A hook that returns None, or changes its argument in place, means there what it
    meant in TransformerLens: the value it was given goes on, as the hook left it.

    Args:
        spec: The model.
        fwd_hooks: Pairs of a name, or of a function that chooses among
            TransformerLens's names, and a function of `(value, hook)`.

    Raises:
        SiteNotFoundError: A name means no site.
        InputError: A function chooses no name.
    """
    return tuple(
        Apply(site, partial(_hooked, function, HookPoint(name, site.layer)))
        for chooses, function in fwd_hooks
        for name, site in _chosen(spec, chooses)
    )


def _chosen(
    spec: ModelSpec, chooses: SiteLike | Callable[[str], bool]
) -> Iterator[tuple[str, Site]]:
    if isinstance(chooses, Part) or not callable(chooses):
        for site in sites_meant(spec, chooses):
            yield chooses if isinstance(chooses, str) else str(site), site
        return
    held = {info.site for info in spec.sites}
    names = transformer_lens_names(spec.n_layers, gated=spec.is_gated)
    found = [pair for pair in names if pair[1] in held and chooses(pair[0])]
    if not found:
        raise InputError(
            "a function chooses none of the hooks' names",
            "one that is true of some, such as `blocks.0.hook_resid_pre`",
            "Look at the names with `funlens.sites(spec)`",
        )
    yield from found


def _hooked(
    function: Callable[..., Tensor | None], hook: HookPoint, value: Tensor
) -> Tensor:
    new = function(value, hook=hook)
    return value if new is None else new
