"""Interventions: what to do at a site, as frozen records."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias, cast

import attrs
from torch import Tensor, nn

from funlens.data._cache import ActivationCache
from funlens.data._sites import Site
from funlens.errors import InputError, SelectionError


def _to_site(like: object) -> Site:
    if isinstance(like, Site):
        return like
    if isinstance(like, str):
        return Site.parse(like)
    raise SelectionError(str(like), "it is not one site", "a site, such as `z(9)`")


def _to_whole_sites(likes: object) -> tuple[Site, ...]:
    if isinstance(likes, (str, Site)) or not isinstance(likes, Iterable):
        raise SelectionError(str(likes), "it is no list of sites", "`reads=[site]`")
    sites = tuple(map(_to_site, cast("Iterable[object]", likes)))
    for site in sites:
        if site.selections:
            problem = "only whole sites can be read"
            raise SelectionError(str(site), problem, str(site.whole))
    return sites


def _summary(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    return f"{str(value.dtype).removeprefix('torch.')}{[*value.shape]}"


def _taken(source: Tensor | ActivationCache, record: Any) -> Tensor:
    if isinstance(source, ActivationCache):
        return source[record.site]
    if isinstance(source, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
        return source
    problem = f"the source of {type(record).__name__} is a {type(source).__name__}"
    raise InputError(
        problem,
        "a cache that holds the site, or a tensor",
        "Run `run_with_cache` on the source prompt",
    )


_FROM_CACHE: Final = attrs.Converter(_taken, takes_self=True)


def _mean_taken(value: Tensor | Mapping[Site, Tensor], record: Any) -> Tensor:
    return value if isinstance(value, Tensor) else _of_mapping(value, record)


def _of_mapping(value: object, record: Any) -> Any:
    """Look a mean up; what is no mapping is left to the validator."""
    if not isinstance(value, Mapping):
        return value
    return cast("Mapping[Site, Tensor]", value)[record.site]


_FROM_MEANS: Final = attrs.Converter(_mean_taken, takes_self=True)


def _wrong(record: object, field: Any, value: object, expected: str) -> InputError:
    kind, given = type(record).__name__, type(value).__name__
    return InputError(
        f"the {field.name} of {kind} is a {given}", expected, "Give another value"
    )


def _is_tensor(record: object, field: Any, value: object) -> None:
    if not isinstance(value, Tensor):
        raise _wrong(record, field, value, "a tensor")


def _is_number(record: object, field: Any, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _wrong(record, field, value, "a number")


def _is_whole_number(record: object, field: Any, value: object) -> None:
    if type(value) is not int:
        raise _wrong(record, field, value, "a whole number")


def _is_tensor_or_number(record: object, field: Any, value: object) -> None:
    if not isinstance(value, Tensor):
        _is_number(record, field, value)


def _is_function(record: object, field: Any, value: object) -> None:
    if not callable(value):
        raise _wrong(record, field, value, "a function from a tensor to a tensor")


def _is_module(record: object, field: Any, value: object) -> None:
    if not isinstance(value, nn.Module):
        raise _wrong(record, field, value, "a `torch.nn.Module`")


@attrs.frozen(eq=False)
class Zero:
    """Put zeros there."""

    site: Site = attrs.field(converter=_to_site)


@attrs.frozen(eq=False)
class Mean:
    """Put a mean there: mean ablation.

    Attributes:
        site: Where.
        value: The mean, of the site's trailing axes; or `Means` that hold the site,
            read when the record is made.
    """

    site: Site = attrs.field(converter=_to_site)
    value: Tensor | Mapping[Site, Tensor] = attrs.field(
        repr=_summary, converter=_FROM_MEANS, validator=_is_tensor
    )


@attrs.frozen(eq=False)
class Set:
    """Put a value there: a tensor of the site's trailing axes, or one number."""

    site: Site = attrs.field(converter=_to_site)
    value: Tensor | float = attrs.field(repr=_summary, validator=_is_tensor_or_number)


@attrs.frozen(eq=False)
class Add:
    """Add `scale * vector`."""

    site: Site = attrs.field(converter=_to_site)
    vector: Tensor = attrs.field(repr=_summary, validator=_is_tensor)
    scale: float = attrs.field(default=1.0, kw_only=True, validator=_is_number)


@attrs.frozen(eq=False)
class Scale:
    """Multiply by a number, or by a tensor of the site's trailing axes."""

    site: Site = attrs.field(converter=_to_site)
    factor: Tensor | float = attrs.field(repr=_summary, validator=_is_tensor_or_number)


@attrs.frozen(eq=False)
class Patch:
    """Put there what another run had there: activation patching.

    Attributes:
        site: Where.
        source: Cache of the other run, read when the record is made; or a tensor.
    """

    site: Site = attrs.field(converter=_to_site)
    source: Tensor | ActivationCache = attrs.field(repr=_summary, converter=_FROM_CACHE)


@attrs.frozen(eq=False)
class Freeze:
    """Hold a site at what it was in another run, whatever the other edits do."""

    site: Site = attrs.field(converter=_to_site)
    source: Tensor | ActivationCache = attrs.field(repr=_summary, converter=_FROM_CACHE)


