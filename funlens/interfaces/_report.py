"""The demonstration as one HTML file that needs nothing else."""

from html import escape
from math import isnan
from typing import Final

from funlens.interfaces._demo import Demonstration, Grid, Patching

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto;
  padding: 0 1rem; color: #1c2430; background: #fff; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.4rem; }
code, .token { font-family: ui-monospace, monospace; font-size: .88em; }
.token { background: #eef1f5; border-radius: 3px; padding: .1em .3em; margin: 1px;
  display: inline-block; white-space: pre; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; }
.heat td { width: 2.6rem; min-width: 2.6rem; height: 1.9rem; text-align: center;
  font-size: .72rem; border: 1px solid #fff; }
.heat th { font-weight: 500; font-size: .78rem; padding: 0 .5rem 0 0; text-align: right;
  white-space: pre; }
.heat thead th { writing-mode: vertical-rl; transform: rotate(180deg); padding: .3rem 0;
  text-align: left; font-family: ui-monospace, monospace; }
.plain td, .plain th { padding: .25rem .9rem .25rem 0; text-align: left; }
.note { border-left: 4px solid #c9892b; padding: .3rem .8rem; background: #fdf6ea; }
.text { background: #f5f7f9; padding: .5rem .8rem; white-space: pre-wrap; }
"""
_BLUE: Final = (33, 102, 172)
_RED: Final = (178, 24, 43)
_DARK: Final = 0.6  # share of the full color from which white text reads better


def report(found: Demonstration) -> str:
    """Write a demonstration as one HTML page.

    Args:
        found: What the demonstration found.

    Returns:
        HTML without scripts and without links to anything outside the page.
    """
    layers, heads, width = found.size
    parts = (
        f"<h1>funlens on {escape(found.model)}</h1>",
        f"<p><code>{escape(found.model_type)}</code>: {layers} layers, {heads} heads "
        f"in each, a residual stream {width} wide.</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in found.notes),
        _predictions(found),
        _heads(found),
        _ablation(found),
        "" if found.patching is None else _patching(found.patching),
        _steering(found),
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>funlens on {escape(found.model)}</title>"
        f"<style>{_STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def heatmap(grid: Grid) -> str:
    """Write a grid as a table of colored cells: blue below zero, red above."""
    finite = [abs(value) for row in grid.values for value in row if not isnan(value)]
    most = max(finite, default=0.0) or 1.0
    head = "".join(f"<th>{_shown(label)}</th>" for label in grid.columns)
    body = "\n".join(
        f"<tr><th>{escape(label)}</th>"
        + "".join(_cell(value, most) for value in row)
        + "</tr>"
        for label, row in zip(grid.rows, grid.values, strict=True)
    )
    return (
        '<div class="scroll"><table class="heat"><thead><tr><th></th>'
        f"{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def _cell(value: float, most: float) -> str:
    if isnan(value):
        return '<td title="no attention"></td>'
    share = min(abs(value) / most, 1.0)
    full = _RED if value > 0 else _BLUE
    red, green, blue = (round(255 + (channel - 255) * share) for channel in full)
    ink = "#fff" if share > _DARK else "#1c2430"
    return (
        f'<td style="background:rgb({red},{green},{blue});color:{ink}" '
        f'title="{value:.4f}">{value:.2f}</td>'
    )


def _shown(token: str) -> str:
    return escape(token.replace("\n", "⏎"))


def _token(token: str) -> str:
    return f'<span class="token">{_shown(token)}</span>'


def _predictions(found: Demonstration) -> str:
    rows = "".join(
        f"<tr><td>{_token(token)}</td><td>{probability:.3f}</td></tr>"
        for token, probability in found.predictions
    )
    return (
        f"<h2>What comes next</h2><p>{''.join(map(_token, found.tokens))}</p>"
        '<table class="plain"><tr><th>next token</th><th>probability</th></tr>'
        f"{rows}</table>"
    )


def _heads(found: Demonstration) -> str:
    tables = "".join(
        f"<h3>{escape(role)}</h3>{heatmap(grid)}" for role, grid in found.scores
    )
    return (
        "<h2>What the heads look at</h2><p>Mean attention on random tokens that are "
        "repeated: to the token after the earlier occurrence (induction), to the "
        "previous token, and to the earlier occurrence itself (duplicate token).</p>"
        f"{tables}"
    )


def _ablation(found: Demonstration) -> str:
    ablation = found.ablation
    rows = [
        ("nothing ablated", ablation.before),
        (f"highest induction scores: {', '.join(ablation.heads)}", ablation.after),
        *(
            (f"as many other heads, draw {number}", loss)
            for number, loss in enumerate(ablation.others, start=1)
        ),
    ]
    body = "".join(
        f"<tr><td>{escape(what)}</td><td>{loss:.3f}</td></tr>" for what, loss in rows
    )
    return (
        "<h2>Without the induction heads</h2><p>Mean loss on the repeat, in nats per "
        "token, with the heads' outputs set to zero.</p>"
        '<table class="plain"><tr><th>zeroed</th><th>loss</th></tr>'
        f"{body}</table>"
    )


def _patching(patching: Patching) -> str:
    return (
        "<h2>Where the answer is decided</h2>"
        f"<p>Clean: <code>{escape(patching.clean)}</code><br>"
        f"Corrupted: <code>{escape(patching.corrupted)}</code></p>"
        f"<p>The logit of {_token(patching.answer)} minus that of "
        f"{_token(patching.wrong)} is {patching.clean_diff:.2f} after the clean prompt "
        f"and {patching.corrupted_diff:.2f} after the corrupted one. Each cell puts "
        "the clean residual stream into the corrupted run at one layer and position: "
        "0 is the corrupted run, 1 the clean one.</p>"
        f"{heatmap(patching.restored)}"
    )


def _steering(found: Demonstration) -> str:
    steering = found.steering
    return (
        "<h2>Steering a text</h2><p>Added at "
        f"<code>{escape(steering.site)}</code>, times {steering.scale:g}: the mean "
        f"activation of {_quoted(steering.towards)} minus that of "
        f"{_quoted(steering.away)}.</p>"
        f'<p>Before</p><p class="text">{escape(steering.before)}</p>'
        f'<p>After</p><p class="text">{escape(steering.after)}</p>'
    )


def _quoted(texts: tuple[str, ...]) -> str:
    return " and ".join(f"<q>{escape(text)}</q>" for text in texts)
