"""Runs compiled once: the structure of the edits is fixed, their values are given."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Final, TypeAlias, cast

import attrs
import torch
from torch import Tensor, nn

from funlens.adapters import ACTIVE, Machinery, is_functional, output_of
from funlens.data import (
    Add,
    Backward,
    Clamp,
    ForwardEdit,
    Intervention,
    ModelSpec,
    Noise,
    Run,
    Site,
    SiteLike,
)
from funlens.engine._edits import operands
from funlens.engine._inputs import Frame, Inputs, Prepared, prepare
from funlens.engine._options import shifts
from funlens.engine._plan import (
    EVERY,
    Edit,
    Every,
    Plan,
    captured_sites,
    check_given,
    make_plan,
    named,
    records,
)
from funlens.engine._trace import Trace
from funlens.engine._traced import cache_of, called
from funlens.errors import InputError, OptionError, UnsupportedConfigError

Values: TypeAlias = tuple[tuple[Tensor, ...], ...]
"""The values of each edit."""

_VALUES: Final = frozenset({"value", "vector", "scale", "factor", "source"})
_MORE_VALUES: Final = frozenset({"directions", "low", "high"})


@attrs.frozen(kw_only=True, eq=False)
class _Graph:
    """One forward with its edits and captures, as a function of tensors."""

    plan: Plan
    machinery: Machinery
    frames: Mapping[str, Frame]
    module: nn.Module
    shifts: Mapping[Any, tuple[int, ...]]

    def trace(self, given: Sequence[tuple[Any, ...]] | None) -> Trace:
        """Begin a run with these operands."""
        trace = Trace(
            self.plan,
            self.machinery,
            self.frames,
            measures=True,
            forces_eager=self.machinery.arch.biased_masks,
            values=given,
        )
        trace.shifts = self.shifts
        return trace


def _function(graph: _Graph) -> Callable[..., Any]:
    """Make the function that is compiled; it makes no record, which Dynamo cannot."""

    def function(kwargs: dict[str, Any], values: Values) -> Any:
        edits = graph.plan.interventions
        given = [_given(e, held) for e, held in zip(edits, values, strict=True)]
        trace = graph.trace(given)
        token = ACTIVE.set(trace)
        try:
            logits = output_of(called(graph.module, kwargs))
        finally:
            ACTIVE.reset(token)
        held = [trace.captured.get(site, (None,))[0] for site in graph.plan.captured]
        return logits, held, trace.squares, trace.counts, trace.shapes

    return function


@attrs.frozen(kw_only=True, eq=False)
class Compiled:
    """A run that is compiled once for each shape of inputs; made by `compiled`.

    Attributes:
        spec: The model.
        interventions: What it changes; its own values are used where none are given.
        capture: What it keeps.
        backend: What compiles the graph.
        dynamic: Whether shapes are variables of the graph.
    """

    spec: ModelSpec
    interventions: tuple[Intervention, ...]
    capture: tuple[SiteLike, ...] | Every
    backend: str | Callable[..., Any]
    dynamic: bool | None
    _graphs: dict[Hashable, tuple[_Graph, Any]] = attrs.field(
        factory=dict[Hashable, tuple[_Graph, Any]], init=False, repr=False
    )

    def __call__(
        self,
        inputs: Inputs,
        *values: Tensor | float | Sequence[Intervention],
        attention_mask: Tensor | None = None,
    ) -> Run:
        """Run with other values of the edits.

        Args:
            inputs: As for `run`.
            values: A list of interventions of the same kinds at the same sites; or
                their values one by one, in order, as `values` gives them. The ones
                that it was made with if left out.
            attention_mask: As for `run`.

        Raises:
            FunlensError: The values do not fit.
            UnsupportedConfigError: The model's code, or a function of the caller's,
                cannot be one graph.
        """
        from torch._dynamo.exc import TorchDynamoException

        if is_functional():
            raise OptionError(
                "compiled",
                "a transform of `torch.func` is active, which only a function passes",
                ("`compiled(...).function(inputs)`",),
            )
        prepared = prepare(self.spec, inputs, attention_mask=attention_mask)
        edits, given = self._taken(values)
        wanted = self._wanted(prepared)
        make_plan(self.spec, prepared.frames, edits, captured=wanted)  # checks values
        grad = any(part.requires_grad for held in given for part in held)
        graph, run = self._graph(prepared, wanted, grad=grad)
        try:
            with nullcontext() if grad else torch.no_grad():
                logits, held, *done = run(dict(prepared.kwargs), _apart(given))
        except TorchDynamoException as error:
            raise _refusal(self.spec, error) from error
        return _as_run(self.spec, graph, logits, held, done)

    def values(
        self, interventions: Sequence[Intervention] | None = None
    ) -> tuple[Tensor, ...]:
        """Give the values of edits, one by one, as tensors.

        An `Add` has what is added, its vector times its scale; numbers are tensors
        without axes.

        Args:
            interventions: The edits; those that this was made with if left out.
        """
        given = self.interventions if interventions is None else interventions
        return tuple(part for edit in given for part in _values(self.spec, edit))

    def function(
        self, inputs: Inputs, *, attention_mask: Tensor | None = None
    ) -> Callable[..., tuple[Tensor, ...]]:
        """Give the function of the values alone, for `torch.func` and `torch.compile`.

        It is not compiled yet, and checks nothing: `torch.compile(vmap(grad(...)))` of
        it is one graph.

        Args:
            inputs: As for `run`.
            attention_mask: As for `run`.

        Returns:
            A function from `values` to the logits, and what is kept in forward order.
        """
        prepared = prepare(self.spec, inputs, attention_mask=attention_mask)
        graph = self._laid_out(prepared, self._wanted(prepared))
        run, kwargs = _function(graph), dict(prepared.kwargs)
        sizes = [len(_values(self.spec, edit)) for edit in self.interventions]

        def function(*values: Tensor) -> tuple[Tensor, ...]:
            logits, held, *_ = run(kwargs, _grouped(values, sizes))
            return (logits, *held)

        return function

    def _wanted(self, prepared: Prepared) -> tuple[Site, ...]:
        return captured_sites(self.spec, self.capture, prepared.kwargs)

    def _taken(self, values: Sequence[Any]) -> tuple[tuple[Intervention, ...], Values]:
        """Give the edits that are carried out, and their values."""
        spec = self.spec
        if len(values) == 1 and isinstance(values[0], Sequence):
            edits = tuple(records(cast("Sequence[Intervention]", values[0])))
            _check_structure(self.interventions, edits)
            return edits, tuple(_values(spec, edit) for edit in edits)
        own = tuple(_values(spec, edit) for edit in self.interventions)
        if not values:
            return self.interventions, own
        sizes = [len(held) for held in own]
        if len(values) != sum(sizes):
            raise InputError(
                f"there are {len(values)} values",
                f"{sum(sizes)}, in the order of the interventions",
                "See what `values()` gives, or pass a list of interventions",
            )
        given = _grouped([_tensor(spec, value) for value in values], sizes)
        pairs = zip(self.interventions, given, strict=True)
        return tuple(_with(edit, held) for edit, held in pairs), given

    def _graph(
        self, prepared: Prepared, wanted: tuple[Site, ...], *, grad: bool
    ) -> tuple[_Graph, Any]:
        key = (tuple(prepared.frames.items()), tuple(prepared.kwargs), grad)
        if key not in self._graphs:
            graph = self._laid_out(prepared, wanted)
            compiler = cast("Any", torch).compile  # its overloads lack an option
            run = compiler(
                _function(graph),
                fullgraph=True,
                backend=self.backend,
                dynamic=self.dynamic,
                isolate_recompiles=True,
            )
            self._graphs[key] = graph, run
        return self._graphs[key]

    def _laid_out(self, prepared: Prepared, wanted: tuple[Site, ...]) -> _Graph:
        spec, frames = self.spec, prepared.frames
        plan = make_plan(spec, frames, self.interventions, captured=wanted)
        check_given(spec, plan, prepared.kwargs)
        for act in (act for row in plan.acts.values() for act in row):
            _check_places(act.edits)
        machinery: Machinery = spec.engine
        eager = plan.needs_eager or machinery.arch.biased_masks
        return _Graph(
            plan=plan,
            machinery=machinery,
            frames=frames,
            module=machinery.tapped(eager=eager),
            shifts=shifts(spec, prepared),
        )


def compiled(
    spec: ModelSpec,
    interventions: Sequence[Intervention] = (),
    capture: Sequence[SiteLike] | Every = EVERY,
    *,
    backend: str | Callable[..., Any] = "inductor",
    dynamic: bool | None = None,
) -> Compiled:
    """Compile a run: kinds, sites and selections are fixed, values are arguments.

    Nothing is compiled before the first call, and nothing again when values change.
    Inputs of another shape are another graph.

    Args:
        spec: The model.
        interventions: What to change.
        capture: What to keep.
        backend: As for `torch.compile`.
        dynamic: As for `torch.compile`.

    Returns:
        A function of inputs and values that gives a `Run`.

    Raises:
        SiteNotFoundError: The model has no such site.
        OptionError: An intervention that cannot be compiled, or no such backend.
        UnsupportedConfigError: Weights come and go while the model runs.
    """
    edits = tuple(records(interventions))
    for index, edit in enumerate(edits):
        _check_kind(index, edit)
    machinery: Machinery = spec.engine
    if machinery.weights_away:
        raise UnsupportedConfigError(
            spec.model_type,
            f"{machinery.weights_away}, and no graph holds what brings them",
            "Load the model whole on one device.",
        )
    known = torch.compiler.list_backends(exclude_tags=())
    if isinstance(backend, str) and backend not in known:
        raise OptionError("backend", f"there is none called {backend!r}", tuple(known))
    captured_sites(spec, capture, {})  # checks them; what is met, inputs tell
    return Compiled(
        spec=spec,
        interventions=edits,
        capture=capture if isinstance(capture, Every) else tuple(capture),
        backend=backend,
        dynamic=dynamic,
    )


def _check_kind(index: int, edit: Intervention) -> None:
    if isinstance(edit, Backward):
        problem = f"{named(index, edit)} changes a gradient, and a graph has none yet"
        raise OptionError("interventions", problem, ("`run_with_grads`",))
    if isinstance(edit, Noise):
        problem = f"{named(index, edit)} draws numbers, which no graph does"
        raise OptionError("interventions", problem, ("`Add` with noise as its vector",))


def _check_places(edits: Sequence[Edit]) -> None:
    for edit in edits:
        if any(axis.later is not None for axis in edit.where):
            site = str(edit.record.site)
            problem = f"only the run tells which places of {site} are meant"
            raise OptionError("interventions", problem, ("the whole site",))


def _check_structure(
    ours: Sequence[Intervention], theirs: Sequence[Intervention]
) -> None:
    """Refuse edits that differ in more than their values."""
    if len(ours) != len(theirs):
        raise InputError(
            f"there are {len(theirs)} interventions",
            f"{len(ours)}, as it was compiled with",
            "Compile another structure apart",
        )
    for index, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        if _structure(own) != _structure(other):
            raise InputError(
                f"{named(index, other)} differs in more than its value",
                f"{type(own).__name__} at {own.site}, as it was compiled",
                "Compile another structure apart",
            )


def _structure(edit: Intervention) -> tuple[Any, ...]:
    """Give what of an edit is fixed: its kind, its site, and what is no value."""
    held: dict[str, Any] = attrs.asdict(cast("Any", edit), recurse=False)
    fixed = [
        (name, value is None if name in _MORE_VALUES else value)
        for name, value in held.items()
        if name not in _VALUES
    ]
    return (type(edit), *fixed)


def _values(spec: ModelSpec, edit: Intervention) -> tuple[Tensor, ...]:
    """Give an edit's values as tensors."""
    held = operands(cast("ForwardEdit", edit))
    if isinstance(edit, Add):
        vector, scale = edit.vector, edit.scale
        held = (vector if scale == 1.0 else scale * vector,)
    return tuple(_tensor(spec, value) for value in held if value is not None)


