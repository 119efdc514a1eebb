"""Times of two sides that alternate in one process, as medians."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Final

REPEATS: Final = 15
Side = Callable[[], Any]


def times(one: Side, other: Side, *, repeats: int = REPEATS) -> tuple[float, float]:
    """Give the median process time of each of two sides, in seconds."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(2):
        one(), other()
    for _ in range(repeats):
        for side, kept in zip((one, other), found, strict=True):
            start = time.process_time()
            side()
            kept.append(time.process_time() - start)
    first, second = (statistics.median(kept) for kept in found)
    return first, second


def ratio(one: Side, other: Side, *, repeats: int = REPEATS) -> float:
    """Give the time of one side over that of the other."""
    first, second = times(one, other, repeats=repeats)
    return first / second


def programs(one: str, other: str, *, repeats: int = 5) -> float:
    """Give the wall time of one program over that of another, each a new process."""

    def seconds(program: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - start

    pairs = [(seconds(one), seconds(other)) for _ in range(repeats)]
    return statistics.median(a for a, _ in pairs) / statistics.median(
        b for _, b in pairs
    )
