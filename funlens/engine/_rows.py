"""Examples: rows of prepared inputs, chosen or in batches."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from toolz import partition_all
from torch import Tensor

from funlens.data import ModelSpec
from funlens.engine._inputs import Inputs, Prepared, prepare
from funlens.engine._progress import steps
from funlens.errors import InputError, OptionError


def row_tensors(prepared: Prepared) -> dict[str, Tensor]:
    """Give the inputs of which each example has rows of its own.

    Raises:
        InputError: One of them cannot be told apart by example.
    """
    batch = prepared.main.batch
    found: dict[str, Tensor] = {}
    for name, held in prepared.kwargs.items():
        if not isinstance(held, Tensor) or held.ndim == 0:
            continue
        is_shared = len(held) == 1 < batch
        is_packed = is_shared and held.ndim > 3  # noqa: PLR2004 -- rows, channels, height, width
        if is_shared and not is_packed:
            continue
        if is_packed or len(held) % batch:
            raise InputError(
                f"`{name}` has {len(held)} rows for {batch} examples",
                "as many for each example",
                "Pass inputs whose rows are examples",
            )
        found[name] = held
    return found


def rows_of(prepared: Prepared, chosen: Sequence[int] | Tensor) -> Mapping[str, Any]:
    """Give some examples as inputs; one may come more than once."""
    batch = prepared.main.batch
    index = torch.as_tensor(chosen)
    given = dict(prepared.kwargs)
    for name, held in row_tensors(prepared).items():
        apart = held.reshape(batch, len(held) // batch, *held.shape[1:])
        given[name] = apart[index.to(held.device)].flatten(0, 1)
    return given


def batches(
    spec: ModelSpec,
    dataset: Inputs,
    size: int,
    *,
    attention_mask: Tensor | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Go through a dataset, some examples at a time; texts are padded batch by batch.

    Args:
        spec: The model.
        dataset: As for `run`.
        size: Examples of a batch.
        attention_mask: As for `run`.

    Raises:
        OptionError: The size is below 1.
        InputError: There are no examples, or not ones that can be run.
    """
    if type(size) is not int or size < 1:
        raise OptionError("batch_size", f"it is {size!r}, not a number of examples")
    if isinstance(dataset, Sequence) and not isinstance(dataset, str):
        if not dataset:
            problem = "the dataset is empty"
            raise InputError(problem, "an example or more", "Pass texts or tokens")
        for some in steps([*partition_all(size, dataset)], "batches"):
            yield prepare(spec, list(some)).kwargs
        return
    prepared = prepare(spec, dataset, attention_mask=attention_mask)
    for some in steps([*partition_all(size, range(prepared.main.batch))], "batches"):
        yield rows_of(prepared, some)
