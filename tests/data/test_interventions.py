"""Interventions: validation, files, hashes and pytrees."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from funlens.data import (
    ActivationCache,
    Add,
    Apply,
    Backward,
    Clamp,
    Freeze,
    Interchange,
    Intervention,
    Mean,
    Noise,
    Part,
    Patch,
    Project,
    ProjectOut,
    Receipt,
    Run,
    Scale,
    Set,
    Splice,
    Zero,
    content_hash,
    from_json,
    same_record,
    to_json,
)
from funlens.errors import (
    InputError,
    LoadError,
    NotSerializableError,
    SelectionError,
    SiteNotCachedError,
)

_SITE = Part("resid_pre")(4, pos=-1)
_VECTOR = torch.rand(8, generator=torch.Generator().manual_seed(0))
_ROWS = torch.rand(3, 8, generator=torch.Generator().manual_seed(1))
_EVERY: tuple[Intervention, ...] = (
    Zero(_SITE),
    Backward(Add(_SITE, torch.arange(4.0), scale=2.0)),
    Mean(_SITE, _VECTOR),
    Set(_SITE, 2.0),
    Set(_SITE, _VECTOR.bfloat16()),
    Add(_SITE, _VECTOR, scale=0.1),
    Scale(Part("z")(9, head=(0, 6)), 0.5),
    Scale(_SITE, torch.tensor(3.0)),
    Patch(_SITE, _ROWS.T),
    Freeze(_SITE, _ROWS[1:]),
    Project(_SITE, _ROWS),
    ProjectOut(_SITE, _ROWS[0]),
    Clamp(_SITE, high=float("inf")),
    Noise(_SITE, std=0.5, seed=2**60 + 1),
    Interchange(_SITE, _ROWS, directions=_ROWS),
)


def test_every_kind_survives_a_file(tmp_path: Path) -> None:
    """Written and read is equal, to the bit, and nothing else is left behind."""
    path = tmp_path / "edits.json"
    to_json(_EVERY, path)
    again = from_json(path)
    assert same_record(_EVERY, again)
    assert content_hash(_EVERY) == content_hash(again)
    assert {"edits.json", "edits.safetensors"} == {p.name for p in tmp_path.iterdir()}
    assert 1 == json.loads(path.read_text())["format"]


def test_no_interventions_survive_a_file(tmp_path: Path) -> None:
    """An empty list is a list."""
    to_json([], tmp_path / "none.json")
    assert () == from_json(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("record", "holds"),
    [(Apply(_SITE, torch.relu), "function"), (Splice(_SITE, nn.ReLU()), "module")],
)
def test_code_is_not_written(tmp_path: Path, record: Intervention, holds: str) -> None:
    """A function and a module are refused, with the place and the reason."""
    with pytest.raises(NotSerializableError) as caught:
        to_json([Zero(_SITE), record], tmp_path / "edits.json")
    assert holds == caught.value.holds
    assert "interventions[1]" in caught.value.where
    assert [] == [*tmp_path.iterdir()]
    with pytest.raises(NotSerializableError):
        content_hash(record)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def _edit(old: str, new: str) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("edits.json", Path.unlink),
        ("edits.safetensors", Path.unlink),
        ("edits.json", _cut),
        ("edits.safetensors", _cut),
        ("edits.json", _edit('"format": 1', '"format": 2')),
        ("edits.json", _edit('"kind": "Zero"', '"kind": "Apply"')),
        ("edits.json", _edit('"scale": 0.1', '"scale": 0.2')),
        ("edits.json", _edit('"scale": 0.1', '"scales": 0.1')),
        ("edits.json", _edit("resid_pre.4", "resid_pr.4")),
        ("edits.json", lambda path: path.write_text("[]")),
    ],
)
def test_a_harmed_file_is_refused(
    tmp_path: Path, name: str, harm: Callable[[Path], object]
) -> None:
    """Missing, cut, of another format or changed: never other interventions."""
    to_json(_EVERY, tmp_path / "edits.json")
    harm(tmp_path / name)
    with pytest.raises(LoadError):
        from_json(tmp_path / "edits.json")


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The tensors' own name, and a folder that is missing."""
    with pytest.raises(InputError):
        to_json(_EVERY, tmp_path / "edits.safetensors")
    with pytest.raises(InputError):
        to_json(_EVERY, tmp_path / "missing" / "edits.json")


def test_a_hash_is_of_the_content_alone() -> None:
    """Identity and strides do not count; every value, shape and dtype does."""
    strided = _VECTOR.repeat_interleave(2)[::2]
    assert content_hash(Add(_SITE, _VECTOR)) == content_hash(Add(_SITE, strided))
    others = [
        *_EVERY,
        Add(_SITE, _VECTOR),
        Mean(_SITE, _VECTOR[None]),
        Mean(_SITE.whole, _VECTOR),
        Freeze(_SITE, _VECTOR),
        Set(_SITE, _VECTOR.view(torch.int32)),
        Set(_SITE, float("nan")),
        Set(_SITE, torch.empty(0)),
    ]
    assert len(others) == len({content_hash(record) for record in others})


def test_code_is_the_same_by_identity() -> None:
    """`same_record` compares functions and modules by identity."""
    assert same_record(Apply(_SITE, torch.relu), Apply(_SITE, torch.relu))
    assert not same_record(Apply(_SITE, torch.relu), Apply(_SITE, torch.exp))
    assert not same_record(Splice(_SITE, nn.ReLU()), Splice(_SITE, nn.ReLU()))


