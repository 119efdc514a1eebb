"""The plan of a run: what happens at which tap. Every fault is found here."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Final

import attrs
import torch

from funlens.adapters import Machinery, Point, Tap
from funlens.data import (
    AXES,
    DECIDING,
    INTEGER_PARTS,
    Backward,
    ForwardEdit,
    Intervention,
    ModelSpec,
    Part,
    Selection,
    Site,
    SiteLike,
    Zero,
    to_sites,
)
from funlens.engine._edits import check_dtype, fits, operand
from funlens.engine._inputs import UNKNOWN, Frame
from funlens.engine._where import Axis, resolved
from funlens.errors import (
    ConflictError,
    FunlensError,
    InputError,
    OptionError,
    ReadOnlySiteError,
    ShapeError,
    SiteNotFoundError,
    nearest,
)

_MOST_PLANS: Final = 32  # a spec is asked for few kinds of capture
_STREAM: Final = ("resid_pre", "resid_mid", "resid_post")
_IN_ORDER: Final = (
    "resid_pre",
    "attn_out",
    "ssm_out",
    "cross_out",
    "resid_mid",
    "mlp_out",
    "dense_out",
    "resid_post",
)
_INSIDE: Final = frozenset({"scores", "pattern"})
_NEEDS_EAGER: Final = frozenset({"scores", "pattern", "rot_q", "rot_k"})


@attrs.frozen
class Every:
    """All sites, but `head_result`, which is as large as all heads times the stream."""


EVERY: Final = Every()
"""Capture every site but `head_result`, which is kept where it is asked for."""


@attrs.frozen(kw_only=True, eq=False)
class Edit:
    """One intervention, and where on its site it acts."""

    index: int
    record: Intervention
    where: tuple[Axis, ...]


@attrs.frozen(kw_only=True, eq=False)
class Keep:
    """One capture, and what of its site is kept."""

    site: Site
    where: tuple[Axis, ...]


@attrs.frozen(kw_only=True, eq=False)
class Act:
    """What happens at one tap.

    Attributes:
        tap: The tap.
        edits: Interventions in the order given.
        backward: Interventions on the gradient.
        keeps: Captures.
        stash: Name under which the value is kept for the sums that follow.
        rejoin: Names of what a stream was and has become, and of what was added since:
            their sum replaces the value.
    """

    tap: Tap
    edits: tuple[Edit, ...] = ()
    backward: tuple[Edit, ...] = ()
    keeps: tuple[Keep, ...] = ()
    stash: str = ""
    rejoin: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, eq=False)
class Plan:
    """What happens in one run.

    Attributes:
        acts: What happens at each point, in order.
        inside: Modules whose inner steps are looked at.
        needs_eager: Whether any scores or pattern are looked at.
        interventions: The interventions, as given.
        captured: The sites that will be kept, in forward order.
    """

    acts: Mapping[Point, tuple[Act, ...]]
    inside: frozenset[str]
    needs_eager: bool
    interventions: tuple[Intervention, ...]
    captured: tuple[Site, ...]


def named(index: int, record: Intervention) -> str:
    """Name an intervention in an error."""
    return f"interventions[{index}] ({type(record).__name__})"


def lacking(spec: ModelSpec, site: Site, given: Mapping[str, object]) -> str:
    """Name the input without which a site is not met; empty where nothing lacks."""
    tap = spec.engine.taps.get(site.whole)
    name = "" if tap is None else tap.given
    return name if name and given.get(name) is None else ""


def captured_sites(
    spec: ModelSpec, capture: Sequence[SiteLike] | Every, given: Mapping[str, object]
) -> tuple[Site, ...]:
    """Spell out which sites a capture means.

    Args:
        spec: The model.
        capture: Sites, parts in all layers, or names. Of all sites, or all layers,
            those are left out that are only met with an input that is not there.
        given: The model's inputs.

    Raises:
        SiteNotFoundError: The model has no such site.
        InputError: It is empty, or one site rather than a list of them.
    """
    if isinstance(capture, Every):
        every = tuple(i.site for i in spec.sites if i.site.part != "head_result")
        return _met(spec, every, given)
    if isinstance(capture, (str, Site, Part)):
        raise InputError("`capture` is one site", "a list", "Write `[site]`")
    if not capture:
        raise InputError(
            "`capture` is empty", "at least one site", "Use `run` to keep nothing"
        )
    found: dict[Site, None] = {}
    for like in capture:
        wanted = to_sites(like, n_layers=spec.n_layers, gated=spec.is_gated)
        if isinstance(like, Part) or like in AXES:
            wanted = _layers_of(spec, wanted)
            wanted = _met(spec, wanted, given) or wanted
        for site in wanted:
            tap_of(spec, site)
            found[site] = None
    return tuple(found)


def _met(
    spec: ModelSpec, wanted: tuple[Site, ...], given: Mapping[str, object]
) -> tuple[Site, ...]:
    machinery: Machinery = spec.engine
    if not machinery.asks_inputs:
        return wanted
    return tuple(site for site in wanted if not lacking(spec, site, given))


def _layers_of(spec: ModelSpec, wanted: tuple[Site, ...]) -> tuple[Site, ...]:
    """For a part in all layers: the layers that have it."""
    machinery: Machinery = spec.engine
    first = wanted[0]
    held = tuple(
        site
        for site in machinery.taps
        if (site.part, site.stack) == (first.part, first.stack)
    )
    return held or wanted


def tap_of(spec: ModelSpec, site: Site) -> Tap:
    """Find the tap of a site.

    Raises:
        SiteNotFoundError: The model has no such site.
    """
    machinery: Machinery = spec.engine
    tap = machinery.taps.get(site.whole)
    if tap is None:
        names = [str(known) for known in machinery.taps]
        raise SiteNotFoundError(str(site), spec.n_layers, nearest(str(site), names))
    return tap


def axis_sizes(
    spec: ModelSpec, site: Site, frames: Mapping[str, Frame]
) -> dict[str, int]:
    """Give the length of each axis of a site in one run; 0 where it is not known."""
    machinery: Machinery = spec.engine
    info = machinery.shapes[site.whole]
    frame = frames.get(site.stack, UNKNOWN)
    known = {
        "batch": frame.batch,
        "pos": frame.n_pos,
        "query": frame.n_pos,
        "key": frame.n_pos,
        "source": frames.get("encoder", UNKNOWN).n_pos,
    }
    return {
        axis: size if isinstance(size, int) else known.get(size, 0)
        for axis, size in zip(info.axes, info.shape, strict=True)
    }


def check_edit(
    spec: ModelSpec,
    edit: Edit,
    frames: Mapping[str, Frame],
) -> None:
    """Check shape, dtype and permission of one intervention.

    Raises:
        ReadOnlySiteError: The site cannot be changed.
        ShapeError: The tensor does not fit the selection.
        DtypeError: The tensor has another dtype than the activations.
    """
    record, where = edit.record, named(edit.index, edit.record)
    tap = tap_of(spec, record.site)
    if tap.read_only:
        raise ReadOnlySiteError(str(record.site), tap.read_only)
    held = operand(record)
    if held is None:
        return
    sizes = axis_sizes(spec, record.site, frames)
    shape = [(axis, sizes[axis]) for axis in record.site.axes]
    for axis in sorted(edit.where, key=lambda a: -a.at):
        found = axis.found
        n_found = len(found[0]) if found and isinstance(found[0], tuple) else len(found)
        if axis.later is None:
            shape[axis.at] = (shape[axis.at][0], n_found)
    dropped = {axis.at for axis in edit.where if axis.dropped}
    left = [pair for at, pair in enumerate(shape) if at not in dropped]
    expected = tuple(size for _, size in left)
    moving = any(axis.since is not None for axis in edit.where)
    if not moving and not fits(tuple(held[1].shape), expected):
        names = tuple(name for name, _ in left)
        raise ShapeError(f"{where}.{held[0]}", tuple(held[1].shape), expected, names)
    is_index = record.site.part in INTEGER_PARTS
    check_dtype(record, torch.int64 if is_index else spec.dtype, where=where)


def make_plan(
    spec: ModelSpec,
    frames: Mapping[str, Frame],
    interventions: Sequence[Intervention],
    *,
    captured: tuple[Site, ...] = (),
) -> Plan:
    """Lay out a run, and find every fault in what was asked for.

    Raises:
        FunlensError: The only fault that there is.
        ExceptionGroup: Several faults, each an error of funlens's own.
    """
    machinery: Machinery = spec.engine
    if not interventions and captured in machinery.plans:
        plan: Plan = machinery.plans[captured]
        return plan
    faults: list[FunlensError] = []
    edits: defaultdict[Site, list[Edit]] = defaultdict(list)
    for index, record in enumerate(_records(interventions)):
        try:
            tap_of(spec, record.site)
            sizes = axis_sizes(spec, record.site, frames)
            where = resolved(record.site, sizes, frames)
            edit = Edit(index=index, record=record, where=where)
            check_edit(spec, edit, frames)
            edits[record.site.whole].append(edit)
        except FunlensError as error:
            error.add_note(f"in {named(index, record)}")
            faults.append(error)
    faults += _conflicts(interventions)
    keeps: defaultdict[Site, list[Keep]] = defaultdict(list)
    for site in captured:
        try:
            sizes = axis_sizes(spec, site, frames) if site.selections else {}
            where = resolved(site, sizes, frames)
            keeps[site.whole].append(Keep(site=site, where=where))
        except FunlensError as error:
            faults.append(error)
    raise_all(faults)
    plan = _laid_out(spec, edits, keeps, tuple(interventions))
    is_fixed = not any(site.selections for site in captured)
    if not interventions and is_fixed and len(machinery.plans) < _MOST_PLANS:
        machinery.plans[captured] = plan
    return plan


def raise_all(faults: Sequence[FunlensError]) -> None:
    """Raise one fault as it is, several as a group."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        message = f"{len(faults)} faults in what was asked for"
        raise ExceptionGroup(message, list(faults))


