"""docs/models.md, made from what supported.json holds."""

import ast
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Final

from funlens.data import Support
from tests.models._obstacles import UNBUILT, UNDESCRIBED
from tests.models._tasks import TITLES, types_of

_ADAPTERS: Final = Path(__file__).parents[2] / "funlens" / "adapters"
_HEAD: Final = """# Models

This page is written by `nox -s models`, which builds a tiny model of each row from its config and checks every law of `funlens.verify` against a copy that funlens never saw.
Nothing is listed that was not run.
A law that does not apply stands with its reason, but for that of recurrences where there is none; a law that fails would stand here too.
`funlens.supported()` gives the same rows as records.

Checked with transformers {version} on {date}.

| head | model types on which every law holds that applies | model types in transformers |
|---|---|---|
"""
_NONE: Final = "no recurrence that reads values"
_COST: Final = """
What an architecture costs: {types} model types are described by {tables} tables in {lines} lines, of which a table takes {middle} in the middle.
"""


def page(rows: Sequence[Support]) -> str:
    """Write the page."""
    first = rows[0]
    per_task = _by_task(rows)
    parts = [
        _HEAD.format(version=first.checked_with, date=first.date),
        *(f"| {name} | {good} | {of} |\n" for name, good, of in counts(rows)),
        _COST.format(**_cost()),
        *(part for task, held in per_task.items() for part in _section(task, held)),
    ]
    return "".join(parts)


def counts(rows: Iterable[Support]) -> Iterator[tuple[str, int, int]]:
    """Give each head, its verified model types, and those that transformers has."""
    for task, held in _by_task(rows).items():
        yield TITLES[task].lower(), len(good_types(held)), len(types_of(task))


def _by_task(rows: Iterable[Support]) -> dict[str, list[Support]]:
    order = [*TITLES]
    every = sorted(rows, key=lambda row: (order.index(row.task), row.name))
    grouped = groupby(every, key=lambda row: row.task)
    return {task: list(held) for task, held in grouped}


def good_types(rows: Iterable[Support]) -> frozenset[str]:
    """List the model types of which a variety is verified, and no variety breaks."""
    held = list(rows)
    broken = {row.model_type for row in held if row.broken}
    return frozenset({row.model_type for row in held if row.is_verified} - broken)


def _section(task: str, rows: Sequence[Support]) -> Iterator[str]:
    yield f"\n## {TITLES[task]}\n\n"
    yield "| model | sites | laws | what does not apply, and why |\n|---|---|---|---|\n"
    yield from map(_row, rows)
    if task == "base":
        return
    for name in sorted(types_of(task) - {row.model_type for row in rows}):
        yield f"| `{name}` | | not run | {UNBUILT.get(name, 'no recipe builds it')} |\n"


def _row(row: Support) -> str:
    if row.refused:
        why = UNDESCRIBED.get(row.model_type, row.refused)
        return f"| `{row.name}` | | refused | {why} |\n"
    holds = f"all {len(row.laws)}"
    if row.broken:
        holds = f"**fails: {'; '.join(row.broken)}**"
    excuses = "; ".join(
        f"{law}: {reason}" for law, reason in row.excused if reason != _NONE
    )
    return f"| `{row.name}` | {row.n_sites} | {holds} | {excuses} |\n"


def _cost() -> dict[str, int]:
    """Count the lines of the tables."""
    from funlens.adapters import ARCHITECTURES

    files = [path.read_text("utf-8") for path in _ADAPTERS.glob("_families*.py")]
    calls = [
        node.end_lineno - node.lineno + 1
        for text in files
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"Architecture", "causal"}
        and node.end_lineno is not None
    ]
    names = {name for table in ARCHITECTURES for name in table.model_types}
    return {
        "types": len(names),
        "tables": len(ARCHITECTURES),
        "lines": sum(text.count("\n") for text in files),
        "middle": round(median(calls)),
    }
