"""Faults and shapes that are found without running the model."""

from functools import cache
from typing import Any, Final

import attrs
import pytest
import torch
from torch import Tensor, nn

import funlens as fl
from funlens import errors
from funlens.testing import tiny_hf_model, tiny_inputs

SITE: Final = fl.resid_pre(0)


@cache
def spec_of(name: str) -> fl.ModelSpec:
    """A tiny model, loaded once."""
    return fl.from_module(tiny_hf_model(name))


def faults(*edits: Any, capture: Any = (SITE,)) -> list[str]:
    """The kinds of all faults, of edits and captures."""
    try:
        fl.check(spec_of("gpt2"), tiny_inputs("gpt2"), edits, capture=list(capture))
    except ExceptionGroup as group:
        return [type(fault).__name__ for fault in group.exceptions]
    except errors.FunlensError as fault:
        return [type(fault).__name__]
    return []


def test_shapes_of_selections_are_those_of_a_run() -> None:
    """With a short row."""
    tokens = tiny_inputs("gpt2")["input_ids"]
    mask = torch.tensor([[1] * 7, [0, 0] + [1] * 5])
    sites = [fl.z(0, head=1, pos=(0, 2)), fl.pattern(1, query=-1, head=slice(1, 3))]
    given: Any = {"capture": sites, "attention_mask": mask}
    kept = fl.run_with_cache(spec_of("gpt2"), tokens, **given).cache
    expected = {site: tuple(held.shape) for site, held in kept.items()}
    found = fl.dry_run(spec_of("gpt2"), tokens, **given)
    assert expected == {info.site: info.shape for info in found}


def test_check_runs_no_part_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a module whose forward fails; inputs and sites are looked at."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    monkeypatch.setattr(spec.module, "forward", None)
    fl.check(spec, tiny_inputs("gpt2"), [fl.Zero(SITE)])
    with pytest.raises(errors.InputError):
        fl.check(spec, torch.ones(7, dtype=torch.long))


def test_nothing_wrong_is_no_fault() -> None:
    """One edit of each kind."""
    vector, row = torch.ones(16), torch.ones(2, 16)
    edits: list[Any] = [
        fl.Zero(fl.z(0, head=1)),
        fl.Mean(fl.resid_mid(0), vector),
        fl.Set(fl.mlp_out(0), 1.0),
        fl.Add(SITE, vector),
        fl.Scale(SITE, vector),
        fl.Patch(fl.attn_out(1), torch.ones(2, 7, 16)),
        fl.Freeze(fl.mlp_out(1), torch.ones(2, 7, 16)),
        fl.Project(SITE, row),
        fl.ProjectOut(SITE, vector),
        fl.Clamp(SITE, low=0.0),
        fl.Noise(SITE, std=1.0, seed=0),
        fl.Interchange(SITE, vector, directions=row),
        fl.Splice(SITE, nn.Linear(16, 16)),
        fl.Apply(SITE, torch.sin),
    ]
    assert [] == faults(*edits)


def test_faults_of_edits_and_of_captures_come_together() -> None:
    """A missing layer to keep, a vector and a function that do not fit, and a clash."""
    found = faults(
        fl.Add(SITE, torch.ones(5)),
        fl.Apply(SITE, lambda value: None),
        fl.Zero(fl.mlp_out(0)),
        fl.Set(fl.mlp_out(0), 1.0),
        capture=[fl.z(7), "patern.0", SITE],
    )
    assert [
        "SiteNotFoundError",
        "SiteNotFoundError",
        "ShapeError",
        "ConflictError",
        "UserFunctionError",
    ] == found


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (fl.Add(SITE, torch.ones(16, device="meta")), "DtypeError"),
        (fl.ProjectOut(SITE, torch.ones(2, 16, device="meta")), "DtypeError"),
        (fl.ProjectOut(SITE, torch.ones(2, 16).double()), "DtypeError"),
        (fl.Project(SITE, torch.ones(5)), "ShapeError"),
        (fl.Project(SITE, torch.ones(1, 2, 16)), "ShapeError"),
        (fl.ProjectOut(fl.z(0), torch.ones(16)), "ShapeError"),
        (
            fl.Interchange(SITE, torch.ones(16), directions=torch.ones(2, 5)),
            "ShapeError",
        ),
    ],
)
def test_tensor_that_does_not_fit_is_found(edit: Any, expected: str) -> None:
    """On another device, of another dtype, or directions of another width."""
    assert [expected] == faults(edit)


