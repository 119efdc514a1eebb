"""Runs of circuits: a metric where all other edges carry something else."""

from collections.abc import Sequence
from typing import Final

import attrs
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import Apply, Circuit, ModelSpec
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._measure import ends_of, row_numbers
from funlens.engine._metrics import Metric, MetricLike, metric_of
from funlens.engine._rewired import (
    Begun,
    SourceLike,
    edits_of,
    rewired,
    source_values,
    unedited,
    wiring_of,
)
from funlens.engine._stacks import in_stacks, most_rows
from funlens.engine._wiring import Values, Wiring
from funlens.errors import InputError

_COPIES: Final = 4  # of what receivers of a layer read, alive at once


@attrs.frozen(kw_only=True, eq=False)
class CircuitRuns:
    """What runs of circuits of one model on one text share.

    Attributes:
        spec: The model.
        prepared: The inputs.
        wiring: The model's.
        source: What edges outside of a circuit carry; empty for nothing.
        metric: What is measured.
        begun: The run without edits.
        whole: `[batch]`, the metric of that run.
        most: How many circuits are run at once.
    """

    spec: ModelSpec
    prepared: Prepared
    wiring: Wiring
    source: Values
    metric: Metric
    begun: Begun
    whole: Float[Tensor, " batch"]
    most: int

    def measured(
        self, masks: Sequence[Bool[Tensor, "receiver sender"]]
    ) -> Float[Tensor, "circuit batch"]:
        """Measure circuits, each given by the edges that it keeps."""
        rows = in_stacks(masks, self._stack, self.most)
        return torch.stack([found for _, found in rows])

    @torch.no_grad()
    def _stack(self, masks: Sequence[Tensor]) -> list[Tensor]:
        graph = self.wiring.graph
        cuts = torch.stack([graph.mask & ~mask.cpu() for mask in masks])
        values = rewired(
            self.spec,
            self.prepared,
            self.wiring,
            cuts.to(self.spec.device, self.spec.dtype),
            self.source,
            ends=ends_of(self.spec, self.metric),
            begun=self.begun,
        )
        return [row_numbers(self.metric, value).cpu() for (value,) in values]


def circuit_runs(
    spec: ModelSpec,
    inputs: Inputs,
    source: SourceLike,
    *,
    metric: MetricLike,
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> CircuitRuns:
    """Run a model without edits, and keep what runs of its circuits need.

    Raises:
        UnsupportedConfigError: As for `graph`.
        OptionError: The limit of memory is none.
        ShapeError: The source has other rows or positions than the inputs.
    """
    wiring = wiring_of(spec)
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    machinery: Machinery = spec.engine
    most = most_rows(spec, _row_bytes(spec, prepared, wiring), memory)
    most = 1 if machinery.arch.mixes_rows else most // prepared.main.batch
    named = metric_of(metric)
    ends = attrs.evolve(ends_of(spec, named), logits_at=None)
    with torch.no_grad():
        values = source_values(spec, wiring, prepared, source)
        (read,), begun = unedited(spec, prepared, wiring, ends)
        whole = row_numbers(named, read).cpu()
    return CircuitRuns(
        spec=spec,
        prepared=prepared,
        wiring=wiring,
        source=values,
        metric=named,
        begun=begun,
        whole=whole,
        most=max(1, most),
    )


def _row_bytes(spec: ModelSpec, prepared: Prepared, wiring: Wiring) -> int:
    """Estimate what one row of a circuit's run takes: what was written, and is read."""
    widest = max(len(reader.receivers) for reader in wiring.readers)
    streams = len(wiring.graph.senders) + _COPIES * widest
    logits = spec.d_vocab
    n_pos = prepared.main.n_pos
    return n_pos * (streams * spec.d_model + logits) * spec.dtype.itemsize


def checked_circuits(runs: CircuitRuns, circuits: Sequence[Circuit]) -> list[Tensor]:
    """Give the masks of circuits.

    Raises:
        InputError: There is none, or one of them is of another graph.
    """
    if not circuits:
        raise InputError("there is no circuit", "one or more", "Use `acdc`, or `top`")
    for circuit in circuits:
        check_graph(runs.wiring, circuit)
    return [circuit.mask for circuit in circuits]


def check_graph(wiring: Wiring, circuit: Circuit) -> None:
    """Refuse a circuit of another graph.

    Raises:
        InputError: It is.
    """
    if circuit.graph != wiring.graph:
        raise InputError(
            f"the circuit is of {circuit.graph}, the model has {wiring.graph}",
            "a circuit of this model's graph",
            "Make it with `graph(spec)`",
        )


def circuit_edits(
    spec: ModelSpec,
    circuit: Circuit,
    inputs: Inputs,
    source: SourceLike = None,
    *,
    attention_mask: Tensor | None = None,
) -> tuple[Apply, ...]:
    """Turn a circuit into interventions: edges outside of it carry something else.

    Each receiver with a cut edge reads the stream less what the cut senders wrote in
    the same run, plus what the source has in its place. They can be passed to `run`
    and its kin, beside others.

    Args:
        spec: The model.
        circuit: What stays as it is.
        inputs: What the run will be given: source and inputs must have the same shape.
        source: What other edges carry: another text, `Writes` such as a mean, or None
            for nothing.
        attention_mask: As for `run`.

    Raises:
        InputError: The circuit is of another graph.
        ShapeError: The source has other rows or positions than the inputs.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean, corrupted = "Tom had a ball.", "Sam had a ball."
        >>> nothing = fl.Circuit.empty(fl.graph(spec))
        >>> edits = fl.circuit_edits(spec, nothing, clean, corrupted)
        >>> logits = fl.run(spec, clean, edits)  # all is as in the other text
        >>> torch.allclose(logits, fl.run(spec, corrupted), atol=1e-4)
        True
    """
    wiring = wiring_of(spec)
    check_graph(wiring, circuit)
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    values = source_values(spec, wiring, prepared, source)
    cuts = (circuit.graph.mask & ~circuit.mask)[None]
    return edits_of(wiring, cuts.to(spec.device, spec.dtype), values)