@pytest.mark.parametrize("record", _EVERY, ids=lambda record: type(record).__name__)
def test_pickled_is_equal(record: Intervention) -> None:
    """Every record pickles, and its repr holds no values."""
    again = pickle.loads(pickle.dumps(record))  # noqa: S301 -- our own bytes
    assert same_record(record, again)
    assert "tensor(" not in repr(record)


def test_a_site_can_be_a_name_but_not_a_part() -> None:
    """A name is read; a part in all layers is refused."""
    assert Part("z")(9, head=6) == Zero("z.9[head=6]").site
    with pytest.raises(SelectionError):
        Zero(Part("z"))


def test_a_source_is_a_cache_or_a_tensor(unchecked: None) -> None:
    """A cache is read when the record is made; anything else is refused."""
    cache = ActivationCache(entries={_SITE.whole: torch.rand(2, 5, 8)})
    assert torch.equal(cache[_SITE], Patch(_SITE, cache).source)
    for kind in (Patch, Freeze):
        with pytest.raises(InputError, match=kind.__name__):
            kind(_SITE, None)
        with pytest.raises(SiteNotCachedError):
            kind(Part("z")(0), cache)


@pytest.mark.parametrize(
    ("make", "fragment"),
    [
        (lambda: Add(_SITE, [1.0] * 8), "the vector of Add is a list"),
        (lambda: Add(_SITE, 1.0), "the vector of Add is a float"),
        (lambda: Add(_SITE, _VECTOR, scale=_VECTOR), "the scale of Add is a Tensor"),
        (lambda: Mean(_SITE, 1.0), "the value of Mean is a float"),
        (lambda: Set(_SITE, "1"), "the value of Set is a str"),
        (lambda: Set(_SITE, True), "the value of Set is a bool"),
        (lambda: Scale(_SITE, None), "the factor of Scale is a NoneType"),
        (lambda: Project(_SITE, [1.0]), "the directions of Project is a list"),
        (lambda: Interchange(_SITE, _ROWS, directions=1.0), "the directions of"),
        (lambda: Clamp(_SITE), "no bound"),
        (lambda: Clamp(_SITE, low=2.0, high=1.0), "no value lies between"),
        (lambda: Clamp(_SITE, low=float("nan"), high=1.0), "no value lies between"),
        (lambda: Clamp(_SITE, low="0"), "the low of Clamp is a str"),
        (lambda: Noise(_SITE, std=-1.0, seed=0), "standard deviation"),
        (lambda: Noise(_SITE, std=float("nan"), seed=0), "standard deviation"),
        (lambda: Noise(_SITE, std=1.0, seed=0.5), "the seed of Noise is a float"),
        (lambda: Apply(_SITE, 3), "the function of Apply is a int"),
        (lambda: Splice(_SITE, torch.relu), "the module of Splice is a"),
    ],
)
def test_a_field_of_another_kind_is_refused(
    unchecked: None, make: Callable[[], object], fragment: str
) -> None:
    """When the record is made, with the field's name, also without type checks."""
    with pytest.raises(InputError, match=fragment):
        make()


def test_a_bound_may_be_the_other_bound() -> None:
    """All values become one."""
    assert 1.0 == Clamp(_SITE, low=1.0, high=1.0).low


def test_vmap_over_a_record() -> None:
    """A record with stacked vectors is one record for each."""

    def moved(add: Add) -> Tensor:
        assert add.vector.shape == (8,)
        return add.scale * add.vector

    expected = 2.0 * _ROWS
    assert torch.equal(expected, torch.func.vmap(moved)(Add(_SITE, _ROWS, scale=2.0)))


def test_vmap_gives_records_back() -> None:
    """Records, caches, receipts and runs come out of vmap stacked."""

    def made(edit: Add) -> tuple[Add, Run]:
        receipt = Receipt(
            intervention="Add", count=1, shape=(8,), change=edit.vector.norm()
        )
        cache = ActivationCache(entries={_SITE: edit.vector}, receipts=(receipt,))
        return edit, Run(edit.vector.sum(), cache)

    edit, run = torch.func.vmap(made)(Add(_SITE, _ROWS))
    assert same_record(Add(_SITE, _ROWS), edit)
    assert torch.equal(_ROWS, run.cache[_SITE])
    assert (3,) == run.cache.receipts[0].change.shape


def test_a_cache_crosses_with_all_it_says() -> None:
    """Padding of both stacks and a missing batch are no leaves, and come back."""
    given = ActivationCache(
        entries={_SITE.whole: _ROWS},
        starts=(0, 1, 2),
        stops=(3, 3, 3),
        encoder_starts=(1, 1, 1),
        encoder_stops=(4, 4, 5),
        has_batch=False,
        gated=True,
    )

    def same(cache: ActivationCache) -> ActivationCache:
        return cache

    assert same_record(given, torch.func.vmap(same)(given))


def test_vmap_beside_numbers() -> None:
    """A number in a tensor's place is not mapped."""

    def made(edits: tuple[Set, Scale]) -> Tensor:
        return edits[0].value * edits[1].factor

    edits = (Set(_SITE, _ROWS), Scale(_SITE, 2.0))
    assert torch.equal(2.0 * _ROWS, torch.func.vmap(made)((*edits,)))


def test_grad_with_respect_to_a_record() -> None:
    """The gradient is a record; a function and a module are no leaves."""

    def loss(edits: tuple[Add, Splice, Apply]) -> Tensor:
        return edits[0].vector.square().sum()

    given = (Add(_SITE, _VECTOR), Splice(_SITE, nn.ReLU()), Apply(_SITE, torch.relu))
    found = torch.func.grad(loss)(given)
    assert torch.equal(2 * _VECTOR, found[0].vector)
    assert given[1].module is found[1].module
    assert found[2].function is torch.relu
