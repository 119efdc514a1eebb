"""Tables that installed packages bring, by their entry points."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

from funlens.adapters._language import Architecture
from funlens.errors import BrokenTableError

GROUP: Final = "funlens.architectures"


def installed_tables() -> tuple[Architecture, ...]:
    """Give the tables of installed packages, in the order of the packages' names.

    Raises:
        BrokenTableError: An entry point cannot be imported, or leads to no table.
    """
    entries = sorted(entry_points(group=GROUP), key=_order)
    return tuple(table for entry in entries for table in _tables_at(entry))


def _order(entry: EntryPoint) -> tuple[str, str]:
    return (_package(entry), entry.name)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"


def _tables_at(entry: EntryPoint) -> tuple[Architecture, ...]:
    """Read one entry point: a table, or several."""
    try:
        found: Any = entry.load()
    except Exception as error:
        problem = f"{type(error).__name__}: {error}"
        raise BrokenTableError(entry.name, _package(entry), problem) from error
    is_several = isinstance(found, Iterable) and not isinstance(found, Architecture)
    tables = list(cast("Iterable[Any]", found)) if is_several else [cast("Any", found)]
    for table in tables:
        if not isinstance(table, Architecture):
            problem = f"{entry.value} holds a {type(table).__name__}"
            raise BrokenTableError(entry.name, _package(entry), problem)
    return tuple(tables)
