"""Running a model: with edits, with captures, or as it is."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import (
    ACTIVE,
    Machinery,
    Point,
    is_forward_mode,
    is_functional,
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
from funlens.engine._edits import tensors
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
    lacking,
    make_plan,
)
from funlens.engine._trace import Stop, Trace
from funlens.engine._where import resolved
from funlens.errors import InputError, OptionError, ShapeError


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

    Without interventions these are HuggingFace's logits, bit for bit.

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
        Logits `[batch, pos, vocab]`, after caps and scale; with `stop_at_layer` the
        residual `[batch, pos, d_model]`.

    Raises:
        FunlensError: Anything asked for that cannot be done, before the model runs.
        ExceptionGroup: Several such faults.
        RunError: An edit misbehaved, or never acted.
    """
    asked = (stop_at_layer, start_at_layer, residual, logits_at, params)
    if not interventions and all(option is None for option in asked):
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
            `head_result`. Memory: what is kept, and no more.
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
    out, trace = traced(spec, prepared, plan, options=options, measures=True)
    return Run(out, cache_of(spec, trace, offload=offload))


def check(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    capture: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
) -> None:
    """Find every fault of an experiment without running the model.

    Raises:
        FunlensError: The only fault that there is.
        ExceptionGroup: Every fault, each an error of funlens's own.
    """
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    plan = make_plan(spec, prepared.frames, interventions, captured=wanted)
    _check_given(spec, plan, prepared)


def _check_given(
    spec: ModelSpec, plan: Plan, prepared: Prepared, bounds: Sequence[Site] = ()
) -> None:
    """Refuse sites that are only met with an input that is not there."""
    machinery: Machinery = spec.engine
    if not machinery.asks_inputs:
        return
    edited = (record.site for record in plan.interventions)
    for site in (*edited, *plan.captured, *bounds):
        name = lacking(spec, site, prepared.kwargs)
        if name:
            raise InputError(
                f"{site} is only met where the model is given `{name}`",
                "it among the inputs",
                "Pass a mapping that holds it, or leave the site out",
            )


@contextmanager
def instrumented(
    spec: ModelSpec,
    interventions: Sequence[Intervention] = (),
    capture: Sequence[SiteLike] | Every = EVERY,
) -> Generator[Callable[[Inputs], Run]]:
    """Give a callable that runs with the same edits and captures each time.

    It holds no state beyond its arguments: it may be nested and shared.

    Args:
        spec: The model.
        interventions: What to change.
        capture: What to keep.

    Yields:
        A function from inputs to a `Run`.
    """

    def call(inputs: Inputs) -> Run:
        return run_with_cache(spec, inputs, interventions, capture=capture)

    yield call


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
        kwargs = compiled_kwargs(inputs, attention_mask)
        with nullcontext() if grad else torch.no_grad():
            return _called(machinery.module, kwargs).logits
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    options = Options(grad=grad)
    if is_forward_mode() or _shift(spec, prepared) is not None:
        plan = make_plan(spec, prepared.frames, ())
        return traced(spec, prepared, plan, options=options)[0]
    with nullcontext() if _wants_grad((), options) else torch.no_grad():
        return _called(machinery.module, prepared.kwargs).logits


def _called(module: nn.Module, kwargs: Mapping[str, Any]) -> Any:
    if accepts(module, "use_cache") and "use_cache" not in kwargs:
        return module(**kwargs, use_cache=False)
    return module(**kwargs)


def _wants_grad(interventions: Sequence[Intervention], options: Options) -> bool:
    if options.grad is not None:
        return options.grad
    if is_functional():
        return True
    passed = [part for edit in interventions for part in tensors(edit)]
    passed += [] if options.residual is None else [options.residual]
    passed += [] if options.params is None else [*options.params.values()]
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


