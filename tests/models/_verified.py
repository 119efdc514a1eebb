"""Verifying a tiny model of every recipe: what supported.json holds."""

import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Final

import attrs
import torch
import transformers
from torch import nn
from tqdm import tqdm

import funlens as fl
from funlens.errors import FunlensError, InputError, UnsupportedArchitectureError
from funlens.testing import RECIPES, Recipe, head_recipes, tiny_hf_model, tiny_inputs

NO_TABLE: Final = "no table describes it"


@attrs.frozen(kw_only=True)
class Verified:
    """What came out for one recipe."""

    recipe: Recipe
    n_sites: int = 0
    rows: tuple[tuple[str, bool, bool, str], ...] = ()
    refused: str = ""
    error: str = ""


def every_recipe() -> tuple[Recipe, ...]:
    """List each recipe once, those with other heads last."""
    found = {recipe.name: recipe for recipe in (*RECIPES, *head_recipes())}
    return tuple(found.values())


def verified(recipes: Iterable[Recipe]) -> Iterator[Verified]:
    """Verify each recipe, several at once."""
    wanted = list(recipes)
    with ProcessPoolExecutor(
        os.cpu_count(), mp_context=get_context("spawn"), initializer=_quiet
    ) as pool:
        yield from tqdm(pool.map(verify, wanted), total=len(wanted), disable=None)


def _quiet() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")


def verify(recipe: Recipe) -> Verified:
    """Verify one recipe's tiny model against another that funlens never saw."""
    module = built(recipe.name)
    try:
        spec = fl.from_module(module)
    except UnsupportedArchitectureError:
        return Verified(recipe=recipe, refused=NO_TABLE)
    except FunlensError as error:
        return Verified(recipe=recipe, refused=str(error))
    try:
        given, untouched = tiny_inputs(recipe.name), built(recipe.name)
        found = fl.verify(spec, given, untouched=untouched)
    except InputError as error:
        return Verified(recipe=recipe, n_sites=len(spec.sites), refused=str(error))
    except Exception as error:  # noqa: BLE001 -- whatever goes wrong is a finding
        return Verified(recipe=recipe, n_sites=len(spec.sites), error=repr(error))
    rows = tuple((row.law, row.holds, row.applies, row.note) for row in found.rows)
    return Verified(recipe=recipe, n_sites=len(spec.sites), rows=rows)


def built(name: str) -> nn.Module:
    """Build a model, and run one that rescales its weights once, as funlens asks."""
    module: Any = tiny_hf_model(name)
    if name.split("-")[0] == "rwkv" and "rescaled" not in name:
        with torch.no_grad():
            module(**tiny_inputs(name))
    return module
