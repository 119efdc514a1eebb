"""What a component does to a metric along some paths only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import attrs
import torch
from torch import Tensor

from funlens.adapters import Machinery, norm_scale, with_scale
from funlens.data import Effects, Freeze, Intervention, ModelSpec, Part, Set, Site
from funlens.engine import Inputs, MetricLike, SourceLike, run_with_cache, sweep
from funlens.engine._inputs import Prepared, prepare
from funlens.engine._rewired import (
    edits_of,
    source_values,
    tiled_rows,
    values_of,
    wiring_of,
)
from funlens.engine._wiring import Reader, Values, Wiring
from funlens.errors import InputError, OptionError

Norms: TypeAlias = Literal["recomputed", "frozen"]
"""Whether norms before receivers divide by what they get, or by what they had."""


def path_patching(
    spec: ModelSpec,
    inputs: Inputs,
    source: SourceLike,
    *,
    metric: MetricLike,
    senders: Sequence[Site] | Part | None = None,
    receivers: Sequence[Site] | None = None,
    through: Sequence[Site] | Part = (),
    norms: Norms = "recomputed",
    attention_mask: Tensor | None = None,
    memory: int | None = None,
) -> Effects:
    """Patch what each sender writes, but only where some receivers read it.

    Path patching (Wang et al., "Interpretability in the Wild", 2022; Goldowsky-Dill et
    al., "Localizing Model Behavior with Path Patching", 2023): first it is found what
    the receivers would read if the sender had written what it wrote in the source,
    with all other components as they were; then the model runs with its receivers
    reading that, and all that follows them recomputed. Without `through` the first
    step needs no run.

    Args:
        spec: The model.
        inputs: The run that is changed, one example for each row.
        source: Where patches come from: another text of the same shape, `Writes` such
            as a mean, or None for nothing.
        metric: As for `sweep`.
        senders: Senders of `graph(spec)`, each patched by itself; a part such as `z`
            for all of them, which heads are if left out.
        receivers: Receivers of `graph(spec)`, together; what is unembedded if left out.
        through: Senders that are recomputed in the first step, so that paths through
            them count too.
        norms: Whether the norm before a receiver divides by the size of what it gets,
            or of what it had; with `through` always the first.
        attention_mask: As for `run`.
        memory: As for `sweep`.

    Returns:
        The metric of each sender's patch, on the axes `layer` and `head` where they are
        all heads of a model, else on the axis `sender`. A sender that writes after all
        receivers have read leaves the baseline.

    Raises:
        UnsupportedConfigError: As for `graph`.
        InputError: The graph has no such sender or receiver.
        OptionError: Norms are to be frozen on paths through other components.

    Costs a run of each text and a sweep from the receivers on; with `through` also a
    run for each sender.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> clean, corrupted = "Tom had a ball.", "Sam had a ball."
        >>> metric = fl.log_prob_of(fl.to_single_token(spec, " Tom"))
        >>> fl.path_patching(spec, clean, corrupted, metric=metric).axes
        ('layer', 'head')
    """
    if norms not in get_args(Norms):
        raise OptionError("norms", f"it is {norms!r}", get_args(Norms))
    wiring = wiring_of(spec)
    chosen = _senders(wiring, _heads(wiring) if senders is None else senders)
    passed = _senders(wiring, through) if through else ()
    if passed and norms == "frozen":
        problem = "components between are recomputed, with their norms"
        raise OptionError("norms", problem, ("recomputed",))
    last = wiring.graph.receivers[-1]
    read = tuple(wiring.graph.receiver(at) for at in receivers or (last,))
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    with torch.no_grad():
        paths = _Paths(
            spec=spec,
            prepared=prepared,
            wiring=wiring,
            here=values_of(spec, wiring, prepared.kwargs),
            there=source_values(spec, wiring, prepared, source),
            read=read,
            norms=norms,
        )
        if passed:
            cells = [paths.between(sender, passed) for sender in chosen]
        else:
            held = paths.held()
            cells = [paths.direct(sender, held) for sender in chosen]
    found = sweep(
        spec,
        prepared.kwargs,
        cells,
        metric=metric,
        attention_mask=attention_mask,
        memory=memory,
    )
    return _laid(wiring, chosen, found)


@attrs.frozen(kw_only=True, eq=False)
class _Paths:
    """What is found out about paths of one model on one text.

    Attributes:
        spec: The model.
        prepared: The inputs.
        wiring: The model's.
        here: What every sender writes.
        there: What it writes in the source; empty for nothing.
        read: Numbers of the receivers.
        norms: Whether norms before them are frozen.
    """

    spec: ModelSpec
    prepared: Prepared
    wiring: Wiring
    here: Values
    there: Values
    read: tuple[int, ...]
    norms: Norms

    def readers(self) -> Iterator[tuple[Reader, tuple[int, ...]]]:
        """Go through the readers that are meant, and which of their receivers."""
        for reader, rows in self.wiring.rows():
            places = (at - rows.start for at in self.read)
            inside = tuple(at for at in places if 0 <= at < rows.stop - rows.start)
            if inside:
                yield reader, inside

    def held(self) -> Mapping[Site, Tensor]:
        """Give what the receivers' streams are, and the last norm's scale."""
        sites = [reader.stream for reader, _ in self.readers()]
        scale = Site(part="ln_final_scale")
        if self.norms == "frozen" and scale in self.spec.engine.taps:
            sites.append(scale)
        wanted = tuple(dict.fromkeys(sites))
        return run_with_cache(
            self.spec, self.prepared.kwargs, capture=wanted, grad=False
        ).cache

    def moved(self, sender: int) -> Tensor:
        """Give by how much the source moves what a sender writes."""
        for at, (_, columns) in enumerate(self.wiring.columns()):
            if columns.start <= sender < columns.stop:
                inside = sender - columns.start
                own = self.here[at][inside]
                return self.there[at][inside] - own if self.there else -own
        raise AssertionError(sender)

    def direct(self, sender: int, held: Mapping[Site, Tensor]) -> list[Intervention]:
        """Say what the receivers read if a sender had written something else."""
        moved = self.moved(sender)
        edits: list[Intervention] = []
        for reader, inside in self.readers():
            if sender >= reader.before:
                continue
            stream = held[reader.stream]
            value = self._read(reader, stream, stream + moved, inside)
            edits += _set(reader, inside, value)
            scale = Site(part="ln_final_scale")
            if reader is self.wiring.readers[-1] and scale in held:
                edits.append(Freeze(scale, held[scale]))
        return edits

    def between(self, sender: int, through: Sequence[int]) -> list[Intervention]:
        """Say the same where what is in between is recomputed, in a run."""
        kept = sorted({*through} - {sender})
        cuts = self.wiring.graph.mask.clone()
        cuts[:, kept] = False
        weights = cuts[None].to(self.spec.device, self.spec.dtype)
        found = list(self.here)
        for at, (_, columns) in enumerate(self.wiring.columns()):
            if columns.start <= sender < columns.stop:
                part = tiled_rows(found[at], len(self.moved(sender))).clone()
                part[sender - columns.start] += self.moved(sender)
                found[at] = part
        edits = edits_of(self.wiring, weights, tuple(found))
        sites = [reader.site for reader, _ in self.readers()]
        values = run_with_cache(
            self.spec, self.prepared.kwargs, edits, capture=sites, grad=False
        ).cache
        return [
            edit
            for reader, inside in self.readers()
            if sender < reader.before
            for edit in _set(reader, inside, _part(reader, values, inside))
        ]

    def _read(
        self, reader: Reader, stream: Tensor, new: Tensor, inside: Sequence[int]
    ) -> Tensor:
        """Give what a reader makes of another stream."""
        every = new.expand(len(inside), *new.shape)
        norm = reader.norm
        if self.norms == "recomputed" or norm is None:
            return reader.read(every, inside)
        machinery: Machinery = self.spec.engine
        centered = type(norm) in machinery.centered
        was, now = (norm_scale(norm, x, centered=centered) for x in (stream, new))
        frozen = with_scale(norm, norm(new), now, was)
        return attrs.evolve(reader, norm=None).read(frozen.expand_as(every), inside)


def _set(
    reader: Reader, inside: Sequence[int], value: Tensor
) -> Iterator[Intervention]:
    """Put what receivers read in its place: heads each by itself."""
    if reader.weight is None:
        yield Set(reader.site, value)
        return
    for at, number in enumerate(inside):
        yield Set(reader.receivers[number], value[:, :, at])


def _part(
    reader: Reader, values: Mapping[Site, Tensor], inside: Sequence[int]
) -> Tensor:
    value = values[reader.site]
    return value if reader.weight is None else value[:, :, list(inside)]


def _heads(wiring: Wiring) -> tuple[Site, ...]:
    """Give all heads; whole attentions where heads are not told apart."""
    wanted = ("z", "attn_out", "ssm_out")
    return tuple(site for site in wiring.graph.senders if site.part in wanted)


def _senders(wiring: Wiring, wanted: Sequence[Site] | Part) -> tuple[int, ...]:
    graph = wiring.graph
    if isinstance(wanted, Part):
        found = tuple(s for s in graph.senders if s.part == wanted.name)
        if not found:
            known = sorted({site.part for site in graph.senders})
            raise InputError(
                f"no sender is a {wanted}", " or ".join(known), "Look at `graph(spec)`"
            )
        wanted = found
    return tuple(map(graph.sender, wanted))


def _laid(wiring: Wiring, chosen: Sequence[int], found: Effects) -> Effects:
    """Name the axes of what was found."""
    sites = [wiring.graph.senders[at] for at in chosen]
    layers = sorted({site.layer or 0 for site in sites})
    heads = sorted({site.head for site in sites if isinstance(site.head, int)})
    grid = [(layer, head) for layer in layers for head in heads]
    if heads and grid == [(site.layer, site.head) for site in sites]:
        axes, shape = ("layer", "head"), (len(layers), len(heads))
        labels = {
            "layer": tuple(map(str, layers)),
            "head": tuple(map(str, heads)),
        }
    else:
        axes, shape = ("sender",), (len(sites),)
        labels = {"sender": tuple(map(str, sites))}
    return attrs.evolve(
        found,
        values=found.values.reshape(shape),
        rows=found.rows.reshape(*shape, -1),
        done=found.done.reshape(shape),
        axes=axes,
        labels=labels,
    )
