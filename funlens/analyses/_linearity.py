"""How far to trust a linear estimate of patching."""

from collections.abc import Sequence

import torch
from torch import Tensor

from funlens.data import Linearity, ModelSpec, Site, SiteLike
from funlens.engine import EVERY, Every, Inputs
from funlens.engine._curvature import bend
from funlens.engine._metrics import MetricLike
from funlens.engine._pairs import Source, attributions_of, paired
from funlens.engine._paths import cut_points, midpoints, paths_of


def linearity(
    spec: ModelSpec,
    inputs: Inputs,
    source: Source,
    *,
    metric: MetricLike,
    sites: Sequence[SiteLike] | Every = EVERY,
    steps: int = 1,
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> Linearity:
    """Say how much of what patching each site does is linear, with error bars.

    Let `f(t)` be the metric where a site has moved by `t` of the way from the value in
    `inputs` to that in `source`. `attribution_patching` estimates `f(1) - f(0)` by the
    slope `f'(0)`; it is wrong by the mean of `f'(t) - f'(0)` along the way. Here that
    is found from the curvature: `f''(0) / 2` with one step, a product of the step, the
    metric's Hessian and the step again. With more steps slope and curvature are taken
    at the beginning of each of so many equal parts of the way, and what is left out of
    account falls with the square of their number.

    The error bar of a site is the size of that, and its linearity score (ours)
    `|f'(0)| / (|f'(0)| + error bar)`: 1 where the metric is linear along the way, 1/2
    where what is left out is as large as the estimate. Both are split among the places
    of a site, as parts of one move of the whole site. A selection is a site of its
    own: then only what is selected moves, as in `Patch` of that selection.

    Args:
        spec: The model.
        inputs: As for `attribution_patching`.
        source: As for `attribution_patching`.
        metric: As for `attribution_patching`, with two derivatives.
        sites: Sites, with selections or whole, or parts.
        steps: Parts of the way in which the curvature is taken for constant.
        attention_mask: As for `run`.
        memory: How many bytes the activations of points that are run together may
            take; a quarter of what is free if left out.

    Returns:
        The first order, and what it leaves out, at each place of each site.

    Raises:
        FunlensError: As for `attribution_patching`.
        ExceptionGroup: Several such faults.

    Costs one forward, and for each site and step a forward, a backward, and a backward
    through both, from the site's layer on, with eager attention. That is more than
    patching the whole site: it is for sites of which many places are estimated.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean, corrupted = "Tom had a ball.", "Ben had a ball."
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " Tom"))
        >>> found = fl.linearity(spec, corrupted, clean, metric=metric, sites=[fl.z])
        >>> found.scores(fl.z, "layer").axes
        ('layer',)
    """
    midpoints(steps)
    pair = paired(
        spec,
        inputs,
        source,
        metric=metric,
        sites=sites,
        attention_mask=attention_mask,
        cuts=True,
    )
    points = tuple(step / steps for step in range(steps))
    stacks = tuple(cut_points(pair, points, memory))
    paths = paths_of(pair)
    first: dict[Site, Tensor] = {}
    rest: dict[Site, Tensor] = {}
    for site in pair.asked:
        bends = [bend(paths, site, some) for some in stacks]
        slopes, curvatures = (torch.cat(each) for each in zip(*bends, strict=True))
        first[site] = slopes[0]
        further = (slopes - slopes[0]).mean(0)
        rest[site] = further + curvatures.mean(0) / (2 * steps)
    return Linearity(
        first=attributions_of(pair, first, paths.measured),
        rest=attributions_of(pair, rest, paths.measured),
    )
