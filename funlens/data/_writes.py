"""`Writes`: what every component of a model wrote to its stream in a run."""

import attrs
from jaxtyping import Float
from torch import Tensor

from funlens.data._graph import Graph
from funlens.data._sites import Site


@attrs.frozen(kw_only=True, eq=False)
class Writes:
    """What every sender of a graph wrote.

    Attributes:
        graph: The model's.
        values: `[sender, batch, pos, d_model]` of the senders of each place in turn;
            together they are those of the graph. Not to be written to.
    """

    graph: Graph
    values: tuple[Tensor, ...] = attrs.field(repr=False)

    def __getitem__(self, sender: Site) -> Float[Tensor, "batch pos d_model"]:
        """Give what one sender wrote.

        Raises:
            InputError: There is no such sender.
        """
        at = self.graph.sender(sender)
        for value in self.values:
            if at < len(value):
                return value[at]
            at -= len(value)
        raise AssertionError(sender)

    def mean(self, *, by_position: bool = False) -> "Writes":
        """Average over examples, for mean ablation.

        Args:
            by_position: Whether each position keeps its own mean; else positions are
                averaged too. Padding counts as any other position.
        """
        axes = (1,) if by_position else (1, 2)
        means = tuple(value.mean(axes, keepdim=True) for value in self.values)
        return attrs.evolve(self, values=means)

    def __repr__(self) -> str:
        """Say of how many examples."""
        _, batch, n_pos, _ = self.values[0].shape
        return f"Writes({len(self.graph.senders)} senders, batch {batch}, pos {n_pos})"
