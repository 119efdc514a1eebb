"""Caches as files and arrays."""

from pathlib import Path

import pytest
import torch

from funlens.data import (
    ActivationCache,
    Part,
    load_cache,
    same_record,
    save_cache,
    to_numpy,
    to_xarray,
)
from funlens.errors import InputError, LoadError
from tests.data.test_cache import small_cache, two_stacks


@pytest.mark.parametrize(
    "cache",
    [
        small_cache(),
        small_cache(padded=True),
        two_stacks(),
        small_cache(padded=True).rows(1, 2).remove_batch_dim(),
    ],
    ids=["plain", "padded", "two stacks", "no batch"],
)
def test_saved_and_loaded_is_equal(tmp_path: Path, cache: ActivationCache) -> None:
    """Tensors, order, padding, a missing batch and receipts come back."""
    save_cache(cache, tmp_path / "run.safetensors")
    again = load_cache(tmp_path / "run.safetensors")
    assert same_record(cache, again)
    assert [*cache] == [*again]


def test_a_shared_tensor_is_written_once(tmp_path: Path) -> None:
    """Sites that share a tensor share it again; a view of it is kept apart."""
    held = torch.rand(64, 64)
    sites = Part("resid_post")(0), Part("resid_pre")(1)
    cache = ActivationCache(
        entries={**dict.fromkeys(sites, held), Part("z")(0): held[:1]}
    )
    path = tmp_path / "run.safetensors"
    save_cache(cache, path)
    again = load_cache(path)
    assert same_record(cache, again)
    assert again[sites[0]] is again[sites[1]]
    assert path.stat().st_size < 1.5 * held.nbytes


def test_an_empty_cache_is_saved(tmp_path: Path) -> None:
    """Nothing is something."""
    save_cache(ActivationCache(entries={}), tmp_path / "run.safetensors")
    assert 0 == len(load_cache(tmp_path / "run.safetensors"))


def test_what_is_no_cache_is_refused(tmp_path: Path) -> None:
    """Missing, cut, or a safetensors file of somebody else."""
    from safetensors.torch import save_file

    path = tmp_path / "run.safetensors"
    with pytest.raises(LoadError):
        load_cache(path)
    save_cache(small_cache(), path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(LoadError):
        load_cache(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(LoadError):
        load_cache(path)


def test_arrays_are_read_only() -> None:
    """Numpy sees the same values and cannot change them; bfloat16 is widened."""
    cache = small_cache()
    arrays = to_numpy(cache)
    assert [*map(str, cache)] == [*arrays]
    assert (arrays["pattern.1"] == cache["pattern.1"].numpy()).all()
    with pytest.raises(ValueError, match="read-only"):
        arrays["pattern.1"][0] = 0
    half = ActivationCache(entries={Part("z")(0): torch.ones(2, dtype=torch.bfloat16)})
    assert "float32" == str(to_numpy(half)["z.0"].dtype)


def test_xarray_has_axis_names() -> None:
    """Axes are named; one that a selection took is left out."""
    pytest.importorskip("xarray")
    site = Part("pattern")(1, head=2, query=(0, 1))
    cache = small_cache()
    picked = ActivationCache(entries={site: cache[site]})
    assert ("batch", "query", "key") == to_xarray(picked)[str(site)].dims
    bare = picked.rows(0, 1).remove_batch_dim()
    assert ("query", "key") == to_xarray(bare)[str(site)].dims
    stacked = ActivationCache(entries={site: cache[site][None]})
    assert "edit" == to_xarray(stacked)[str(site)].dims[0]
    wrong = ActivationCache(entries={site: torch.zeros(1)})
    with pytest.raises(InputError):
        to_xarray(wrong)


def test_a_missing_xarray_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(InputError, match="pip install xarray"):
        to_xarray(small_cache())
