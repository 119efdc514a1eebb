"""A run under way: what the taps call."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from funlens.adapters import (
    Machinery,
    Point,
    Seen,
    Tap,
    head_results,
    norm_scale,
    output_of,
    unless_same,
    with_output,
    with_scale,
)
from funlens.data import Backward, ForwardEdit, Noise, Receipt, Site
from funlens.engine._backward import watched, with_gradient
from funlens.engine._edits import changed, read_by
from funlens.engine._front import Cuts, cut, cuts_of, put_back
from funlens.engine._inputs import UNKNOWN, Frame
from funlens.engine._plan import Act, Edit, Plan, named
from funlens.engine._where import WHOLE, Axis, Window, selected, written
from funlens.errors import NeverActedError, NonFiniteError, ShapeError

Watch: TypeAlias = tuple[Tensor, Callable[[Site, Tensor, Tensor], None]]
"""A leaf to go backward to, and what is shown each site, its value and gradient."""


class Stop(BaseException):
    """Ends a forward early, with the residual that was asked for."""

    def __init__(self, residual: Tensor) -> None:
        super().__init__()
        self.residual = residual


class Trace:
    """The state of one run. Belongs to one call in one thread."""

    def __init__(
        self,
        plan: Plan,
        machinery: Machinery,
        frames: Mapping[str, Frame],
        *,
        measures: bool = False,
        links: bool = False,
        finite: bool = False,
        forces_eager: bool = False,
        grows: bool = False,
        offload: torch.device | None = None,
        rounds: bool = False,
        values: Sequence[tuple[Any, ...]] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.plan = plan
        self.machinery = machinery
        self.frames = frames
        self.measures = measures
        self.links = links
        self.finite = finite
        self.forces_eager = forces_eager
        self.grows = grows
        self.offload = offload
        self.rounds = rounds
        self.values = values
        self.watch = watch
        self.moved: tuple[Tensor, Tensor] | None = None
        self.offset = 0
        self.seen = 0
        self.start: tuple[Tap, Tensor] | None = None
        self.skipped: frozenset[str] = frozenset()
        self.stop: Tap | None = None
        self.joins: Mapping[Point, tuple[Tap, Tensor]] = {}
        self.n_rows = 0
        self.visits: dict[Point, int] = {}
        self.shifts: Mapping[Point, tuple[int, ...]] = {}
        self.logits_at: tuple[Point, tuple[Axis, ...]] | None = None
        self.captured: dict[Site, list[Tensor]] = {}
        self.passed: set[Site] = set()
        self.versions: list[tuple[Site, Tensor, int]] = []
        self.counts = [0] * len(plan.interventions)
        self.shapes: list[tuple[int, ...]] = [()] * len(plan.interventions)
        self.squares: list[Tensor | None] = [None] * len(plan.interventions)
        self.arrived: set[int] = set()
        self.finites: list[tuple[str, str, Tensor]] = []
        self.stashes: dict[str, Tensor] = {}
        self.noted: dict[Site, tuple[Tensor, int]] = {}
        self.generators: dict[int, torch.Generator] = {}

    def wants(self, point: Point) -> bool:
        """Tell whether the run looks at a point."""
        return (
            point in self.plan.acts
            or (self.stop is not None and point == self.stop.point)
            or (self.start is not None and point == self.start[0].point)
            or point in self.joins
            or (self.logits_at is not None and point == self.logits_at[0])
            or point in self.shifts
        )

    def wants_inside(self, path: str) -> bool:
        """Tell whether the run looks at the inner steps of a module."""
        return path in self.plan.inside

    def begins(self, n_pos: int) -> None:
        """Find the window of positions of a forward, of one or of several."""
        is_longer = n_pos == self.seen + 1 and n_pos > 1
        is_whole = self.grows and self.seen > 0 and is_longer
        if is_whole:  # without a cache of keys, all that was kept comes again
            kept = self.captured.items()
            self.captured = {site: held for site, held in kept if site.stack}
        self.offset = 0 if is_whole else self.seen
        self.seen = self.offset + n_pos
        self.passed.clear()
        self.noted.clear()
        self.visits.clear()

    def skips(self, path: str) -> bool:
        """Tell whether a block is left out."""
        return path in self.skipped

    def act(self, point: Point, raw: Any, seen: Seen) -> Any:
        """Do what the plan says at a point."""
        if self.start is not None and point == self.start[0].point:
            raw = self._started(*self.start, raw, seen)
        if point in self.joins:
            raw = self._joined(*self.joins[point], raw)
        if point in self.shifts:
            raw = _shifted(raw, self.shifts[point])
        visit = self._visit(point)
        for step in self.plan.acts.get(point, ()):
            if step.tap.visit is None or step.tap.visit == visit:
                raw = self._step(step, raw, seen)
        if self.logits_at is not None and point == self.logits_at[0]:
            raw = selected(raw, self.logits_at[1], (self.offset, 0))
        stop = self.stop
        if stop is not None and point == stop.point and stop.visit in {None, visit}:
            tensor = output_of(raw, stop.index)
            raise Stop(self._read(stop, tensor, seen))
        return raw

    def _visit(self, point: Point) -> int | None:
        """Count how often a forward came to a point, where that can be often."""
        if not self.machinery.has_visits:
            return None
        self.visits[point] = self.visits.get(point, -1) + 1
        return self.visits[point]

    def _started(self, tap: Tap, residual: Tensor, raw: Any, seen: Seen) -> Any:
        """Give the residual that a run starts from, as the model would hold it."""
        tensor = output_of(raw, tap.index)
        value = self._read(tap, tensor, seen)
        if residual.shape != value.shape:  # where only the run tells the positions
            given, axes = tuple(residual.shape), tap.site.axes
            raise ShapeError("residual", given, tuple(value.shape), axes)
        new = self._write(tap, tensor, (value, residual), seen)
        return with_output(raw, new, tap.index)

    def _joined(self, tap: Tap, rows: Tensor, raw: Any) -> Any:
        """Let rows of more runs join; the first are all that go on."""
        before = output_of(raw, tap.index)
        new = torch.cat([before, rows]) if self.n_rows else rows
        self.n_rows = len(new)
        return with_output(raw, new, tap.index)

    def _step(self, step: Act, raw: Any, seen: Seen) -> Any:
        tensor = output_of(raw, step.tap.index)
        value = self._read(step.tap, tensor, seen)
        if step.rejoin:
            values = (value, self._rejoined(step, value))
            joined = self._write(step.tap, tensor, values, seen)
            return with_output(raw, joined, step.tap.index)
        window = self._window(step.tap, value)
        new, passed = self._changed(step, value, window)
        if passed is not value:
            changed_back = self._write(step.tap, tensor, (value, passed), seen)
            raw = with_output(raw, changed_back, step.tap.index)
        for keep in step.keeps:
            shown, start = self._shown(step.tap, new, window)
            part = selected(shown, keep.where, start)
            if part is not None:
                self._keep(keep.site, part, in_place=step.tap.in_place)
        if step.stash:
            self.stashes[step.stash] = passed
        if step.noted:
            own = passed.clone() if step.tap.in_place else passed
            self.noted[step.tap.site] = (own, self._batch(step.tap.site.stack))
        return raw

    def _changed(
        self, step: Act, value: Tensor, window: Window
    ) -> tuple[Tensor, Tensor]:
        """Give what is kept of a value, and what the model goes on with."""
        if step.edits and step.edits[0].rows is not None:
            new = self._edited_by_rows(step.edits, value, window)
        else:
            new = value
            for edit in step.edits:
                new = self._edited(edit, new, window=window)
        if self.links and step.keeps:
            new = _wanting(new) if step.tap.read_only else self._linked(step, new)
        passed = new
        for edit in step.backward:
            passed = self._turned(edit, passed, window=window)
        if step.tap.in_place and passed is not value:  # it may be the caller's own
            passed = passed.clone()
        return new, passed

    def _linked(self, step: Act, value: Tensor) -> Tensor:
        """Make a value that only what follows reads: a gradient means just that."""
        if self.watch is not None and value.is_floating_point():
            anchor, look = self.watch
            site = step.tap.site
            return watched(value, anchor, partial(look, site, value.detach()))
        if value.requires_grad or not value.is_floating_point():
            return value.view_as(value)
        return value.detach().requires_grad_()

    def _rejoined(self, step: Act, value: Tensor) -> Tensor:
        """Let a change within a block reach a sum that follows."""
        was, moved, *outs = (self.stashes.pop(name) for name in step.rejoin)
        added = outs[0] if len(outs) == 1 else torch.stack(outs).sum(0)
        return unless_same(moved == was, value, moved + added)

    def _keep(self, site: Site, part: Tensor, *, in_place: bool) -> None:
        """Keep what a forward has at a site; of several times, the first.

        For gradients all of them: a change of the site is a change of each.
        """
        if site in self.passed and not self.links:
            return
        self.passed.add(site)
        kept = part if self.offload is None else self._offloaded(part, self.offload)
        if in_place and kept is part and not self.links:
            kept = part.clone()
        self.captured.setdefault(site, []).append(kept)
        if not torch.compiler.is_compiling() and not kept.is_inference():
            self.versions.append((site, kept, kept._version))  # noqa: SLF001 -- torch has no public name for it

    def _offloaded(self, part: Tensor, device: torch.device) -> Tensor:
        """Move a tensor away now; one that two sites share moves once."""
        if self.moved is None or self.moved[0] is not part:
            self.moved = (part, part.to(device))
        return self.moved[1]

    def _window(self, tap: Tap, value: Tensor) -> Window:
        """Find the first position and the first key that a value covers."""
        if not self.seen or tap.site.stack:
            return WHOLE
        if tap.all_keys:
            return (max(0, self.seen - value.shape[1]), 0)
        if tap.site.axes[-1] == "key":
            return (self.offset, max(0, self.seen - value.shape[-1]))
        return (self.offset, 0)

    def _shown(self, tap: Tap, value: Tensor, window: Window) -> tuple[Tensor, Window]:
        """While generating: give what this step adds, with keys at their places."""
        start, first = window
        if not self.grows or tap.site.stack:
            return value, window
        if tap.all_keys:
            added = slice(self.offset - start, self.seen - start)
            return value[:, added].clone(), (self.offset, 0)  # a cache may be rewritten
        if tap.site.axes[-1] == "key":
            real = value[..., : self.seen - first]
            return with_keys(tap.site, real, before=first), (start, 0)
        return value, window

    def _edited_by_rows(
        self, edits: Sequence[Edit], value: Tensor, window: Window
    ) -> Tensor:
        """Let each edit act on its own run's rows, in a copy that nobody else holds."""
        new = value.clone()
        batch = self._batch("")
        for edit in edits:
            run, n_rows = edit.rows or (0, batch)
            each = len(new) * n_rows // batch
            part = new.narrow(0, run * each, each)
            changed_part = self._edited(edit, part, window=window)
            if changed_part is not part:
                part.copy_(changed_part)
        return new

    def _edited(self, edit: Edit, value: Tensor, *, window: Window) -> Tensor:
        old = selected(value, edit.where, window)
        record, index = edit.record, edit.index
        if old is None or isinstance(record, Backward):
            return value
        where = named(index, record)
        noise = self._generator(index, record)
        given = None if self.values is None else self.values[index]
        read = [self._read_again(site, edit.rows) for site in read_by(record)]
        new = changed(record, old, where=where, generator=noise, given=given, read=read)
        self.counts[index] += 1
        self.shapes[index] = tuple(old.shape)
        if self.measures:
            square = (new - old).detach().float().square().sum()
            before = self.squares[index]
            self.squares[index] = square if before is None else before + square
        if self.finite:
            self.finites.append((where, str(record.site), torch.isfinite(new).all()))
        return written(value, new, edit.where, window=window)

    def _read_again(self, site: Site, rows: tuple[int, int] | None) -> Tensor:
        """Give what the run had at an earlier site: in the rows that an edit is for."""
        value, batch = self.noted[site]
        if rows is None:
            return value
        run, n_rows = rows
        each = len(value) * n_rows // batch
        return value.narrow(0, run * each, each)

    def _turned(self, edit: Edit, value: Tensor, *, window: Window) -> Tensor:
        """Let an edit act on the gradient of a value, when it comes."""
        old = selected(value, edit.where, window)
        record, index = edit.record, edit.index
        if old is None or not isinstance(record, Backward):
            return value
        inner: ForwardEdit = record.edit
        where = named(index, record)
        noise = self._generator(index, inner)
        self.counts[index] += 1
        self.shapes[index] = tuple(old.shape)

        def change(gradient: Tensor) -> Tensor:
            self.arrived.add(index)
            return changed(inner, gradient, where=where, generator=noise)

        new = with_gradient(old, change)
        return written(value, new, edit.where, window=window)

    def _generator(self, index: int, record: Any) -> torch.Generator | None:
        if not isinstance(record, Noise):
            return None
        if index not in self.generators:
            self.generators[index] = torch.Generator().manual_seed(record.seed)
        return self.generators[index]

    def _read(self, tap: Tap, tensor: Tensor, seen: Seen) -> Tensor:
        """Give what a site shows of a tensor."""
        whole = self._whole(tap, tensor, seen)
        shown = self._front(tap, whole) if tap.overhangs else whole
        return cut(shown, self._cuts(tap, shown))

    def _cuts(self, tap: Tap, whole: Tensor) -> Cuts:
        if not tap.front:
            return ()
        window = self.seen - self.offset
        return cuts_of(tap.site, whole, window=window, seen=self.seen)

    def _whole(self, tap: Tap, tensor: Tensor, seen: Seen) -> Tensor:
        batch = self._batch(tap.site.stack) or 1
        if tap.side in {"scale", "heads"}:
            entered = tap.view.read(_rows_first(tap, seen.entered), batch)
            if tap.side == "heads":
                return head_results(seen.module, entered)
            centered = type(seen.module) in self.machinery.centered
            return norm_scale(seen.module, entered, centered=centered)
        return tap.view.read(_rows_first(tap, tensor), batch)

    def _batch(self, stack: str) -> int:
        """How many rows a stack has now: those that have not joined yet left out."""
        if self.n_rows and not stack:
            return self.n_rows
        return self.frames.get(stack, UNKNOWN).batch

    def _front(self, tap: Tap, whole: Tensor) -> Tensor:
        """Leave out the positions that the model adds behind the tokens'."""
        frame = self.frames.get(tap.site.stack, UNKNOWN)
        here = frame.n_pos if tap.site.stack else self.seen - self.offset
        every = frame.n_pos if tap.site.stack else self.seen
        known = {"pos": every if tap.all_keys else here, "query": here, "key": every}
        for at, axis in enumerate(tap.site.axes):
            if axis in known:
                whole = whole.narrow(at, 0, min(known[axis], whole.shape[at]))
        return whole

    def _write(
        self, tap: Tap, tensor: Tensor, values: tuple[Tensor, Tensor], seen: Seen
    ) -> Tensor:
        """Give the tensor that shows another value."""
        if tap.overhangs:
            whole = self._whole(tap, tensor, seen)
            values = (whole, _with_front(whole, values[1]))
        return _rows_first(
            tap, self._rewritten(tap, _rows_first(tap, tensor), values, seen)
        )

    def _rewritten(
        self, tap: Tap, tensor: Tensor, values: tuple[Tensor, Tensor], seen: Seen
    ) -> Tensor:
        value, new = values
        if tap.front:
            value = self._whole(tap, tensor, seen)
            new = put_back(value, new, self._cuts(tap, value))
        if tap.side == "scale":
            folded = (part.reshape(*tensor.shape[:-1], 1) for part in (value, new))
            return with_scale(seen.module, tensor, *folded)
        if tap.side == "heads":
            moved = (new - value).sum(-2).reshape(tensor.shape)
            return unless_same(moved == 0, tensor, tensor + moved)
        return tap.view.write(tensor, new)

    def check_acted(self) -> None:
        """Refuse a run in which something asked for did not happen.

        Raises:
            NeverActedError: An intervention or a capture never acted.
            NonFiniteError: An edit made NaN or infinity, where that is looked for.
        """
        for index, record in enumerate(self.plan.interventions):
            if not self.counts[index]:
                raise NeverActedError(named(index, record), str(record.site))
        for site in self.plan.captured:
            if site not in self.captured:
                raise NeverActedError("the capture", str(site))
        for where, site, is_finite in self.finites:
            if not bool(is_finite):
                raise NonFiniteError(where, site)
        moved = [site for site, part, then in self.versions if part._version != then]  # noqa: SLF001 -- torch has no public name for it
        if moved:  # a family that changes a tensor in place must say so in its table
            raise AssertionError(f"changed in place after capture: {moved}")

    def check_arrived(self) -> None:
        """Refuse a backward in which an edit of a gradient met none.

        Raises:
            NeverActedError: The metric does not depend on the site.
        """
        for index, record in enumerate(self.plan.interventions):
            if isinstance(record, Backward) and index not in self.arrived:
                raise NeverActedError(named(index, record), str(record.site))

    def receipts(self) -> tuple[Receipt, ...]:
        """Say what each intervention did."""
        return tuple(
            Receipt(
                intervention=f"{type(record).__name__}({record.site})",
                count=self.counts[index],
                shape=self.shapes[index],
                change=_root(self.squares[index]),
            )
            for index, record in enumerate(self.plan.interventions)
        )