def _records(interventions: Sequence[Intervention]) -> Sequence[Intervention]:
    if isinstance(interventions, (str, Site)) or not isinstance(
        interventions, Sequence
    ):  # pyright: ignore[reportUnnecessaryIsInstance] (callers need no types)
        raise OptionError(
            "interventions", f"it is a {type(interventions).__name__}, not a list"
        )
    for index, record in enumerate(interventions):
        if not isinstance(getattr(record, "site", None), Site):
            problem = f"interventions[{index}] is a {type(record).__name__}"
            raise OptionError("interventions", problem)
    return interventions


def _conflicts(interventions: Sequence[Intervention]) -> list[FunlensError]:
    deciding = [
        (index, record)
        for index, record in enumerate(interventions)
        if isinstance(_plain_edit(record), DECIDING)
    ]
    return [
        ConflictError(named(*first), named(*second), str(second[1].site))
        for first, second in combinations(deciding, 2)
        if isinstance(first[1], Backward) == isinstance(second[1], Backward)
        if not _are_zero(first[1], second[1])
        if overlap(first[1].site, second[1].site)
    ]


def _plain_edit(record: Intervention) -> ForwardEdit:
    return record.edit if isinstance(record, Backward) else record


def _are_zero(first: Intervention, second: Intervention) -> bool:
    """Zero twice is zero once: no conflict."""
    return all(isinstance(_plain_edit(record), Zero) for record in (first, second))


