"""TransformerLens's hooks, for code that comes from there."""

from collections.abc import Callable, Iterable
from functools import partial

import attrs
from torch import Tensor

from funlens.data import Apply, ModelSpec, SiteLike, to_sites
from funlens.errors import InputError


@attrs.frozen
class HookPoint:
    """What TransformerLens hands to a hook, for its name.

    Attributes:
        name: Name of the site, as it was given.
    """

    name: str


def from_hooks(
    spec: ModelSpec,
    fwd_hooks: Iterable[tuple[SiteLike, Callable[..., Tensor | None]]],
) -> tuple[Apply, ...]:
    """Turn TransformerLens's `fwd_hooks` into interventions.

    A hook that returns None, or changes its argument in place, means there what it
    meant in TransformerLens: the value it was given goes on, as the hook left it.

    Args:
        spec: The model.
        fwd_hooks: Pairs of a name and a function of `(value, hook)`.

    Raises:
        SiteNotFoundError: A name means no site.
        InputError: The name is a function of names, which is not supported.
    """
    made: list[Apply] = []
    for name, function in fwd_hooks:
        if callable(name) and not isinstance(name, str):
            raise InputError(
                "a hook is named by a function",
                "a name or a site",
                "Write one pair for each name",
            )
        for site in to_sites(name, n_layers=spec.n_layers, gated=spec.is_gated):
            hook = HookPoint(str(name))
            made.append(Apply(site, partial(_hooked, function, hook)))
    return tuple(made)


def _hooked(
    function: Callable[..., Tensor | None], hook: HookPoint, value: Tensor
) -> Tensor:
    new = function(value, hook=hook)
    return value if new is None else new
