"""Circuits compared: what was found against what was expected."""

import attrs

from funlens.data._circuit import Circuit


@attrs.frozen(kw_only=True)
class CircuitComparison:
    """How well a circuit that was found agrees with an expected one.

    Shares of nothing are 1.

    Attributes:
        edge_precision: Share of the edges found that were expected.
        edge_recall: Share of the edges expected that were found.
        edge_jaccard: Edges of both, as a share of the edges of either.
        node_precision: As for edges, of senders.
        node_recall: As for edges, of senders.
        node_jaccard: As for edges, of senders.
    """

    edge_precision: float
    edge_recall: float
    edge_jaccard: float
    node_precision: float
    node_recall: float
    node_jaccard: float


def compare_circuits(found: Circuit, expected: Circuit) -> CircuitComparison:
    """Compare the edges and nodes of two circuits of one graph.

    Raises:
        InputError: They are of different graphs.
    """
    n_both = len(found & expected)
    here, there = set(found.nodes), set(expected.nodes)
    n_nodes = len(here & there)
    return CircuitComparison(
        edge_precision=_share(n_both, len(found)),
        edge_recall=_share(n_both, len(expected)),
        edge_jaccard=_share(n_both, len(found | expected)),
        node_precision=_share(n_nodes, len(here)),
        node_recall=_share(n_nodes, len(there)),
        node_jaccard=_share(n_nodes, len(here | there)),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0
