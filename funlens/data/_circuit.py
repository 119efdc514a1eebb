"""`Circuit`: some of the edges of a graph."""

from collections.abc import Callable, Iterable

import attrs
import torch
from jaxtyping import Bool
from torch import Tensor

from funlens.data._graph import Edge, Graph, true_at
from funlens.data._sites import Site
from funlens.errors import InputError, ShapeError


def _is_mask(circuit: "Circuit", _: object, mask: Tensor) -> None:
    """Refuse what chooses no edges of the graph."""
    expected = circuit.graph.mask
    if mask.shape != expected.shape:
        axes = ("receiver", "sender")
        raise ShapeError("the mask", tuple(mask.shape), tuple(expected.shape), axes)
    if bool((mask & ~expected).any()):
        raise InputError(
            "the mask holds pairs that are no edges",
            "a sender that writes before its receiver reads",
            "Use `mask & graph.mask`",
        )


@attrs.frozen(kw_only=True, eq=False)
class Circuit:
    """Some edges of a model's graph; what else there is counts as ablated.

    Circuits of one graph are sets: `|`, `&`, `-`, `<=`, `==` and `~` mean what they
    mean there.

    Attributes:
        graph: All components and edges of the model.
        mask: `[receiver, sender]`, true where an edge belongs to the circuit; not to be
            written to.
    """

    graph: Graph
    mask: Bool[Tensor, "receiver sender"] = attrs.field(repr=False, validator=_is_mask)

    @classmethod
    def from_edges(cls, graph: Graph, edges: Iterable[Edge | str]) -> "Circuit":
        """Make the circuit of some edges.

        Args:
            graph: The model's.
            edges: Edges, or their names, such as `"z.0[head=1] -> q.1[head=0]"`.

        Raises:
            InputError: The graph has no such edge.
        """
        mask = torch.zeros_like(graph.mask)
        for edge in edges:
            named = Edge.parse(edge) if isinstance(edge, str) else edge
            mask[graph.place(named)] = True
        return cls(graph=graph, mask=mask)

    @classmethod
    def from_nodes(cls, graph: Graph, nodes: Iterable[Site | str]) -> "Circuit":
        """Make the circuit of some senders: all that they write is kept.

        Args:
            graph: The model's.
            nodes: Senders, or their names. What enters the first block is always in it.

        Raises:
            InputError: The graph has no such sender.
        """
        sites = (Site.parse(node) if isinstance(node, str) else node for node in nodes)
        chosen = torch.zeros(len(graph.senders), dtype=torch.bool)
        chosen[[0, *map(graph.sender, sites)]] = True
        return cls(graph=graph, mask=graph.mask & chosen)

    @classmethod
    def whole(cls, graph: Graph) -> "Circuit":
        """Make the circuit of all edges."""
        return cls(graph=graph, mask=graph.mask)

    @classmethod
    def empty(cls, graph: Graph) -> "Circuit":
        """Make the circuit of none."""
        return cls(graph=graph, mask=torch.zeros_like(graph.mask))

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges, receiver by receiver."""
        graph = self.graph
        return tuple(
            Edge(graph.senders[sender], receiver)
            for receiver, row in zip(graph.receivers, self.mask, strict=True)
            for sender in true_at(row)
        )

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.mask.sum())

    @property
    def nodes(self) -> tuple[Site, ...]:
        """The senders that an edge begins at."""
        return tuple(self.graph.senders[at] for at in true_at(self.mask.any(0)))

    def trimmed(self) -> "Circuit":
        """Leave out edges that lie on no path from the input to the output.

        A sender counts where one of its own receivers reads something that counts; the
        first sender always does, and what is unembedded.
        """
        forward = self._reached()
        graph, mask = self.graph, self.mask & forward
        needed = torch.zeros(len(graph.senders), dtype=torch.bool)
        for receiver in reversed(range(len(graph.receivers))):
            feeds = graph.feeds[receiver]
            if not feeds or bool(needed[list(feeds)].any()):
                needed |= mask[receiver]
            else:
                mask[receiver] = False
        return attrs.evolve(self, mask=mask)

    def _reached(self) -> Bool[Tensor, " sender"]:
        """Tell which senders something of the input gets to."""
        graph = self.graph
        reached = torch.zeros(len(graph.senders), dtype=torch.bool)
        reached[0] = True
        for receiver, feeds in enumerate(graph.feeds):
            if feeds and bool((self.mask[receiver] & reached).any()):
                reached[list(feeds)] = True
        return reached

    def __contains__(self, edge: object) -> bool:
        """Tell whether an edge belongs to the circuit."""
        return isinstance(edge, Edge) and bool(self.mask[self.graph.place(edge)])

    def __len__(self) -> int:
        """Count the edges."""
        return self.n_edges

    def __or__(self, other: "Circuit") -> "Circuit":
        """Join the edges of both."""
        return self._with(other, torch.logical_or)

    def __and__(self, other: "Circuit") -> "Circuit":
        """Keep the edges that both have."""
        return self._with(other, torch.logical_and)

    def __sub__(self, other: "Circuit") -> "Circuit":
        """Leave out the edges of the other."""
        return self & ~other

    def __invert__(self) -> "Circuit":
        """Give the edges that are not in the circuit."""
        return attrs.evolve(self, mask=self.graph.mask & ~self.mask)

    def __le__(self, other: "Circuit") -> bool:
        """Tell whether the other has all edges of this one."""
        return self == self & other

    def __eq__(self, other: object) -> bool:
        """Tell whether both have the same edges of the same graph."""
        if not isinstance(other, Circuit):
            return NotImplemented
        return self.graph == other.graph and torch.equal(self.mask, other.mask)

    def __hash__(self) -> int:
        """Hash the edges."""
        return hash((self.graph, self.mask.numpy(force=True).tobytes()))

    def _with(
        self, other: "Circuit", join: Callable[[Tensor, Tensor], Tensor]
    ) -> "Circuit":
        if self.graph != other.graph:
            raise InputError(
                f"one circuit is of {self.graph}, the other of {other.graph}",
                "circuits of one graph",
                "Find both with one model, or models of the same sizes",
            )
        return attrs.evolve(self, mask=join(self.mask, other.mask))

    def __repr__(self) -> str:
        """Say how large it is."""
        return f"Circuit({self.n_edges} of {self.graph.n_edges} edges)"
