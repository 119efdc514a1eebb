"""Circuits as files."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final, cast

from funlens.data._circuit import Circuit
from funlens.data._files import to_path, write_atomically
from funlens.data._graph import Graph
from funlens.data._sites import Site
from funlens.errors import FunlensError, LoadError

_FORMAT: Final = 1


def save_circuit(circuit: Circuit, path: str | PathLike[str]) -> None:
    """Write a circuit and its graph to a JSON file, with sites for names.

    Raises:
        InputError: The folder is missing.
    """
    graph = circuit.graph
    content = {
        "funlens_circuit": _FORMAT,
        "senders": [str(site) for site in graph.senders],
        "receivers": [str(site) for site in graph.receivers],
        "before": graph.before,
        "feeds": graph.feeds,
        "edges": [str(edge) for edge in circuit.edges],
    }
    text = json.dumps(content, indent=1)
    write_atomically(to_path(path), lambda part: part.write_text(text, "utf-8"))


def load_circuit(path: str | PathLike[str]) -> Circuit:
    """Read what `save_circuit` wrote.

    Raises:
        LoadError: There is no such file, or it holds no circuit of this format.
    """
    place = Path(path)
    try:
        content: object = json.loads(place.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(place, str(error)) from error
    if not isinstance(content, dict) or "funlens_circuit" not in content:
        raise _unreadable(place, "it holds no circuit")
    held = cast("Mapping[str, Any]", content)
    if held["funlens_circuit"] != _FORMAT:
        problem = f"its format is {held['funlens_circuit']}, not {_FORMAT}"
        raise _unreadable(place, problem)
    try:
        graph = Graph(
            senders=tuple(map(Site.parse, held["senders"])),
            receivers=tuple(map(Site.parse, held["receivers"])),
            before=tuple(held["before"]),
            feeds=tuple(tuple(feeds) for feeds in held["feeds"]),
        )
        return Circuit.from_edges(graph, held["edges"])
    except (LookupError, TypeError, FunlensError) as error:
        raise _unreadable(place, f"its graph cannot be read ({error})") from error


def _unreadable(path: Path, problem: str) -> LoadError:
    return LoadError(str(path), problem, "Write it with `save_circuit`")
