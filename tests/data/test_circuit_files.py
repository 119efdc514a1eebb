"""Circuits as files, and compared."""

from pathlib import Path

import pytest

import funlens as fl
from funlens.errors import LoadError


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    """The same edges of the same graph."""
    graph = fl.graph(fl.load("builtin:tiny"))
    circuit = fl.Circuit.from_edges(graph, graph.edges[::3])
    fl.save_circuit(circuit, tmp_path / "c.json")
    assert fl.load_circuit(tmp_path / "c.json") == circuit


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "Expecting value"),
        ("[]", "no circuit"),
        ("{}", "no circuit"),
        ('{"funlens_circuit": 99}', "format is 99"),
        ('{"funlens_circuit": 1}', "graph cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, fragment: str) -> None:
    """No circuit, or one of another format."""
    path = tmp_path / "c.json"
    path.write_text(text, "utf-8")
    with pytest.raises(LoadError, match=fragment):
        fl.load_circuit(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Its path is named."""
    with pytest.raises(LoadError, match=r"none\.json"):
        fl.load_circuit(tmp_path / "none.json")


def test_comparison_counts_edges() -> None:
    """Half of what was found was expected, and all that was expected found."""
    graph = fl.graph(fl.load("builtin:tiny"))
    found = fl.Circuit.from_edges(graph, graph.edges[:4])
    expected = fl.Circuit.from_edges(graph, graph.edges[:2])
    compared = fl.compare_circuits(found, expected)
    assert compared.edge_precision == compared.edge_jaccard == 0.5
    assert compared.edge_recall == compared.node_recall == 1.0
