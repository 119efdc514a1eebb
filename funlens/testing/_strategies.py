"""Hypothesis strategies: sites, selections and interventions of a model.

Hypothesis is imported where it is used: `funlens.testing` works without it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import torch
from torch import Tensor

from funlens.data import (
    Add,
    Clamp,
    Intervention,
    ModelSpec,
    Noise,
    Project,
    ProjectOut,
    Scale,
    Set,
    Site,
    Zero,
)
from funlens.engine import Inputs, dry_run

Strategy: TypeAlias = Any
"""Hypothesis's `SearchStrategy`, which is not there for everybody."""

_WORDS: Final[Mapping[str, str]] = {
    "pos": "pos",
    "query": "query",
    "key": "key",
    "source": "key",
    "head": "head",
    "kv_head": "head",
    "d_mlp": "neuron",
}
_MOST: Final = 3
_SEEDS: Final = 2**31 - 1


def site_strategy(spec: ModelSpec) -> Strategy:
    """Draw whole sites that can be changed.

    Args:
        spec: The model.
    """
    from hypothesis import strategies as st

    return st.sampled_from([info.site for info in spec.sites if not info.read_only])


def selection_strategy(spec: ModelSpec, inputs: Inputs) -> Strategy:
    """Draw sites with selections that these inputs have, on some of their axes.

    Args:
        spec: The model.
        inputs: As for `run`; rows without padding.
    """
    every = [info.site for info in spec.sites]
    sizes = _shapes(spec, inputs, every)

    def select(site: Site) -> Strategy:
        return _selected(site, sizes[site])

    return site_strategy(spec).flatmap(select)


def intervention_strategy(spec: ModelSpec, inputs: Inputs) -> Strategy:
    """Draw interventions that fit these inputs; tensors come from drawn seeds.

    Args:
        spec: The model.
        inputs: As for `run`; rows without padding.
    """

    def edit(site: Site) -> Strategy:
        (shape,) = _shapes(spec, inputs, [site]).values()
        return _edits(spec, site, shape)

    return selection_strategy(spec, inputs).flatmap(edit)


def _shapes(
    spec: ModelSpec, inputs: Inputs, wanted: Sequence[Site]
) -> dict[Site, tuple[int, ...]]:
    """Find the shapes of sites without a run."""
    found = dry_run(spec, inputs, capture=wanted)
    return {
        info.site: tuple(size for size in info.shape if isinstance(size, int))
        for info in found
    }


def interventions_strategy(
    spec: ModelSpec, inputs: Inputs, *, max_size: int = _MOST
) -> Strategy:
    """Draw lists of interventions, each at a site of its own.

    Args:
        spec: The model.
        inputs: As for `run`; rows without padding.
        max_size: Longest list.
    """
    from hypothesis import strategies as st

    def place(record: Intervention) -> Site:
        return record.site.whole

    return st.lists(
        intervention_strategy(spec, inputs), max_size=max_size, unique_by=place
    )


def _selected(site: Site, shape: Sequence[int]) -> Strategy:
    from hypothesis import strategies as st

    choices = {
        _WORDS[axis]: st.none() | _indices(size)
        for axis, size in zip(site.axes, shape, strict=True)
        if axis in _WORDS
    }

    def choose(chosen: Mapping[str, Any]) -> Site:
        return attrs.evolve(site, **chosen)

    return st.fixed_dictionaries(choices).map(choose)


def _indices(size: int) -> Strategy:
    """Draw an index from either end, several, or a slice that holds something."""
    from hypothesis import strategies as st

    several = st.lists(
        st.integers(0, size - 1), min_size=1, max_size=min(size, _MOST), unique=True
    )

    def span(start: int) -> Strategy:
        return st.builds(
            slice, st.just(start), st.none() | st.integers(start + 1, size)
        )

    return st.one_of(
        st.integers(-size, size - 1),
        several.map(tuple),
        st.integers(0, size - 1).flatmap(span),
    )


def _edits(spec: ModelSpec, site: Site, shape: Sequence[int]) -> Strategy:
    """Draw one of the kinds that fit a value of this shape."""
    from hypothesis import strategies as st

    seeds, numbers = st.integers(0, _SEEDS), st.floats(-2.0, 2.0, width=32)

    def drawn(size: Sequence[int]) -> Strategy:
        def draw(seed: int) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            values = torch.randn(tuple(size), generator=generator)
            return values.to(device=spec.device, dtype=spec.dtype)

        return seeds.map(draw)

    at = st.just(site)
    kinds = [
        st.builds(Zero, at),
        st.builds(Set, at, numbers | drawn(shape)),
        st.builds(Add, at, drawn(shape), scale=numbers),
        st.builds(Scale, at, numbers | drawn(shape)),
        st.builds(Clamp, at, low=numbers),
        st.builds(Clamp, at, high=numbers),
        st.builds(Noise, at, std=st.floats(0.0, 1.0, width=32), seed=seeds),
    ]
    if shape and len(shape) == len(site.axes):
        rows = drawn((2, shape[-1]))
        kinds += [st.builds(Project, at, rows), st.builds(ProjectOut, at, rows)]
    return st.one_of(kinds)
