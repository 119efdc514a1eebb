"""Runs in which receivers read something else than what senders wrote."""

from collections.abc import Mapping
from typing import Final, TypeAlias

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import Apply, Graph, ModelSpec, Site, Writes, true_at
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._options import Options
from funlens.engine._plan import kept, lay_out, placed
from funlens.engine._run import run, run_with_cache
from funlens.engine._stacked import (
    Ends,
    apart,
    for_rows,
    read,
    repeated,
    tiled,
    tiled_inputs,
)
from funlens.engine._traced import traced
from funlens.engine._wiring import (
    Reader,
    Values,
    Wiring,
    Writer,
    found_wiring,
    is_close,
    refusal,
)
from funlens.errors import FunlensError, InputError, ShapeError, raise_all

_N_TRIED: Final = 7  # positions of the run that tries it out


def wiring_of(spec: ModelSpec) -> Wiring:
    """Find how a model is wired, and try it once: heads apart where that holds.

    Raises:
        UnsupportedConfigError: Its components cannot be told apart, or do not sum to
            its stream.
    """
    machinery: Machinery = spec.engine
    wiring: Wiring = machinery.noted("wiring", lambda: _tried(spec))
    return wiring


def graph(spec: ModelSpec) -> Graph:
    """Give the components of a model, and which read what which write.

    Senders are what enters the first block, each head and each MLP; receivers are each
    head's queries, keys and values, each MLP, and what is unembedded. Where heads
    cannot be told apart, as in latent attention, a layer's attention is one sender and
    one receiver, and so are mixers that are not attention.

    The first time, three runs of a few tokens try whether that is how the model is
    wired: with every edge carrying what another text wrote, its logits must come out.

    Args:
        spec: The model.

    Raises:
        UnsupportedConfigError: Components do not sum to one stream, as in BERT, or
            what one of them reads cannot be changed by itself.

    Examples:
        >>> import funlens as fl
        >>> fl.graph(fl.load("builtin:tiny"))
        Graph(21 senders, 53 receivers, 479 edges)
    """
    return wiring_of(spec).graph


@torch.no_grad()
def _tried(spec: ModelSpec) -> Wiring:
    size = min(_N_TRIED, spec.n_ctx or _N_TRIED)
    tokens = torch.arange(2 * size, device=spec.device).reshape(2, size)
    tokens = (3 * tokens + 1) % max(1, spec.d_vocab)
    for splits in (True, False):
        wiring = found_wiring(spec, tokens, splits=splits)
        source = values_of(spec, wiring, tokens[1:])
        cuts = wiring.graph.mask[None].to(spec.device, spec.dtype)
        found = run(spec, tokens[:1], edits_of(wiring, cuts, source))
        if is_close(run(spec, tokens[1:]), found):
            return wiring
    raise refusal(spec, "what its components write does not sum to its stream")


def writes(
    spec: ModelSpec, inputs: Inputs, *, attention_mask: Tensor | None = None
) -> Writes:
    """Run a model, and keep what every component wrote to its stream.

    They sum to the stream, up to what no input changes, such as output biases. Where a
    norm or a multiplier stands between heads and the stream, each head's part is taken
    with the factor of this run.

    Args:
        spec: The model.
        inputs: As for `run`.
        attention_mask: As for `run`.

    Returns:
        What each sender of `graph(spec)` wrote; memory: senders times the stream.

    Raises:
        UnsupportedConfigError: As for `graph`.
    """
    wiring = wiring_of(spec)
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    held, _ = unedited(spec, prepared, wiring, Ends(sites=wiring.sites))
    values = wiring.values(dict(zip(wiring.sites, held, strict=True)))
    return Writes(graph=wiring.graph, values=values)


SourceLike: TypeAlias = Inputs | Writes | None
"""What is read in place of what is cut: another text's, a mean, or nothing."""


def source_values(
    spec: ModelSpec, wiring: Wiring, prepared: Prepared, source: SourceLike
) -> Values:
    """Give what is read in place of what is cut; empty for nothing.

    Raises:
        InputError: It is of another graph.
        ShapeError: It has other rows or positions than the inputs.
    """
    if source is None:
        return ()
    given = source if isinstance(source, Writes) else writes(spec, source)
    if given.graph != wiring.graph:
        raise InputError(
            f"the source has {given.graph}, the model {wiring.graph}",
            "what this model wrote",
            "Make it with `writes(spec, inputs)`",
        )
    frame = prepared.main
    _, batch, n_pos, _ = given.values[0].shape
    if batch not in {1, frame.batch} or n_pos not in {1, frame.n_pos}:
        axes = ("batch", "pos")
        raise ShapeError("source", (batch, n_pos), (frame.batch, frame.n_pos), axes)
    return given.values


