"""What the installed packages are, and what HuggingFace's `generate` takes."""

from functools import cache
from importlib.metadata import version

from funlens._version import __version__


@cache
def generation_options() -> frozenset[str]:
    """List the options of HuggingFace's generation configuration."""
    from transformers import GenerationConfig

    return frozenset(GenerationConfig().to_dict()) - {"transformers_version"}


@cache
def versions() -> tuple[tuple[str, str], ...]:
    """Name the versions of the packages that numbers depend on."""
    others = ((name, version(name)) for name in ("torch", "transformers"))
    return (("funlens", __version__), *others)
