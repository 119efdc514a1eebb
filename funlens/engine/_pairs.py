"""Two runs that are compared: what is patched into one, and what that would do."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import attrs
import torch
from toolz import groupby
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import (
    INTEGER_PARTS,
    ActivationCache,
    Attributions,
    ModelSpec,
    Site,
    SiteLike,
    places_of,
)
from funlens.engine._cells import position_labels
from funlens.engine._edits import fits
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._metrics import Metric, MetricLike, metric_of
from funlens.engine._options import Options
from funlens.engine._plan import (
    Every,
    captured_sites,
    gathered,
    kept,
    left_of,
    make_plan,
    tap_of,
)
from funlens.engine._traced import cache_of, traced
from funlens.errors import (
    DtypeError,
    FunlensError,
    InputError,
    NonFiniteError,
    ReadOnlySiteError,
    ShapeError,
    raise_all,
)

Source: TypeAlias = ActivationCache | Inputs
"""The other run's cache, or its inputs."""


@attrs.frozen(kw_only=True, eq=False)
class Pair:
    """A run, and what another run had at some sites.

    Attributes:
        spec: The model.
        prepared: Inputs of the run that is patched.
        source: What the other run had at the sites.
        asked: Sites that are estimated.
        sites: Those, and what else the other run was asked for.
        neurons: Those of them whose neurons are told apart.
        metric: What is measured.
    """

    spec: ModelSpec
    prepared: Prepared
    source: ActivationCache
    asked: tuple[Site, ...]
    sites: tuple[Site, ...]
    neurons: frozenset[Site]
    metric: Metric

    def step(self, site: Site, value: Tensor) -> Tensor:
        """Give what patching a site would add to its value.

        Raises:
            ShapeError: The other run had another shape there.
        """
        other = self.source[site]
        if not fits(tuple(other.shape), tuple(value.shape)):
            given, shape = tuple(other.shape), tuple(value.shape)
            raise ShapeError(f"source[{site}]", given, shape, site.axes)
        if site.part.endswith("scores"):  # keys that neither run saw may be infinite
            return torch.where(other == value, 0.0, other - value)
        return other - value

    def product(self, site: Site, step: Tensor, gradient: Tensor) -> Tensor:
        """Multiply a step with the gradient, and sum what is one vector."""
        n_places = len(places_of(site, neurons=site.whole in self.neurons))
        wide = torch.promote_types(step.dtype, torch.float32)
        step, gradient = step.to(wide), gradient.to(wide)
        if step.ndim == n_places:
            return step * gradient
        return torch.linalg.vecdot(step.flatten(n_places), gradient.flatten(n_places))  # pyright: ignore[reportUnknownVariableType] (torch ships no types for it)


def paired(
    spec: ModelSpec,
    inputs: Inputs,
    source: Source,
    *,
    metric: MetricLike,
    sites: Sequence[SiteLike] | Every,
    attention_mask: Tensor | None,
    also: Sequence[Site] = (),
    cuts: bool = False,
) -> Pair:
    """Look two runs through, and run the other one where only its inputs are given.

    Args:
        spec: The model.
        inputs: As for `run`: what is patched.
        source: What is patched in.
        metric: As for `sweep`.
        sites: Where. A selection of neurons keeps them apart.
        attention_mask: As for `run`.
        also: Sites that are moved, and not estimated.
        cuts: Whether a selection is a site of its own.

    Raises:
        FunlensError: The only fault that there is.
        ExceptionGroup: Several faults.
    """
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    measure = metric_of(metric)
    wanted = captured_sites(spec, sites, prepared.kwargs)
    if isinstance(sites, Every):
        wanted = tuple(site for site in wanted if not _why_not(spec, site))
    asked = wanted if cuts else tuple(dict.fromkeys(site.whole for site in wanted))
    every = tuple(dict.fromkeys((*asked, *also)))
    faults: list[FunlensError] = []
    for site in (measure.site, *wanted, *also):
        with gathered(faults):
            why = _why_not(spec, site)
            if why and site is not measure.site:
                raise ReadOnlySiteError(str(site), why)
            kept(spec, prepared.frames, site)
    raise_all(faults)
    held = (
        source
        if isinstance(source, ActivationCache)
        else _run_of(spec, prepared, source, every)
    )
    _check_source(spec, prepared, held, every)
    return Pair(
        spec=spec,
        prepared=prepared,
        source=held,
        asked=asked,
        sites=every,
        neurons=frozenset(s.whole for s in wanted if s.neuron is not None),
        metric=measure,
    )