def values_of(spec: ModelSpec, wiring: Wiring, inputs: Inputs) -> Values:
    """Give what every sender writes in a run, `[sender, batch, pos, d_model]` each."""
    held = run_with_cache(spec, inputs, capture=wiring.sites, grad=False).cache
    return wiring.values(held)


@attrs.frozen(kw_only=True, eq=False)
class _Rewired:
    """What one place reads: the stream, less what is cut, with what replaces it.

    Attributes:
        reader: The place.
        writers: Those before it that run.
        cuts: For each of them `[circuit, receiver, sender]`: how much is taken away.
        source: For each of them what replaces it; empty for nothing.
        known: `[receiver, circuit * batch, pos, d_model]` to take away, of writers that
            do not run; None where all run.
        chosen: Numbers of the receivers.
    """

    reader: Reader
    writers: tuple[Writer, ...]
    cuts: tuple[Tensor, ...]
    source: Values
    known: Tensor | None
    chosen: tuple[int, ...]

    @property
    def reads(self) -> tuple[Site, ...]:
        """All that it is given beside the value."""
        stream = () if self.reader.stream == self.reader.site else (self.reader.stream,)
        return (*stream, *(site for writer in self.writers for site in writer.reads))

    def __call__(self, value: Tensor, *read: Tensor) -> Tensor:
        """Give what the receivers read now."""
        stream = value if self.reader.stream == self.reader.site else read[0]
        read = read if stream is value else read[1:]
        lost, at = self.known, 0
        pairs = zip(self.writers, self.cuts, strict=True)
        for index, (writer, cuts) in enumerate(pairs):
            wrote = writer.wrote(*read[at : at + len(writer.reads)])
            at += len(writer.reads)
            if self.source:
                wrote = wrote - tiled_rows(self.source[index], wrote.shape[1])
            part = mixed(cuts, wrote)
            lost = part if lost is None else lost + part
        streams = stream[None] if lost is None else stream - lost
        new = self.reader.read(streams, self.chosen).to(value.dtype)
        if len(self.chosen) == len(self.reader.receivers):
            return new
        places = torch.tensor(self.chosen, device=value.device)
        return value.index_copy(2, places, new)


def mixed(
    weights: Float[Tensor, "circuit receiver sender"],
    wrote: Float[Tensor, "sender row pos d_model"],
) -> Float[Tensor, "receiver row pos d_model"]:
    """Sum what senders wrote for each receiver, with each circuit's weights.

    Args:
        weights: How much of each sender each receiver takes.
        wrote: What was written; rows of one circuit stand together.
    """
    n_circuits = len(weights)
    by_circuit = wrote.reshape(len(wrote), n_circuits, -1).transpose(0, 1)
    summed = torch.bmm(weights, by_circuit)
    return summed.transpose(0, 1).reshape(weights.shape[1], *wrote.shape[1:])


def edits_of(
    wiring: Wiring,
    cuts: Float[Tensor, "circuit receiver sender"],
    source: Values,
    *,
    start: int = 0,
    known: Values = (),
) -> tuple[Apply, ...]:
    """Make the interventions that cut edges.

    Args:
        wiring: The model's.
        cuts: How much of each edge is cut: 1 for all. Rows of several circuits stand
            below each other.
        source: What is read in place of what is cut; empty for nothing.
        start: First layer that runs.
        known: What the senders before it wrote, where `start` is not 0.
    """
    edits: list[Apply] = []
    is_cut = (cuts != 0).any(0) if not cuts.requires_grad else wiring.graph.mask
    for reader, rows in wiring.rows():
        chosen = true_at(is_cut[rows].any(1))
        if not chosen:
            continue
        here = [rows.start + at for at in chosen]
        running: list[tuple[int, Writer, Tensor]] = []
        lost: Tensor | None = None
        for index, (writer, columns) in enumerate(wiring.columns()):
            part = cuts[:, here, columns]
            if columns.start >= reader.before or not is_cut[here, columns].any():
                continue
            if writer.layer >= start:
                running.append((index, writer, part))
                continue
            wrote = known[index]
            wrote = wrote - source[index] if source else wrote
            taken = mixed(part, tiled_rows(wrote, len(cuts) * wrote.shape[1]))
            lost = taken if lost is None else lost + taken
        function = _Rewired(
            reader=reader,
            writers=tuple(writer for _, writer, _ in running),
            cuts=tuple(part for _, _, part in running),
            source=tuple(source[index] for index, _, _ in running) if source else (),
            known=lost,
            chosen=chosen,
        )
        edits.append(Apply(reader.site, function, reads=function.reads))
    return tuple(edits)


