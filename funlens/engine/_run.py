"""Running a model: with edits, with captures, or as it is."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import attrs
import torch
from torch import Tensor

from funlens.adapters import (
    Machinery,
    is_forward_mode,
    output_of,
)
from funlens.data import (
    Intervention,
    ModelSpec,
    Run,
    Selection,
    SiteLike,
)
from funlens.engine._inputs import (
    Inputs,
    compiled_kwargs,
    prepare,
)
from funlens.engine._options import Options, reached, shifts
from funlens.engine._plan import (
    EVERY,
    Every,
    captured_sites,
    make_plan,
    records,
)
from funlens.engine._traced import cache_of, called, recording_graph, traced, wants_grad
from funlens.errors import (
    OptionError,
)


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
        wanted = reached(spec, wanted, options)
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
            return output_of(called(machinery.bare(), kwargs))
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    options = Options(grad=grad)
    if is_forward_mode() or shifts(spec, prepared):
        plan = make_plan(spec, prepared.frames, ())
        return traced(spec, prepared, plan, options=options)[0]
    with recording_graph(spec, grad=wants_grad((), options, prepared)):
        return output_of(called(machinery.bare(), prepared.kwargs))


def _device_named(offload: torch.device | str | None) -> torch.device | None:
    """Read a device's name."""
    try:
        return None if offload is None else torch.device(offload)
    except RuntimeError as error:
        problem = f"{offload!r} is no device"
        raise OptionError("offload", problem, ("cpu", "cuda", "cuda:1")) from error
