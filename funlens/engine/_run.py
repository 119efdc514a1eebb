"""Running a model: with edits, with captures, or as it is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import (
    ACTIVE,
    Machinery,
    Point,
    is_differentiating,
    is_forward_mode,
    is_functional,
    is_offloaded,
    is_part,
    output_of,
)
from funlens.data import (
    ENTERING,
    LEAVING,
    ActivationCache,
    Backward,
    Intervention,
    ModelSpec,
    Run,
    Selection,
    Site,
    SiteLike,
)
from funlens.engine._edits import fits, tensors
from funlens.engine._inputs import (
    Inputs,
    Prepared,
    accepts,
    compiled_kwargs,
    prepare,
)
from funlens.engine._plan import (
    EVERY,
    Every,
    Plan,
    captured_sites,
    check_given,
    make_plan,
    named,
    records,
)
from funlens.engine._trace import Stop, Trace
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


def run(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    attention_mask: Tensor | None = None,
    stop_at_layer: int | None = None,
    start_at_layer: int | None = None,
    residual: Tensor | None = None,
    logits_at: Selection | slice | Tensor | None = None,
    params: Mapping[str, Tensor] | None = None,
    grad: bool | None = None,
    finite: bool = False,
) -> Tensor:
    """Run a model and give its logits.

    Without interventions these are HuggingFace's logits, bit for bit. A model without
    a head gives its last hidden state.

    Args:
        spec: The model.
        inputs: Text, a list of texts, tokens `[batch, pos]`, or what a HuggingFace
            tokenizer or processor returns.
        interventions: What to change, in order.
        attention_mask: `[batch, pos]`, 1 at real tokens; found from the padding if
            left out.
        stop_at_layer: Give the residual that enters this layer instead of logits,
            and run no further; the number of layers means the last output.
        start_at_layer: Leave the layers before this one out; needs `residual`.
        residual: `[batch, pos, d_model]` that enters `start_at_layer`.
        logits_at: Positions to unembed; the axis stays.
        params: Weights to use instead, by HuggingFace's names: for `torch.func`.
        grad: Whether to record a graph. By default only where it can be wanted: under
            a `torch.func` transform, or if a tensor that was passed requires it.
        finite: Whether to refuse NaN and infinity made by an edit.

    Returns:
        Logits `[batch, pos, vocab]`, after caps and scale; of a classifier of rows
        `[batch, label]`; without a head, or with `stop_at_layer`, `[batch, pos,
        d_model]`.

    Raises:
        FunlensError: Anything asked for that cannot be done, before the model runs.
        ExceptionGroup: Several such faults.
        RunError: An edit misbehaved, or never acted.
    """
    asked = (stop_at_layer, start_at_layer, residual, logits_at, params)
    is_bare = interventions in ((), []) and all(option is None for option in asked)
    if is_bare:
        return _bare(spec, inputs, attention_mask=attention_mask, grad=grad)
    options = Options(
        stop_at_layer=stop_at_layer,
        start_at_layer=start_at_layer,
        residual=residual,
        logits_at=logits_at,
        params=params,
        grad=grad,
        finite=finite,
    )
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    plan = make_plan(spec, prepared.frames, interventions)
    out, _ = traced(spec, prepared, plan, options=options)
    return out


def run_with_cache(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    capture: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
    stop_at_layer: int | None = None,
    start_at_layer: int | None = None,
    residual: Tensor | None = None,
    logits_at: Selection | slice | Tensor | None = None,
    params: Mapping[str, Tensor] | None = None,
    grad: bool | None = None,
    finite: bool = False,
    offload: torch.device | str | None = None,
) -> Run:
    """Run a model, and keep what passes some sites.

    What is kept is what the model went on with, after edits. Layers whose scores or
    pattern are kept run eager attention, the others what the model came with.

    Args:
        spec: The model.
        inputs: As for `run`.
        interventions: What to change, in order.
        capture: Sites, parts in all layers, or names; every site by default, but
            `head_result` and `ssm_state`. Memory: what is kept, and no more.
        attention_mask: As for `run`.
        stop_at_layer: As for `run`; the sites up to there are kept.
        start_at_layer: As for `run`.
        residual: As for `run`.
        logits_at: As for `run`.
        params: As for `run`.
        grad: As for `run`.
        finite: As for `run`.
        offload: Device of what is kept.

    Returns:
        Logits, and the cache with a receipt for each intervention.

    Raises:
        FunlensError: Anything asked for that cannot be done, before the model runs.
        ExceptionGroup: Several such faults.
        RunError: An edit misbehaved, or something never acted.
    """
    options = Options(
        stop_at_layer=stop_at_layer,
        start_at_layer=start_at_layer,
        residual=residual,
        logits_at=logits_at,
        params=params,
        grad=grad,
        finite=finite,
    )
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    if isinstance(capture, Every):
        wanted = _reached(spec, wanted, options)
    plan = make_plan(spec, prepared.frames, interventions, captured=wanted)
    out, trace = traced(
        spec,
        prepared,
        plan,
        options=options,
        measures=True,
        offload=_device_named(offload),
    )
    return Run(out, cache_of(spec, trace))


@attrs.frozen(kw_only=True, eq=False)
class _Instrumented(AbstractContextManager[Callable[[Inputs], Run]]):
    """Arguments of runs, and no state beyond them."""

    spec: ModelSpec
    interventions: tuple[Intervention, ...]
    capture: tuple[SiteLike, ...] | Every

    def __enter__(self) -> Callable[[Inputs], Run]:
        """Give the function; entering twice gives it twice."""
        return self._run

    def __exit__(self, *_: object) -> None:
        """Leave: there is nothing to undo."""

    def _run(self, inputs: Inputs) -> Run:
        return run_with_cache(
            self.spec, inputs, self.interventions, capture=self.capture
        )


def instrumented(
    spec: ModelSpec,
    interventions: Sequence[Intervention] = (),
    capture: Sequence[SiteLike] | Every = EVERY,
) -> AbstractContextManager[Callable[[Inputs], Run]]:
    """Give a callable that runs with the same edits and captures each time.

    It holds no state beyond its arguments: it may be nested, entered again and shared.

    Args:
        spec: The model.
        interventions: What to change.
        capture: What to keep.

    Returns:
        A context manager that gives a function from inputs to a `Run`.

    Raises:
        SiteNotFoundError: The model has no such site.
        OptionError: The interventions are no list of interventions.
    """
    captured_sites(spec, capture, {})  # checks them; what is met, inputs tell
    return _Instrumented(
        spec=spec,
        interventions=tuple(records(interventions)),
        capture=capture if isinstance(capture, Every) else tuple(capture),
    )


def _bare(
    spec: ModelSpec,
    inputs: Inputs,
    *,
    attention_mask: Tensor | None,
    grad: bool | None,
) -> Tensor:
    """Run the model without looking at anything."""
    machinery: Machinery = spec.engine
    if torch.compiler.is_compiling():
        kwargs = compiled_kwargs(spec, inputs, attention_mask)
        with nullcontext() if grad else torch.no_grad():
            return output_of(_called(machinery.bare(), kwargs))
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    options = Options(grad=grad)
    if is_forward_mode() or _shifts(spec, prepared):
        plan = make_plan(spec, prepared.frames, ())
        return traced(spec, prepared, plan, options=options)[0]
    with _recording(spec, grad=_wants_grad((), options, prepared)):
        return output_of(_called(machinery.bare(), prepared.kwargs))


def _called(module: nn.Module, kwargs: Mapping[str, Any]) -> Any:
    if accepts(module, "use_cache") and "use_cache" not in kwargs:
        return module(**kwargs, use_cache=False)
    return module(**kwargs)


def _wants_grad(
    interventions: Sequence[Intervention], options: Options, prepared: Prepared
) -> bool:
    """Tell whether a graph is asked for, or wanted by anything that was passed."""
    if options.grad is not None:
        return options.grad
    if is_functional():
        return True
    passed = [part for edit in interventions for part in tensors(edit)]
    passed += [] if options.residual is None else [options.residual]
    passed += [] if options.params is None else [*options.params.values()]
    passed += [part for part in prepared.kwargs.values() if isinstance(part, Tensor)]
    return any(tensor.requires_grad for tensor in passed)


def _check_backward(interventions: Sequence[Intervention], *, grad: bool) -> None:
    """Refuse an edit of a gradient where there will be none."""
    if not any(isinstance(record, Backward) for record in interventions):
        return
    if not grad:
        raise OptionError(
            "interventions",
            "one of them changes a gradient, and this run records no graph",
            ("`run_with_grads`", "`torch.func.grad`", "`grad=True`"),
        )
    if is_forward_mode():
        raise OptionError(
            "interventions", "one of them changes a gradient: forward mode has none"
        )


def _device_named(offload: torch.device | str | None) -> torch.device | None:
    """Read a device's name."""
    try:
        return None if offload is None else torch.device(offload)
    except RuntimeError as error:
        problem = f"{offload!r} is no device"
        raise OptionError("offload", problem, ("cpu", "cuda", "cuda:1")) from error