def overlap(first: Site, second: Site) -> bool:
    """Tell whether two sites may share a place."""
    if first.whole != second.whole:
        return False
    theirs = dict(second.selections)
    return not any(
        word in theirs and _are_apart(chosen, theirs[word])
        for word, chosen in first.selections
    )


def _are_apart(first: Selection, second: Selection) -> bool:
    one, other = _plain(first), _plain(second)
    if one is None or other is None:
        return False
    same_side = all(i >= 0 for i in one + other) or all(i < 0 for i in one + other)
    return same_side and not set(one) & set(other)


def _plain(chosen: Selection) -> tuple[int, ...] | None:
    if isinstance(chosen, int):
        return (chosen,)
    return chosen if isinstance(chosen, tuple) else None


def _laid_out(
    spec: ModelSpec,
    edits: Mapping[Site, Sequence[Edit]],
    keeps: Mapping[Site, Sequence[Keep]],
    interventions: tuple[Intervention, ...],
) -> Plan:
    machinery: Machinery = spec.engine
    acts: defaultdict[Point, list[Act]] = defaultdict(list)
    moved: set[Site] = set()
    for site in machinery.ordered(dict.fromkeys([*edits, *keeps])):
        tap = machinery.taps[site]
        here = edits.get(site, ())
        act = Act(
            tap=tap,
            edits=tuple(e for e in here if not isinstance(e.record, Backward)),
            backward=tuple(e for e in here if isinstance(e.record, Backward)),
            keeps=tuple(keeps.get(site, ())),
        )
        if tap.rejoins and here:
            moved.add(site)
        acts[tap.path, tap.side].append(act)
    for stack in {site.stack for site in moved}:
        _carry(machinery, acts, {site for site in moved if site.stack == stack})
    inside = frozenset(
        path for path, side in acts if side in _INSIDE or side == "linear"
    ) | _inside_of_families(machinery, acts)
    return Plan(
        acts={point: tuple(row) for point, row in acts.items()},
        inside=inside,
        needs_eager=any(side in _NEEDS_EAGER for _, side in acts),
        interventions=interventions,
        captured=tuple(keep.site for row in keeps.values() for keep in row),
    )


