"""What patching would do to a metric, with gradients averaged along the way."""

from collections.abc import Iterator, Sequence
from typing import Final, get_args

from torch import Tensor

from funlens.data import Attributions, ModelSpec, Site, SiteLike
from funlens.engine import EVERY, Every, Inputs
from funlens.engine._metrics import MetricLike
from funlens.engine._pairs import Source, attributions_of, paired
from funlens.engine._passing import Rows, passing
from funlens.engine._paths import Along, Paths, cut_points, midpoints, moved, paths_of
from funlens.errors import OptionError, SiteNotFoundError

_EMBEDDING: Final = ("", "encoder")
"""Stacks that begin with an embedding of the inputs."""


def integrated_gradients(
    spec: ModelSpec,
    inputs: Inputs,
    source: Source,
    *,
    metric: MetricLike,
    along: Along = "inputs",
    steps: int = 5,
    sites: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> Attributions:
    """Estimate what patching would do, with the gradient averaged along a path.

    As `attribution_patching`, but the gradient is the mean of those at `steps` points
    between the two runs: `(source - value) * mean gradient`. Along `"inputs"` the
    token embeddings are moved, and the gradient is taken at every site of those runs
    (EAP-IG); along `"activations"` each site is moved itself, one at a time, with all
    that comes before as it was. As in Hanna et al., "Have Faith in Faithfulness"
    (2024); the points are the middles of equal parts rather than their ends, which
    needs fewer of them.

    Along `"activations"` the numbers of one site add up to what patching all of it
    does, as steps grow (completeness); along `"inputs"` those of `embed` do.

    Args:
        spec: The model.
        inputs: As for `attribution_patching`.
        source: As for `attribution_patching`; along inputs it also holds `embed`.
        metric: As for `attribution_patching`.
        along: What is moved. Whatever else differs between the inputs stays as it is
            in the patched run.
        steps: Points on the path.
        sites: As for `attribution_patching`.
        attention_mask: As for `run`.
        memory: How many bytes the activations of points that are run together may
            take; a quarter of what is free if left out.

    Returns:
        The estimate at each place, in the metric's unit.

    Raises:
        FunlensError: As for `attribution_patching`.
        ExceptionGroup: Several such faults.

    Costs one forward, and `steps` times a forward and a backward; along activations
    that for each site, from its layer on.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean, corrupted = "Tom had a ball.", "Ben had a ball."
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " Tom"))
        >>> found = fl.integrated_gradients(spec, corrupted, clean, metric=metric)
        >>> found.effects(fl.z, "layer", "head").axes
        ('layer', 'head')
    """
    if along not in get_args(Along):
        raise OptionError("along", f"it is {along!r}", get_args(Along))
    points = midpoints(steps)
    pair = paired(
        spec,
        inputs,
        source,
        metric=metric,
        sites=sites,
        attention_mask=attention_mask,
        also=_embeddings(spec) if along == "inputs" else (),
    )
    stacks = tuple(cut_points(pair, points, memory))
    paths = paths_of(pair)
    products: dict[Site, Tensor] = {}
    for rows, watched in _runs(paths, along, stacks):

        def look(
            site: Site, value: Tensor, gradient: Tensor, times: int = rows.times
        ) -> None:
            del value
            mean = gradient.reshape(times, -1, *gradient.shape[1:]).sum(0) / steps
            found = pair.product(site, paths.step(site), mean)
            products[site] = products[site] + found if site in products else found

        passing(spec, pair.prepared, pair.metric, watched, look, rows=rows)
    return attributions_of(pair, products, paths.measured)


def _runs(
    paths: Paths, along: Along, stacks: Sequence[Sequence[float]]
) -> Iterator[tuple[Rows, tuple[Site, ...]]]:
    """Give what is run, and the sites at which gradients are taken there."""
    asked = paths.pair.asked
    if along == "inputs":
        for points in stacks:
            yield moved(paths, _embeddings(paths.pair.spec), points), asked
        return
    for site in asked:
        for points in stacks:
            yield moved(paths, [site], points), (site,)


def _embeddings(spec: ModelSpec) -> tuple[Site, ...]:
    """Give the embeddings of the inputs, an encoder's too.

    Raises:
        SiteNotFoundError: The model has none.
    """
    found = tuple(
        info.site
        for info in spec.sites
        if info.site.part == "embed" and info.site.stack in _EMBEDDING
    )
    if not found:
        raise SiteNotFoundError("embed", spec.n_layers, ("along='activations'",))
    return found