def _wanting(value: Tensor) -> Tensor:
    """Let a gradient count every reader: what is read-only has no place of its own."""
    is_leaf = value.is_floating_point() and not value.requires_grad
    return value.requires_grad_() if is_leaf else value


def _rows_first(tap: Tap, tensor: Tensor) -> Tensor:
    """Swap axes, there and back, where they do not stand as on the site."""
    match tap.layout:
        case "bpd":
            return tensor
        case "pbd":
            return tensor.transpose(0, 1)
        case "bdp":
            return tensor.transpose(1, 2)


def _with_front(whole: Tensor, front: Tensor) -> Tensor:
    """Put a value before the positions that its site leaves out."""
    pairs = zip(reversed(whole.shape), reversed(front.shape), strict=True)
    widths = [width for long, short in pairs for width in (0, long - short)]
    inside = torch.ones(front.shape, dtype=torch.bool, device=front.device)
    return torch.where(F.pad(inside, widths), F.pad(front, widths), whole)


def _shifted(rows: Tensor, starts: tuple[int, ...]) -> Tensor:
    """Move each row's positions to where its first token stands."""
    every = rows.expand(len(starts), *rows.shape[-2:])
    columns = torch.arange(every.shape[1], device=rows.device)
    first = torch.tensor(starts, device=rows.device)[:, None]
    moved = (columns - first).clamp(min=0)[..., None]
    return every.gather(1, moved.expand_as(every))


def with_keys(site: Site, value: Tensor, *, before: int = 0, after: int = 0) -> Tensor:
    """Add keys that a row could not see: no attention, and the lowest scores."""
    if not before and not after:
        return value
    is_scores = site.part.endswith("scores")
    unseen = torch.finfo(value.dtype).min if is_scores else 0.0
    return F.pad(value, (before, after), value=unseen)


def _root(square: Tensor | None) -> Tensor:
    return torch.zeros(()) if square is None else square.sqrt()
