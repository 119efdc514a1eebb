"""Runtime shape checks are on in every test, for functions and for records."""

import copy
import importlib
import importlib.util
import pickle
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import attrs
import pytest
import torch
from jaxtyping import Float, TypeCheckError, install_import_hook
from torch import Tensor
from torch.utils import _pytree

import funlens
from tests.conftest import check_new_records, check_record

SOURCE = """
from jaxtyping import Float
from torch import Tensor


def weigh(
    pattern: Float[Tensor, "query key"], value: Float[Tensor, "key d_head"]
) -> Float[Tensor, "query d_head"]:
    return pattern @ value
"""


@attrs.frozen(eq=False)
class Pair:
    """Two tensors that share an axis."""

    left: Float[Tensor, "batch d_model"]
    right: Float[Tensor, " batch"]


check_record(Pair)
_pytree.register_pytree_node(
    Pair,
    lambda pair: ([pair.left, pair.right], None),
    # As a record's own registration must: leaves may be anything, so no checks.
    lambda leaves, _: _rebuilt(*leaves),
)


def _rebuilt(left: object, right: object) -> Pair:
    pair = object.__new__(Pair)
    object.__setattr__(pair, "left", left)
    object.__setattr__(pair, "right", right)
    return pair


@pytest.fixture
def hooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module imported through the hook that addopts install for funlens."""
    (tmp_path / "hooked_example.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    with install_import_hook(["hooked_example"], "beartype.beartype"):
        module = importlib.import_module("hooked_example")
    monkeypatch.delitem(sys.modules, "hooked_example")
    return module


def test_a_wrong_rank_in_a_function_is_caught(hooked: ModuleType) -> None:
    """A matrix is not a stack of matrices."""
    with pytest.raises(TypeCheckError):
        hooked.weigh(torch.ones(1, 2, 3), torch.ones(3, 4))


def test_an_axis_clash_in_a_function_is_caught(hooked: ModuleType) -> None:
    """The two arguments must agree about `key`."""
    with pytest.raises(TypeCheckError):
        hooked.weigh(torch.ones(2, 3), torch.ones(4, 5))


def test_the_package_is_imported_through_the_hook() -> None:
    """Every function of funlens is checked, not those of an example only."""
    spec = importlib.util.find_spec("funlens")
    assert spec is not None
    assert type(funlens.__loader__).__module__.startswith("jaxtyping")


def test_a_wrong_rank_in_a_record_is_caught() -> None:
    """A record's field has the rank that its annotation says."""
    with pytest.raises(TypeCheckError):
        Pair(torch.ones(2, 3, 4), torch.ones(2))


def test_an_axis_clash_in_a_record_is_caught() -> None:
    """Two fields must agree about `batch`."""
    with pytest.raises(TypeCheckError):
        Pair(torch.ones(2, 3), torch.ones(4))


def test_evolve_checks_again() -> None:
    """`attrs.evolve` cannot make an invalid record."""
    pair = Pair(torch.ones(2, 3), torch.ones(2))
    with pytest.raises(TypeCheckError):
        attrs.evolve(pair, right=torch.ones(4))


def test_a_checked_record_copies_and_pickles() -> None:
    """The check changes nothing but the constructor."""
    pair = Pair(torch.ones(2, 3), torch.ones(2))
    for other in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):  # noqa: S301 -- our own bytes
        assert torch.equal(pair.left, other.left)


def test_a_checked_record_crosses_vmap_and_grad() -> None:
    """The check does not stand in the way of `torch.func`."""

    def total(pair: Pair) -> Tensor:
        return (pair.left * pair.right[:, None]).sum()

    pair = Pair(torch.ones(2, 3), torch.full((2,), 2.0))
    stacked = _pytree.tree_map(lambda leaf: torch.stack([leaf, leaf]), pair)
    assert torch.equal(torch.tensor([12.0, 12.0]), torch.vmap(total)(stacked))
    assert torch.equal(torch.full((2, 3), 2.0), torch.func.grad(total)(pair).left)


def test_every_record_of_funlens_is_checked() -> None:
    """No attrs class escapes, wherever in the package it is defined."""
    for info in pkgutil.walk_packages(funlens.__path__, "funlens."):
        if not info.name.endswith(".__main__"):
            importlib.import_module(info.name)
    check_new_records()
    unchecked = [
        f"{name}.{value.__name__}"
        for name, module in sorted(sys.modules.items())
        if name.split(".")[0] == "funlens"
        for value in vars(module).values()
        if isinstance(value, type)
        and value.__module__ == name
        and attrs.has(value)
        and not hasattr(value.__init__, "__wrapped__")
    ]
    assert [] == unchecked


@pytest.mark.usefixtures("unchecked")
def test_the_checks_can_be_turned_off(hooked: ModuleType) -> None:
    """A test that compiles asks for the fixture `unchecked`."""
    assert (1, 2, 4) == hooked.weigh(torch.ones(1, 2, 3), torch.ones(3, 4)).shape
