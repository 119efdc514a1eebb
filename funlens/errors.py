"""Every exception that funlens raises for something a caller can mend.

The family::

    FunlensError
    ├── SpecError (ValueError)
    │   ├── UnsupportedArchitectureError
    │   ├── UnsupportedConfigError
    │   ├── PathNotFoundError
    │   ├── BrokenTableError
    │   ├── LogProbsMovedError
    │   └── NotInferredError
    ├── SiteError (LookupError)
    │   ├── SiteNotFoundError
    │   ├── SiteNotCachedError (also KeyError)
    │   ├── SelectionError
    │   └── ReadOnlySiteError
    ├── InterventionError (ValueError)
    │   ├── ShapeError
    │   ├── DtypeError
    │   ├── ConflictError
    │   └── NotSerializableError
    ├── InputError (ValueError)
    ├── OptionError (TypeError)
    ├── RunError (RuntimeError)
    │   ├── UserFunctionError
    │   ├── NonFiniteError
    │   └── NeverActedError
    ├── TokenizerError (ValueError)
    ├── LoadError
    │   └── GatedModelError
    └── UnknownRecipeError (LookupError)

Fields are plain values, so that the errors pickle; they compare by identity.
"""

import difflib
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import attrs

_MOST_CHOICES = 8

__all__ = [
    "BrokenTableError",
    "ConflictError",
    "DtypeError",
    "FunlensError",
    "GatedModelError",
    "InputError",
    "InterventionError",
    "LoadError",
    "LogProbsMovedError",
    "NeverActedError",
    "NonFiniteError",
    "NotInferredError",
    "NotSerializableError",
    "OptionError",
    "PathNotFoundError",
    "ReadOnlySiteError",
    "RunError",
    "SelectionError",
    "ShapeError",
    "SiteError",
    "SiteNotCachedError",
    "SiteNotFoundError",
    "SpecError",
    "TokenizerError",
    "UnknownRecipeError",
    "UnsupportedArchitectureError",
    "UnsupportedConfigError",
    "UserFunctionError",
    "nearest",
    "raise_all",
]


def nearest(name: str, choices: Iterable[str]) -> tuple[str, ...]:
    """Order at most eight choices by how near they are to a name."""
    every = tuple(dict.fromkeys(choices))
    near = difflib.get_close_matches(name, every, n=_MOST_CHOICES, cutoff=0.0)
    return tuple(near)


def _installed() -> str:
    return version("transformers")


class FunlensError(Exception):
    """Whatever funlens raises on purpose."""


class SpecError(FunlensError, ValueError):
    """A model cannot be described."""


@attrs.frozen
class UnsupportedArchitectureError(SpecError):
    """No adapter knows this architecture."""

    model_type: str
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the architecture and the way out."""
        return (
            f"no adapter describes the architecture {self.model_type!r}. "
            f"Expected one that `funlens.supported()` lists; nearest: "
            f"{', '.join(self.near) or 'none'}. "
            "Pass a table of your own with `adapter=`."
        )


@attrs.frozen
class UnsupportedConfigError(SpecError):
    """The adapter's table does not fit this module."""

    model_type: str
    problem: str
    advice: str = "Pass a table of your own with `adapter=`."

    def __str__(self) -> str:
        """Say what does not fit."""
        return (
            f"this {self.model_type} model cannot be used: {self.problem}. "
            f"{self.advice}"
        )


@attrs.frozen
class PathNotFoundError(SpecError):
    """A module is not where its table says, as after transformers renamed it.

    Attributes:
        model_type: Architecture.
        base: Module below which it was looked for; empty for the model itself.
        paths: What it may be called; none of these is there.
        verified: Version of transformers that the table was last verified with; empty
            where it does not say.
        installed: Version of transformers that is there.
    """

    model_type: str
    base: str
    paths: tuple[str, ...]
    verified: str = ""
    installed: str = attrs.field(factory=_installed)

    def __str__(self) -> str:
        """Name the paths, and both versions."""
        where = f"its {self.base}" if self.base else "it"
        names = " or ".join(repr(path) for path in self.paths[:_MOST_CHOICES])
        verified = f"transformers {self.verified}" if self.verified else "no version"
        return (
            f"this {self.model_type} model cannot be described: {where} has no "
            f"{names}. "
            f"Its table was last verified with {verified}, and transformers "
            f"{self.installed} is installed, which may have renamed it. "
            "Install the version it was verified with, or pass a table of your own "
            "with `adapter=`."
        )