def _recording(spec: ModelSpec, *, grad: bool) -> AbstractContextManager[Any]:
    """Record a graph, or none.

    Raises:
        UnsupportedConfigError: A derivative is taken that would be 0, silently, or a
            transform meets weights that come and go.
    """
    machinery: Machinery = spec.engine
    if is_functional() and machinery.weights_away:
        raise UnsupportedConfigError(
            spec.model_type,
            f"{machinery.weights_away}, and `torch.func` cannot pass what brings them",
            "Use `run_with_grads`, or load the model whole on one device.",
        )
    if not grad:
        return torch.no_grad()
    wanted = is_differentiating() or not is_functional()
    if wanted and machinery.without_derivative:
        raise UnsupportedConfigError(
            spec.model_type,
            f"its {machinery.without_derivative} has no derivative, and gradients "
            "through it would be 0",
            "Quantize its weights only, as with torchao.",
        )
    return nullcontext()


def traced(
    spec: ModelSpec,
    prepared: Prepared,
    plan: Plan,
    *,
    options: Options,
    measures: bool = False,
    links: bool = False,
    module: nn.Module | None = None,
    offload: torch.device | None = None,
    joins: Joins | None = None,
) -> tuple[Tensor, Trace]:
    """Carry a plan out.

    Args:
        spec: The model.
        prepared: Its inputs.
        plan: What to do.
        options: How.
        measures: Whether to measure by how much each edit changed its value.
        links: Whether to make captured values part of the graph.
        module: A tapped structure to run instead of the spec's own.
        offload: Device to which what is captured goes at once.
        joins: Rows that replace the model's own, layer by layer.
    """
    _check_options(spec, plan, options)
    machinery: Machinery = spec.engine
    grad = links or _wants_grad(plan.interventions, options, prepared)
    _check_backward(plan.interventions, grad=grad)
    check_given(spec, plan, prepared.kwargs, _bounds(spec, options))
    trace = Trace(
        plan,
        machinery,
        prepared.frames,
        measures=measures,
        links=links,
        finite=options.finite,
        offload=offload,
        forces_eager=is_forward_mode()
        or (machinery.arch.biased_masks and (grad or is_functional())),
    )
    trace.shifts = _shifts(spec, prepared)
    _set_bounds(spec, trace, options, prepared)
    _set_logits(spec, trace, options, prepared)
    if joins is not None:
        _set_joins(spec, trace, joins)
    eager = plan.needs_eager or trace.forces_eager
    lent: AbstractContextManager[nn.Module] = (
        nullcontext(module or machinery.tapped(eager=eager))
        if options.params is None
        else machinery.lent(eager=eager)
    )
    with _recording(spec, grad=grad), lent as running:
        out = _entered(running, prepared.kwargs, trace, params=options.params)
    trace.check_acted()
    return out, trace


