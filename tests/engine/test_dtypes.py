"""Models in half precision, where some values are computed in float32."""

from functools import cache
from typing import Any, Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens import errors
from funlens.testing import FOUNDATION, tiny_hf_model, tiny_inputs

# float32 patterns, queries and router weights; a stream in float32.
NAMES: Final = ("gptj", "mixtral", "mamba")
HALVES: Final = (torch.bfloat16, torch.float16)


@cache
def spec_of(name: str, dtype: torch.dtype) -> fl.ModelSpec:
    """A tiny model in half precision, loaded once."""
    return fl.from_module(tiny_hf_model(name).to(dtype))


def check_laws(name: str, dtype: torch.dtype) -> None:
    """Every law holds, against a module funlens never saw."""
    untouched = tiny_hf_model(name).to(dtype)
    certificate = fl.verify(
        spec_of(name, dtype), tiny_inputs(name), untouched=untouched
    )
    assert [] == [row for row in certificate.rows if not row.holds]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", NAMES)
def test_every_law_holds_in_bfloat16(name: str) -> None:
    """A site patched with its own value keeps its bits, whatever dtype it has."""
    check_laws(name, torch.bfloat16)


@pytest.mark.architectures
@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [r.name for r in FOUNDATION if r.name not in NAMES])
def test_every_law_holds_in_bfloat16_on_every_architecture(name: str) -> None:
    """The same over the rest of the table."""
    check_laws(name, torch.bfloat16)


def pattern_of(edits: Any = ()) -> Tensor:
    """A pattern that is float32 in a model in bfloat16."""
    spec, site = spec_of("llama", torch.bfloat16), fl.pattern(0)
    inputs = tiny_inputs("llama")
    return fl.run_with_cache(spec, inputs, edits, capture=[site]).cache[site]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_as_wide_as_the_site_or_as_the_model_fits(dtype: torch.dtype) -> None:
    """The site keeps its dtype, and what was put there."""
    value = torch.tensor(0.25, dtype=dtype)
    assert torch.float32 == pattern_of().dtype
    got = pattern_of([fl.Set(fl.pattern(0), value)])
    assert torch.equal(torch.full((2, 4, 7, 7), 0.25), got)


def test_value_wider_than_the_site_is_refused_in_the_run() -> None:
    """A family whose pattern is in half precision, and a value that is not."""
    spec = spec_of("gpt2", torch.bfloat16)
    edit = fl.Add(fl.pattern(0), torch.tensor(0.25))
    with pytest.raises(errors.DtypeError) as caught:
        fl.run(spec, tiny_inputs("gpt2"), [edit])
    assert ("torch.float32", "torch.bfloat16") == (
        caught.value.found,
        caught.value.expected,
    )


def test_value_wider_than_the_stream_is_refused_before_the_run() -> None:
    """Where a family keeps the dtype of its weights; Mamba's stream is float32."""
    edit = fl.Add(fl.resid_pre(1), torch.ones(16))
    with pytest.raises(errors.DtypeError):
        fl.check(spec_of("llama", torch.bfloat16), tiny_inputs("llama"), [edit])
    residual_in_float32 = spec_of("mamba", torch.bfloat16)
    fl.run(residual_in_float32, tiny_inputs("mamba"), [edit])


def drawn(*shape: int) -> Tensor:
    """Normal numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("dtype", HALVES)
def test_projections_are_computed_in_float32(dtype: torch.dtype) -> None:
    """One rounding to half precision away from the result in float64."""
    directions, site = drawn(3, 16).to(dtype), fl.resid_pre(1)
    spec, inputs = spec_of("llama", dtype), tiny_inputs("llama")
    value = fl.run_with_cache(spec, inputs, capture=[site]).cache[site].double()
    projector = torch.linalg.pinv(directions.double()) @ directions.double()
    edit = fl.Project(site, directions)
    got = fl.run_with_cache(spec, inputs, [edit], capture=[site]).cache[site]
    expected = (value @ projector).to(dtype)
    size = float(value.abs().max())
    torch.testing.assert_close(
        expected, got, atol=size * torch.finfo(dtype).eps, rtol=0
    )


# Directions that depend on each other, in float32.


def edited(make: Any) -> tuple[Tensor, Tensor]:
    """A stream before and after an edit."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    site = fl.resid_pre(1)
    before = fl.run_with_cache(spec, inputs, capture=[site]).cache[site]
    after = fl.run_with_cache(spec, inputs, [make(site)], capture=[site]).cache[site]
    return before, after


@pytest.mark.parametrize(
    "directions",
    [
        torch.stack([drawn(16), drawn(16)]),
        torch.stack([drawn(16), -2 * drawn(16), torch.zeros(16)]),
        torch.stack([drawn(16), drawn(16) * (1 + 1e-7)]),
    ],
    ids=["twice", "multiples and zero", "nearly twice"],
)
def test_dependent_directions_span_what_one_of_them_spans(directions: Tensor) -> None:
    """Nothing beyond their span is removed."""
    before, after = edited(lambda site: fl.ProjectOut(site, directions))
    unit = drawn(16) / drawn(16).norm()
    expected = before - (before @ unit)[..., None] * unit
    torch.testing.assert_close(expected, after, atol=1e-5, rtol=0)


def test_direction_zero_spans_nothing() -> None:
    """Projecting it out removes nothing, projecting onto it leaves nothing."""
    before, after = edited(lambda site: fl.ProjectOut(site, torch.zeros(16)))
    assert torch.equal(before, after)
    _, nothing = edited(lambda site: fl.Project(site, torch.zeros(2, 16)))
    assert not nothing.any()


def test_projections_work_under_func() -> None:
    """Mapped over directions, and differentiated with respect to them."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2").double()), tiny_inputs("gpt2")
    directions = drawn(3, 2, 16).double()

    def value(rows: Tensor) -> Tensor:
        edit = fl.ProjectOut(fl.resid_pre(1), rows)
        return fl.run(spec, inputs, [edit])[:, -1].logsumexp(-1).sum()

    expected = torch.stack([value(rows) for rows in directions])
    torch.testing.assert_close(expected, torch.func.vmap(value)(directions))
    step = 1e-5 * drawn(2, 16).double()
    difference = value(directions[0] + step) - value(directions[0] - step)
    slope = (torch.func.grad(value)(directions[0]) * step).sum() * 2
    torch.testing.assert_close(difference, slope, atol=1e-10, rtol=1e-5)


def test_noise_under_vmap_is_the_loop_s() -> None:
    """Its seed says what is drawn, for every mapped value alike."""
    spec, inputs = fl.from_module(tiny_hf_model("gpt2")), tiny_inputs("gpt2")
    vectors = drawn(3, 16)

    def value(vector: Tensor) -> Tensor:
        noise = fl.Noise(fl.resid_pre(0), std=0.5, seed=7)
        return fl.run(spec, inputs, [noise, fl.Add(fl.resid_pre(1), vector)])

    expected = torch.stack([value(vector) for vector in vectors])
    got = torch.func.vmap(value)(vectors)
    torch.testing.assert_close(expected, got, atol=1e-5, rtol=0)
