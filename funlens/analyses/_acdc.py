"""Automatic circuit discovery: edges are taken away as long as nothing is lost."""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import attrs
from torch import Tensor

from funlens.data import Circuit, ModelSpec
from funlens.engine import Inputs, MetricLike, SourceLike
from funlens.engine._circuit_runs import CircuitRuns, circuit_runs
from funlens.errors import OptionError

Better: TypeAlias = Literal["higher", "lower", "same"]
"""Which change of the metric is no loss: a rise, a fall, or none."""

_FIRST_STACK: Final = 8


def acdc(
    spec: ModelSpec,
    inputs: Inputs,
    source: SourceLike,
    *,
    metric: MetricLike,
    threshold: float,
    better: Better = "same",
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> Circuit:
    """Find a circuit by taking edges away one after the other, from the output on.

    Each edge is made to carry what the source has; if the metric loses less than the
    threshold against the circuit so far, it stays so (Conmy et al., "Towards Automated
    Circuit Discovery", 2023). Receivers are gone through from the last to the first,
    and their senders likewise; what no longer reaches the output is left out at once.
    Many edges are tried as one stack, each without those before it, and the stack is
    used up to the first edge that stays: the result is that of one run after the other.

    Args:
        spec: The model.
        inputs: The run that is kept as it is, one example for each row.
        source: What edges outside of the circuit carry: another text of the same shape,
            `Writes` such as a mean, or None for nothing.
        metric: As for `sweep`; the paper's is `kl_divergence` from the model's logits,
            with `better="lower"`.
        threshold: Loss up to which an edge is taken away, in units of the metric.
        better: What is no loss. With `"same"` every change is one.
        attention_mask: As for `run`.
        memory: As for `faithfulness`.

    Returns:
        The edges that stay.

    Raises:
        UnsupportedConfigError: As for `graph`.
        OptionError: The threshold is negative.

    Costs at least a run for each edge, from that receiver's layer on: about as many
    full forwards as half of the edges, more where many edges stay.
    """
    if not threshold >= 0:
        raise OptionError("threshold", f"it is {threshold}, below 0")
    runs = circuit_runs(
        spec,
        inputs,
        source,
        metric=metric,
        attention_mask=attention_mask,
        memory=memory,
    )
    graph = runs.wiring.graph
    mask, value = graph.mask.clone(), float(runs.whole.mean())
    for receiver in reversed(range(len(graph.receivers))):
        feeds = list(graph.feeds[receiver])
        if feeds and not bool(mask[:, feeds].any()):
            mask[receiver] = False
            continue
        tried = _Receiver(
            runs=runs, receiver=receiver, threshold=threshold, better=better
        )
        mask, value = tried.pruned(mask, value)
    return Circuit(graph=graph, mask=mask)


@attrs.frozen(kw_only=True, eq=False)
class _Receiver:
    """One receiver, whose senders are tried.

    Attributes:
        runs: What measures circuits.
        receiver: Its number.
        threshold: Loss up to which an edge is taken away.
        better: What is no loss.
    """

    runs: CircuitRuns
    receiver: int
    threshold: float
    better: Better

    def pruned(self, mask: Tensor, value: float) -> tuple[Tensor, float]:
        """Take away what can be, and give what is left and its metric."""
        left = self.runs.wiring.graph.before[self.receiver]
        size = _FIRST_STACK
        while left:
            tried = range(left - 1, max(-1, left - 1 - size), -1)
            values = self._without(mask, tried)
            n_gone = 0
            while n_gone < len(tried) and self._is_no_loss(value, values[n_gone]):
                mask[self.receiver, tried[n_gone]] = False
                value = values[n_gone]
                n_gone += 1
            left -= n_gone + (n_gone < len(tried))
            size = 2 * size if n_gone == len(tried) else max(1, (size + n_gone) // 2)
        return mask, value

    def _without(self, mask: Tensor, senders: Sequence[int]) -> list[float]:
        """Measure without the first of these senders, the first two, and so on."""
        masks: list[Tensor] = []
        for sender in senders:
            mask = mask.clone()
            mask[self.receiver, sender] = False
            masks.append(mask)
        return [float(row.mean()) for row in self.runs.measured(masks)]

    def _is_no_loss(self, before: float, after: float) -> bool:
        lost = {
            "higher": before - after,
            "lower": after - before,
            "same": abs(before - after),
        }
        return lost[self.better] < self.threshold
