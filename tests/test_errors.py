"""The error family: fields, texts, pickles."""

import pickle

import attrs
import pytest

from funlens import errors
from funlens.errors import FunlensError

_CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, FunlensError)
]
_VALUES = {
    "n_layers": 12,
    "near": ("one", "two"),
    "shape": (2, 7),
    "expected": "some",
    "axes": ("batch", "pos"),
    "paths": ("one", "two"),
    "faults": ("the first", "the second"),
    "moved": 0.5,
    "tolerance": 0.0001,
}


def example(cls: type[FunlensError]) -> FunlensError:
    """Make an error with a value in every field."""
    if not attrs.has(cls):
        return cls("text")
    values = {f.name: _VALUES.get(f.name, f"the {f.name}") for f in attrs.fields(cls)}
    if cls is errors.ShapeError:
        values["expected"] = (2, 8)
    if cls is errors.UnsupportedConfigError:
        values["advice"] = "Do this."  # here a whole sentence, as its default is
    return cls(**values)


@pytest.mark.parametrize("cls", _CLASSES)
def test_errors_pickle(cls: type[FunlensError]) -> None:
    """An error comes out of another process with its fields and text."""
    error = example(cls)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert type(error) is type(again)
    assert str(error) == str(again)
    if attrs.has(cls):
        assert attrs.asdict(error) == attrs.asdict(again)


@pytest.mark.parametrize("cls", [cls for cls in _CLASSES if attrs.has(cls)])
def test_the_text_holds_every_fact(cls: type[FunlensError]) -> None:
    """Every field but the number of layers, which is a range, is in the text."""
    error = example(cls)
    for field in attrs.fields(cls):
        value = getattr(error, field.name)
        parts = value if field.name in {"near", "axes", "faults", "paths"} else (value,)
        for part in () if field.name == "n_layers" else parts:
            assert str(part) in str(error)
    assert str(error).endswith(".")
    assert not str(error).startswith(("'", '"'))


def test_every_error_is_public_and_drawn() -> None:
    """`__all__` is sorted and complete, and the tree names every class."""
    names = {cls.__name__ for cls in _CLASSES}
    functions = {"nearest", "raise_all"}
    assert sorted(names | functions) == list(errors.__all__)
    assert all(name in (errors.__doc__ or "") for name in names)


def test_families() -> None:
    """Python's own families hold."""
    assert issubclass(errors.SiteNotCachedError, KeyError)
    assert issubclass(errors.SiteError, LookupError)
    assert issubclass(errors.NotSerializableError, errors.InterventionError)
    assert issubclass(errors.InterventionError, ValueError)
    assert issubclass(errors.GatedModelError, errors.LoadError)


def test_nearest_is_cut_at_eight() -> None:
    """The nearest first, each once, eight at most."""
    found = errors.nearest("b", [*"abcdefghijk", "b"])
    assert "b" == found[0]
    assert 8 == len(found) == len(set(found))
