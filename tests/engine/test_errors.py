"""Everything that cannot be done is refused, with an error that names it."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import tiny_hf_model, tiny_inputs


@cache
def spec_of(name: str = "gpt2") -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def refused(error: type[Exception], *edits: Any, name: str = "gpt2", **how: Any) -> str:
    """The text with which a run is refused."""
    with pytest.raises(error) as caught:
        fl.run(spec_of(name), tiny_inputs(name), list(edits), **how)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("gpt2", lambda: fl.resid_pre(99)),
        ("gpt2", lambda: fl.mlp_gate(0)),
        ("gptj", lambda: fl.resid_mid(0)),
        ("mamba", lambda: fl.pattern(0)),
    ],
)
def test_missing_site_names_the_nearest(name: str, make: Callable[[], Any]) -> None:
    """A layer or part that the model does not have."""
    text = refused(errors.SiteNotFoundError, fl.Zero(make()), name=name)
    assert all(part in text for part in ("does not exist", "nearest: "))
    with pytest.raises(errors.SiteNotFoundError):
        fl.run_with_cache(spec_of(name), tiny_inputs(name), capture=[make()])


@pytest.mark.parametrize(
    "site",
    [
        fl.resid_pre(0, pos=7),
        fl.z(0, head=4),
        fl.mlp_post(0, neuron=10**6),
    ],
)
def test_index_out_of_range_is_refused(site: fl.Site) -> None:
    """Position, head and neuron."""
    assert "does not fit" in refused(errors.SelectionError, fl.Zero(site))


@pytest.mark.parametrize(
    "shape", [(15,), (1, 16), (2, 1, 16), (1, 7, 16), (2, 7, 1), (1,), (2, 16)]
)
def test_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    """A size of 1 does not broadcast either."""
    edit = fl.Add(fl.resid_pre(0), torch.ones(shape))
    assert "interventions[0] (Add).vector" in refused(errors.ShapeError, edit)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
def test_other_dtype_is_refused(dtype: torch.dtype) -> None:
    """Nothing is converted."""
    edit = fl.Set(fl.resid_pre(0), torch.ones(16, dtype=dtype))
    assert str(dtype) in refused(errors.DtypeError, edit)


def test_two_deciding_edits_conflict() -> None:
    """One value cannot be set twice; other heads can."""
    vector = torch.ones(16)
    one, two = fl.Set(fl.resid_pre(0), vector), fl.Zero(fl.resid_pre(0, pos=1))
    assert "resid_pre" in refused(errors.ConflictError, one, two)
    apart = [fl.Zero(fl.z(0, head=0)), fl.Set(fl.z(0, head=1), 1.0)]
    fl.run(spec_of(), tiny_inputs("gpt2"), apart)


def test_empty_capture_is_refused() -> None:
    """Nothing to keep is a slip."""
    with pytest.raises(errors.InputError, match="empty"):
        fl.run_with_cache(spec_of(), tiny_inputs("gpt2"), capture=[])


@pytest.mark.parametrize("call", [fl.run, fl.run_with_cache, fl.check])
def test_unknown_keyword_is_refused(call: Any) -> None:
    """By Python itself."""
    with pytest.raises(TypeError):
        call(spec_of(), tiny_inputs("gpt2"), stop_at_layr=1)


@pytest.mark.parametrize(
    "how",
    [{"stop_at_layer": 99}, {"start_at_layer": 1}, {"params": {"x": torch.ones(1)}}],
)
def test_option_out_of_range_is_refused(how: dict[str, Any]) -> None:
    """The error names the option."""
    assert next(iter(how)) in refused(errors.OptionError, **how)


def raising(value: Tensor) -> Tensor:
    """An edit with a fault."""
    return 1 / torch.zeros(2)[5]


@pytest.mark.parametrize(
    ("function", "fragment"),
    [
        (raising, "it raised IndexError"),
        (lambda x: None, "was `return` forgotten"),
        (lambda x: x[:, :1], "it returned shape"),
        (lambda x: x.double(), "it returned torch.float64"),
    ],
)
def test_faulty_function_is_refused(function: Any, fragment: str) -> None:
    """Raising, forgetting `return`, another shape, another dtype."""
    edit = fl.Apply(fl.resid_pre(1), function)
    assert fragment in refused(errors.UserFunctionError, edit)


def test_nan_is_refused_where_asked() -> None:
    """finite=True looks at what edits made."""
    edit = fl.Scale(fl.resid_pre(1), float("nan"))
    assert "not finite" in refused(errors.NonFiniteError, edit, finite=True)
    assert fl.run(spec_of(), tiny_inputs("gpt2"), [edit]).isnan().all()


def test_edit_that_never_acts_is_refused() -> None:
    """Behind the layer at which the run stops."""
    text = refused(errors.NeverActedError, fl.Zero(fl.resid_pre(1)), stop_at_layer=0)
    assert "never acted" in text


def test_check_reports_all_faults_at_once() -> None:
    """Layer, shape and dtype in one group, without a run."""
    edits = [
        fl.Zero(fl.resid_pre(99)),
        fl.Add(fl.resid_pre(0), torch.ones(5)),
        fl.Add(fl.resid_pre(1), torch.ones(16, dtype=torch.float64)),
    ]
    with pytest.raises(ExceptionGroup) as caught:
        fl.check(spec_of(), tiny_inputs("gpt2"), edits)
    expected = [errors.SiteNotFoundError, errors.ShapeError, errors.DtypeError]
    assert expected == [type(fault) for fault in caught.value.exceptions]
