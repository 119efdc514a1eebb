"""Experiments looked at without running them: every fault."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from funlens.adapters import Machinery
from funlens.data import Apply, Intervention, ModelSpec, Site, SiteLike, Splice
from funlens.engine._dry import measured
from funlens.engine._edits import changed, read_by
from funlens.engine._inputs import Frame, Inputs, prepare
from funlens.engine._plan import (
    EVERY,
    Edit,
    Every,
    captured_sites,
    check_given,
    gathered,
    left_of,
    make_plan,
    named,
    placed,
    records,
    tap_of,
)
from funlens.errors import FunlensError, UserFunctionError, raise_all


def check(
    spec: ModelSpec,
    inputs: Inputs,
    interventions: Sequence[Intervention] = (),
    *,
    capture: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
) -> None:
    """Find every fault of an experiment without running the model.

    Functions and modules of `Apply` and `Splice` are called on fake tensors, which have
    shapes and no values; what they do to values is not looked at.

    Raises:
        FunlensError: The only fault that there is.
        ExceptionGroup: Every fault, each an error of funlens's own.
    """
    prepared = measured(spec, prepare(spec, inputs, attention_mask=attention_mask))
    frames, faults = prepared.frames, list[FunlensError]()
    wanted: tuple[Site, ...] = ()
    with gathered(faults):
        wanted = captured_sites(spec, capture, prepared.kwargs)
    with gathered(faults):
        plan = make_plan(spec, frames, interventions, captured=wanted)
        check_given(spec, plan, prepared.kwargs)
    for edit in placed(spec, frames, records(interventions), faults=[]):
        with gathered(faults):
            _call(spec, edit, frames)
    raise_all(faults)


def _call(spec: ModelSpec, edit: Edit, frames: Mapping[str, Frame]) -> None:
    """Call the code that an edit holds on a fake value.

    Raises:
        UserFunctionError: It raises, or returns something else than such a value.
    """
    record = edit.record
    machinery: Machinery = spec.engine
    dtypes = machinery.dtypes(record.site.part)
    is_known = len(dtypes) == 1 and all(axis.since is None for axis in edit.where)
    if not isinstance(record, (Apply, Splice)) or not is_known:
        return
    device = machinery.device_at(tap_of(spec, record.site))
    _, shape = left_of(spec, record.site, edit.where, frames=frames)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad():
            value = torch.empty(shape, dtype=spec.dtype, device=device)
            read = [_fake(spec, site, frames) for site in read_by(record)]
            changed(record, value, where=named(edit.index, record), read=read)
    except UserFunctionError as error:
        if not _needs_values(error.__cause__):
            raise


def _fake(spec: ModelSpec, site: Site, frames: Mapping[str, Frame]) -> Tensor:
    """Make a value without numbers, as a site has it."""
    _, shape = left_of(spec, site, (), frames=frames)
    device = spec.engine.device_at(tap_of(spec, site))
    return torch.empty(shape, dtype=spec.dtype, device=device)


def _needs_values(cause: BaseException | None) -> bool:
    """Tell whether a function failed for want of values, as `.item()` does."""
    is_kind_of_torch = (
        isinstance(cause, RuntimeError) and type(cause) is not RuntimeError
    )
    return is_kind_of_torch or "tensor subclasses" in str(cause)
