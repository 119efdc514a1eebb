"""Carrying a plan out: the tapped model, run under a trace."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from funlens.adapters import (
    ACTIVE,
    Machinery,
    is_differentiating,
    is_forward_mode,
    is_functional,
    output_of,
)
from funlens.data import (
    ActivationCache,
    Backward,
    Intervention,
    ModelSpec,
    Site,
)
from funlens.engine._edits import tensors
from funlens.engine._inputs import (
    Prepared,
    accepts,
)
from funlens.engine._options import (
    Joins,
    Options,
    bounds,
    check_options,
    set_bounds,
    set_joins,
    set_logits,
    shifts,
)
from funlens.engine._plan import (
    Plan,
    check_given,
)
from funlens.engine._trace import Stop, Trace, Watch
from funlens.errors import (
    OptionError,
    UnsupportedConfigError,
)


def called(module: nn.Module, kwargs: Mapping[str, Any]) -> Any:
    if accepts(module, "use_cache") and "use_cache" not in kwargs:
        return module(**kwargs, use_cache=False)
    return module(**kwargs)


def wants_grad(
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


def recording_graph(spec: ModelSpec, *, grad: bool) -> AbstractContextManager[Any]:
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
    enters_unembed: bool = False,
    watch: Watch | None = None,
    eager: bool = False,
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
        enters_unembed: Whether to give what enters the unembedding, and not pass it.
        watch: What is shown gradients as they pass.
        eager: Whether all attention runs eager.
    """
    check_options(spec, plan, options)
    machinery: Machinery = spec.engine
    grad = links or wants_grad(plan.interventions, options, prepared)
    _check_backward(plan.interventions, grad=grad)
    check_given(spec, plan, prepared.kwargs, bounds(spec, options))
    trace = Trace(
        plan,
        machinery,
        prepared.frames,
        measures=measures,
        links=links,
        finite=options.finite,
        offload=offload,
        rounds=joins is not None,
        watch=watch,
        forces_eager=eager
        or is_forward_mode()
        or (machinery.arch.biased_masks and (grad or is_functional())),
    )
    trace.shifts = shifts(spec, prepared)
    set_bounds(spec, trace, options, prepared)
    set_logits(spec, trace, options, prepared)
    if joins is not None:
        set_joins(spec, trace, joins)
    if enters_unembed:
        trace.stop = machinery.unembedding
    runs_eager = plan.needs_eager or trace.forces_eager
    lent: AbstractContextManager[nn.Module] = (
        nullcontext(module or machinery.tapped(eager=runs_eager))
        if options.params is None
        else machinery.lent(eager=runs_eager)
    )
    with recording_graph(spec, grad=grad), lent as running:
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
            out = called(module, kwargs)
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
