"""The plan of a run: what happens at which tap. Every fault is found here."""

from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Final

import attrs
from toolz import groupby

from funlens.adapters import Machinery, Point, Tap
from funlens.data import (
    DECIDING,
    LARGE_PARTS,
    Backward,
    ForwardEdit,
    Freeze,
    Intervention,
    ModelSpec,
    Part,
    Site,
    SiteLike,
    Zero,
    part_named,
    to_sites,
)
from funlens.engine._edits import check_tensors, fits, operand, read_by, span
from funlens.engine._inputs import UNKNOWN, Frame
from funlens.engine._where import Axis, are_apart, resolved
from funlens.errors import (
    ConflictError,
    FunlensError,
    InputError,
    OptionError,
    ReadOnlySiteError,
    ShapeError,
    SiteNotFoundError,
    nearest,
    raise_all,
)

_MOST_PLANS: Final = 32  # a spec is asked for few kinds of capture
_STREAM: Final = ("resid_pre", "resid_mid", "resid_post")
_IN_ORDER: Final = (
    "resid_pre",
    "macaron_out",
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
    """All sites but `head_result` and `ssm_state`, which are far larger than others."""


EVERY: Final = Every()
"""Capture every site but `head_result` and `ssm_state`, kept where asked for."""


@attrs.frozen(kw_only=True, eq=False)
class Edit:
    """One intervention, and where on its site it acts.

    Attributes:
        index: Its number among the interventions of the run.
        record: The intervention.
        where: What of the site is selected.
        rows: Of several runs stacked below each other: which one it belongs to, and
            how many rows each has. None where it acts on all rows.
    """

    index: int
    record: Intervention
    where: tuple[Axis, ...]
    rows: tuple[int, int] | None = None


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
        noted: Whether edits at later sites read the value.
    """

    tap: Tap
    edits: tuple[Edit, ...] = ()
    backward: tuple[Edit, ...] = ()
    keeps: tuple[Keep, ...] = ()
    stash: str = ""
    rejoin: tuple[str, ...] = ()
    noted: bool = False


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


def check_given(
    spec: ModelSpec,
    plan: Plan,
    given: Mapping[str, object],
    bounds: Sequence[Site] = (),
) -> None:
    """Refuse sites that are only met with an input that is not there."""
    machinery: Machinery = spec.engine
    if not machinery.asks_inputs:
        return
    edited = (record.site for record in plan.interventions)
    read = (site for record in plan.interventions for site in read_by(record))
    for site in (*edited, *read, *plan.captured, *bounds):
        name = lacking(spec, site, given)
        if name:
            raise InputError(
                f"{site} is only met where the model is given `{name}`",
                "it among the inputs",
                "Pass a mapping that holds it, or leave the site out",
            )


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
        ExceptionGroup: Several sites that are not there.
    """
    if isinstance(capture, Every):
        every = tuple(i.site for i in spec.sites if i.site.part not in LARGE_PARTS)
        return _met(spec, every, given)
    if isinstance(capture, (str, Site, Part)):
        raise InputError("`capture` is one site", "a list", "Write `[site]`")
    if not capture:
        raise InputError(
            "`capture` is empty", "at least one site", "Use `run` to keep nothing"
        )
    found: dict[Site, None] = {}
    faults: list[FunlensError] = []
    for like in capture:
        try:
            wanted = sites_meant(spec, like)
        except FunlensError as error:
            faults.append(error)
            continue
        if not isinstance(like, Site):
            wanted = _met(spec, wanted, given) or wanted
        found.update(dict.fromkeys(wanted))
    raise_all(faults)
    return tuple(found)


def _met(
    spec: ModelSpec, wanted: tuple[Site, ...], given: Mapping[str, object]
) -> tuple[Site, ...]:
    machinery: Machinery = spec.engine
    if not machinery.asks_inputs:
        return wanted
    return tuple(site for site in wanted if not lacking(spec, site, given))


def sites_meant(spec: ModelSpec, like: SiteLike) -> tuple[Site, ...]:
    """Spell out a site, or a part in the layers that have it.

    Raises:
        SiteNotFoundError: The model has no such site.
    """
    machinery: Machinery = spec.engine
    part = part_named(like) if isinstance(like, str) else like
    if isinstance(part, Part):
        wanted = (part.name, part.stack)
        held = [s for s in machinery.taps if (s.part, s.stack) == wanted]
        if held:
            return tuple(held)
    meant = to_sites(like, n_layers=spec.n_layers, gated=spec.is_gated)
    for site in meant:
        tap_of(spec, site)
    return meant


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
    """Check permission, shapes, dtypes and devices of one intervention.

    Raises:
        ReadOnlySiteError: The site cannot be changed.
        ShapeError: A tensor does not fit the selection.
        DtypeError: A tensor has another dtype or device than the activations.
    """
    record, where = edit.record, named(edit.index, edit.record)
    machinery: Machinery = spec.engine
    tap = tap_of(spec, record.site)
    if tap.read_only:
        raise ReadOnlySiteError(str(record.site), tap.read_only)
    _check_reads(spec, record, where)
    names, sizes = left_of(spec, record.site, edit.where, frames=frames)
    held, directions = operand(record), span(record)
    moving = any(axis.since is not None for axis in edit.where)
    if held is not None and not moving and not fits(tuple(held[1].shape), sizes):
        raise ShapeError(f"{where}.{held[0]}", tuple(held[1].shape), sizes, names)
    if directions is not None:
        shape = tuple(directions.shape)
        expected, axes = (*shape[:-1][:1], *sizes[-1:]), ("direction", *names[-1:])
        if shape != expected:
            raise ShapeError(
                f"{where}.directions", shape, expected, axes[-len(shape) :]
            )
    dtypes = machinery.dtypes(record.site.part)
    check_tensors(record, dtypes, device=machinery.device_at(tap), where=where)


def _check_reads(spec: ModelSpec, record: Intervention, where: str) -> None:
    """Refuse to read what the model does not have, or has not yet.

    Raises:
        SiteNotFoundError: There is no such site.
        InputError: The run passes it after the site that is edited.
    """
    machinery: Machinery = spec.engine
    reads = read_by(record)
    for site in reads:
        tap_of(spec, site)
        edited = record.site.whole
        if site == edited or machinery.ordered([site, edited])[0] == edited:
            raise InputError(
                f"{where} reads {site}, which the run does not pass before {edited}",
                "sites that it passes before",
                "Read an earlier site, or edit a later one",
            )
    if reads and isinstance(record, Backward):
        raise InputError(
            f"{where} reads other sites",
            "an edit of the gradient alone",
            "Leave `reads` out",
        )


def left_of(
    spec: ModelSpec,
    site: Site,
    where: tuple[Axis, ...],
    *,
    frames: Mapping[str, Frame],
) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Name and measure the axes that a selection leaves."""
    known = axis_sizes(spec, site, frames)
    shape = [(axis, known[axis]) for axis in site.axes]
    for axis in where:
        found = axis.found
        n_found = len(found[0]) if found and isinstance(found[0], tuple) else len(found)
        if axis.later is None:
            shape[axis.at] = (shape[axis.at][0], n_found)
    dropped = {axis.at for axis in where if axis.dropped}
    left = [pair for at, pair in enumerate(shape) if at not in dropped]
    return tuple(name for name, _ in left), tuple(size for _, size in left)


def make_plan(
    spec: ModelSpec,
    frames: Mapping[str, Frame],
    interventions: Sequence[Intervention],
    *,
    captured: tuple[Site, ...] = (),
    links: bool = False,
) -> Plan:
    """Lay out a run, and find every fault in what was asked for.

    Args:
        spec: The model.
        frames: Positions of each stack.
        interventions: What to change.
        captured: What to keep.
        links: Whether gradients are wanted where something is kept.

    Raises:
        FunlensError: The only fault that there is.
        ExceptionGroup: Several faults, each an error of funlens's own.
    """
    machinery: Machinery = spec.engine
    wanted = records(interventions)
    if not wanted and (captured, links) in machinery.plans:
        plan: Plan = machinery.plans[captured, links]
        return plan
    faults: list[FunlensError] = []
    made = placed(spec, frames, wanted, faults=faults)
    faults += conflicts(made)
    keeps: list[Keep] = []
    for site in captured:
        try:
            keeps.append(kept(spec, frames, site))
        except FunlensError as error:
            faults.append(error)
    raise_all(faults)
    plan = lay_out(spec, made, keeps, links=links)
    is_fixed = not any(site.selections for site in captured)
    if not wanted and is_fixed and len(machinery.plans) < _MOST_PLANS:
        machinery.plans[captured, links] = plan
    return plan


def kept(spec: ModelSpec, frames: Mapping[str, Frame], site: Site) -> Keep:
    """Find what of a site a capture means.

    Raises:
        SelectionError: An index is out of range.
    """
    sizes = axis_sizes(spec, site, frames) if site.selections else {}
    return Keep(site=site, where=resolved(site, sizes, frames))


def placed(
    spec: ModelSpec,
    frames: Mapping[str, Frame],
    interventions: Sequence[Intervention],
    *,
    faults: list[FunlensError],
) -> list[Edit]:
    """Find where each intervention acts; what is wrong with others goes to `faults`."""
    made: list[Edit] = []
    for index, record in enumerate(interventions):
        try:
            tap_of(spec, record.site)
            sizes = axis_sizes(spec, record.site, frames)
            where = resolved(record.site, sizes, frames)
            edit = Edit(index=index, record=record, where=where)
            check_edit(spec, edit, frames)
            made.append(edit)
        except FunlensError as error:
            error.add_note(f"in {named(index, record)}")
            faults.append(error)
    return made


def _whole_site(edit: Edit) -> Site:
    return edit.record.site.whole


def _kept_site(keep: Keep) -> Site:
    return keep.site.whole


@contextmanager
def gathered(faults: list[FunlensError]) -> Generator[None]:
    """Collect our own errors, those in groups too, to raise them all at once."""
    try:
        yield
    except* FunlensError as group:
        faults.extend(
            error for error in group.exceptions if isinstance(error, FunlensError)
        )


def records(interventions: Sequence[Intervention]) -> Sequence[Intervention]:
    """Give a list of interventions back.

    Raises:
        OptionError: It is no list, or holds something else.
    """
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


def conflicts(edits: Sequence[Edit]) -> list[FunlensError]:
    """Find pairs of edits of which one would undo the other."""
    return [
        ConflictError(
            named(first.index, first.record),
            named(second.index, second.record),
            str(second.record.site),
        )
        for first, second in combinations(edits, 2)
        if _conflict(first.record, second.record)
        if first.record.site.whole == second.record.site.whole
        if not are_apart(first.where, second.where)
    ]


def _conflict(first: Intervention, second: Intervention) -> bool:
    """Tell whether two kinds cannot share a place; zero twice is zero once."""
    if isinstance(first, Backward) != isinstance(second, Backward):
        return False
    first, second = _plain_edit(first), _plain_edit(second)
    if isinstance(first, Freeze) or isinstance(second, Freeze):
        return True
    both_decide = isinstance(first, DECIDING) and isinstance(second, DECIDING)
    return both_decide and not (isinstance(first, Zero) and isinstance(second, Zero))


def _plain_edit(record: Intervention) -> ForwardEdit:
    return record.edit if isinstance(record, Backward) else record


def lay_out(
    spec: ModelSpec,
    edits: Sequence[Edit],
    keeps: Sequence[Keep],
    *,
    links: bool = False,
) -> Plan:
    """Say what happens at which tap.

    Args:
        spec: The model.
        edits: Interventions that were found right, and where they act.
        keeps: What is kept.
        links: Whether gradients are wanted where something is kept.
    """
    machinery: Machinery = spec.engine
    acts: defaultdict[Point, list[Act]] = defaultdict(list)
    moved: set[Site] = set()
    edited = groupby(_whole_site, edits)
    looked = groupby(_kept_site, keeps)
    noted = {site for edit in edits for site in read_by(edit.record)}
    for site in machinery.ordered(dict.fromkeys([*edited, *looked, *noted])):
        tap = machinery.taps[site]
        here: Sequence[Edit] = edited.get(site, ())
        act = Act(
            tap=tap,
            edits=tuple(e for e in here if not isinstance(e.record, Backward)),
            backward=tuple(e for e in here if isinstance(e.record, Backward)),
            keeps=tuple(looked.get(site, ())),
            noted=site in noted,
        )
        if tap.rejoins and (here or (links and not tap.read_only)):
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
        interventions=tuple(edit.record for edit in edits),
        captured=tuple(keep.site for keep in keeps),
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

    def moves(act: Act) -> bool:
        return bool(act.rejoin) or act.tap.site in moved

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
            carried is not None or any(map(moves, acts.get(point, ())))
        )
        carried = tap if goes_on else None
        if goes_on:
            names = [f"was.{tap.site}", f"now.{tap.site}"]
            acts[point].insert(0, Act(tap=tap, stash=names[0]))
            after = max(i for i, act in enumerate(acts[point]) if moves(act)) + 1
            acts[point].insert(after, Act(tap=tap, stash=names[1]))


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
