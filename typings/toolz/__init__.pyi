# The functions of toolz that funlens may use; any other name fails type checking.

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar, overload

_A = TypeVar("_A")
_B = TypeVar("_B")
_C = TypeVar("_C")
_D = TypeVar("_D")
_E = TypeVar("_E")
_F = TypeVar("_F")
_G = TypeVar("_G")
_H = TypeVar("_H")
_K = TypeVar("_K")
_V = TypeVar("_V")
_W = TypeVar("_W")

@overload
def pipe(data: _A, /) -> _A: ...
@overload
def pipe(data: _A, f1: Callable[[_A], _B], /) -> _B: ...
@overload
def pipe(data: _A, f1: Callable[[_A], _B], f2: Callable[[_B], _C], /) -> _C: ...
@overload
def pipe(
    data: _A, f1: Callable[[_A], _B], f2: Callable[[_B], _C], f3: Callable[[_C], _D], /
) -> _D: ...
@overload
def pipe(
    data: _A,
    f1: Callable[[_A], _B],
    f2: Callable[[_B], _C],
    f3: Callable[[_C], _D],
    f4: Callable[[_D], _E],
    /,
) -> _E: ...
@overload
def pipe(
    data: _A,
    f1: Callable[[_A], _B],
    f2: Callable[[_B], _C],
    f3: Callable[[_C], _D],
    f4: Callable[[_D], _E],
    f5: Callable[[_E], _F],
    /,
) -> _F: ...
@overload
def pipe(
    data: _A,
    f1: Callable[[_A], _B],
    f2: Callable[[_B], _C],
    f3: Callable[[_C], _D],
    f4: Callable[[_D], _E],
    f5: Callable[[_E], _F],
    f6: Callable[[_F], _G],
    /,
) -> _G: ...
@overload
def pipe(
    data: _A,
    f1: Callable[[_A], _B],
    f2: Callable[[_B], _C],
    f3: Callable[[_C], _D],
    f4: Callable[[_D], _E],
    f5: Callable[[_E], _F],
    f6: Callable[[_F], _G],
    f7: Callable[[_G], _H],
    /,
) -> _H: ...
@overload
def pipe(data: _A, /, *functions: Callable[[_A], _A]) -> _A: ...
@overload
def compose_left(f1: Callable[[_A], _B], /) -> Callable[[_A], _B]: ...
@overload
def compose_left(
    f1: Callable[[_A], _B], f2: Callable[[_B], _C], /
) -> Callable[[_A], _C]: ...
@overload
def compose_left(
    f1: Callable[[_A], _B], f2: Callable[[_B], _C], f3: Callable[[_C], _D], /
) -> Callable[[_A], _D]: ...
@overload
def compose_left(
    f1: Callable[[_A], _B],
    f2: Callable[[_B], _C],
    f3: Callable[[_C], _D],
    f4: Callable[[_D], _E],
    /,
) -> Callable[[_A], _E]: ...
@overload
def compose_left(
    f1: Callable[[_A], _B],
    f2: Callable[[_B], _C],
    f3: Callable[[_C], _D],
    f4: Callable[[_D], _E],
    f5: Callable[[_E], _F],
    /,
) -> Callable[[_A], _F]: ...
@overload
def compose_left(*functions: Callable[[_A], _A]) -> Callable[[_A], _A]: ...
def groupby(key: Callable[[_V], _K], seq: Iterable[_V]) -> dict[_K, list[_V]]: ...
def valmap(func: Callable[[_V], _W], d: Mapping[_K, _V]) -> dict[_K, _W]: ...
def merge(*dicts: Mapping[_K, _V]) -> dict[_K, _V]: ...
def partition_all(n: int, seq: Iterable[_V]) -> Iterator[tuple[_V, ...]]: ...
