"""The stub of toolz, pinned; checked by pyright, not run."""

from collections.abc import Callable, Iterator
from typing import assert_type

from toolz import compose_left, groupby, merge, partition_all, pipe, valmap


def halve(number: int) -> float:
    return number / 2


assert_type(pipe(3, halve), float)
assert_type(pipe(3, halve, str, len), int)
assert_type(compose_left(halve, str), Callable[[int], str])
assert_type(groupby(len, ["a", "bb"]), dict[int, list[str]])
assert_type(valmap(len, {1: "a"}), dict[int, int])
assert_type(merge({1: "a"}, {2: "b"}), dict[int, str])
assert_type(partition_all(2, [1, 2, 3]), Iterator[tuple[int, ...]])
