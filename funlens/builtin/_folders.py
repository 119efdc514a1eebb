"""Where the embedded models lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

BUILTIN_MODELS: Final[Mapping[str, Path]] = {"tiny": Path(__file__).parent / "tiny"}
"""Name of each embedded model, and the folder `from_pretrained` reads it from."""


def folder(name: str) -> Path:
    """Say which folder holds an embedded model.

    Args:
        name: Name without the `builtin:` prefix, such as `"tiny"`.

    Returns:
        Folder with the weights, the config and the tokenizer.

    Raises:
        KeyError: No embedded model has this name; its argument lists those that do.
    """
    if name not in BUILTIN_MODELS:
        message = f"no builtin model {name!r}; there are: {', '.join(BUILTIN_MODELS)}"
        raise KeyError(message)
    return BUILTIN_MODELS[name]