@attrs.frozen
class BrokenTableError(SpecError):
    """An installed package promises a table, and has none."""

    entry: str
    package: str
    problem: str

    def __str__(self) -> str:
        """Name the package and what is wrong with it."""
        return (
            f"the entry point {self.entry!r} of the package {self.package!r} cannot "
            f"be used: {self.problem}. Expected a `funlens.Architecture`, or several. "
            "Mend, upgrade or uninstall that package."
        )


@attrs.frozen
class NotInferredError(SpecError):
    """What an unknown model does could not be told."""

    model_type: str
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say what the nearest descriptions broke."""
        tried = "; ".join(self.faults) or "no list of blocks was found"
        return (
            f"the sites of this {self.model_type} model cannot be inferred: {tried}. "
            "Expected a known way to spell a transformer on which the laws hold. "
            "Write a table for it and pass it with `adapter=`."
        )


@attrs.frozen
class LogProbsMovedError(SpecError):
    """A way of writing the weights that means the same did not mean the same."""

    function: str
    model_type: str
    moved: float
    tolerance: float
    where: str

    def __str__(self) -> str:
        """Say by how much, where, and what it tells."""
        return (
            f"{self.function} would move log-probabilities of this {self.model_type} "
            f"model by {self.moved:.3g} nats at {self.where}. "
            f"Expected at most {self.tolerance:.3g}, which rounding explains. "
            "Use the weights as they are: the model does something between them that "
            "its table does not tell."
        )


class SiteError(FunlensError, LookupError):
    """A site is not there, or not as asked for."""


@attrs.frozen
class SiteNotFoundError(SiteError):
    """The model has no such site."""

    site: str
    n_layers: int
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the site, the range of layers and the nearest sites."""
        layers = f"a layer in 0..{self.n_layers - 1}; " if self.n_layers else ""
        return (
            f"site {self.site} does not exist in this model. "
            f"Expected {layers}nearest: {', '.join(self.near) or 'none'}. "
            "List the sites with `funlens.sites(spec)`."
        )


@attrs.frozen
class SiteNotCachedError(SiteError, KeyError):
    """The cache does not hold this site."""

    site: str
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the site and what is held."""
        return (
            f"site {self.site} is not in this cache. "
            f"It holds, nearest first: {', '.join(self.near) or 'nothing'}. "
            "Capture it with `run_with_cache(..., capture=[...])`."
        )


@attrs.frozen
class SelectionError(SiteError):
    """A selection does not fit the site."""

    site: str
    problem: str
    expected: str

    def __str__(self) -> str:
        """Say what was selected and what there is."""
        return (
            f"the selection of {self.site} does not fit: {self.problem}. "
            f"Expected {self.expected}. "
            "See the site's axes with `funlens.sites(spec)`."
        )


@attrs.frozen
class ReadOnlySiteError(SiteError):
    """The site can be seen but not changed."""

    site: str
    reason: str

    def __str__(self) -> str:
        """Give the reason."""
        return (
            f"site {self.site} is read-only: {self.reason}. "
            "Expected a site whose value can be changed. "
            "`funlens.sites(spec)` says which ones can."
        )


class InterventionError(FunlensError, ValueError):
    """An intervention cannot be carried out."""


@attrs.frozen
class ShapeError(InterventionError):
    """A tensor has another shape than its site."""

    where: str
    shape: tuple[int, ...]
    expected: tuple[int, ...]
    axes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Give both shapes."""
        named = f" ({' '.join(self.axes)})" if self.axes else ""
        return (
            f"{self.where} has shape {self.shape}. "
            f"Expected {self.expected}{named}, or its trailing axes; "
            "nothing is broadcast. Reshape or expand the value yourself."
        )


