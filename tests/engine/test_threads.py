"""Threads that run different edits at once get what they would get alone."""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
import torch
from torch import Tensor

import funlens as fl
from funlens.testing import tiny_hf_model, tiny_inputs

N_THREADS: Final = 8
N_RUNS: Final = 50


@pytest.mark.usefixtures("unchecked")
def test_threads_equal_serial_runs() -> None:
    """Eight threads of fifty runs, bit for bit."""
    spec = fl.from_module(tiny_hf_model("gpt2"))
    inputs = tiny_inputs("gpt2", batch=1, pos=4)
    vector = torch.linspace(-1, 1, 16)

    def runs(thread: int) -> list[Tensor]:
        edits: list[list[fl.Intervention]] = [
            [],
            [fl.Add(fl.resid_pre(thread % 2), vector, scale=float(thread))],
            [fl.Zero(fl.z(thread % 2, head=thread % 4))],
            [fl.Scale(fl.pattern(thread % 2), 1.0 + thread)],
            [fl.Noise(fl.resid_pre(1), std=1.0, seed=thread)],
        ]
        return [fl.run(spec, inputs, edits[i % len(edits)]) for i in range(N_RUNS)]

    expected = [runs(thread) for thread in range(N_THREADS)]
    with ThreadPoolExecutor(N_THREADS) as pool:
        got = list(pool.map(runs, range(N_THREADS)))
    assert all(
        torch.equal(one, other)
        for alone, together in zip(expected, got, strict=True)
        for one, other in zip(alone, together, strict=True)
    )
