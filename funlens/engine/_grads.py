"""Gradients of a metric with respect to activations."""

from collections.abc import Callable, Sequence

import attrs
import torch
from torch import Tensor

from funlens.data import Intervention, ModelSpec, RunWithGrads, SiteLike
from funlens.engine._inputs import Inputs, prepare
from funlens.engine._plan import EVERY, Every, captured_sites, make_plan
from funlens.engine._run import Options, cache_of, traced
from funlens.errors import ShapeError


def run_with_grads(
    spec: ModelSpec,
    inputs: Inputs,
    metric: Callable[[Tensor], Tensor],
    *,
    interventions: Sequence[Intervention] = (),
    capture: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
) -> RunWithGrads:
    """Run forward and backward once, and keep activations and their gradients.

    No parameter gets a gradient.

    Args:
        spec: The model.
        inputs: As for `run`.
        metric: From logits to one number, or one for each row (which are summed).
        interventions: What to change.
        capture: Sites to keep.
        attention_mask: As for `run`.

    Returns:
        Logits, activations, the metric's value, and its gradient at each site; zeros
        where the metric does not depend on a site.

    Raises:
        ShapeError: The metric gives more than one number for each row.
    """
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    plan = make_plan(spec, prepared.frames, interventions, captured=wanted)
    with torch.enable_grad():
        options = Options(grad=True)
        logits, trace = traced(
            spec, prepared, plan, options=options, measures=True, links=True
        )
        value = metric(logits)
        if value.ndim > 1:
            raise ShapeError("the metric", tuple(value.shape), ())
        cache = cache_of(spec, trace)
        kept = {s: held for s, held in cache.entries if held.is_floating_point()}
        found = torch.autograd.grad(
            value.sum(), [*kept.values()], allow_unused=True, materialize_grads=True
        )
        trace.check_arrived()
    plain = {site: held.detach() for site, held in cache.entries}
    grads = dict(zip(kept, found, strict=True))
    return RunWithGrads(
        logits.detach(),
        attrs.evolve(cache, entries=plain),
        value.detach(),
        attrs.evolve(cache, entries=grads, receipts=()),
    )
