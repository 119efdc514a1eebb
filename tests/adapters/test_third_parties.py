"""Tables that installed packages bring: real metadata in a folder on `sys.path`."""

import sys
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import torch

import funlens as fl
from funlens.adapters import ARCHITECTURES, described
from funlens.errors import BrokenTableError, UnsupportedArchitectureError
from funlens.testing import tiny_hf_model, tiny_inputs

OVERRIDE: Final = """
import attrs
from funlens.adapters import ARCHITECTURES

(LLAMA,) = (t for t in ARCHITECTURES if "llama" in t.model_types)
MINE = attrs.evolve(LLAMA, model_types=("llama",), unpadded="mine says so")
OTHERS = [attrs.evolve(LLAMA, model_types=(f"other_{n}",)) for n in (1, 2)]
NONE = {"model_types": ("llama",)}
"""


class Installed:
    """A folder on `sys.path` with packages in it, as pip would have put them there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, package: str, entries: str, code: str = OVERRIDE) -> None:
        """Install a package of one module."""
        module = package.replace("-", "_")
        (self.folder / f"{module}.py").write_text(code, encoding="utf-8")
        info = self.folder / f"{module}-0.1.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n"
        (info / "METADATA").write_text(metadata, encoding="utf-8")
        points = f"[funlens.architectures]\n{entries}\n"
        (info / "entry_points.txt").write_text(points, encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """An empty folder on `sys.path`."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)
    yield Installed(tmp_path)
    for name in set(sys.modules) - before:
        if name.startswith("acme_"):
            del sys.modules[name]


def test_an_installed_table_overrides_a_builtin_one(installed: Installed) -> None:
    """It comes first; the model it describes runs by it, and others do not."""
    installed.add("acme-tables", "llama = acme_tables:MINE")
    spec = fl.from_module(tiny_hf_model("llama"))
    assert "mine says so" == spec.engine.arch.unpadded
    assert not fl.from_module(tiny_hf_model("mistral")).engine.arch.unpadded
    inputs, untouched = tiny_inputs("llama"), tiny_hf_model("llama")
    with torch.no_grad():
        assert torch.equal(untouched(**inputs).logits, fl.run(spec, inputs))


def test_an_entry_point_may_bring_several_tables(installed: Installed) -> None:
    """Each of their model types is supported, and loads."""
    assert "other_1" not in described()
    installed.add("acme-several", "others = acme_several:OTHERS")
    assert {"other_1", "other_2"} <= set(described())
    module: Any = tiny_hf_model("llama")
    type(module.config).model_type, kept = "other_2", type(module.config).model_type
    try:
        spec = fl.from_module(module)
    finally:
        type(module.config).model_type = kept
    assert ("other_2",) == spec.engine.arch.model_types


def test_of_two_packages_the_first_by_name_counts(installed: Installed) -> None:
    """Which one it is does not depend on the order of folders."""
    second = OVERRIDE.replace("mine says so", "the second says so")
    installed.add("acme-b", "llama = acme_b:MINE", second)
    installed.add("acme-a", "llama = acme_a:MINE")
    spec = fl.from_module(tiny_hf_model("llama"))
    assert "mine says so" == spec.engine.arch.unpadded


@pytest.mark.parametrize(
    ("entry", "code", "problem"),
    [
        ("bad = acme_broken:MINE", "raise OSError('no disk')", "OSError: no disk"),
        ("bad = acme_broken:GONE", OVERRIDE, "has no attribute 'GONE'"),
        ("bad = acme_absent:MINE", OVERRIDE, "No module named 'acme_absent'"),
        ("bad = acme_broken:NONE", OVERRIDE, "acme_broken:NONE holds a str"),
        ("bad = acme_broken:attrs", OVERRIDE, "acme_broken:attrs holds a module"),
    ],
)
def test_a_broken_entry_point_names_its_package(
    installed: Installed, entry: str, code: str, problem: str
) -> None:
    """The error says which package to mend; a table that is passed needs none."""
    installed.add("acme-broken", entry, code)
    for ask in (described, lambda: fl.from_module(tiny_hf_model("gpt2"))):
        with pytest.raises(BrokenTableError) as caught:
            ask()
        assert ("acme-broken", "bad") == (caught.value.package, caught.value.entry)
        assert problem in caught.value.problem
    (table,) = (t for t in ARCHITECTURES if "gpt2" in t.model_types)
    assert fl.from_module(tiny_hf_model("gpt2"), adapter=table).n_layers


def test_a_package_that_is_gone_leaves_nothing(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found in one `sys.path` is not found in another."""
    installed.add("acme-gone", "others = acme_gone:OTHERS")
    assert "other_1" in described()
    monkeypatch.setattr(
        sys, "path", [p for p in sys.path if p != str(installed.folder)]
    )
    assert "other_1" not in described()


def test_a_table_that_is_passed_comes_before_all(tmp_path: Path) -> None:
    """To `from_module` and to `load`, for a type that no table is about too."""
    (table,) = (t for t in ARCHITECTURES if "llama" in t.model_types)
    mine = attrs.evolve(table, unpadded="passed")
    assert (
        "passed"
        == fl.from_module(tiny_hf_model("llama"), adapter=mine).engine.arch.unpadded
    )
    tiny_hf_model("llama").save_pretrained(tmp_path)
    assert "passed" == fl.load(tmp_path, adapter=mine).engine.arch.unpadded
    module: Any = tiny_hf_model("llama")
    kept = type(module.config).model_type
    type(module.config).model_type = "unheard_of"
    try:
        with pytest.raises(UnsupportedArchitectureError):
            fl.from_module(module)
        assert fl.from_module(module, adapter=mine).n_layers
    finally:
        type(module.config).model_type = kept
