"""Models that two processes hold in parts: the numbers of one that holds them whole."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

import funlens as fl
from funlens.errors import OptionError
from funlens.testing import tiny_hf_model

N_PROCESSES: Final = 2
CLOSE: Final = 2e-5
"""Sums over two halves round differently from sums over the whole, here a few 1e-6."""

FAMILIES: Final = (
    "gemma2",
    "gpt_neox",
    "llama",
    "mistral",
    "mixtral",
    "phi3",
    "olmoe",
    "qwen3",
)
"""Apart and fused projections, norms of heads, and mixtures of experts."""

UNEVEN: Final = "qwen2"  # one key-value head

Found = Mapping[str, Any]


def in_two(folders: Iterable[Path], *words: str) -> None:
    """Start two processes that compare the models of some folders."""
    worker = Path(__file__).with_name("split_worker.py")
    paths = (str(Path(fl.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(N_PROCESSES), str(worker)),
            *words,
            *map(str, folders),
        ],
        env={
            **os.environ,
            "GLOO_SOCKET_IFNAME": "lo",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        },
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert not done.returncode, done.stderr[-4000:]


def found_in(folder: Path) -> Found:
    """Read what both processes found, which is the same."""
    files = [folder / f"found-{rank}.json" for rank in range(N_PROCESSES)]
    one, other = (json.loads(file.read_text()) for file in files)
    assert one == other
    return one


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What two processes find about a tiny llama."""
    folder = tmp_path_factory.mktemp("llama")
    tiny_hf_model("llama").save_pretrained(folder)
    in_two([folder], "--brief")
    return found_in(folder)


def far(found: Found, allowed: float) -> dict[str, float]:
    """Name what is further apart than allowed."""
    return {name: value for name, value in found.items() if not value <= allowed}


@pytest.mark.parametrize("what", ["logits", "captures"])
def test_two_processes_give_the_numbers_of_one(llama: Found, what: str) -> None:
    """At every site, to the rounding of sums over halves."""
    assert llama[what]
    assert {} == far(llama[what], CLOSE)


@pytest.mark.parametrize("what", ["own values", "owner"])
def test_two_processes_keep_bits(llama: Found, what: str) -> None:
    """What is gathered and parted again, and what transformers itself gives."""
    assert llama[what]
    assert {} == far(llama[what], 0.0)


def test_sites_have_the_shapes_of_one_process(llama: Found) -> None:
    """All heads and all neurons."""
    assert llama["shapes"]


def test_what_splitting_cannot_do_is_refused(llama: Found) -> None:
    """By funlens, before anything runs."""
    answers: Mapping[str, str] = llama["refused"]
    plain = ("torch.func", "params", "with_weights", "fold_layer_norm", "dry_run")
    others = {
        "a style": "modules are split by 'sequence_parallel', whose parts",
        "another way": "its weights between layers are spread over processes",
    }
    expected = {**dict.fromkeys(plain, "split among processes"), **others}
    assert expected.keys() == answers.keys()
    assert {} == {w: a for w, a in answers.items() if expected[w] not in a}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Found]:
    """What two processes find about each family."""
    folder = tmp_path_factory.mktemp("families")
    names = (*FAMILIES, UNEVEN)
    for name in names:
        tiny_hf_model(name).save_pretrained(folder / name)
    in_two(folder / name for name in names)
    return {name: found_in(folder / name) for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_families_give_the_numbers_of_one_process(
    families: Mapping[str, Found], name: str
) -> None:
    """Each part of each family's plan is gathered, and parted where it changed."""
    found = families[name]
    near = {what: far(found[what], CLOSE) for what in ("captures", "edits", "grads")}
    bits = ("own values", "weights", "generated", "owner")
    same = {what: far(found[what], 0.0) for what in bits}
    assert {} == {what: names for what, names in (near | same).items() if names}
    assert found["shapes"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_laws_hold_on_a_split_model(families: Mapping[str, Found], name: str) -> None:
    """All but those of `torch.func`, which collectives cannot pass."""
    found = families[name]
    assert [] == found["broken"]
    reason = "its weights are split among processes"
    assert {
        "vmap over edits is the loop of runs",
        "grad and jvp are the difference of runs",
    } == {law for law, note in found["left out"].items() if note == reason}


@pytest.mark.slow
def test_heads_that_cannot_be_shared_evenly_are_refused(
    families: Mapping[str, Found],
) -> None:
    """HuggingFace would fail within, or cut a head in two."""
    problem = "2 processes cannot share 1 (kv_head at k.0) evenly"
    assert {"refused": problem} == families[UNEVEN]


def test_a_plan_without_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process has nothing to split a model among."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(OptionError, match="start several with `torchrun"):
        fl.load("builtin:tiny", tp_plan="auto")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("device", "cpu"),
        ("device_map", "auto"),
        ("quantization_config", {}),
    ],
)
def test_a_plan_beside_another_place_is_refused(option: str, value: Any) -> None:
    """Both would say where weights go."""
    with pytest.raises(OptionError, match="cannot be used beside `tp_plan`") as caught:
        fl.load("builtin:tiny", tp_plan="auto", **{option: value})
    assert option == caught.value.option


def test_a_plan_of_another_kind_is_refused() -> None:
    """HuggingFace would take it for `auto`, or fail within."""
    with pytest.raises(OptionError, match="is no plan") as caught:
        fl.load("builtin:tiny", tp_plan="automatic")
    assert ("auto", "a mapping") == caught.value.near
