"""What each edge does to a metric, estimated from gradients."""

from collections.abc import Iterator
from functools import reduce
from typing import get_args

import torch
from torch import Tensor

from funlens.data import Add, EdgeScores, ModelSpec, Site
from funlens.engine import Along, Inputs, MetricLike, SourceLike, writes
from funlens.engine._edge_gradients import edge_products
from funlens.engine._inputs import prepare
from funlens.engine._metrics import metric_of
from funlens.engine._rewired import source_values, wiring_of
from funlens.engine._wiring import Values, Wiring
from funlens.errors import OptionError


def edge_attribution(
    spec: ModelSpec,
    inputs: Inputs,
    source: SourceLike,
    *,
    metric: MetricLike,
    steps: int | None = None,
    along: Along = "inputs",
    attention_mask: Tensor | None = None,
) -> EdgeScores:
    """Estimate what every edge would do to a metric, if it carried something else.

    Edge attribution patching (Syed et al., "Attribution Patching Outperforms Automated
    Circuit Discovery", 2023): the score of an edge is what its sender writes in the
    source less what it writes here, times the gradient of the metric at what its
    receiver reads. Receivers read the stream before the norm, and the norm's own
    gradient counts. With `steps`, gradients are the mean over a path to the source
    (EAP-IG, Hanna et al., "Have Faith in Faithfulness", 2024), at the middle of each
    step, where theirs takes its end.

    Args:
        spec: The model.
        inputs: The run that is changed, one example for each row; often the clean one.
        source: What edges would carry: another text of the same shape, `Writes` such as
            a mean, or None for nothing.
        metric: Any function with a gradient, as for `sweep`.
        steps: Points of the path, for integrated gradients; None for the gradient here.
        along: `"inputs"` moves what enters the first block; `"activations"` each
            component's output in turn.
        attention_mask: As for `run`.

    Returns:
        The score of each edge for each example, in units of the metric: the change that
        is expected if the edge carried the source's value.

    Raises:
        UnsupportedConfigError: As for `graph`.
        OptionError: `steps` is below 1, or `along` is neither.
        UserFunctionError: The metric has no gradient.

    Costs a forward of the source, a forward and one forward and backward of the inputs;
    with `steps` so many forwards and backwards, along activations for each layer two.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean = "Tom had a ball. Ben gave Tom"
        >>> corrupted = "Sam had a ball. Ben gave Tom"
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " a"))
        >>> scores = fl.edge_attribution(spec, clean, corrupted, metric=metric)
        >>> scores.top(10)
        Circuit(10 of 479 edges)
    """
    if steps is not None and steps < 1:
        raise OptionError("steps", f"it is {steps}, below 1")
    if along not in get_args(Along):
        raise OptionError("along", f"it is {along!r}", get_args(Along))
    wiring = wiring_of(spec)
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    here = writes(spec, prepared.kwargs).values
    there = source_values(spec, wiring, prepared, source)
    moved = tuple(
        (there[at] if there else torch.zeros_like(wrote)) - wrote
        for at, wrote in enumerate(here)
    )
    path = _path(wiring, moved, steps=steps, along=along)
    products = (
        edge_products(spec, prepared, wiring, part, metric=metric, interventions=edits)
        for edits, part in path
    )
    rows = reduce(torch.add, products) / (steps or 1)
    return EdgeScores(graph=wiring.graph, rows=rows, metric=metric_of(metric).name)


def _path(
    wiring: Wiring, moved: Values, *, steps: int | None, along: Along
) -> Iterator[tuple[tuple[Add, ...], dict[int, Tensor]]]:
    """Go through the points of the path: what is added there, and what it scores."""
    if steps is None:
        yield (), dict(enumerate(moved))
        return
    for step in range(steps):
        share = (step + 0.5) / steps
        if along == "inputs":
            yield (_added(wiring, 0, share * moved[0]),), dict(enumerate(moved))
            continue
        for at, part in enumerate(moved):
            yield (_added(wiring, at, share * part),), {at: part}


def _added(wiring: Wiring, at: int, part: Tensor) -> Add:
    """Move all that a writer adds to the stream."""
    sender = wiring.writers[at].senders[0]
    site = Site(part="attn_out", layer=sender.layer) if sender.part == "z" else sender
    return Add(site, part.sum(0))
