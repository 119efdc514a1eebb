"""How a metric bends as one site moves along its path."""

from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from funlens.data import Add, Site, places_of
from funlens.engine._passing import read_of, values_of
from funlens.engine._paths import Paths, edits_of
from funlens.engine._stacked import for_rows, tiled


def bend(paths: Paths, site: Site, points: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Give slope and curvature at each place, at points of a site's path.

    With `f(t)` the metric where each place `p` of the site has moved by `t[p]` of its
    way, these are `df/dt[p]`, and the sum over `q` of `d2f/dt[p]dt[q]`: a product of
    the Hessian and a vector, by a second backward. Summed over places they are the
    first and the second derivative along the path.

    Args:
        paths: The paths.
        site: The site.
        points: How far, from 0 to 1.

    Returns:
        Slopes and curvatures, `[point, batch, *places]`.
    """
    pair, times = paths.pair, len(points)
    step = paths.step(site)
    n_places = len(places_of(site, neurons=site.whole in pair.neurons))
    widths = [1] * (step.ndim - n_places)
    wide = torch.promote_types(step.dtype, torch.float32)
    far = torch.tensor(points, dtype=wide, device=step.device)
    shape = step.shape[:n_places]
    begin = far.view(-1, *[1] * n_places).expand(times, *shape).flatten(0, 1)
    with torch.enable_grad():
        way = begin.detach().clone().requires_grad_()
        moves = (way.view(*way.shape, *widths) * tiled(step, times)).to(step.dtype)
        record = Add(for_rows(site, times), moves)
        rows = attrs.evolve(
            paths.rows(site, times), edits=edits_of(pair, [record], times)
        )
        read, _ = read_of(pair.spec, pair.prepared, pair.metric, rows=rows, eager=True)
        total = values_of(pair.metric, read, times).sum()
        slopes = _gradient(total, way)
        curvatures = _gradient(slopes.sum(), way)
    laid = (times, *shape)
    return slopes.detach().view(laid), curvatures.detach().view(laid)


def _gradient(total: Tensor, way: Tensor) -> Tensor:
    """Give a gradient that has a graph; zeros where nothing depends on the way."""
    if not total.requires_grad:
        return torch.zeros_like(way)
    (found,) = torch.autograd.grad(
        total, [way], create_graph=True, allow_unused=True, materialize_grads=True
    )
    return found
