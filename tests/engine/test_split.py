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
    "mistral",
    "mixtral",
    "phi3",
    "olmoe",
    "qwen3",
)
"""Apart and fused projections, norms of heads, and mixtures of experts."""

Found = Mapping[str, Any]


def in_two(folders: Iterable[Path]) -> None:
    """Start two processes that compare the models of some folders."""
    worker = Path(__file__).with_name("split_worker.py")
    paths = (str(Path(fl.__file__).parents[1]), os.environ.get("PYTHONPATH", ""))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", str(N_PROCESSES), str(worker)),
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
    in_two([folder])
    return found_in(folder)


def far(found: Found, allowed: float) -> dict[str, float]:
    """Name what is further apart than allowed."""
    return {name: value for name, value in found.items() if not value <= allowed}


@pytest.mark.parametrize("what", ["logits", "captures", "edits", "grads"])
def test_two_processes_give_the_numbers_of_one(llama: Found, what: str) -> None:
    """At every site, to the rounding of sums over halves."""
    assert llama[what]
    assert {} == far(llama[what], CLOSE)


@pytest.mark.parametrize("what", ["own values", "weights", "generated", "owner"])
def test_two_processes_keep_bits(llama: Found, what: str) -> None:
    """What is gathered and parted again, and what is only gathered."""
    assert llama[what]
    assert {} == far(llama[what], 0.0)


def test_sites_have_the_shapes_of_one_process(llama: Found) -> None:
    """All heads and all neurons."""
    assert llama["shapes"]


def test_laws_hold_on_a_split_model(llama: Found) -> None:
    """All but those of `torch.func`, which collectives cannot pass."""
    assert [] == llama["broken"]
    reason = "its weights are split among processes"
    apart = {law for law, note in llama["left out"].items() if note == reason}
    assert {
        "vmap over edits is the loop of runs",
        "grad and jvp are the difference of runs",
    } == apart


def test_what_splitting_cannot_do_is_refused(llama: Found) -> None:
    """By funlens, before anything runs."""
    answers: Mapping[str, str] = llama["refused"]
    expected = ("torch.func", "params", "with_weights", "fold_layer_norm", "dry_run")
    assert set(expected) == set(answers)
    assert all("split among processes" in answer for answer in answers.values())


@pytest.mark.slow
def test_families_give_the_numbers_of_one_process(tmp_path: Path) -> None:
    """Each part of each family's plan is gathered."""
    for name in (*FAMILIES, "qwen2"):
        tiny_hf_model(name).save_pretrained(tmp_path / name)
    in_two(tmp_path / name for name in (*FAMILIES, "qwen2"))
    uneven = found_in(tmp_path / "qwen2")
    problem = "2 processes cannot share 1 (kv_head at k.0) evenly"
    assert {"refused": problem} == uneven
    for name in FAMILIES:
        found = found_in(tmp_path / name)
        near = {
            what: far(found[what], CLOSE) for what in ("captures", "edits", "grads")
        }
        same = {what: far(found[what], 0.0) for what in ("own values", "weights")}
        assert {name: {}} == {name: {w: f for w, f in (near | same).items() if f}}
        assert found["shapes"]
        assert [] == found["broken"]


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
