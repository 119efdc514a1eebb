"""Folders of a saved model, whole or changed."""

import json
from pathlib import Path
from typing import Any

from funlens.builtin import folder

TINY = folder("tiny")


def change_config(where: Path, **fields: Any) -> None:
    """Write other fields into a saved config; None takes one out."""
    file = where / "config.json"
    config = {**json.loads(file.read_text()), **fields}
    kept = {field: value for field, value in config.items() if value is not None}
    file.write_text(json.dumps(kept))
