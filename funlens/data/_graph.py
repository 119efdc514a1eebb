"""`Graph`: what writes to a residual stream, and what reads what was written."""

from collections.abc import Mapping
from functools import cached_property

import attrs
import torch
from jaxtyping import Bool
from torch import Tensor

from funlens.data._sites import Site
from funlens.errors import InputError, nearest


@attrs.frozen
class Edge:
    """What one component reads of what another wrote.

    Attributes:
        sender: Site of what is written: a head's `z`, `mlp_out`, or `resid_pre(0)` for
            what enters the first block.
        receiver: Site of what is read: a head's `q`, `k` or `v`, `mlp_in`, or
            `resid_post` of the last layer for what is unembedded.
    """

    sender: Site
    receiver: Site

    def __str__(self) -> str:
        """Write both ends."""
        return f"{self.sender} -> {self.receiver}"

    @classmethod
    def parse(cls, name: str) -> "Edge":
        """Read what `str` writes.

        Raises:
            InputError: It is no edge.
            SiteNotFoundError: One of its ends is no site.
        """
        sender, arrow, receiver = name.partition(" -> ")
        if not arrow:
            raise InputError(f"{name!r} is no edge", "two sites", "Write `a -> b`")
        return cls(Site.parse(sender), Site.parse(receiver))


@attrs.frozen(kw_only=True, slots=False)
class Graph:
    """The components of a model, and which of them read which.

    Every component reads the sum of what those before it wrote, so edges are pairs.

    Attributes:
        senders: What writes to the stream, in forward order.
        receivers: What reads it, in forward order.
        before: How many senders each receiver can read: always the first ones.
        feeds: Numbers of the senders that each receiver belongs to: a head's `q` feeds
            that head's `z`. None for what is unembedded.
    """

    senders: tuple[Site, ...] = attrs.field(repr=False)
    receivers: tuple[Site, ...] = attrs.field(repr=False)
    before: tuple[int, ...] = attrs.field(repr=False)
    feeds: tuple[tuple[int, ...], ...] = attrs.field(repr=False)

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return sum(self.before)

    @cached_property
    def mask(self) -> Bool[Tensor, "receiver sender"]:
        """Tell which pairs are edges."""
        columns = torch.arange(len(self.senders))
        return columns < torch.tensor(self.before)[:, None]

    @property
    def edges(self) -> tuple[Edge, ...]:
        """All edges, receiver by receiver."""
        pairs = zip(self.receivers, self.before, strict=True)
        return tuple(Edge(s, r) for r, n in pairs for s in self.senders[:n])

    def sender(self, site: Site) -> int:
        """Give the number of a sender.

        Raises:
            InputError: There is no such sender.
        """
        return _number(self._sender_at, site, "sender")

    def receiver(self, site: Site) -> int:
        """Give the number of a receiver.

        Raises:
            InputError: There is no such receiver.
        """
        return _number(self._receiver_at, site, "receiver")

    def place(self, edge: Edge) -> tuple[int, int]:
        """Give the numbers of an edge's receiver and sender.

        Raises:
            InputError: There is no such edge.
        """
        receiver, sender = self.receiver(edge.receiver), self.sender(edge.sender)
        if sender >= self.before[receiver]:
            raise InputError(
                f"{edge.sender} writes after {edge.receiver} has read",
                f"one of the first {self.before[receiver]} senders",
                "Look at `graph.edges`",
            )
        return receiver, sender

    @cached_property
    def _sender_at(self) -> dict[Site, int]:
        return {site: at for at, site in enumerate(self.senders)}

    @cached_property
    def _receiver_at(self) -> dict[Site, int]:
        return {site: at for at, site in enumerate(self.receivers)}

    def __repr__(self) -> str:
        """Say how large it is."""
        ends = f"{len(self.senders)} senders, {len(self.receivers)} receivers"
        return f"Graph({ends}, {self.n_edges} edges)"


def true_at(chosen: Bool[Tensor, " place"]) -> tuple[int, ...]:
    """Give the numbers of the places that are true."""
    return tuple(at for at in range(len(chosen)) if bool(chosen[at]))


def _number(known: Mapping[Site, int], site: Site, kind: str) -> int:
    if site not in known:
        near = ", ".join(nearest(str(site), map(str, known))[:4])
        problem = f"{site} is no {kind} of this graph"
        raise InputError(problem, f"one such as {near}", f"Look at `graph.{kind}s`")
    return known[site]
