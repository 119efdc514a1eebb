"""Checkpoints of training runs: by a family's known scheme, else by the hub's list."""

import os
import re
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

import attrs

from funlens.adapters._load_errors import called
from funlens.adapters._load_request import Request, source_of
from funlens.data import Checkpoint
from funlens.errors import LoadError


@attrs.frozen(kw_only=True)
class Scheme:
    """How a family names the checkpoints of its runs.

    Attributes:
        names: Pattern of the whole repository name.
        revision: Text of a revision, with `{step}` in it.
        steps: Every step that is published.
        tokens: Tokens read in one step.
    """

    names: str
    revision: str
    steps: tuple[int, ...]
    tokens: int


_PYTHIA: Final = r"EleutherAI/pythia-(14m|31m|70m|160m|410m|1b|1\.4b|2\.8b|6\.9b|12b)"
_THOUSANDS: Final = tuple(range(1000, 143_001, 1000))
SCHEMES: Final = (
    Scheme(  # arXiv:2304.01373: batches of 1024 sequences of 2048 tokens
        names=_PYTHIA + "(-deduped)?",
        revision="step{step}",
        steps=(0, *(2**power for power in range(10)), *_THOUSANDS),
        tokens=1024 * 2048,
    ),
    Scheme(  # Mistral at Stanford's CRFM, 2021: batches of 512 sequences of 1024 tokens
        names=r"stanford-crfm/\w+-gpt2-(small|medium)-x\d+",
        revision="checkpoint-{step}",
        steps=(
            *range(0, 100, 10),
            *range(100, 2000, 50),
            *range(2000, 20_000, 100),
            *range(20_000, 400_001, 1000),
        ),
        tokens=512 * 1024,
    ),
)
"""Families whose revisions follow one scheme."""

# OLMo's `stage1-step150-tokens1B`, BLOOM's `global_step1000`, the Trainer's
# `checkpoint-500`, and their like.
_REVISION: Final = re.compile(
    r"(?:(?P<stage>.+)[-_])??(?:(?:global[-_]?)?step|checkpoint|ckpt|iter)[-_]?"
    r"(?P<step>\d+)(?P<thousands>k)?(?:[-_]tokens(?P<billions>\d+)B)?",
    re.IGNORECASE,
)


def checkpoints(
    name: str | os.PathLike[str], *, token: str | None = None
) -> tuple[Checkpoint, ...]:
    """List the checkpoints of the training run that made a model.

    Of the Pythia models and of Stanford's GPT-2s they are known without network.
    Elsewhere the hub is asked for the repository's branches and tags.

    Args:
        name: Hub id.
        token: For a private or gated repository, in place of `HF_TOKEN`.

    Returns:
        The checkpoints, in the order of training.

    Raises:
        LoadError: The repository names none, or the hub cannot be asked.
        GatedModelError: The hub wants an agreement first.

    Examples:
        >>> import funlens as fl
        >>> first, *_, last = fl.checkpoints("EleutherAI/pythia-70m")
        >>> first.revision, last.revision, last.tokens
        ('step0', 'step143000', 299892736000)
    """
    name = os.fspath(name)
    scheme = next((s for s in SCHEMES if re.fullmatch(s.names, name)), None)
    if scheme is not None:
        return tuple(_planned(name, step, scheme) for step in scheme.steps)
    source = source_of(name)
    if Path(source).is_dir():
        raise LoadError(
            name, "a folder has no revisions", "Give the hub id of its repository"
        )
    found = (
        _read(name, ref) for ref in _refs(Request(name=name, source=source), token)
    )
    listed = [checkpoint for checkpoint in found if checkpoint is not None]
    if not listed:
        raise LoadError(
            name,
            "none of its branches and tags names a step of training",
            "Look at its model page, and pass `revision=` yourself",
        )
    return tuple(sorted(listed, key=lambda one: (one.stage, one.step, one.revision)))


def _planned(name: str, step: int, scheme: Scheme) -> Checkpoint:
    return Checkpoint(
        name=name,
        revision=scheme.revision.format(step=step),
        step=step,
        tokens=step * scheme.tokens,
    )


def _refs(request: Request, token: str | None) -> tuple[str, ...]:
    """Ask the hub for the branches and tags of a repository."""
    from huggingface_hub import HfApi

    ask = partial(HfApi().list_repo_refs, request.source, token=token)
    refs: Any = called(request, ask)
    return tuple(dict.fromkeys(ref.name for ref in chain(refs.branches, refs.tags)))


def _read(name: str, revision: str) -> Checkpoint | None:
    """Read a revision's name; None where it names no step."""
    found = _REVISION.fullmatch(revision)
    if found is None:
        return None
    billions = found["billions"]
    return Checkpoint(
        name=name,
        revision=revision,
        step=int(found["step"]) * (1000 if found["thousands"] else 1),
        tokens=None if billions is None else int(billions) * 10**9,
        stage=found["stage"] or "",
    )
