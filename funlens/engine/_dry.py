"""A run on tensors without values: every shape, before any weight is touched."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from torch import Tensor

from funlens.adapters import Machinery
from funlens.data import (
    Intervention,
    ModelSpec,
    Site,
    SiteInfo,
    SiteLike,
    axis_of,
    drops_axis,
)
from funlens.engine._inputs import Inputs, prepare
from funlens.engine._plan import EVERY, Every, captured_sites, make_plan
from funlens.engine._run import Options, traced
from funlens.errors import UnsupportedConfigError


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
        FunlensError: The only fault that there is.
        ExceptionGroup: Several faults.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    wanted = captured_sites(spec, capture, prepared.kwargs)
    plan = make_plan(spec, prepared.frames, interventions, captured=wanted)
    machinery: Machinery = spec.engine
    if machinery.weights_away:
        raise UnsupportedConfigError(
            spec.model_type,
            f"{machinery.weights_away}, and fake tensors cannot pass what brings them",
            "Use `funlens.check`, or load the model whole on one device.",
        )
    mode: Any = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        given = {
            name: mode.from_tensor(value) if isinstance(value, Tensor) else value
            for name, value in prepared.kwargs.items()
        }
        module = machinery.faked(mode.from_tensor, eager=plan.needs_eager)
        fake = attrs.evolve(prepared, kwargs=given)
        _, trace = traced(spec, fake, plan, options=Options(), module=module)
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