def traced(
    spec: ModelSpec,
    prepared: Prepared,
    plan: Plan,
    *,
    options: Options,
    measures: bool = False,
    links: bool = False,
    module: nn.Module | None = None,
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
    """
    machinery: Machinery = spec.engine
    grad = links or _wants_grad(plan.interventions, options)
    _check_backward(plan.interventions, grad=grad)
    _check_given(spec, plan, prepared, _bounds(spec, options))
    trace = Trace(
        plan,
        machinery,
        prepared.frames,
        measures=measures,
        links=links,
        finite=options.finite,
        forces_eager=is_forward_mode()
        or (machinery.arch.biased_masks and (grad or is_functional())),
    )
    trace.shift = _shift(spec, prepared)
    _set_bounds(spec, trace, options, prepared)
    _set_logits(spec, trace, options, prepared)
    eager = plan.needs_eager or trace.forces_eager
    lent: AbstractContextManager[nn.Module] = (
        nullcontext(module or machinery.tapped(eager=eager))
        if options.params is None
        else machinery.lent(eager=eager)
    )
    with lent as running, nullcontext() if grad else torch.no_grad():
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
            _check_params(module, params)
            more = {"use_cache": False} if accepts(module, "use_cache") else {}
            out = torch.func.functional_call(
                module, dict(params), (), {**more, **kwargs}
            )
    except Stop as stop:
        return stop.residual
    finally:
        ACTIVE.reset(token)
    return out.logits


def _check_params(module: nn.Module, params: Mapping[str, Tensor]) -> None:
    known = dict(module.named_parameters(remove_duplicate=False))
    for name, value in params.items():
        if name not in known:
            raise OptionError("params", f"no weight is called {name!r}")
        if value.shape != known[name].shape:
            raise ShapeError(
                f"params[{name!r}]", tuple(value.shape), tuple(known[name].shape)
            )


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
    if start and machinery.blocks[start] == machinery.blocks[start - 1]:
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
        if tuple(options.residual.shape) != expected:
            shape = tuple(options.residual.shape)
            raise ShapeError("residual", shape, expected, axes)
        trace.start = (machinery.blocks[start], options.residual)
        trace.skipped = frozenset(machinery.blocks[:start])


def _shift(spec: ModelSpec, prepared: Prepared) -> tuple[Point, tuple[int, ...]] | None:
    """Tell where learned positions are counted from each row's first token.

    Nowhere, if nothing is padded on the left or the model is told its positions.
    """
    tap = spec.engine.taps.get(Site(part="pos_embed"))
    starts = prepared.main.starts
    is_told = "position_ids" in prepared.kwargs
    if tap is None or starts is None or not any(starts) or is_told:
        return None
    return (tap.path, tap.side), starts


def _set_logits(
    spec: ModelSpec, trace: Trace, options: Options, prepared: Prepared
) -> None:
    if options.logits_at is None:
        return
    machinery: Machinery = spec.engine
    if not machinery.unembed:
        raise OptionError("logits_at", f"{spec.name} has no unembedding")
    site = Site(part="ln_final_normalized", pos=options.logits_at)
    sizes = {"pos": prepared.main.n_pos}
    axes = resolved(site, sizes, prepared.frames)
    kept = tuple(attrs.evolve(axis, dropped=False) for axis in axes)
    trace.logits_at = ((machinery.unembed, "in"), kept)


def _reached(
    spec: ModelSpec, wanted: tuple[Site, ...], options: Options
) -> tuple[Site, ...]:
    """Of every site, those that a run from one layer to another passes."""
    start, stop = options.start_at_layer or 0, options.stop_at_layer
    if stop is None and not start:
        return wanted
    end = spec.n_layers if stop is None else stop
    after = stop is None

    def passed(site: Site) -> bool:
        if site.stack:
            return True
        if site.layer is None:
            return site.part in {"embed", "pos_embed"} or after
        reaches = stop is not None and site.layer == stop and site.part in ENTERING
        return start <= site.layer < end or reaches

    return tuple(site for site in wanted if passed(site))


def cache_of(
    spec: ModelSpec, trace: Trace, *, offload: torch.device | str | None = None
) -> ActivationCache:
    """Make a cache of what a run captured."""
    machinery: Machinery = spec.engine
    frame = trace.frames[""]
    whole = machinery.ordered(dict.fromkeys(site.whole for site in trace.captured))
    by_whole: dict[Site, list[Site]] = {}
    for site in trace.captured:
        by_whole.setdefault(site.whole, []).append(site)
    entries = {
        site: trace.captured[site][0] for held in whole for site in by_whole[held]
    }
    cache = ActivationCache(
        entries=entries,
        starts=frame.starts,
        stops=frame.stops,
        gated=spec.is_gated,
        receipts=trace.receipts(),
    )
    return cache if offload is None else cache.to(offload)
