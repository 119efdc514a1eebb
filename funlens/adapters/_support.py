"""Which architectures are supported, as they were found when they were run."""

import json
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any, Final

from funlens.adapters._registry import described
from funlens.data import Support

_FILE: Final = files("funlens.adapters") / "supported.json"


def supported() -> tuple[Support, ...]:
    """List what was verified: each architecture, variety and head, by name.

    The list is written by a program that builds a tiny model of each from its config
    and checks every law of `funlens.verify`. Tables that it did not run, such as third
    parties', come last, without a task.

    Examples:
        >>> import funlens as fl
        >>> rows = {row.name: row for row in fl.supported()}
        >>> rows["gpt2"].is_verified
        True
    """
    found = _verified()
    known = {row.model_type for row in found}
    rest = (Support(name=name, model_type=name) for name in described())
    return (*found, *(row for row in rest if row.model_type not in known))


@cache
def _verified() -> tuple[Support, ...]:
    return tuple(_rows(json.loads(_FILE.read_text(encoding="utf-8"))))


def _rows(held: dict[str, Any]) -> Iterator[Support]:
    laws: list[str] = held["laws"]
    for row in held["rows"]:
        wrong: list[int] = row["broken"]
        excused = {laws[int(at)]: reason for at, reason in row["excused"].items()}
        broken = tuple(laws[at] for at in wrong)
        error: str = row.get("error", "")  # the laws could not be checked
        left = (law for law in laws if law not in excused and law not in broken)
        yield Support(
            name=row["name"],
            model_type=row["model_type"],
            task=row["task"],
            n_sites=row["n_sites"],
            laws=() if row["refused"] or error else tuple(left),
            excused=tuple(excused.items()),
            broken=(error,) if error else broken,
            refused=row["refused"],
            checked_with=held["transformers"],
            date=held["date"],
        )
