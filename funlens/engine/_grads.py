"""Gradients of a metric with respect to activations."""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from funlens.data import (
    ActivationCache,
    Intervention,
    ModelSpec,
    RunWithGrads,
    Selection,
    Site,
    SiteLike,
)
from funlens.engine._inputs import Inputs, prepare
from funlens.engine._options import Options
from funlens.engine._plan import EVERY, Every, captured_sites, make_plan
from funlens.engine._trace import Trace
from funlens.engine._traced import cache_of, traced
from funlens.errors import ShapeError, UserFunctionError


def run_with_grads(
    spec: ModelSpec,
    inputs: Inputs,
    metric: Callable[[Tensor], Tensor],
    *,
    interventions: Sequence[Intervention] = (),
    capture: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
    logits_at: Selection | slice | Tensor | None = None,
) -> RunWithGrads:
    """Run forward and backward once, and keep activations and their gradients.

    A gradient is what a small change of that site alone would do, as `Add` makes it:
    other readers of the same tensor do not count. No parameter gets a gradient.

    Args:
        spec: The model.
        inputs: As for `run`.
        metric: From logits to one number, or one for each row (which are summed).
        interventions: What to change.
        capture: Sites to keep. A selection costs the memory of its whole site.
        attention_mask: As for `run`.
        logits_at: As for `run`: the positions that the metric is given.

    Returns:
        Logits, activations, the metric's value, and its gradient at each site but those
        of indices; zeros where the metric does not depend on a site.

    Raises:
        ShapeError: The metric gives more than one number for each row.
        UserFunctionError: The metric gives no tensor, or one that was detached.
    """
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    whole = tuple(dict.fromkeys(site.whole for site in wanted))
    make_plan(spec, prepared.frames, (), captured=wanted)  # checks the selections
    plan = make_plan(spec, prepared.frames, interventions, captured=whole, links=True)
    options = Options(grad=True, logits_at=logits_at)
    with torch.enable_grad():
        logits, trace = traced(
            spec, prepared, plan, options=options, measures=True, links=True
        )
        value = _measured(metric, logits)
        cache = cache_of(spec, trace)
        grads = _grads(value, trace, [s for s in cache if cache[s].is_floating_point()])
        trace.check_arrived()
    plain = {site: held.detach() for site, held in cache.entries}
    smooth = [site for site in wanted if site.whole in grads]
    return RunWithGrads(
        logits.detach(),
        _cut(attrs.evolve(cache, entries=plain), wanted),
        value.detach(),
        _cut(attrs.evolve(cache, entries=grads, receipts=()), smooth),
    )


def _grads(value: Tensor, trace: Trace, sites: Sequence[Site]) -> dict[Site, Tensor]:
    """Give the gradient at each site, summed where a forward passes it twice."""
    nodes = [(site, held) for site in sites for held in trace.captured[site]]
    found = torch.autograd.grad(
        value.sum(),
        [held for _, held in nodes],
        allow_unused=True,
        materialize_grads=True,
    )
    summed: dict[Site, Tensor] = {}
    for (site, _), grad in zip(nodes, found, strict=True):
        summed[site] = summed[site] + grad if site in summed else grad
    return summed


def _measured(metric: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
    value = metric(logits)
    if not isinstance(value, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
        problem = f"it returned {type(value).__name__}"
        raise UserFunctionError("the metric", "logits", problem)
    if not value.requires_grad:
        problem = "what it returned does not depend on the logits it was given"
        raise UserFunctionError("the metric", "logits", problem)
    if value.ndim > 1:
        raise ShapeError("the metric", tuple(value.shape), ())
    return value


def _cut(cache: ActivationCache, wanted: Sequence[Site]) -> ActivationCache:
    """Cut selections out of the whole sites."""
    return attrs.evolve(cache, entries={site: cache[site] for site in wanted})
