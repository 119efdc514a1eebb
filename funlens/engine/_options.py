"""What a run may be told beyond its inputs and interventions, and its faults."""

from collections.abc import Iterator, Mapping

import attrs
from torch import Tensor, nn

from funlens.adapters import (
    Machinery,
    Point,
    is_functional,
    is_offloaded,
    is_part,
)
from funlens.data import (
    ENTERING,
    LEAVING,
    ModelSpec,
    Selection,
    Site,
)
from funlens.engine._edits import fits, read_by
from funlens.engine._inputs import (
    Prepared,
)
from funlens.engine._plan import (
    Plan,
    named,
)
from funlens.engine._trace import Trace
from funlens.engine._where import resolved
from funlens.errors import (
    DtypeError,
    NeverActedError,
    OptionError,
    ShapeError,
    UnsupportedConfigError,
)


@attrs.frozen(kw_only=True, eq=False)
class Options:
    """What a run may be told beyond its inputs and interventions.

    Attributes:
        stop_at_layer: Give the residual that enters this layer instead of logits.
        start_at_layer: Leave the layers before this one out; needs `residual`.
        residual: `[batch, pos, d_model]` that enters `start_at_layer`.
        logits_at: Positions to unembed.
        params: Weights to use instead, by HuggingFace's names.
        grad: Whether to record a graph; None decides by what was passed.
        finite: Whether to refuse NaN and infinity made by an edit. Costs one
            synchronization.
    """

    stop_at_layer: int | None = None
    start_at_layer: int | None = None
    residual: Tensor | None = None
    logits_at: Selection | slice | Tensor | None = None
    params: Mapping[str, Tensor] | None = None
    grad: bool | None = None
    finite: bool = False


@attrs.frozen(kw_only=True, eq=False)
class Joins:
    """Runs that begin at several layers, and join each other on the way.

    Attributes:
        rows: What enters the layers at which runs begin, `[batch, pos, d_model]`; those
            before the first of them are left out.
        since: Positions before these: what attention kept of them is in the cache.
    """

    rows: Mapping[int, Tensor]
    since: int = 0