def test_directions_of_a_selected_head_are_as_wide_as_a_head() -> None:
    """The last axis that the selection leaves."""
    assert [] == faults(fl.ProjectOut(fl.z(0, head=1, pos=-1), torch.ones(2, 4)))


@pytest.mark.parametrize(
    "function",
    [
        lambda value: None,
        lambda value: value[:, :1],
        lambda value: value.double(),
        lambda value: value @ torch.ones(3, 3),
        lambda value: value.nothing,
        lambda value: 1 / 0,
    ],
)
def test_faulty_function_is_found(function: Any) -> None:
    """Nothing, another shape or dtype, or an error that needs no values."""
    assert ["UserFunctionError"] == faults(fl.Apply(SITE, function))


@pytest.mark.parametrize(
    "function",
    [
        lambda value: value if value.max().item() > 0 else -value,
        lambda value: value * len(value[value > 0]),
        lambda value: torch.from_numpy(value.numpy()),
        lambda value: value + torch.ones(2, 7, 16),
    ],
)
def test_function_that_looks_at_values_is_no_fault(function: Any) -> None:
    """There are no values to look at yet; tensors of the caller's are real ones."""
    assert [] == faults(fl.Apply(SITE, function))


def test_function_at_a_site_of_several_dtypes_is_left_to_the_run() -> None:
    """Whether a family computes patterns in float32 is not known before."""
    spec = fl.from_module(tiny_hf_model("llama").to(torch.bfloat16))
    edit = fl.Apply(fl.pattern(0), lambda pattern: pattern.float())
    fl.check(spec, tiny_inputs("llama"), [edit])


def test_module_of_another_width_is_found() -> None:
    """A module spliced in is called on a fake tensor, too."""
    assert ["UserFunctionError"] == faults(fl.Splice(SITE, nn.Linear(16, 8)))


# conflicts

ONE: Final = torch.ones(16)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fl.resid_pre(0), fl.resid_pre(0, pos=3)),
        (fl.resid_pre(0, pos=-1), fl.resid_pre(0, pos=6)),
        (fl.resid_pre(0, pos=slice(2, None)), fl.resid_pre(0, pos=(0, 2))),
        (fl.resid_pre(0, pos=torch.tensor([0, 3])), fl.resid_pre(0, pos=3)),
        (fl.z(0, head=1), fl.z(0, pos=2)),
        (fl.z(0, head=1, pos=2), fl.z(0, head=(0, 1), pos=2)),
        (fl.resid_pre(0, pos=fl.generated), fl.resid_pre(0, pos=fl.generated)),
    ],
    ids=str,
)
def test_two_values_at_one_place_conflict(one: fl.Site, other: fl.Site) -> None:
    """Also where one counts from the end, or the two select on other axes."""
    assert ["ConflictError"] == faults(fl.Set(one, 1.0), fl.Set(other, 2.0))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (fl.resid_pre(0), fl.resid_pre(1)),
        (fl.resid_pre(0, pos=0), fl.resid_pre(0, pos=-1)),
        (fl.resid_pre(0, pos=slice(0, 2)), fl.resid_pre(0, pos=slice(2, None))),
        (fl.resid_pre(0, pos=torch.tensor([0, 3])), fl.resid_pre(0, pos=1)),
        (
            fl.resid_pre(0, pos=torch.tensor([0, 3])),
            fl.resid_pre(0, pos=torch.tensor([3, 0])),
        ),
        (fl.z(0, head=1, pos=2), fl.z(0, head=0, pos=2)),
        (fl.pattern(0, query=1, key=0), fl.pattern(0, query=2, key=0)),
        (fl.resid_pre(0, pos=fl.generated), fl.resid_pre(0, pos=-1)),
    ],
    ids=str,
)
def test_values_at_places_apart_do_not_conflict(one: fl.Site, other: fl.Site) -> None:
    """By what is selected, not by how it is written."""
    assert [] == faults(fl.Set(one, 1.0), fl.Set(other, 2.0))


