"""The models that ship inside the package, and the program that trained them."""

from funlens.builtin._folders import BUILTIN_MODELS, folder

__all__ = ["BUILTIN_MODELS", "folder"]
