"""Experiments looked at without running them: every fault, and every shape."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from funlens.adapters import Machinery
from funlens.data import Apply, Intervention, ModelSpec, Site, SiteLike, Splice
from funlens.engine._edits import changed
from funlens.engine._inputs import Frame, Inputs, prepare
from funlens.engine._plan import (
    EVERY,
    Edit,
    Every,
    axis_sizes,
    captured_sites,
    gathered,
    left_of,
    make_plan,
    named,
    placed,
    raise_all,
    records,
    tap_of,
)
from funlens.engine._where import resolved
from funlens.errors import FunlensError, UserFunctionError


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
    prepared = prepare(spec, inputs, attention_mask=attention_mask)
    frames, faults = prepared.frames, list[FunlensError]()
    wanted: tuple[Site, ...] = ()
    with gathered(faults):
        wanted = captured_sites(spec, capture)
    with gathered(faults):
        make_plan(spec, frames, interventions, captured=wanted)
    for edit in placed(spec, frames, records(interventions), faults=[]):
        with gathered(faults):
            _call(spec, edit, frames)
    raise_all(faults)


def shapes(
    spec: ModelSpec,
    inputs: Inputs,
    *,
    capture: Sequence[SiteLike] | Every = EVERY,
    attention_mask: Tensor | None = None,
) -> Mapping[Site, tuple[int, ...]]:
    """Tell what shapes a run would capture, without running the model.

    Args:
        spec: The model.
        inputs: As for `run`.
        capture: As for `run_with_cache`.
        attention_mask: As for `run`.

    Raises:
        FunlensError: The inputs or the sites do not fit the model.

    Examples:
        >>> import funlens as fl
        >>> spec = fl.load("builtin:tiny")
        >>> found = fl.shapes(spec, "The weather is", capture=[fl.z(0, head=1)])
        >>> found[fl.z(0, head=1)]
        (1, 4, 32)
    """
    frames = prepare(spec, inputs, attention_mask=attention_mask).frames
    found: dict[Site, tuple[int, ...]] = {}
    for site in captured_sites(spec, capture):
        where = resolved(site, axis_sizes(spec, site, frames), frames)
        found[site] = left_of(spec, site, where, frames=frames)[1]
    return found


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
            changed(record, value, where=named(edit.index, record), generator=None)
    except UserFunctionError as error:
        if not _needs_values(error.__cause__):
            raise


def _needs_values(cause: BaseException | None) -> bool:
    """Tell whether a function failed for want of values, as `.item()` does."""
    is_kind_of_torch = (
        isinstance(cause, RuntimeError) and type(cause) is not RuntimeError
    )
    return is_kind_of_torch or "tensor subclasses" in str(cause)