@attrs.frozen(eq=False)
class Project:
    """Keep only what lies in the span of some directions.

    Attributes:
        site: Where.
        directions: `[direction, width]` or `[width]`, of the site's last axis; need be
            neither orthonormal nor independent.
    """

    site: Site = attrs.field(converter=_to_site)
    directions: Tensor = attrs.field(repr=_summary, validator=_is_tensor)


@attrs.frozen(eq=False)
class ProjectOut:
    """Remove what lies in the span of some directions: direction ablation."""

    site: Site = attrs.field(converter=_to_site)
    directions: Tensor = attrs.field(repr=_summary, validator=_is_tensor)


@attrs.frozen(eq=False)
class Clamp:
    """Keep values between two bounds, of which one may be left out."""

    site: Site = attrs.field(converter=_to_site)
    low: float | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(_is_number)
    )
    high: float | None = attrs.field(
        default=None, kw_only=True, validator=attrs.validators.optional(_is_number)
    )

    def __attrs_post_init__(self) -> None:
        """Check that something can lie between the bounds."""
        low, high = self.low, self.high
        if low is None and high is None:
            raise InputError("Clamp has no bound", "`low=` or `high=`", "Give one")
        if low is not None and high is not None and not low <= high:
            problem = f"no value lies between {low} and {high}"
            raise InputError(problem, "`low` at most `high`", "Change the bounds")


@attrs.frozen(eq=False)
class Noise:
    """Add normal noise, the same at every run of the same shape.

    Attributes:
        site: Where.
        std: Standard deviation, in the activation's units.
        seed: Fixes the noise.
    """

    site: Site = attrs.field(converter=_to_site)
    std: float = attrs.field(kw_only=True, validator=_is_number)
    seed: int = attrs.field(kw_only=True, validator=_is_whole_number)

    def __attrs_post_init__(self) -> None:
        """Check that it is the size of something."""
        if not self.std >= 0:
            problem = f"the standard deviation of Noise is {self.std}"
            raise InputError(problem, "0 or more", "Give another one")


@attrs.frozen(eq=False)
class Interchange:
    """Swap in another run's component in the span of some directions.

    Attributes:
        site: Where.
        source: Cache of the other run, or a tensor.
        directions: `[direction, width]`; the rest of the space stays.
    """

    site: Site = attrs.field(converter=_to_site)
    source: Tensor | ActivationCache = attrs.field(repr=_summary, converter=_FROM_CACHE)
    directions: Tensor = attrs.field(repr=_summary, kw_only=True, validator=_is_tensor)


@attrs.frozen(eq=False)
class Splice:
    """Put a module's output in place of the value it is given.

    Attributes:
        site: Where.
        module: Maps the value to one of the same shape and dtype.
        keep_error: Add back what the module loses now, as a constant, so that the run
            changes only through what is done inside the module.
    """

    site: Site = attrs.field(converter=_to_site)
    module: nn.Module = attrs.field(validator=_is_module)
    keep_error: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen(eq=False)
class Apply:
    """Put a function's result in place of the value it is given.

    Attributes:
        site: Where.
        function: Maps the value to one of the same shape and dtype. What it is given
            is its own: changing it in place reaches nothing else.
        reads: Whole sites that the run passes before, whose values the function is
            given too, behind the first: `function(value, *read)`. They are what the
            model went on with in this run, and must not be changed in place.
    """

    site: Site = attrs.field(converter=_to_site)
    function: Callable[..., Tensor] = attrs.field(validator=_is_function)
    reads: tuple[Site, ...] = attrs.field(
        default=(), converter=_to_whole_sites, kw_only=True
    )


ForwardEdit: TypeAlias = (
    Zero
    | Mean
    | Set
    | Add
    | Scale
    | Patch
    | Freeze
    | Project
    | ProjectOut
    | Clamp
    | Noise
    | Interchange
    | Splice
    | Apply
)


@attrs.frozen(eq=False)
class Backward:
    """Do something to the gradient at a site, as it passes backward.

    The value itself stays. What lies before the site, and the gradient that
    `run_with_grads` keeps there, see the changed gradient.

    Attributes:
        edit: What to do, and where: any kind but `Splice`.
    """

    edit: ForwardEdit

    def __attrs_post_init__(self) -> None:
        """Refuse what means nothing for a gradient."""
        held: object = self.edit
        if isinstance(held, (Backward, Splice)) or not hasattr(held, "site"):
            raise InputError(
                f"Backward holds a {type(held).__name__}",
                "an intervention such as `Zero(z(9))`, and no Splice",
                "Write `Backward(Zero(site))`",
            )

    @property
    def site(self) -> Site:
        """Where the gradient is changed."""
        return self.edit.site


Intervention: TypeAlias = ForwardEdit | Backward

DECIDING: Final = (Zero, Mean, Set, Patch, Freeze)
"""Kinds that decide a value whatever it was: two at one place conflict."""