def test_places_apart_depend_on_the_row_s_padding() -> None:
    """In a row of five real tokens, -1 is position 4; in one of seven it is not."""
    edits = [fl.Set(fl.resid_pre(0, pos=4), 1.0), fl.Set(fl.resid_pre(0, pos=-1), 2.0)]
    tokens = tiny_inputs("gpt2")["input_ids"]
    fl.check(spec_of("gpt2"), tokens, edits)
    mask = torch.tensor([[1] * 7, [1] * 5 + [0, 0]])
    with pytest.raises(errors.ConflictError):
        fl.check(spec_of("gpt2"), tokens, edits, attention_mask=mask)


@pytest.mark.parametrize(
    "other",
    [fl.Add(SITE, ONE), fl.Scale(SITE, 2.0), fl.Noise(SITE, std=1.0, seed=0)],
    ids=lambda edit: type(edit).__name__,
)
def test_frozen_site_is_held_against_every_edit(other: Any) -> None:
    """It would not be frozen, whichever comes first."""
    frozen = fl.Freeze(SITE, torch.ones(2, 7, 16))
    assert ["ConflictError"] == faults(frozen, other)
    assert ["ConflictError"] == faults(other, frozen)


def test_zero_twice_is_no_conflict() -> None:
    """Zero twice is zero once."""
    assert [] == faults(fl.Zero(SITE), fl.Zero(fl.resid_pre(0, pos=1)))


def test_read_only_site_is_refused() -> None:
    """With the reason that the table gives; it can still be kept."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    taps: dict[fl.Site, Any] = dict(spec.engine.taps)
    taps[SITE] = attrs.evolve(taps[SITE], read_only="it is a copy")
    spec = attrs.evolve(spec, engine=attrs.evolve(spec.engine, taps=taps))
    with pytest.raises(errors.ReadOnlySiteError, match="it is a copy"):
        fl.check(spec, tiny_inputs("gpt2"), [fl.Zero(SITE)])
    fl.run_with_cache(spec, tiny_inputs("gpt2"), capture=[SITE])


def test_rows_that_the_batch_has_not_are_refused() -> None:
    """One position for each of three rows, on a batch of two."""
    site = fl.resid_pre(0, pos=torch.tensor([0, 1, 2]))
    assert ["SelectionError"] == faults(fl.Zero(site))
    assert ["SelectionError"] == faults(capture=[site])


def test_tensor_of_the_plan_is_checked_again_where_it_is_used() -> None:
    """Positions that come while generating are not known before."""

    def steered(vector: Tensor) -> Tensor:
        site = fl.resid_pre(0, pos=fl.generated)
        tokens = tiny_inputs("gpt2")["input_ids"]
        edits = [fl.Add(site, vector)]
        return fl.generate(spec_of("gpt2"), tokens, edits, max_new_tokens=3)

    steered(torch.ones(16))
    with pytest.raises(errors.ShapeError):
        steered(torch.ones(5))


@pytest.mark.parametrize(
    "name",
    [
        "glm4v-image",
        "kimi_k25-image",
        "pixtral-base",
        "qwen2_5_vl-image",
        "qwen2_vl-image",
        "qwen3_vl-image",
        "siglip2_vision_model-base",
    ],
)
def test_packed_pictures_are_checked_without_their_values(name: str) -> None:
    """A tower reads off values where each picture ends; fake tensors have none."""
    spec, given = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    stack = fl.vision if "image" in name else fl
    fl.check(spec, given, [fl.Zero(stack.resid_post(0)), fl.Zero(fl.resid_pre(1))])
    with pytest.raises(fl.errors.ShapeError):
        fl.check(spec, given, [fl.Set(stack.resid_post(0), torch.zeros(17))])
    with pytest.raises(fl.errors.SiteNotFoundError):
        fl.check(spec, given, capture=[stack.resid_post(9)])


@pytest.mark.parametrize("name", ["gemma3-image", "longformer", "qwen2_vl-image"])
def test_dry_run_of_a_model_that_reads_values_is_refused(name: str) -> None:
    """Where the model's own code asks for some, not with torch's error."""
    spec, given = fl.from_module(tiny_hf_model(name)), tiny_inputs(name)
    with pytest.raises(fl.errors.UnsupportedConfigError, match="reads values"):
        fl.dry_run(spec, given)
    fl.check(spec, given, [fl.Zero(fl.resid_post(0))])
