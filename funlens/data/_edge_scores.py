"""`EdgeScores`: a number for each edge of a graph, and circuits made of the best."""

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from funlens.data._circuit import Circuit
from funlens.data._graph import Edge, Graph
from funlens.errors import OptionError


@attrs.frozen(kw_only=True, eq=False)
class EdgeScores:
    """What each edge does to a metric.

    Attributes:
        graph: Components and edges of the model.
        rows: The score of each example, `[batch, receiver, sender]`, in units of the
            metric; 0 where there is no edge.
        metric: Name of the metric.
    """

    graph: Graph
    rows: Float[Tensor, "batch receiver sender"] = attrs.field(repr=False)
    metric: str

    @property
    def values(self) -> Float[Tensor, "receiver sender"]:
        """The mean over examples."""
        return self.rows.mean(0)

    def __getitem__(self, edge: Edge) -> Tensor:
        """Give the mean score of an edge.

        Raises:
            InputError: There is no such edge.
        """
        return self.values[self.graph.place(edge)]

    def top(self, n_edges: int, *, signed: bool = False) -> Circuit:
        """Keep the edges with the largest scores.

        Args:
            n_edges: How many.
            signed: Whether negative scores count as small; else their size counts.

        Raises:
            OptionError: There are not so many.
        """
        if not 0 <= n_edges <= self.graph.n_edges:
            problem = f"{n_edges} of {self.graph.n_edges} edges"
            raise OptionError("n_edges", problem)
        ranked = self._ranked(signed=signed)
        chosen = ranked.flatten().topk(n_edges).indices
        mask = torch.zeros(ranked.numel(), dtype=torch.bool)
        mask[chosen.cpu()] = True
        return Circuit(graph=self.graph, mask=mask.reshape(ranked.shape))

    def above(self, threshold: float, *, signed: bool = False) -> Circuit:
        """Keep the edges whose score is above a threshold.

        Args:
            threshold: In units of the metric.
            signed: As for `top`.
        """
        mask = (self._ranked(signed=signed) > threshold).cpu()
        return Circuit(graph=self.graph, mask=mask & self.graph.mask)

    def _ranked(self, *, signed: bool) -> Tensor:
        values = self.values if signed else self.values.abs()
        return values.masked_fill(~self.graph.mask.to(values.device), -torch.inf)

    def __repr__(self) -> str:
        """Say how large it is, and what the largest is."""
        largest, n_edges = float(self.values.abs().max()), self.graph.n_edges
        return f"EdgeScores({self.metric}: {n_edges} edges, up to {largest:.4g})"