def _entered(
    module: nn.Module,
    kwargs: Mapping[str, Any],
    trace: Trace,
    *,
    params: Mapping[str, Tensor] | None,
) -> Tensor:
    token = ACTIVE.set(trace)
    try:
        if params is None:
            out = _called(module, kwargs)
        else:
            more = {"use_cache": False} if accepts(module, "use_cache") else {}
            out = torch.func.functional_call(
                module, dict(params), (), {**more, **kwargs}
            )
    except Stop as stop:
        return stop.residual
    finally:
        ACTIVE.reset(token)
    return output_of(out)


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


def _check_options(spec: ModelSpec, plan: Plan, options: Options) -> None:
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
        yield named(index, record), record.site
    for site in plan.captured:
        yield "the capture", site


def _bounds(spec: ModelSpec, options: Options) -> tuple[Site, ...]:
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


def _set_bounds(
    spec: ModelSpec, trace: Trace, options: Options, prepared: Prepared
) -> None:
    machinery: Machinery = spec.engine
    frame = prepared.main
    start, stop = options.start_at_layer, options.stop_at_layer
    if (start is None) != (options.residual is None):
        raise OptionError(
            "start_at_layer", "it goes with `residual`, and one of them is missing"
        )
    bounds = _bounds(spec, options)
    if stop is not None:
        trace.stop = machinery.taps[bounds[0]]
    if start is not None and options.residual is not None:
        _check_skip(machinery, start, prepared)
        known = {"batch": frame.batch, "pos": frame.n_pos, "stream": spec.n_streams}
        axes = bounds[-1].axes
        expected = tuple(known.get(axis, spec.d_model) for axis in axes)
        shape = tuple(options.residual.shape)
        if len(shape) != len(expected) or not fits(shape, expected):
            raise ShapeError("residual", shape, expected, axes)
        trace.start = (machinery.taps[bounds[-1]], options.residual)
        trace.skipped = frozenset(machinery.blocks[:start])


def _set_joins(spec: ModelSpec, trace: Trace, joins: Joins) -> None:
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


def _shifts(spec: ModelSpec, prepared: Prepared) -> dict[Point, tuple[int, ...]]:
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


def _set_logits(
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


def _reached(
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


def cache_of(spec: ModelSpec, trace: Trace) -> ActivationCache:
    """Make a cache of what a run captured."""
    machinery: Machinery = spec.engine
    frame = trace.frames[""]
    encoder = trace.frames.get("encoder", frame)
    whole = machinery.ordered(dict.fromkeys(site.whole for site in trace.captured))
    by_whole: dict[Site, list[Site]] = {}
    for site in trace.captured:
        by_whole.setdefault(site.whole, []).append(site)
    entries = {
        site: trace.captured[site][0] for held in whole for site in by_whole[held]
    }
    return ActivationCache(
        entries=entries,
        starts=frame.starts,
        stops=frame.stops,
        encoder_starts=None if encoder is frame else encoder.starts,
        encoder_stops=None if encoder is frame else encoder.stops,
        gated=spec.is_gated,
        receipts=trace.receipts(),
    )
