"""Laws of records: what is saved or pickled comes back equal."""

import pickle
import tempfile
from pathlib import Path

from funlens.data import (
    Add,
    Intervention,
    Patch,
    Site,
    Zero,
    from_json,
    load_cache,
    same_record,
    save_cache,
    to_json,
)
from funlens.testing._subject import LawResult, Subject, worst


def stored(subject: Subject) -> LawResult:
    """The cache and interventions on it, through files and through pickle."""
    first = Site(part=subject.entering, layer=0)
    vector = subject.cache[first].flatten(0, -2)[0]
    edits: list[Intervention] = [
        Patch(site, subject.cache) for site in subject.cache if site.layer == 0
    ]
    edits += [Zero(first), Add(first, vector, scale=0.5)]
    with tempfile.TemporaryDirectory() as folder:
        cache_file, edits_file = (
            Path(folder, "cache.safetensors"),
            Path(folder, "e.json"),
        )
        save_cache(subject.cache, cache_file)
        to_json(edits, edits_file)
        pairs = {
            "cache saved": (load_cache(cache_file), subject.cache),
            "edits saved": (from_json(edits_file), tuple(edits)),
            "cache pickled": (_again(subject.cache), subject.cache),
            "edits pickled": (_again(edits), edits),
        }
        found = {
            name: float(not same_record(one, other))
            for name, (one, other) in pairs.items()
        }
    return worst("saved and loaded, or pickled, is equal", found, 0.0)


def _again(record: object) -> object:
    """Through pickle and back; these are our own bytes."""
    return pickle.loads(pickle.dumps(record))  # noqa: S301 -- written a moment ago
