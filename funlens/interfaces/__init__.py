"""What people meet: the command line, the demonstration, and its report."""

from funlens.interfaces._demo import (
    Ablation,
    Demonstration,
    Grid,
    Patching,
    Steering,
    demonstration,
)
from funlens.interfaces._report import report

__all__ = [
    "Ablation",
    "Demonstration",
    "Grid",
    "Patching",
    "Steering",
    "demonstration",
    "report",
]
