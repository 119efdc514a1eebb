"""Verify a tiny model of every recipe; write supported.json and docs/models.md.

`python -m tests.models` writes both; with `--check` it fails where they would say
something else, so that nothing is listed that was not run; with `--counts` it tells how
many model types are listed, and with `--page` it writes the page alone, which also
counts the lines of the tables. Names of recipes run these alone, and print what came out.
"""

import datetime
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import transformers

import funlens as fl
from funlens.data import Support
from tests.models._page import counts, page
from tests.models._verified import Verified, every_recipe, verified

ROOT: Final = Path(__file__).parents[2]
FILE: Final = ROOT / "funlens" / "adapters" / "supported.json"
PAGE: Final = ROOT / "docs" / "models.md"


def as_json(found: Iterable[Verified]) -> dict[str, Any]:
    """Make what supported.json holds."""
    every = sorted(found, key=lambda one: (one.recipe.task, one.recipe.name))
    laws = [*dict.fromkeys(law for one in every for law, *_ in one.rows)]
    rows = [
        {
            "name": one.recipe.name,
            "model_type": one.recipe.model_type,
            "task": one.recipe.task,
            "n_sites": one.n_sites,
            "broken": [laws.index(law) for law, holds, *_ in one.rows if not holds],
            "excused": {
                str(laws.index(law)): note
                for law, _, applies, note in one.rows
                if not applies
            },
            "refused": one.refused,
            **({"error": one.error} if one.error else {}),
        }
        for one in every
    ]
    return {
        "transformers": transformers.__version__,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "laws": laws,
        "rows": rows,
    }


def written(held: Mapping[str, Any]) -> str:
    """Write it with one line for each row."""
    rows = ",\n".join(json.dumps(row, ensure_ascii=False) for row in held["rows"])
    head = json.dumps({**held, "rows": None}, ensure_ascii=False)
    return head.replace('"rows": null', f'"rows": [\n{rows}\n]') + "\n"


def differences(held: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """List the names of rows that are not what they were."""

    def spelled(side: Mapping[str, Any]) -> dict[str, str]:
        laws: list[str] = side["laws"]
        return {
            row["name"]: json.dumps(
                {
                    **row,
                    "broken": [laws[at] for at in row["broken"]],
                    "excused": {
                        laws[int(at)]: why for at, why in row["excused"].items()
                    },
                },
                sort_keys=True,
            )
            for row in side["rows"]
        }

    before, after = spelled(held), spelled(found)
    return sorted(
        name
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    )


def listed() -> tuple[Support, ...]:
    """Give the rows of the file."""
    return tuple(row for row in fl.supported() if row.task)


def main(arguments: list[str]) -> None:
    """Run, and write or compare."""
    if "--counts" in arguments:
        for name, good, of in counts(listed()):
            print(f"{name}: {good} of {of} model types")  # noqa: T201 -- a program
        return
    if "--page" in arguments:
        PAGE.write_text(page(listed()), "utf-8")
        return
    names = {name for name in arguments if not name.startswith("-")}
    recipes = [r for r in every_recipe() if not names or r.name in names]
    found = as_json(verified(recipes))
    if names:
        sys.stdout.write(written(found))
        return
    if "--check" in arguments:
        moved = differences(json.loads(FILE.read_text("utf-8")), found)
        if moved:
            sys.exit(f"{len(moved)} rows are not what was found: {', '.join(moved)}")
        if PAGE.read_text("utf-8") != page(listed()):
            sys.exit("docs/models.md is not what supported.json says")
        return
    FILE.write_text(written(found), "utf-8")
    PAGE.write_text(page(listed()), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
