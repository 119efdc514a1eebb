"""Checkpoints of training runs, and the hub itself on this machine."""

import json
import os
import shutil
import subprocess
import sys
from email.utils import formatdate
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch

import funlens as fl
from funlens.errors import LoadError
from tests.adapters.folders import TINY
from tests.adapters.hub import GATED, REFS, refused, served


def hub_with(monkeypatch: pytest.MonkeyPatch, *names: str, tags: Any = ()) -> list[Any]:
    """Let the hub list these branches and tags, and keep what it was asked."""
    asked: list[Any] = []

    def refs(self: Any, name: str, **options: Any) -> Any:
        asked.append((name, options))
        return SimpleNamespace(
            branches=[SimpleNamespace(name=name) for name in names],
            tags=[SimpleNamespace(name=name) for name in tags],
        )

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_refs", refs)
    return asked


@pytest.mark.parametrize(
    ("name", "number", "first", "last", "tokens"),
    [
        ("EleutherAI/pythia-70m", 154, "step0", "step143000", 299_892_736_000),
        ("EleutherAI/pythia-1.4b-deduped", 154, "step0", "step143000", 299_892_736_000),
        (
            "stanford-crfm/alias-gpt2-small-x21",
            609,
            "checkpoint-0",
            "checkpoint-400000",
            209_715_200_000,
        ),
    ],
)
def test_known_schemes_need_no_hub(
    name: str, number: int, first: str, last: str, tokens: int
) -> None:
    """Steps grow, and each has its revision."""
    run = fl.checkpoints(name)
    assert (number, first, last) == (len(run), run[0].revision, run[-1].revision)
    assert tokens == run[-1].tokens
    steps = [checkpoint.step for checkpoint in run]
    assert sorted(set(steps)) == steps
    assert all(str(one.step) in one.revision and name == one.name for one in run)


def test_pythia_is_dense_at_first() -> None:
    """Powers of two, then thousands."""
    steps = [one.step for one in fl.checkpoints("EleutherAI/pythia-12b")]
    assert [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 2000] == steps[:13]


def test_other_repositories_are_listed_by_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the order of training, from branches and tags, each once."""
    asked = hub_with(
        monkeypatch,
        "main",
        "stage2-ingredient1-step1000-tokens5B",
        "stage1-step2000-tokens9B",
        "stage1-step150-tokens1B",
        tags=("v1.0", "stage1-step150-tokens1B"),
    )
    run = fl.checkpoints("allenai/OLMo-2-0425-1B", token="mine")  # noqa: S106 -- no secret
    assert [("allenai/OLMo-2-0425-1B", {"token": "mine"})] == asked
    found = [(one.stage, one.step, one.tokens) for one in run]
    assert [
        ("stage1", 150, 10**9),
        ("stage1", 2000, 9 * 10**9),
        ("stage2-ingredient1", 1000, 5 * 10**9),
    ] == found


@pytest.mark.parametrize(
    ("revision", "step"),
    [
        ("step1000", 1000),
        ("step_10k", 10_000),
        ("global_step300", 300),
        ("checkpoint-500", 500),
        ("ckpt_005", 5),
    ],
)
def test_spellings_of_a_step(
    monkeypatch: pytest.MonkeyPatch, revision: str, step: int
) -> None:
    """As trainers write them."""
    hub_with(monkeypatch, "main", "fp16", "footstep5", revision)
    (found,) = fl.checkpoints("some/model")
    assert (step, revision, None, "") == (
        found.step,
        found.revision,
        found.tokens,
        found.stage,
    )


def test_a_repository_without_checkpoints_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And so do a folder and a builtin model; without network, the hub is missing."""
    with pytest.raises(LoadError, match="HF_HUB_OFFLINE"):
        fl.checkpoints("some/model")
    hub_with(monkeypatch, "main", "v2")
    with pytest.raises(LoadError, match="names a step of training"):
        fl.checkpoints("some/model")
    for name in (TINY, "builtin:tiny"):
        with pytest.raises(LoadError, match="a folder has no revisions"):
            fl.checkpoints(name)


def test_listing_is_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every call of the hub is."""
    monkeypatch.setenv("FUNLENS_HF_RETRY", "1")
    asked = hub_with(monkeypatch, "step1")
    listing, errors = huggingface_hub.HfApi.list_repo_refs, [refused(retry_after="0")]

    def refs(self: Any, name: str, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return listing(self, name, **options)

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_refs", refs)
    assert 1 == len(fl.checkpoints("some/model")) == len(asked)


@pytest.mark.slow
def test_the_hub_is_met_as_it_is(tmp_path: Path) -> None:
    """Refusals, revisions, checkpoints and a gated model, through the real client.

    Waits are as long as the server asks, in seconds and as a date, and nothing of
    HuggingFace's is another afterwards.
    """
    revisions = {name: tmp_path / name for name in ("main", "step1000", "step200")}
    for folder in revisions.values():
        shutil.copytree(TINY, folder)
    early: Any = fl.load(revisions["step200"], device="cpu").module
    with torch.no_grad():
        for parameter in early.parameters():
            parameter.mul_(0.5)
    early.save_pretrained(revisions["step200"])
    refusals = [lambda: "1", lambda: formatdate(time() + 2, usegmt=True)]
    with served(revisions, refusals) as (address, asked):
        environment = {
            **os.environ,
            "FUNLENS_HF_RETRY": "1",
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": "mine",
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.adapters.meet_hub"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    listed = [one for one in asked if one.path == REFS]
    assert [429, 429, 200] == [one.status for one in listed]
    first, second, third = (one.when for one in listed)
    assert second - first >= 1
    assert third - second >= 1  # the date counts whole seconds
    assert {"Bearer mine"} == {one.token for one in asked if GATED in one.path}
    assert [] == found["changed"]
    assert ([200, 1000], "step200") == (found["steps"], found["revision"])
    for name in ("main", "step200"):
        expected = fl.run(fl.load(revisions[name], device="cpu"), found["text"])
        assert expected[0, -1].tolist() == found["logits"][name]
    assert ["GatedModelError", f"https://huggingface.co/{GATED}"] == found["gated"]
    assert "no such repository" in found["absent"]
    assert "no such revision" in found["nowhere"]
