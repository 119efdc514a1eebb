"""The command line."""

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer

from funlens._version import __version__
from funlens.adapters import load
from funlens.data import ModelSpec
from funlens.engine import generate as continue_text
from funlens.errors import FunlensError
from funlens.interfaces._demo import Demonstration, Grid, demonstration
from funlens.interfaces._report import report

app = typer.Typer(
    name="funlens",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Functional mechanistic interpretability for HuggingFace models.",
)

Model = Annotated[str, typer.Argument(help="Hub id, local folder, or builtin:tiny.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Run the command line.

    Exit codes: 0 fine, 1 a law fails, 2 wrong usage or an error, which is printed.
    """
    try:
        typer.main.get_command(app)()  # the app itself would write to our frozen errors
    except* (FunlensError, OSError) as group:
        for error in group.exceptions:
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def root(
    *,
    shows_version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.")
    ] = False,
) -> None:
    """Look into HuggingFace models, and change what happens inside."""
    if shows_version:
        typer.echo(f"funlens {__version__}")
        raise typer.Exit


@app.command()
def demo(
    *,
    model: Annotated[
        str, typer.Option(help="Hub id, local folder, or builtin:tiny.")
    ] = "builtin:tiny",
    out: Annotated[Path, typer.Option(help="Where the HTML report goes.")] = Path(
        "report.html"
    ),
    as_json: AsJson = False,
) -> None:
    """Try four experiments on a model, and write a report."""
    found = demonstration(_loaded(model))
    out.write_text(report(found), encoding="utf-8")
    if as_json:
        _print_json(attrs.asdict(found))
        return
    typer.echo(told(found))
    typer.echo(f"\nReport: {out}")


@app.command()
def info(model: Model, *, as_json: AsJson = False) -> None:
    """Tell what a model is."""
    spec = _loaded(model)
    left_out = {"sites", "tokenizer", "engine"}
    facts = {
        field.name: getattr(spec, field.name)
        for field in attrs.fields(ModelSpec)
        if field.name not in left_out
    }
    facts |= {
        "n_sites": len(spec.sites),
        "n_parameters": sum(weight.numel() for weight in spec.module.parameters()),
        "dtype": str(spec.dtype).removeprefix("torch."),
        "device": str(spec.device),
    }
    if as_json:
        _print_json(facts)
        return
    for name, fact in facts.items():
        typer.echo(f"{name:20} {fact}")


@app.command()
def sites(model: Model, *, as_json: AsJson = False) -> None:
    """List a model's sites, with their axes."""
    listed = _loaded(model).sites
    if as_json:
        keys = ("site", "axes", "shape", "read_only")
        _print_json([{key: getattr(each, key) for key in keys} for each in listed])
        return
    for each in listed:
        axes = ", ".join(
            name if name == size else f"{name}={size}"
            for name, size in zip(each.axes, each.shape, strict=True)
        )
        typer.echo(f"{each.site!s:24} [{axes}]")


@app.command()
def verify(model: Model, *, as_json: AsJson = False) -> None:
    """Check the laws on a model; exit with 1 if one fails."""
    from funlens.testing import verify as certify

    certificate = certify(_loaded(model))
    if as_json:
        rows = [
            {
                "law": row.law,
                "holds": row.holds,
                "value": row.value,
                "tolerance": row.tolerance,
                "note": row.note,
            }
            for row in certificate.rows
        ]
        _print_json({"model": model, "holds": certificate.holds, "laws": rows})
    else:
        for row in certificate.rows:
            mark = "holds" if row.holds else "FAILS"
            typer.echo(f"{mark}  {row.law}  {row.value} <= {row.tolerance}  {row.note}")
    if not certificate.holds:
        raise typer.Exit(1)


@app.command()
def generate(
    model: Model,
    prompt: Annotated[str, typer.Argument(help="How the text starts.")],
    *,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to add.")] = 20,
    seed: Annotated[
        int | None, typer.Option(help="Draw tokens at random, with this seed.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Continue a text: greedily, or drawn at random with a seed."""
    text = continue_text(
        _loaded(model),
        prompt,
        max_new_tokens=max_new_tokens,
        seed=seed,
        do_sample=seed is not None,
    )
    if as_json:
        _print_json({"model": model, "prompt": prompt, "text": text, "seed": seed})
        return
    typer.echo(text)


def told(found: Demonstration) -> str:
    """Write a demonstration for a terminal."""
    layers, heads, width = found.size
    ablation, steering = found.ablation, found.steering
    lines = [
        f"{found.model} ({found.model_type}): {layers} layers, {heads} heads, "
        f"width {width}",
        *(f"note: {note}" for note in found.notes),
        f"\nPrompt: {' | '.join(found.tokens)}",
        *(f"  {share:.3f} {token!r}" for token, share in found.predictions),
        "\nInduction scores (mean attention, layer by head)",
        *_told(dict(found.scores)["induction"]),
        f"\nLoss on repeated random tokens: {ablation.before:.3f} nats per token",
        f"  {ablation.after:.3f} without the heads with the highest induction scores: "
        f"{', '.join(ablation.heads)}",
    ]
    if ablation.others:
        mean = sum(ablation.others) / len(ablation.others)
        lines.append(
            f"  {mean:.3f} without as many random others (mean of "
            f"{len(ablation.others)} draws, {min(ablation.others):.3f} to "
            f"{max(ablation.others):.3f})"
        )
    lines += _told_patching(found)
    lines += [
        f"\nSteering at {steering.site}: {steering.towards[0]!r} minus "
        f"{steering.away[0]!r}, and alike, times {steering.scale:g}",
        f"  before: {steering.before!r}",
        f"  after:  {steering.after!r}",
    ]
    return "\n".join(lines)


def _told_patching(found: Demonstration) -> list[str]:
    patching = found.patching
    if patching is None:
        return []
    return [
        "\nPatching the residual stream (share of the logit difference restored)",
        f"  clean:     {patching.clean!r} -> {patching.answer!r} "
        f"({patching.clean_diff:+.2f})",
        f"  corrupted: {patching.corrupted!r} -> {patching.wrong!r} "
        f"({patching.corrupted_diff:+.2f})",
        *_told(patching.restored),
    ]


def _told(grid: Grid) -> list[str]:
    widths = [max(len(label.strip()), 5) for label in grid.columns]
    head = " ".join(
        f"{label.strip():>{width}}"
        for label, width in zip(grid.columns, widths, strict=True)
    )
    rows = [
        f"  {label:9} "
        + " ".join(
            f"{value:{width}.2f}" for value, width in zip(row, widths, strict=True)
        )
        for label, row in zip(grid.rows, grid.values, strict=True)
    ]
    return [f"  {'':9} {head}", *rows]


def _loaded(model: str) -> ModelSpec:
    from transformers.utils import logging  # noqa: TID251 -- slow to import; its progress bars do not belong here

    logging.disable_progress_bar()
    return load(model)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(_finite(value), indent=2, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    """Put null where JSON has no number."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(each) for key, each in _items(value)}
        case list() | tuple():
            return [_finite(each) for each in _each(value)]
        case _:
            return value


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    return value.items()


def _each(value: Any) -> Iterable[Any]:
    return value


if __name__ == "__main__":
    main()
