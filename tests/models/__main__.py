"""Verify a tiny model of every recipe that has a table, and write docs/models.md.

`python -m tests.models` writes the page; with `--check` it fails where the page would
be another, so that nothing is listed that was not run.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import torch
import transformers
from tqdm import tqdm

import funlens as fl
from funlens.errors import FunlensError
from funlens.testing import RECIPES, Recipe, tiny_hf_model, tiny_inputs

PAGE: Final = Path(__file__).parents[2] / "docs" / "models.md"
TASKS: Final = ("causal-lm",)
"""Heads that are listed; the others join as their tables do."""

HEAD: Final = """# Models

This page is written by `nox -s models`, which builds a tiny model of each row from its config and checks every law of `funlens.verify` against a copy that funlens never saw.
Nothing is listed that was not run.
A law that does not apply stands with its reason; a law that fails would stand here too.

Checked with transformers {version}.
{count}

| model | head | sites | laws | what does not apply |
|---|---|---|---|---|
"""


def rows(recipes: Iterable[Recipe]) -> Iterator[tuple[Recipe, str]]:
    """Verify each recipe that has a table; give its row."""
    known = set(fl.supported())
    wanted = [r for r in recipes if r.model_type in known and r.task in TASKS]
    for recipe in tqdm(wanted, disable=None):
        yield recipe, f"| `{recipe.name}` | {recipe.task} | {verified(recipe)} |"


def verified(recipe: Recipe) -> str:
    """Say what holds of one tiny model."""
    try:
        spec = fl.from_module(tiny_hf_model(recipe.name))
    except FunlensError as error:
        return f"0 | refused | {error}"
    untouched = tiny_hf_model(recipe.name)
    found = fl.verify(spec, tiny_inputs(recipe.name), untouched=untouched)
    broken = [row.law for row in found.rows if not row.holds]
    applying = sum(row.applies for row in found.rows)
    excuses = [f"{row.law}: {row.note}" for row in found.rows if not row.applies]
    holds = f"all {applying}" if not broken else f"**fails: {'; '.join(broken)}**"
    return f"{len(spec.sites)} | {holds} | {'; '.join(excuses)}"


def main() -> None:
    """Write the page, or compare it."""
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    lines = sorted(rows(RECIPES), key=lambda pair: (pair[0].task, pair[0].name))
    types = {
        (recipe.task, recipe.model_type) for recipe, line in lines if "all" in line
    }
    per_task = Counter(task for task, _ in types)
    count = "Model types on which every law holds that applies: " + ", ".join(
        f"{number} {task}" for task, number in sorted(per_task.items())
    )
    head = HEAD.format(version=transformers.__version__, count=f"{count}.")
    page = head + "\n".join(line for _, line in lines) + "\n"
    if "--check" in sys.argv:
        if PAGE.read_text(encoding="utf-8") != page:
            sys.exit("docs/models.md is not what was found; run `nox -s models`")
        return
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