def _why_not(spec: ModelSpec, site: Site) -> str:
    """Say why a site cannot be patched a little; empty where it can."""
    if site.part in INTEGER_PARTS:
        return "it holds indices, which have no gradient"
    return tap_of(spec, site).read_only


def _run_of(
    spec: ModelSpec, prepared: Prepared, source: Inputs, sites: tuple[Site, ...]
) -> ActivationCache:
    """Run the other inputs, and keep what will be patched in.

    Raises:
        InputError: They have other rows, positions or padding.
    """
    other = prepare(spec, source)
    if other.frames != prepared.frames:
        ours, theirs = prepared.main, other.main
        raise InputError(
            f"the source is {theirs.batch} rows of {theirs.n_pos}, padded or not",
            f"{ours.batch} rows of {ours.n_pos} with the same real positions",
            "Pair prompts of the same number of tokens, and pad them alike",
        )
    plan = make_plan(spec, other.frames, (), captured=sites)
    _, trace = traced(spec, other, plan, options=Options(grad=False))
    return cache_of(spec, trace)


def _check_source(
    spec: ModelSpec, prepared: Prepared, source: ActivationCache, sites: Sequence[Site]
) -> None:
    """Refuse a cache that does not fit the run, before that runs.

    Raises:
        FunlensError: The only fault that there is.
        ExceptionGroup: Several faults.
    """
    machinery: Machinery = spec.engine
    ours = prepared.main.starts, prepared.main.stops
    if source.has_batch and (source.starts, source.stops) != ours:
        raise InputError(
            f"the source's rows begin at {source.starts} and end at {source.stops}",
            f"the same real positions as the inputs: {ours[0]} and {ours[1]}",
            "Pair prompts of the same number of tokens, and pad them alike",
        )
    faults: list[FunlensError] = []
    for site in sites:
        with gathered(faults):
            held, where = source[site], f"source[{site}]"
            places = kept(spec, prepared.frames, site).where
            axes, sizes = left_of(spec, site, places, frames=prepared.frames)
            if not fits(tuple(held.shape), sizes):
                raise ShapeError(where, tuple(held.shape), sizes, axes)
            dtypes = machinery.dtypes(site.part)
            if held.dtype not in dtypes:
                expected = " or ".join(sorted(map(str, dtypes)))
                raise DtypeError(where, str(held.dtype), expected)
            device = machinery.device_at(tap_of(spec, site))
            if device is not None and held.device != device:
                found = f"on {held.device}"
                raise DtypeError(where, found, f"a tensor on {device}")
    raise_all(faults)


def attributions_of(
    pair: Pair, products: Mapping[Site, Tensor], measured: Tensor
) -> Attributions:
    """Lay estimates down, in the order of the forward pass.

    Args:
        pair: The two runs.
        products: The estimate at each place of each site.
        measured: The metric of the run, `[batch]`, or one number for all of it.

    Raises:
        NonFiniteError: There is NaN or infinity in them.
    """
    machinery: Machinery = pair.spec.engine
    by_whole: Mapping[Site, Sequence[Site]] = groupby(_whole, products)
    sites = [site for held in machinery.ordered(by_whole) for site in by_whole[held]]
    finite = [torch.isfinite(products[site]).all().cpu() for site in sites]
    for site, is_finite in zip(sites, finite, strict=True):
        if not bool(is_finite):
            raise NonFiniteError("the estimate", str(site))
    frame = pair.prepared.main
    encoder = pair.prepared.frames.get("encoder", frame)
    n_rows = len(next(iter(products.values())))
    return Attributions(
        entries=ActivationCache(
            entries={site: products[site] for site in sites},
            starts=frame.starts,
            stops=frame.stops,
            encoder_starts=None if encoder is frame else encoder.starts,
            encoder_stops=None if encoder is frame else encoder.stops,
            gated=pair.spec.is_gated,
        ),
        baseline=measured.detach().float().reshape(-1).expand(n_rows),
        metric=pair.metric.name,
        is_joint=measured.ndim == 0,
        labels=position_labels(pair.spec, pair.prepared),
    )


def _whole(site: Site) -> Site:
    return site.whole
