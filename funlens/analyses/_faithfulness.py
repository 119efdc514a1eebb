"""How much of what a model does its circuits do."""

from collections.abc import Sequence

import torch
from torch import Tensor

from funlens.data import Circuit, CircuitEffects, ModelSpec
from funlens.engine import (
    Inputs,
    MetricLike,
    SourceLike,
)
from funlens.engine._circuit_runs import checked_circuits, circuit_runs


def faithfulness(
    spec: ModelSpec,
    circuits: Circuit | Sequence[Circuit],
    inputs: Inputs,
    source: SourceLike,
    *,
    metric: MetricLike,
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> CircuitEffects:
    """Measure what is left of a metric where only a circuit's edges act.

    All other edges carry what the source has: another text for resampling (Hanna et
    al., 2024), a mean (Wang et al., 2022), or nothing. Circuits are stacked, and each
    stack begins at the first layer in which something is cut.

    Args:
        spec: The model.
        circuits: A circuit, or several.
        inputs: The run that they are measured on, one example for each row.
        source: What other edges carry: another text of the same shape, `Writes` such
            as `writes(spec, text).mean()`, or None for zeros.
        metric: As for `sweep`.
        attention_mask: As for `run`.
        memory: How many bytes the activations of a stack may take; a quarter of what
            is free if left out. A stack that does not fit is halved.

    Returns:
        The metric of each circuit; `.faithfulness` is its share of the model's.

    Raises:
        UnsupportedConfigError: As for `graph`.
        InputError: There is no circuit, or one of another graph.
        ShapeError: The source has other rows or positions than the inputs.

    Costs a forward of each text, and for each circuit about two from the first cut on.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean, corrupted = "Tom had a ball.", "Sam had a ball."
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " Tom"))
        >>> every = fl.Circuit.whole(fl.graph(spec))
        >>> fl.faithfulness(spec, every, clean, corrupted, metric=metric)
        CircuitEffects(log-probability: faithfulness 1)
    """
    runs = circuit_runs(
        spec,
        inputs,
        source,
        metric=metric,
        attention_mask=attention_mask,
        memory=memory,
    )
    several = (circuits,) if isinstance(circuits, Circuit) else circuits
    masks = checked_circuits(runs, several)
    none = torch.zeros_like(runs.wiring.graph.mask)
    *rows, empty = runs.measured([*masks, none])
    return CircuitEffects(
        rows=torch.stack(rows),
        whole=runs.whole,
        empty=empty,
        metric=runs.metric.name,
    )