def tiled_rows(
    wrote: Float[Tensor, "sender batch pos d_model"], n_rows: int
) -> Float[Tensor, "sender row pos d_model"]:
    """Put rows below themselves, for several circuits; one row is for all."""
    batch = wrote.shape[1]
    return wrote if batch in {1, n_rows} else wrote.repeat(1, n_rows // batch, 1, 1)


@attrs.frozen(kw_only=True, eq=False)
class Begun:
    """What rewired runs take from the run without edits.

    Attributes:
        values: What every sender wrote.
        residuals: What enters each layer; empty where no layer can be left out.
    """

    values: Values
    residuals: Mapping[int, Tensor]


def unedited(
    spec: ModelSpec, prepared: Prepared, wiring: Wiring, ends: Ends
) -> tuple[list[Tensor], Begun]:
    """Run without edits: give what is read of it, and what rewired runs begin with."""
    machinery: Machinery = spec.engine
    can_skip = not machinery.why_no_skip(prepared.kwargs)
    layers = machinery.begins if can_skip else ()
    held = [Site(part="resid_pre", layer=layer) for layer in layers]
    sites = tuple(dict.fromkeys((*ends.sites, *held, *wiring.sites)))
    plan = lay_out(spec, (), [kept(spec, prepared.frames, site) for site in sites])
    _, trace = traced(spec, prepared, plan, options=Options(grad=False))
    every = {site: trace.captured[site][0] for site in sites}
    begun = Begun(
        values=wiring.values(every),
        residuals={s.layer: every[s] for s in held if s.layer is not None},
    )
    return [every[site] for site in ends.sites], begun


def rewired(
    spec: ModelSpec,
    prepared: Prepared,
    wiring: Wiring,
    cuts: Float[Tensor, "circuit receiver sender"],
    source: Values,
    *,
    ends: Ends,
    begun: Begun,
) -> list[list[Tensor]]:
    """Run several circuits as one, from the first layer at which something is cut.

    Args:
        spec: The model.
        prepared: The inputs of one run.
        wiring: The model's.
        cuts: How much of each edge is cut, for each circuit.
        source: What is read in place of what is cut; empty for nothing.
        ends: What is read of the runs.
        begun: The run without edits.

    Returns:
        For each circuit, each site's value.
    """
    times = len(cuts)
    start = _first_layer(wiring, cuts, begun)
    inputs = tiled_inputs(prepared, times)
    edits = edits_of(wiring, cuts, source, start=start, known=begun.values)
    faults: list[FunlensError] = []
    made = placed(spec, inputs.frames, edits, faults=faults)
    raise_all(faults)
    sites = tuple(for_rows(site, times) for site in ends.sites)
    captured = () if ends.logits_at is not None else sites
    keeps = [kept(spec, inputs.frames, site) for site in captured]
    options = Options(
        start_at_layer=start or None,
        residual=tiled(begun.residuals[start], times) if start else None,
        stop_at_layer=ends.stop,
        logits_at=repeated(ends.logits_at, times),
        grad=cuts.requires_grad,
    )
    out, trace = traced(spec, inputs, lay_out(spec, made, keeps), options=options)
    return apart(read(out, trace, sites, ends.logits_at), times)


def _first_layer(wiring: Wiring, cuts: Tensor, begun: Begun) -> int:
    """Find the layer that a run can begin with; 0 for the whole model."""
    is_cut = (cuts != 0).any(0).any(1)
    cut = (reader for reader, rows in wiring.rows() if is_cut[rows].any())
    first = min((reader.site.layer or 0 for reader in cut), default=0)
    return max((at for at in begun.residuals if at <= first), default=0)