def _inside_of_families(
    machinery: Machinery, acts: Mapping[Point, list[Act]]
) -> frozenset[str]:
    found = frozenset(path for path, side in acts if side in _NEEDS_EAGER)
    return found & machinery.watched


def _carry(
    machinery: Machinery, acts: defaultdict[Point, list[Act]], moved: set[Site]
) -> None:
    """Let edits of a stream within a block reach the sums that follow.

    The model adds to the stream that it had before, so where that was changed the
    sum is made anew, up to the first place where the model goes on with what it finds.
    """
    carried: Tap | None = None
    names: list[str] = []
    for tap in _stream_of(machinery, moved):
        point = (tap.path, tap.side)
        if carried is not None and point == (carried.path, carried.side):
            continue
        if tap.site.part not in _STREAM:
            if carried is not None:
                names.append(f"out.{tap.site}")
                acts[point].append(Act(tap=tap, stash=names[-1]))
            continue
        if carried is not None:
            acts[point].insert(0, Act(tap=tap, rejoin=tuple(names)))
        goes_on = tap.rejoins and (
            carried is not None or _is_moved(acts.get(point, ()), moved)
        )
        carried = tap if goes_on else None
        if goes_on:
            names = [f"was.{tap.site}", f"now.{tap.site}"]
            acts[point].insert(0, Act(tap=tap, stash=names[0]))
            acts[point].append(Act(tap=tap, stash=names[1]))


def _is_moved(acts: Sequence[Act], moved: set[Site]) -> bool:
    return any(act.tap.site in moved for act in acts)


def _stream_of(machinery: Machinery, moved: set[Site]) -> Iterator[Tap]:
    """Go through a stack's stream and what is added to it, from the first edit on."""
    (stack,) = {site.stack for site in moved}
    first = min(site.layer or 0 for site in moved)
    last = max(site.layer or 0 for site in machinery.taps if site.stack == stack)
    for layer in range(first, last + 1):
        for part in _IN_ORDER:
            tap = machinery.taps.get(Site(part=part, layer=layer, stack=stack))
            if tap is not None:
                yield tap
