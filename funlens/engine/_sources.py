"""Whether a cache can be patched from, before anything runs."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from funlens.data import ActivationCache, ModelSpec, Part, Site
from funlens.engine._edits import fits
from funlens.engine._inputs import Inputs, prepare
from funlens.engine._plan import axis_sizes, sites_meant
from funlens.errors import (
    FunlensError,
    InputError,
    ShapeError,
    SiteNotCachedError,
    nearest,
    raise_all,
)


def check_source(
    spec: ModelSpec,
    inputs: Inputs,
    source: ActivationCache,
    parts: Sequence[Part],
    *,
    attention_mask: Tensor | None = None,
) -> None:
    """Refuse a cache that does not hold parts in all layers, beside the same positions.

    Args:
        spec: The model.
        inputs: As for `run`; what is patched.
        source: What is patched from.
        parts: What must be held, whole.
        attention_mask: As for `run`.

    Raises:
        SiteNotFoundError: The model has no such part.
        SiteNotCachedError: The cache lacks a part; a note says what to capture.
        ShapeError: The cache has other rows or positions than the inputs.
        InputError: It is no cache.
        ExceptionGroup: Several faults.
    """
    if not isinstance(source, ActivationCache):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
        raise InputError(
            f"the source is a {type(source).__name__}",
            "the cache of another run",
            "Use `run_with_cache(spec, clean, capture=[...]).cache`",
        )
    frames = prepare(spec, inputs, attention_mask=attention_mask).frames
    faults = [*_lacking(spec, source, parts)]
    raise_all(faults)
    for site in (site for part in parts for site in sites_meant(spec, part)):
        sizes = axis_sizes(spec, site, frames)
        shape, expected = tuple(source[site].shape), tuple(sizes[a] for a in site.axes)
        if len(shape) != len(expected) or not fits(shape, expected):
            where = f"the source at {site}"
            raise ShapeError(where, shape, expected, site.axes)


def _lacking(
    spec: ModelSpec, source: ActivationCache, parts: Sequence[Part]
) -> Iterator[FunlensError]:
    """Find what a cache lacks: one fault for each part."""
    wanted = ", ".join(f"funlens.{part}" for part in parts)
    for part in parts:
        gone = [site for site in sites_meant(spec, part) if site not in source]
        if gone:
            yield _noted(gone, source, wanted)


def _noted(
    gone: Sequence[Site], source: ActivationCache, wanted: str
) -> SiteNotCachedError:
    error = SiteNotCachedError(str(gone[0]), nearest(str(gone[0]), map(str, source)))
    layers = ", ".join(str(site.layer) for site in gone)
    error.add_note(f"it lacks layers {layers}; capture=[{wanted}] holds all of it")
    return error
