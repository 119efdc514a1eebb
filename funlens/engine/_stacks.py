"""Stacks of runs as large as memory holds, halved where that was too much."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from funlens.data import ModelSpec
from funlens.engine._sweep_plan import check_memory, memory_limit

Item = TypeVar("Item")
Found = TypeVar("Found")


def in_stacks(
    items: Sequence[Item],
    run: Callable[[Sequence[Item]], Sequence[Found]],
    most: int,
) -> Iterator[tuple[Item, Found]]:
    """Run items in stacks; one that does not fit is run in halves.

    Args:
        items: What is run.
        run: Runs some of them at once, and gives what each gave.
        most: How many at once.
    """
    waiting = [items[at : at + most] for at in range(0, len(items), most)][::-1]
    while waiting:
        stack = waiting.pop()
        try:
            found = run(stack)
        except (torch.OutOfMemoryError, MemoryError):
            if len(stack) == 1:
                raise
            middle = len(stack) // 2
            waiting += [stack[middle:], stack[:middle]]
            continue
        yield from zip(stack, found, strict=True)


def most_rows(spec: ModelSpec, row_bytes: int, memory: int | None) -> int:
    """Tell how many rows may be alive at once, one at least.

    Args:
        spec: The model.
        row_bytes: About what a row takes.
        memory: What may be taken, in bytes; a quarter of what is free if left out.

    Raises:
        OptionError: The limit is no positive number of bytes.
    """
    check_memory(memory)
    return max(1, memory_limit(spec, memory) // max(1, row_bytes))