def _tensor(spec: ModelSpec, value: Tensor | float) -> Tensor:
    """Make a tensor of a number, as exact as arithmetic with the number is."""
    if isinstance(value, Tensor):
        return value
    wide = torch.promote_types(spec.dtype, torch.float32)
    return torch.tensor(value, dtype=wide, device=spec.device)


def _given(edit: Intervention, values: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """Give operands as `changed` takes them."""
    if isinstance(edit, Add):
        return (*values, 1.0)
    if isinstance(edit, Clamp):
        low = None if edit.low is None else values[0]
        return low, None if edit.high is None else values[-1]
    return values


def _with(edit: Intervention, values: tuple[Tensor, ...]) -> Intervention:
    """Give an edit with other values, so that they are checked as its own are."""
    if not values:
        return edit
    if isinstance(edit, Clamp):
        low, high = (
            None if bound is None else float(bound) for bound in _given(edit, values)
        )
        return attrs.evolve(edit, low=low, high=high)
    if isinstance(edit, Add):
        return attrs.evolve(edit, vector=values[0], scale=1.0)
    names = {"Interchange": ("directions", "source")}.get(type(edit).__name__)
    held = {name for name in _VALUES | _MORE_VALUES if hasattr(edit, name)}
    changed_values = dict(zip(names or held, values, strict=True))
    return cast("Any", attrs).evolve(edit, **changed_values)


def _grouped(values: Sequence[Tensor], sizes: Sequence[int]) -> Values:
    """Give each edit its own of all values."""
    left = iter(values)
    return tuple(tuple(next(left) for _ in range(size)) for size in sizes)


def _apart(values: Values) -> Values:
    """Give tensors of their own: which ones are the same would be part of a graph."""
    return tuple(tuple(part.view_as(part) for part in held) for held in values)


def _as_run(
    spec: ModelSpec, graph: _Graph, logits: Tensor, held: Any, done: Any
) -> Run:
    """Make a run of what a graph gave, and refuse what never acted."""
    trace = graph.trace(None)
    trace.squares, trace.counts, trace.shapes = (list(part) for part in done)
    pairs = zip(graph.plan.captured, held, strict=True)
    trace.captured = {site: [value] for site, value in pairs if value is not None}
    trace.check_acted()
    return Run(logits, cache_of(spec, trace))


def _refusal(spec: ModelSpec, error: Exception) -> UnsupportedConfigError:
    first = str(error).strip().partition("\n")[0]
    return UnsupportedConfigError(
        spec.model_type,
        f"this run cannot be compiled as one graph ({first})",
        "Use `run_with_cache`, or leave out what the graph stops at.",
    )
