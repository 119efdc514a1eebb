"""Whether a circuit holds all that does something, and nothing else."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from funlens.data import Circuit, CircuitEffects, Effects, ModelSpec
from funlens.engine import (
    Inputs,
    MetricLike,
    SourceLike,
)
from funlens.engine._circuit_runs import checked_circuits, circuit_runs

By: TypeAlias = Literal["edge", "node"]
"""What is taken away: one edge, or all that one sender writes."""


def completeness(
    spec: ModelSpec,
    circuit: Circuit,
    inputs: Inputs,
    source: SourceLike,
    *,
    metric: MetricLike,
    knockouts: Sequence[Circuit] | None = None,
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> tuple[CircuitEffects, CircuitEffects]:
    """Take edges away from a circuit and from the model: is the same lost?

    A complete circuit behaves as the model does whatever is knocked out of both (Wang
    et al., "Interpretability in the Wild", 2022). By default the circuit itself is
    taken away, which leaves nothing of it, and of the model all that it does not hold:
    the completeness of Marks et al., "Sparse Feature Circuits", 2024.

    Args:
        spec: The model.
        circuit: The circuit.
        inputs: As for `faithfulness`.
        source: As for `faithfulness`.
        metric: As for `sweep`.
        knockouts: What is taken away, each by itself; the whole circuit if left out.
        attention_mask: As for `run`.
        memory: As for `faithfulness`.

    Returns:
        What is left of the circuit without each knockout, and of the model without it.

    Raises:
        FunlensError: As for `faithfulness`.
    """
    runs = circuit_runs(
        spec,
        inputs,
        source,
        metric=metric,
        attention_mask=attention_mask,
        memory=memory,
    )
    (kept,) = checked_circuits(runs, [circuit])
    taken = checked_circuits(runs, [circuit] if knockouts is None else knockouts)
    mask = runs.wiring.graph.mask
    masks = [held & ~one for held in (kept, mask) for one in taken]
    *rows, empty = runs.measured([*masks, torch.zeros_like(mask)])
    left, right = (
        CircuitEffects(
            rows=torch.stack(part),
            whole=runs.whole,
            empty=empty,
            metric=runs.metric.name,
        )
        for part in (rows[: len(taken)], rows[len(taken) :])
    )
    return left, right


def minimality(
    spec: ModelSpec,
    circuit: Circuit,
    inputs: Inputs,
    source: SourceLike,
    *,
    metric: MetricLike,
    by: By = "edge",
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> Effects:
    """Take each part of a circuit away by itself: does any of them do nothing?

    Args:
        spec: The model.
        circuit: The circuit.
        inputs: As for `faithfulness`.
        source: As for `faithfulness`.
        metric: As for `sweep`.
        by: Whether edges are taken away, or all edges of a sender.
        attention_mask: As for `run`.
        memory: As for `faithfulness`.

    Returns:
        The metric without each part, on the axis `edge` or `node`; its baseline is the
        circuit's, so that `.change` is what the part did.

    Raises:
        FunlensError: As for `faithfulness`.

    Costs a run for each part, from the first layer on that the circuit cuts.
    """
    runs = circuit_runs(
        spec,
        inputs,
        source,
        metric=metric,
        attention_mask=attention_mask,
        memory=memory,
    )
    (kept,) = checked_circuits(runs, [circuit])
    labels, masks = zip(("", kept), *_without(circuit, by), strict=True)
    baseline, *rows = runs.measured(masks)
    found = torch.stack(rows) if rows else baseline.new_zeros(0, len(baseline))
    return Effects(
        values=found.mean(-1),
        rows=found,
        baseline=baseline,
        axes=(by,),
        labels={by: labels[1:]},
        metric=(runs.metric.name,),
        done=torch.ones(len(rows), dtype=torch.bool),
    )


def _without(circuit: Circuit, by: By) -> Iterator[tuple[str, Tensor]]:
    """Go through the parts: their names, and what is left without them."""
    graph = circuit.graph
    if by == "node":
        for node in circuit.nodes:
            mask = circuit.mask.clone()
            mask[:, graph.sender(node)] = False
            yield str(node), mask
        return
    for edge in circuit.edges:
        mask = circuit.mask.clone()
        mask[graph.place(edge)] = False
        yield str(edge), mask
