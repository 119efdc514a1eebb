"""Measure the figures, print them as a table and write JSON.

Both sides of a ratio alternate in one process on the same tensors; medians of process
time on one thread, on GPT-2-small sizes unless said.
"""

import json
import os
from pathlib import Path

import torch

from tests.benchmarks._figures import FIGURES


def main() -> None:
    """Print the table, and write `bench.json` where FUNLENS_BENCH_OUT says."""
    torch.set_num_threads(1)
    values: dict[str, float] = {}
    for figure in FIGURES:
        value = values[figure.name] = figure.measure()
        bound = f"at {'least' if figure.is_least else 'most'} {figure.bound:5.2f}"
        verdict = "holds" if figure.holds(value) else "MISSED"
        print(f"{figure.name:48} {value:8.3f}   {bound}   {verdict}", flush=True)
    out = Path(os.environ.get("FUNLENS_BENCH_OUT", "bench.json"))
    out.write_text(json.dumps(values, indent=2))


if __name__ == "__main__":
    main()
