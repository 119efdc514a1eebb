"""Caches as files, and as arrays of other libraries."""

import importlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from funlens.data._cache import ActivationCache, Receipt
from funlens.data._pick import left_axes
from funlens.data._sites import Site
from funlens.errors import FunlensError, InputError, LoadError

_FORMAT: Final = 1
_HEADER: Final = "funlens"
_NUMPY_TOO: Final = frozenset(
    {
        torch.bool,
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.float16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.complex128,
    }
)
"""What numpy has as well; the other floats become float32, which holds them all."""


def save_cache(cache: ActivationCache, path: str | PathLike[str]) -> None:
    """Write a cache to a safetensors file, with sites for names.

    A tensor that is held at two sites is written once. The file is put in place whole.

    Raises:
        InputError: The folder is missing.
    """
    names: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    for site, tensor in cache.entries:
        tensors[names.setdefault(id(tensor), str(site))] = tensor
    receipts = [
        {
            "intervention": receipt.intervention,
            "count": receipt.count,
            "shape": receipt.shape,
        }
        for receipt in cache.receipts
    ]
    for index, receipt in enumerate(cache.receipts):
        tensors[_change(index)] = receipt.change
    header = {
        "format": _FORMAT,
        "entries": [[str(site), names[id(tensor)]] for site, tensor in cache.entries],
        "starts": cache.starts,
        "stops": cache.stops,
        "encoder_starts": cache.encoder_starts,
        "encoder_stops": cache.encoder_stops,
        "has_batch": cache.has_batch,
        "gated": cache.gated,
        "receipts": receipts,
    }
    about = {"format": "pt", _HEADER: json.dumps(header)}
    save_tensors(tensors, to_path(path), about=about)


def load_cache(path: str | PathLike[str]) -> ActivationCache:
    """Read a cache that `save_cache` wrote; tensors come to the CPU.

    Raises:
        LoadError: The file is missing, or is no such file.
    """
    source = Path(path)
    tensors, about = load_tensors(source)
    try:
        header = json.loads(about[_HEADER])
        if header["format"] != _FORMAT:
            problem = f"it has format {header['format']!r}, not {_FORMAT}"
            raise _unreadable(source, problem)
        return ActivationCache(
            entries={Site.parse(site): tensors[key] for site, key in header["entries"]},
            starts=_whole_numbers(header["starts"]),
            stops=_whole_numbers(header["stops"]),
            encoder_starts=_whole_numbers(header["encoder_starts"]),
            encoder_stops=_whole_numbers(header["encoder_stops"]),
            has_batch=bool(header["has_batch"]),
            gated=bool(header["gated"]),
            receipts=tuple(
                Receipt(
                    intervention=str(row["intervention"]),
                    count=int(row["count"]),
                    shape=tuple(map(int, row["shape"])),
                    change=tensors[_change(index)],
                )
                for index, row in enumerate(header["receipts"])
            ),
        )
    except LoadError:
        raise
    except (FunlensError, ValueError, LookupError, TypeError) as error:
        raise _unreadable(source, f"{type(error).__name__}: {error}") from error


def to_numpy(cache: ActivationCache) -> Mapping[str, np.ndarray]:
    """Give the tensors as read-only numpy arrays by the name of their site.

    On the CPU an array shares the tensor's memory. A dtype that numpy lacks, such as
    bfloat16, becomes float32, which is exact.
    """
    return {str(site): _array(tensor) for site, tensor in cache.entries}


def to_xarray(cache: ActivationCache) -> Mapping[str, Any]:
    """Give the tensors as `xarray.DataArray` by the name of their site.

    Dimensions have the names of the site's axes; an axis of which one index is selected
    is left out. An axis that `vmap` put first is called `edit`.

    Raises:
        InputError: xarray is not installed, or a tensor has other axes than its site.
    """
    try:
        xarray: Any = importlib.import_module("xarray")
    except ImportError as error:
        problem = "xarray is not installed"
        advice = "Install it with `pip install xarray`"
        raise InputError(problem, "xarray", advice) from error
    return {
        str(site): xarray.DataArray(
            _array(tensor),
            dims=_dims(site, tensor.ndim, has_batch=cache.has_batch),
            name=str(site),
        )
        for site, tensor in cache.entries
    }


def to_path(path: str | PathLike[str]) -> Path:
    """Give the path of a file that can be written.

    Raises:
        InputError: Its folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        problem = f"the folder {target.parent} does not exist"
        raise InputError(
            problem,
            "a path in a folder that exists",
            "Make the folder first",
        )
    return target


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, then put it there in one step."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        write(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save_tensors(
    tensors: Mapping[str, Tensor], path: Path, *, about: Mapping[str, str]
) -> None:
    """Write tensors from any device, in any strides, to a safetensors file."""
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType] (its path is untyped)

    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        held = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        storage = held.untyped_storage()
        is_part = storage.nbytes() != held.numel() * held.element_size()
        if is_part or storage.data_ptr() in storages:
            held = held.clone()  # safetensors refuses storage that tensors share
        storages.add(held.untyped_storage().data_ptr())
        plain[name] = held

    def write(part: Path) -> None:
        save_file(plain, part, metadata=dict(about))

    write_atomically(path, write)


def load_tensors(path: Path) -> tuple[Mapping[str, Tensor], Mapping[str, str]]:
    """Read a safetensors file: the tensors, and what was written about them.

    Raises:
        LoadError: The file is missing, or is no safetensors file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        opened: Any = safe_open(path, framework="pt")
        with opened as file:
            names: list[str] = list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names}
            return tensors, dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}") from error


def _unreadable(path: Path, problem: str) -> LoadError:
    return LoadError(str(path), problem, "Expected a file that funlens wrote")


def _change(index: int) -> str:
    return f"receipts.{index}.change"


def _whole_numbers(given: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if given is None else tuple(map(int, given))


def _array(tensor: Tensor) -> np.ndarray:
    known = tensor if tensor.dtype in _NUMPY_TOO else tensor.float()
    array: np.ndarray = known.numpy(force=True).view()
    array.flags.writeable = False
    return array


def _dims(site: Site, n_axes: int, *, has_batch: bool) -> tuple[str, ...]:
    names = left_axes(site)
    if not has_batch:
        names = names[1:]
    if n_axes == len(names) + 1:
        return ("edit", *names)
    if n_axes != len(names):
        problem = f"the tensor of {site} has {n_axes} axes"
        raise InputError(
            problem,
            f"{len(names)}: {' '.join(names)}",
            "Give a cache as a run returned it",
        )
    return names
