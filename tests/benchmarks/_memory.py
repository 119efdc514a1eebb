"""The most bytes of tensors that live at once while something runs."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Watching(TorchDispatchMode):
    """Counts the storages that operations make, until each is freed.

    Attributes:
        live: Bytes that are there now.
        peak: Most bytes that were there at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call, and look at what came out."""
        del types
        given = {self._key(part) for part in tree_leaves((args, kwargs)) if _is(part)}
        made = func(*args, **(kwargs or {}))
        for part in tree_leaves(made):
            if _is(part) and self._key(part) not in given | self._seen:
                self._watch(part.untyped_storage())
        return made

    @staticmethod
    def _key(part: Tensor) -> int:
        return part.untyped_storage()._cdata

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size


def _is(part: object) -> bool:
    return isinstance(part, Tensor)


def peak(call: Callable[[], object]) -> int:
    """Give the peak of a call, in bytes, what it returns included."""
    with Watching() as watching:
        held = call()
    del held
    return watching.peak
