"""How a model's components write to its stream and read from it, found by trying."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Final, TypeAlias

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import (
    W_K,
    W_Q,
    W_V,
    Machinery,
    b_K,
    b_Q,
    b_V,
    find,
)
from funlens.data import ActivationCache, Graph, ModelSpec, Site
from funlens.engine._inputs import accepts
from funlens.engine._run import run_with_cache
from funlens.errors import FunlensError, UnsupportedConfigError

_HEADS: Final = ("q", "k", "v")
_WEIGHTS: Final = {"q": (W_Q, b_Q), "k": (W_K, b_K), "v": (W_V, b_V)}
_FIRST: Final = Site(part="resid_pre", layer=0)
_FEEDS: Final = {
    "q": "z",
    "k": "z",
    "v": "z",
    "attn_in": "attn_out",
    "ssm_in": "ssm_out",
    "mlp_in": "mlp_out",
}
_UNREAD: Final = frozenset({"macaron_out", "cross_out", "dense_out"})
_LOOKED_AT: Final = frozenset(
    {*_FEEDS, *_FEEDS.values(), "attn_proj", "resid_pre", "resid_mid"}
)
_CLOSE: Final[Mapping[torch.dtype, float]] = {torch.float64: 1e-6, torch.float32: 1e-3}
_CLOSE_HALF: Final = 5e-2  # eight bits, summed over a model's width

Values: TypeAlias = tuple[Tensor, ...]
"""What each `Writer` wrote, `[sender, batch, pos, d_model]`."""


@attrs.frozen(kw_only=True, eq=False)
class Writer:
    """Senders that one place of the model writes.

    Attributes:
        layer: Its layer.
        senders: Their sites.
        reads: What tells what they write: what each head adds before a norm or a
            multiplier, and the sum before and after it; or the value itself.
    """

    layer: int
    senders: tuple[Site, ...]
    reads: tuple[Site, ...]

    def wrote(self, *read: Tensor) -> Tensor:
        """Give what each sender adds to the stream, `[sender, batch, pos, d_model]`.

        Where a norm or a multiplier stands between heads and the stream, each head's
        part is taken with the factor of this run, so that parts sum to the whole.
        """
        if len(self.senders) == 1 and not self.senders[0].selections:
            return read[0][None]
        results = read[0].movedim(2, 0)
        if len(read) == 1:
            return results
        _, before, after = read
        return results * (after / before.where(before != 0, 1.0))


@attrs.frozen(kw_only=True, eq=False)
class Reader:
    """Receivers that read at one place of the model.

    Attributes:
        site: Where what they read is put.
        stream: The stream that is read.
        receivers: Their sites.
        before: How many senders they can read.
        norm: What the stream passes first, if anything.
        weight: `[head, d_model, d_head]` of heads.
        bias: `[head, d_head]`.
    """

    site: Site
    stream: Site
    receivers: tuple[Site, ...]
    before: int
    norm: nn.Module | None
    weight: Tensor | None = None
    bias: Tensor | None = None

    def read(self, streams: Tensor, chosen: Sequence[int]) -> Tensor:
        """Give what receivers make of streams of their own.

        Args:
            streams: `[receiver, batch, pos, d_model]`.
            chosen: Numbers of these receivers.

        Returns:
            `[batch, pos, head, d_head]` of heads, else `[batch, pos, d_model]`.
        """
        normed = streams if self.norm is None else self.norm(streams)
        if self.weight is None or self.bias is None:
            return normed[0]
        rows = list(chosen)
        heads = torch.einsum("hbpm,hmd->bphd", normed, self.weight[rows])
        return heads + self.bias[rows]


@attrs.frozen(kw_only=True, eq=False)
class Wiring:
    """What writes to the stream and what reads it.

    Attributes:
        graph: The same without what runs.
        writers: In forward order.
        readers: In forward order.
    """

    graph: Graph
    writers: tuple[Writer, ...]
    readers: tuple[Reader, ...]

    @property
    def sites(self) -> tuple[Site, ...]:
        """All that tells what the senders write."""
        every = (site for writer in self.writers for site in writer.reads)
        return tuple(dict.fromkeys(every))

    def values(self, held: Mapping[Site, Tensor]) -> Values:
        """Give what each writer wrote in a run that kept `sites`."""
        return tuple(w.wrote(*(held[site] for site in w.reads)) for w in self.writers)

    def rows(self) -> Iterator[tuple[Reader, slice]]:
        """Go through the readers, and the numbers of their receivers."""
        ends = [*accumulate((len(r.receivers) for r in self.readers), initial=0)]
        for reader, start, end in zip(self.readers, ends, ends[1:], strict=False):
            yield reader, slice(start, end)

    def columns(self) -> Iterator[tuple[Writer, slice]]:
        """Go through the writers, and the numbers of their senders."""
        ends = [*accumulate((len(w.senders) for w in self.writers), initial=0)]
        for writer, start, end in zip(self.writers, ends, ends[1:], strict=False):
            yield writer, slice(start, end)


def found_wiring(spec: ModelSpec, tokens: Tensor, *, splits: bool) -> Wiring:
    """Find how a model is wired, from a run.

    Args:
        spec: The model.
        tokens: `[batch, pos]`, to be run.
        splits: Whether to tell heads apart.

    Raises:
        UnsupportedConfigError: What a component reads or writes cannot be told apart.
    """
    _check(spec)
    has = {i.site: None for i in spec.sites if not i.site.stack}
    parts = {site.part for site in has} & _LOOKED_AT
    wanted = [site for site in has if site.part in parts]
    held = run_with_cache(spec, tokens, capture=wanted, grad=False).cache
    writers = [Writer(layer=0, senders=(_FIRST,), reads=(_FIRST,))]
    readers: list[Reader] = []
    n_senders = 1
    for layer in range(spec.n_layers):
        block = _Block(spec=spec, held=held, layer=layer)
        entered, at = n_senders, len(writers)
        heads = block.heads(entered) if splits else None
        for part in ("attn", "ssm"):
            if part == "attn" and heads is not None:
                read, wrote = heads
            elif block.at(f"{part}_out") in held:
                read, wrote = block.whole(part, "resid_pre", entered)
            else:
                continue
            readers += read
            writers.append(wrote)
        n_senders += sum(len(writer.senders) for writer in writers[at:])
        if block.at("mlp_out") in held:
            has_mid = block.at("resid_mid") in held
            stream = "resid_mid" if has_mid else "resid_pre"
            before = n_senders if has_mid else entered
            read, wrote = block.whole("mlp", stream, before)
            readers += read
            writers.append(wrote)
            n_senders += 1
    last = Site(part="resid_post", layer=spec.n_layers - 1)
    readers.append(
        Reader(site=last, stream=last, receivers=(last,), before=n_senders, norm=None)
    )
    return Wiring(
        graph=_graph(writers, readers), writers=tuple(writers), readers=tuple(readers)
    )


def refusal(spec: ModelSpec, why: str) -> UnsupportedConfigError:
    """Make the error that says why there is no graph of a model."""
    advice = "Edges need components that sum to one stream; patch sites instead."
    return UnsupportedConfigError(spec.model_type, why, advice)


def tolerance(dtype: torch.dtype) -> float:
    """Give how far sums of a dtype may be off, of the largest value."""
    return _CLOSE.get(dtype, _CLOSE_HALF)


def is_close(expected: Tensor, found: Tensor) -> bool:
    """Tell whether two values agree up to rounding."""
    if expected.shape != found.shape:
        return False
    off = (expected - found).abs().max()
    return bool(off <= tolerance(expected.dtype) * expected.abs().max().clamp(min=1.0))


def _check(spec: ModelSpec) -> None:
    """Refuse models whose components do not sum to one stream, or are not all known."""
    machinery: Machinery = spec.engine
    main = [info for info in spec.sites if not info.site.stack]
    parts = {info.site.part for info in main}
    given = next((info.given for info in main if info.given), "")
    apart = min(parts & _UNREAD, default="")
    obstacles = (
        (spec.is_encoder_decoder, "its decoder reads another stream"),
        (spec.n_streams > 1, "its blocks pass several streams on"),
        (spec.has_stream_norm, "a norm stands on its stream"),
        (machinery.weights_away, machinery.weights_away),
        (apart, f"what its {apart} reads cannot be changed by itself"),
        (given, f"some of its blocks are only met with `{given}`"),
        (not accepts(spec.module, "input_ids"), "it takes no tokens"),
    )
    for is_there, why in obstacles:
        if is_there:
            raise refusal(spec, why)


@attrs.frozen(kw_only=True, eq=False)
class _Block:
    """One layer, and what a run had there."""

    spec: ModelSpec
    held: ActivationCache
    layer: int

    def at(self, part: str) -> Site:
        return Site(part=part, layer=self.layer)

    def whole(
        self, part: str, stream: str, before: int
    ) -> tuple[tuple[Reader, ...], Writer]:
        """Describe a component that reads and writes as a whole."""
        site, out = self.at(f"{part}_in"), self.at(f"{part}_out")
        for norm in self._norms():
            read = self._normed(stream, norm)
            if site in self.held and is_close(self.held[site], read):
                reader = Reader(
                    site=site,
                    stream=self.at(stream),
                    receivers=(site,),
                    before=before,
                    norm=norm,
                )
                writer = Writer(layer=self.layer, senders=(out,), reads=(out,))
                return (reader,), writer
        raise refusal(self.spec, f"{site} is no norm of {self.at(stream)}")

    def heads(self, before: int) -> tuple[tuple[Reader, ...], Writer] | None:
        """Describe each head by itself; None where heads cannot be told apart."""
        wrote = self._results()
        read = tuple(self._head_reader(part, before) for part in _HEADS)
        found = tuple(reader for reader in read if reader is not None)
        return (found, wrote) if wrote is not None and len(found) == len(read) else None

    def _head_reader(self, part: str, before: int) -> Reader | None:
        site = self.at(part)
        if site not in self.held:
            return None
        try:
            weight, bias = (give(self.spec, self.layer) for give in _WEIGHTS[part])
        except FunlensError:  # it acts with no one matrix
            return None
        receivers = tuple(attrs.evolve(site, head=at) for at in range(len(weight)))
        for norm in self._norms():
            reader = Reader(
                site=site,
                stream=self.at("resid_pre"),
                receivers=receivers,
                before=before,
                norm=norm,
                weight=weight,
                bias=bias,
            )
            streams = self.held[reader.stream].expand(len(weight), -1, -1, -1)
            found = reader.read(streams, range(len(weight)))
            if is_close(self.held[site], found):
                return reader
        return None

    def _results(self) -> Writer | None:
        """Describe what each head writes, with the factor between it and the stream."""
        machinery: Machinery = self.spec.engine
        z, result = self.at("z"), self.at("head_result")
        proj, out = self.at("attn_proj"), self.at("attn_out")
        if z not in self.held or result not in machinery.taps:
            return None
        reads = (result,)
        if not torch.equal(self.held[proj], self.held[out]):
            after = find(machinery.module, machinery.taps[out].path)
            if type(after) in machinery.centered:
                return None
            reads = (result, proj, out)
        n_heads = self.held[z].shape[2]
        senders = tuple(attrs.evolve(z, head=at) for at in range(n_heads))
        return Writer(layer=self.layer, senders=senders, reads=reads)

    def _norms(self) -> Iterator[nn.Module | None]:
        """Go through what the stream may pass before it is read."""
        machinery: Machinery = self.spec.engine
        for part in ("ln1_normalized", "ln2_normalized"):
            tap = machinery.taps.get(self.at(part))
            if tap is not None:
                yield find(machinery.module, tap.path)
        yield None

    def _normed(self, stream: str, norm: nn.Module | None) -> Tensor:
        value = self.held[self.at(stream)]
        return value if norm is None else norm(value)


def _graph(writers: Sequence[Writer], readers: Sequence[Reader]) -> Graph:
    senders = tuple(site for writer in writers for site in writer.senders)
    receivers = tuple(site for reader in readers for site in reader.receivers)
    return Graph(
        senders=senders,
        receivers=receivers,
        before=tuple(r.before for r in readers for _ in r.receivers),
        feeds=tuple(_fed(site, senders, receivers) for site in receivers),
    )


def _fed(
    receiver: Site, senders: Sequence[Site], receivers: Sequence[Site]
) -> tuple[int, ...]:
    """Find the senders that a receiver belongs to; shared keys feed several heads."""
    part = _FEEDS.get(receiver.part)
    held = [
        at
        for at, sender in enumerate(senders)
        if sender.part == part and sender.layer == receiver.layer
    ]
    if not isinstance(receiver.head, int):
        return tuple(held)
    alike = (receiver.part, receiver.layer)
    n_heads = sum((site.part, site.layer) == alike for site in receivers)
    each = len(held) // n_heads
    return tuple(held[receiver.head * each : (receiver.head + 1) * each])