def _check_params(module: nn.Module, params: Mapping[str, Tensor]) -> None:
    known = dict(module.named_parameters(remove_duplicate=False))
    for name, value in params.items():
        if name not in known:
            raise OptionError("params", f"no weight is called {name!r}")
        expected, where = known[name], f"params[{name!r}]"
        if not isinstance(value, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
            problem = f"{name!r} is a {type(value).__name__}, not a tensor"
            raise OptionError("params", problem)
        if expected.is_meta and is_offloaded(module):
            raise OptionError("params", f"{name} is offloaded, and would come back")
        if is_part(expected):
            raise OptionError("params", f"{name} is split among processes")
        if value.shape != expected.shape:
            raise ShapeError(where, tuple(value.shape), tuple(expected.shape))
        if value.dtype != expected.dtype:
            raise DtypeError(where, str(value.dtype), str(expected.dtype))


def check_options(spec: ModelSpec, plan: Plan, options: Options) -> None:
    """Refuse options that contradict each other, or what was asked for beside them.

    Raises:
        OptionError: They do.
        NeverActedError: An intervention or a capture lies where the run does not pass.
    """
    _check_layers(spec, plan, options)
    if options.logits_at is not None:
        looks = any(site.part == "logits" for _, site in _asked(plan))
        if looks or options.stop_at_layer is not None:
            problem = "it chooses among all logits, and leaves no such site"
            raise OptionError("logits_at", problem)
    if options.params is not None:
        _check_params(spec.module, options.params)
    if options.finite and is_functional():
        raise OptionError("finite", "no value can be looked at under a transform")


def _check_layers(spec: ModelSpec, plan: Plan, options: Options) -> None:
    start, stop = options.start_at_layer, options.stop_at_layer
    if start is None and stop is None:
        return
    if start is not None and stop is not None and stop < start:
        problem = f"layer {stop} comes before layer {start}, where the run starts"
        raise OptionError("stop_at_layer", problem)
    for where, site in _asked(plan):
        if not _passes(spec, site, options):
            raise NeverActedError(where, str(site))


def _asked(plan: Plan) -> Iterator[tuple[str, Site]]:
    """Go through what was asked for, and where."""
    for index, record in enumerate(plan.interventions):
        for site in (record.site, *read_by(record)):
            yield named(index, record), site
    for site in plan.captured:
        yield "the capture", site


def bounds(spec: ModelSpec, options: Options) -> tuple[Site, ...]:
    """Give the streams that a run is told to begin with and to end at.

    Raises:
        OptionError: The model has no such layer.
    """
    entering, leaving = ENTERING[spec.n_streams > 1], LEAVING[spec.n_streams > 1]
    n_layers = spec.n_layers
    found: list[Site] = []
    if options.stop_at_layer is not None:
        stop = _layer("stop_at_layer", options.stop_at_layer, n_layers)
        is_last = stop == n_layers
        part = leaving if is_last else entering
        found.append(Site(part=part, layer=stop - is_last))
    if options.start_at_layer is not None:
        start = _layer("start_at_layer", options.start_at_layer, n_layers - 1)
        found.append(Site(part=entering, layer=start))
    return tuple(found)


def _layer(option: str, layer: int, last: int) -> int:
    if not 0 <= layer <= last:
        raise OptionError(option, f"layer {layer} of 0..{last}", (f"0..{last}",))
    return layer


def _check_skip(machinery: Machinery, start: int, prepared: Prepared) -> None:
    """Refuse to leave out blocks that cannot be."""
    why = machinery.why_no_skip(prepared.kwargs)
    if why:
        raise OptionError("start_at_layer", f"no block can be left out: {why}")
    if start not in machinery.begins:
        raise OptionError(
            "start_at_layer",
            f"layer {start} begins within a block of HuggingFace's, which can only be "
            "left out whole",
        )


def set_bounds(
    spec: ModelSpec, trace: Trace, options: Options, prepared: Prepared
) -> None:
    machinery: Machinery = spec.engine
    frame = prepared.main
    start, stop = options.start_at_layer, options.stop_at_layer
    if (start is None) != (options.residual is None):
        raise OptionError(
            "start_at_layer", "it goes with `residual`, and one of them is missing"
        )
    ends = bounds(spec, options)
    if stop is not None:
        trace.stop = machinery.taps[ends[0]]
    if start is not None and options.residual is not None:
        _check_skip(machinery, start, prepared)
        known = {"batch": frame.batch, "pos": frame.n_pos, "stream": spec.n_streams}
        axes = ends[-1].axes
        expected = tuple(known.get(axis, spec.d_model) for axis in axes)
        shape = tuple(options.residual.shape)
        if len(shape) != len(expected) or not fits(shape, expected):
            raise ShapeError("residual", shape, expected, axes)
        trace.start = (machinery.taps[ends[-1]], options.residual)
        trace.skipped = frozenset(machinery.blocks[:start])


def set_joins(spec: ModelSpec, trace: Trace, joins: Joins) -> None:
    machinery: Machinery = spec.engine
    entering = ENTERING[spec.n_streams > 1]
    taps = {
        layer: machinery.taps[Site(part=entering, layer=layer)] for layer in joins.rows
    }
    trace.joins = {tap.point: (tap, joins.rows[at]) for at, tap in taps.items()}
    if len(trace.joins) < len(taps):
        problem = "its table has two layers begin at one place"
        raise UnsupportedConfigError(spec.model_type, problem)
    trace.skipped = frozenset(machinery.blocks[: min(joins.rows)])
    trace.seen = joins.since


def shifts(spec: ModelSpec, prepared: Prepared) -> dict[Point, tuple[int, ...]]:
    """Tell where learned positions are counted from each row's first token.

    Nowhere, if nothing is padded on the left, or the model counts by itself or is told
    its positions.
    """
    machinery: Machinery = spec.engine
    told = "position_ids" in prepared.kwargs
    found: dict[Point, tuple[int, ...]] = {}
    for name, frame in prepared.frames.items():
        tap = machinery.taps.get(Site(part="pos_embed", stack=name))
        is_first = name == "encoder" or not spec.is_encoder_decoder
        if tap is None or frame.starts is None or (told and is_first):
            continue
        if any(frame.starts) and not machinery.stack(name).counts_tokens:
            found[tap.path, tap.side] = frame.starts
    return found


def set_logits(
    spec: ModelSpec, trace: Trace, options: Options, prepared: Prepared
) -> None:
    if options.logits_at is None:
        return
    machinery: Machinery = spec.engine
    if not machinery.unembed:
        raise OptionError("logits_at", f"{spec.name} has no unembedding")
    if machinery.unembeds_streams:
        problem = f"{spec.name} unembeds other streams than the one of its positions"
        raise OptionError("logits_at", problem)
    site = Site(part="logits", pos=options.logits_at)
    sizes = {"pos": prepared.main.n_pos}
    axes = resolved(site, sizes, prepared.frames)
    if any(axis.since is not None for axis in axes):
        raise OptionError("logits_at", "a run generates no positions")
    kept = tuple(attrs.evolve(axis, dropped=False) for axis in axes)
    trace.logits_at = ((machinery.unembed, "in"), kept)


def reached(
    spec: ModelSpec, wanted: tuple[Site, ...], options: Options
) -> tuple[Site, ...]:
    """Of every site, those that a run passes as it was asked for."""
    has_logits = options.logits_at is None
    return tuple(
        site
        for site in wanted
        if _passes(spec, site, options) and (has_logits or site.part != "logits")
    )


def _passes(spec: ModelSpec, site: Site, options: Options) -> bool:
    """Tell whether a run from one layer to another passes a site."""
    start, stop = options.start_at_layer, options.stop_at_layer
    if site.stack:
        return True
    if site.layer is None:
        is_before = site.part in {"embed", "pos_embed"}
        return start is None if is_before else stop is None
    end = spec.n_layers if stop is None else stop
    enters_end = site.layer == stop and site.part in ENTERING
    return (start or 0) <= site.layer < end or enters_end
