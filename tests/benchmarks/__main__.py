"""Measure ratios on GPT-2-small sizes, print them as a table and write JSON.

Both sides alternate in one process on the same tensors; medians of process time.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
import transformers

import funlens as fl

REPEATS: Final = 15
Side = Callable[[], Any]


def ratio(one: Side, other: Side, *, repeats: int = REPEATS) -> tuple[float, float]:
    """Time two sides in turn; give the ratio of medians and the difference in ms."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(2):
        one(), other()
    for _ in range(repeats):
        for side, kept in zip((one, other), times, strict=True):
            start = time.process_time()
            side()
            kept.append(time.process_time() - start)
    first, second = (statistics.median(kept) for kept in times)
    return first / second, (first - second) * 1e3


def imports() -> float:
    """Give the time to import funlens over that to import torch."""

    def seconds(program: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", program], check=True)
        return time.perf_counter() - start

    pairs = [(seconds("import funlens"), seconds("import torch")) for _ in range(5)]
    return statistics.median(a for a, _ in pairs) / statistics.median(
        b for _, b in pairs
    )


def steered(spec: fl.ModelSpec, module: Any, tokens: torch.Tensor) -> float:
    """Give the time of a steered generation over HuggingFace's."""
    vector = 0.01 * torch.ones(spec.d_model)
    edit = [fl.Add(fl.resid_post(6), vector)]
    mask = torch.ones_like(tokens)
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0}

    def ours() -> Any:
        return fl.generate(spec, tokens, edit, **options)

    def theirs() -> Any:
        return module.generate(tokens, attention_mask=mask, **options)

    return ratio(ours, theirs, repeats=5)[0]


def kept_memory() -> float:
    """Give the bytes kept by a run that keeps one residual, over that tensor's own."""
    sizes = []
    for n_layer in (2, 8):
        spec, _, tokens = model(n_layer=n_layer, n_embd=64, n_head=2)
        run = fl.run_with_cache(spec, tokens, capture=[fl.resid_post(0)])
        seen = {id(held): held.nbytes for held in run.cache.values()}
        sizes.append(sum(seen.values()) / run.cache[fl.resid_post(0)].nbytes)
    return max(sizes)


def model(**sizes: int) -> tuple[fl.ModelSpec, Any, torch.Tensor]:
    """Build a random GPT-2, its spec, and tokens."""
    config = transformers.GPT2Config(**sizes)
    module = transformers.GPT2LMHeadModel(config).eval()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 50_000, (1, 64), generator=generator)
    return fl.from_module(module), module, tokens


def constant() -> float:
    """Give what a plain run adds to the forward of a tiny model, in ms."""
    spec, module, tokens = model(n_layer=2, n_embd=64, n_head=2)

    def theirs() -> Any:
        with torch.no_grad():
            return module(tokens, use_cache=False)

    return ratio(lambda: fl.run(spec, tokens), theirs, repeats=200)[1]


def figures() -> list[tuple[str, float, float]]:
    """Measure each figure: its name, its value, and what it must reach."""
    torch.set_num_threads(1)
    spec, module, tokens = model()
    eager = transformers.GPT2LMHeadModel(module.config).eval()
    eager.load_state_dict(module.state_dict())
    eager.set_attn_implementation("eager")

    def theirs(**options: Any) -> Side:
        def call() -> Any:
            with torch.no_grad():
                return module(tokens, use_cache=False, **options)

        return call

    def theirs_eager() -> Any:
        with torch.no_grad():
            return eager(
                tokens,
                use_cache=False,
                output_hidden_states=True,
                output_attentions=True,
            )

    plain = ratio(lambda: fl.run(spec, tokens), theirs())[0]
    residuals = ratio(
        lambda: fl.run_with_cache(spec, tokens, capture=[fl.resid_pre, fl.resid_post]),
        theirs(output_hidden_states=True),
    )[0]
    every = ratio(lambda: fl.run_with_cache(spec, tokens), theirs_eager)[0]
    return [
        ("run / bare HuggingFace forward", plain, 1.02),
        ("run - bare HuggingFace forward, ms", constant(), 0.3),
        ("residuals / output_hidden_states", residuals, 1.02),
        ("every site / eager, hidden states, attentions", every, 1.25),
        (
            "steered generate / HuggingFace generate",
            steered(spec, module, tokens),
            1.05,
        ),
        ("import funlens / import torch", imports(), 1.2),
        ("one residual kept / its own bytes", kept_memory(), 1.0),
    ]


def main() -> None:
    """Print the table, and write `bench.json` where FUNLENS_BENCH_OUT says."""
    rows = figures()
    for name, value, most in rows:
        verdict = "holds" if value <= most else "MISSED"
        print(f"{name:48} {value:8.3f}   at most {most:5.2f}   {verdict}")
    out = Path(os.environ.get("FUNLENS_BENCH_OUT", "bench.json"))
    out.write_text(json.dumps({name: value for name, value, _ in rows}, indent=2))


if __name__ == "__main__":
    main()
