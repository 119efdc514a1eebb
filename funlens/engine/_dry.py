"""A run on tensors without values: every shape, before any weight is touched."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from funlens.adapters import Machinery
from funlens.data import (
    ENTERING,
    Intervention,
    ModelSpec,
    Site,
    SiteInfo,
    SiteLike,
    axis_of,
    drops_axis,
)
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._options import Options
from funlens.engine._plan import EVERY, Every, Plan, captured_sites, make_plan
from funlens.engine._trace import Trace
from funlens.engine._traced import traced
from funlens.errors import UnsupportedConfigError

# What fake tensors raise where a value is wanted, and where a shape depends on values.
_VALUES: Final = (DataDependentOutputException, DynamicOutputShapeException)


def dry_run(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    capture: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
) -> tuple[SiteInfo, ...]:
    """Find every shape and every fault of an experiment without computing anything.

    The model runs on fake tensors, which have a shape and no values: no weight is
    read and no activation is made. Functions of `Apply` run on them too, so that one
    that returns another shape is found here.

    Args:
        spec: The model.
        inputs: As for `run`.
        interventions: What would be changed.
        capture: What would be kept.
        attention_mask: As for `run`.

    Returns:
        Each site that would be kept, with the shape it would have.

    Raises:
        UnsupportedConfigError: The model's own code reads values, as it does where
            tokens stand for pictures.
        FunlensError: The only fault that there is.
        ExceptionGroup: Several faults.
    """
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    machinery: Machinery = spec.engine
    if machinery.weights_away:
        raise UnsupportedConfigError(
            spec.model_type,
            f"{machinery.weights_away}, and fake tensors cannot pass what brings them",
            "Use `funlens.check`, or load the model whole on one device.",
        )
    prepared = measured(spec, prepared)
    plan = make_plan(spec, prepared.frames, interventions, captured=wanted)
    try:
        trace = _faked(spec, prepared, plan)
    except _VALUES as error:
        raise UnsupportedConfigError(
            spec.model_type,
            "its own code reads values of tensors, which fake ones do not have",
            "Use `funlens.check`, which needs none, or `funlens.run_with_cache`.",
        ) from error
    return tuple(
        SiteInfo(
            site=site,
            axes=_axes(site, tensor),
            shape=tuple(tensor.shape),
            read_only=machinery.taps[site.whole].read_only,
            given=machinery.taps[site.whole].given,
        )
        for site, (tensor, *_) in _ordered(machinery, trace.captured)
    )


def measured(spec: ModelSpec, prepared: Prepared) -> Prepared:
    """Find how many positions the main stack has, where inputs do not tell.

    Costs a run on tensors without values. Nothing is found where that would need
    values, or where layers differ in their positions.
    """
    machinery: Machinery = spec.engine
    main = machinery.stack("")
    differ = bool(main.shrinks) or main.squeezes
    if prepared.main.n_pos or differ or machinery.is_offloaded:
        return prepared
    entering = ENTERING[spec.n_streams > 1]
    first = Site(part=entering, layer=0)
    plan = make_plan(spec, prepared.frames, (), captured=(first,))
    try:
        trace = _faked(spec, prepared, plan)
    except _VALUES:
        return prepared
    n_pos = trace.captured[first][0].shape[1]
    frame = attrs.evolve(prepared.main, n_pos=n_pos)
    return attrs.evolve(prepared, frames={**prepared.frames, "": frame})


def _faked(spec: ModelSpec, prepared: Prepared, plan: Plan) -> Trace:
    """Carry a plan out on tensors without values."""
    machinery: Machinery = spec.engine
    mode: Any = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        given = {
            name: mode.from_tensor(value) if isinstance(value, Tensor) else value
            for name, value in prepared.kwargs.items()
        }
        module = machinery.faked(mode.from_tensor, eager=plan.needs_eager)
        fake = attrs.evolve(prepared, kwargs=given)
        _, trace = traced(spec, fake, plan, options=Options(), module=module)
    return trace


def _axes(site: Site, tensor: Tensor) -> tuple[str, ...]:
    """Name the axes that a selection leaves."""
    dropped = {
        axis_of(site.part, word)
        for word, chosen in site.selections
        if drops_axis(chosen)
    }
    names = tuple(axis for at, axis in enumerate(site.axes) if at not in dropped)
    if len(names) != tensor.ndim:  # the view of the site and its axes disagree
        raise AssertionError(site)
    return names


def _ordered(
    machinery: Machinery, captured: Mapping[Site, list[Tensor]]
) -> list[tuple[Site, list[Tensor]]]:
    whole = machinery.ordered(dict.fromkeys(site.whole for site in captured))
    return sorted(captured.items(), key=lambda pair: whole.index(pair[0].whole))
