"""The version of transformers that the tables were last verified with."""

from typing import Final

VERIFIED: Final = "5.23.0"
"""What docs/models.md was written with; a test compares the two."""
