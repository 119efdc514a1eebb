"""How many positions a sound makes, where HuggingFace's model tells."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch


def frame_counts(module: Any, samples: Sequence[int]) -> tuple[int, ...]:
    """Count the positions that so many samples make, before any adapter.

    Args:
        module: A model that hears waves, such as wav2vec 2.0.
        samples: Numbers of samples.
    """
    count = module.base_model._get_feat_extract_output_lengths  # noqa: SLF001 -- HuggingFace has no public name for it
    has_adapter = "add_adapter" in inspect.signature(count).parameters
    more = {"add_adapter": False} if has_adapter else {}
    found = count(torch.tensor(samples), **more)
    return tuple(int(number) for number in found)
