"""Progress bars for what may take more than a few seconds."""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

_DELAY: Final = 2.0  # seconds before which nothing is shown

Item = TypeVar("Item")


def steps(items: Sequence[Item], label: str) -> Iterator[Item]:
    """Go through items with a bar on the terminal; without a terminal, in silence.

    Args:
        items: What is gone through.
        label: What is being done.
    """
    from tqdm import tqdm

    yield from tqdm(items, desc=label, delay=_DELAY, disable=None, leave=False)
