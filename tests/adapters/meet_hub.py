"""A program that meets the hub, for a process of its own, and prints what it found."""

import json
import re
from typing import Any

import huggingface_hub
import transformers
from huggingface_hub import file_download
from transformers.utils import hub

import funlens as fl
from funlens.errors import LoadError

TEXT = "Mary and John"
PLACES: tuple[Any, ...] = (
    huggingface_hub,
    huggingface_hub.HfApi,
    file_download,
    hub,
    transformers.AutoTokenizer,
    transformers.PreTrainedConfig,
    transformers.PreTrainedModel,
)


def held() -> list[dict[str, int]]:
    """The functions and classes that HuggingFace's places hold, by identity."""
    return [
        {name: id(value) for name, value in vars(at).items() if callable(value)}
        for at in PLACES
    ]


def refusal(name: str, revision: str | None = None) -> LoadError:
    """The error that loading ends in."""
    try:
        fl.load(name, revision=revision, device="cpu")
    except LoadError as error:
        return error
    raise AssertionError(name)


def main() -> None:
    """List, load and be refused."""
    before = held()
    run = fl.checkpoints("some/model")
    specs = {
        "main": fl.load("some/model", device="cpu"),
        "step200": fl.load("some/model", revision=run[0].revision, device="cpu"),
    }
    gated = refusal("gated/model")
    link = re.search(r"https://\S+?(?=,)", str(gated))
    found = {
        "steps": [checkpoint.step for checkpoint in run],
        "revision": specs["step200"].revision,
        "text": TEXT,
        "logits": {n: fl.run(s, TEXT)[0, -1].tolist() for n, s in specs.items()},
        "gated": [type(gated).__name__, link and link[0]],
        "absent": str(refusal("no/model")),
        "nowhere": str(refusal("some/model", "nowhere")),
        "changed": [
            name
            for was, now in zip(before, held(), strict=True)
            for name, value in was.items()
            if now.get(name) != value
        ],
    }
    print(json.dumps(found))  # noqa: T201 -- what the test reads


if __name__ == "__main__":
    main()
