"""`CircuitEffects`: what is left of a metric in circuits."""

import attrs
from jaxtyping import Float
from torch import Tensor


@attrs.frozen(kw_only=True, eq=False)
class CircuitEffects:
    """A metric of circuits, of the whole model and of none of its edges.

    Attributes:
        rows: The metric of each circuit and example, `[circuit, batch]`.
        whole: The metric of the model, `[batch]`.
        empty: The metric where every edge carries the source, `[batch]`.
        metric: Name of the metric.
    """

    rows: Float[Tensor, "circuit batch"] = attrs.field(repr=False)
    whole: Float[Tensor, " batch"] = attrs.field(repr=False)
    empty: Float[Tensor, " batch"] = attrs.field(repr=False)
    metric: str

    @property
    def values(self) -> Float[Tensor, " circuit"]:
        """The metric's mean over examples."""
        return self.rows.mean(-1)

    @property
    def faithfulness(self) -> Float[Tensor, " circuit"]:
        """Share of the metric that is left: 1 as in the model, 0 as without any edge.

        It is `(circuit - empty) / (whole - empty)`, of means over examples.
        """
        empty = self.empty.mean()
        return (self.values - empty) / (self.whole.mean() - empty)

    def __repr__(self) -> str:
        """Say how faithful they are."""
        shown = ", ".join(f"{float(one):.3g}" for one in self.faithfulness[:8])
        more = ", …" if len(self.rows) > 8 else ""  # noqa: PLR2004 -- as many as fit
        return f"CircuitEffects({self.metric}: faithfulness {shown}{more})"