@attrs.frozen
class DtypeError(InterventionError):
    """A tensor has another dtype or device than its site."""

    where: str
    found: str
    expected: str

    def __str__(self) -> str:
        """Give both."""
        return (
            f"{self.where} is {self.found}. Expected {self.expected}, "
            "as the model's activations are there. Convert it with `.to(...)`."
        )


@attrs.frozen
class ConflictError(InterventionError):
    """Two interventions want to decide the same value."""

    first: str
    second: str
    site: str

    def __str__(self) -> str:
        """Name both."""
        return (
            f"{self.first} and {self.second} both set {self.site}. "
            "Expected one that decides the value. Remove one, or select apart."
        )


@attrs.frozen
class NotSerializableError(InterventionError):
    """A record holds code, which is neither written to a file nor hashed."""

    where: str
    holds: str

    def __str__(self) -> str:
        """Say what it holds and what to do."""
        return (
            f"{self.where} holds a {self.holds}, which has no content to write or "
            "hash. Expected a record of tensors and numbers. "
            "Leave it out, or use a kind such as `Set`, `Add` or `Project`."
        )


@attrs.frozen
class InputError(FunlensError, ValueError):
    """The inputs cannot be run."""

    problem: str
    expected: str
    advice: str

    def __str__(self) -> str:
        """Say what was wrong, what was expected and what to do."""
        return f"{self.problem}. Expected {self.expected}. {self.advice}."


@attrs.frozen
class OptionError(FunlensError, TypeError):
    """An option is unknown, or its value is out of range."""

    option: str
    problem: str
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Name the option and what was expected."""
        hint = f" Expected one of: {', '.join(self.near)}." if self.near else ""
        return f"option {self.option}: {self.problem}.{hint}"


class RunError(FunlensError, RuntimeError):
    """A run went wrong."""


@attrs.frozen
class UserFunctionError(RunError):
    """A function that the caller passed raised, or returned something else."""

    where: str
    site: str
    problem: str

    def __str__(self) -> str:
        """Name the intervention and the site."""
        return (
            f"{self.where} at {self.site}: {self.problem}. Expected a tensor of the "
            "shape and dtype it was given. Mend the function; nothing was kept."
        )


@attrs.frozen
class NonFiniteError(RunError):
    """An edit made NaN or infinity."""

    where: str
    site: str

    def __str__(self) -> str:
        """Name the intervention and the site."""
        return (
            f"{self.where} at {self.site} made values that are not finite. "
            "Expected finite ones, since `finite=True` was asked for. "
            "Look at the value and at its scale."
        )


@attrs.frozen
class NeverActedError(RunError):
    """An intervention or a capture was asked for and did not happen."""

    where: str
    site: str

    def __str__(self) -> str:
        """Name what did not happen."""
        return (
            f"{self.where} at {self.site} never acted in this run. "
            "Expected the model to pass that site and position. "
            "Check the layers that were run and the positions."
        )


@attrs.frozen
class TokenizerError(FunlensError, ValueError):
    """Text cannot be turned into tokens, or back."""

    problem: str
    advice: str

    def __str__(self) -> str:
        """Say what was wrong and what to do."""
        return f"{self.problem}. {self.advice}."


@attrs.frozen
class LoadError(FunlensError):
    """A model cannot be loaded."""

    name: str
    problem: str
    advice: str

    def __str__(self) -> str:
        """Say what was wrong and what to do."""
        return f"cannot load {self.name!r}: {self.problem}. {self.advice}."


@attrs.frozen
class GatedModelError(LoadError):
    """The repository asks for an agreement first."""


def raise_all(faults: Sequence[FunlensError]) -> None:
    """Raise one fault as it is, several as a group, none not at all."""
    if len(faults) == 1:
        raise faults[0]
    if faults:
        message = f"{len(faults)} faults in what was asked for"
        raise ExceptionGroup(message, list(faults))


@attrs.frozen
class UnknownRecipeError(FunlensError, LookupError):
    """No recipe of a tiny model has this name."""

    name: str
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say what was asked for, and the nearest names there are."""
        return (
            f"there is no recipe named {self.name!r}. "
            f"Nearest: {', '.join(self.near) or 'none'}. "
            "List the names with `funlens.testing.recipe_names()`."
        )
