"""The command line as a process, and its commands called in this one."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from typer.testing import CliRunner

import funlens.testing
from funlens.interfaces import _cli

NAMES: Final = ("demo", "info", "sites", "verify", "generate")


def called(*arguments: str) -> tuple[int, str]:
    """Call the commands in this process; the exit code and what was printed."""
    result = CliRunner().invoke(_cli.app, arguments, catch_exceptions=False)
    return result.exit_code, result.stdout


def main_with(
    monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str]
) -> int | str | None:
    """Call `main` as the installed command does, and give its exit code."""
    monkeypatch.setattr(sys, "argv", ["funlens", *arguments])
    with pytest.raises(SystemExit) as left:
        _cli.main()
    return left.value.code


def test_the_process_runs_the_demonstration(tmp_path: Path) -> None:
    """`demo --json` prints JSON alone and writes a report."""
    out = tmp_path / "report.html"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "funlens.interfaces._cli",
            "demo",
            "--json",
            "--out",
            str(out),
        ],
        capture_output=True,
        check=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert ["3.2"] == found["ablation"]["heads"]
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_demonstration_is_told_in_words(tmp_path: Path) -> None:
    """Without `--json` it is told, with the name of the report."""
    code, told = called("demo", "--out", str(tmp_path / "here.html"))
    assert 0 == code
    for part in ("Induction scores", "Patching", "Steering", "here.html", "' Mary'"):
        assert part in told


def test_info_tells_the_sizes() -> None:
    """Both forms of `info` tell how many layers there are."""
    code, text = called("info", "builtin:tiny", "--json")
    assert (0, 4, 1377408) == (
        code,
        json.loads(text)["n_layers"],
        json.loads(text)["n_parameters"],
    )
    assert "n_layers             4" in called("info", "builtin:tiny")[1]


def test_sites_lists_every_site() -> None:
    """Both forms of `sites` name the pattern of the last layer."""
    rows: list[dict[str, Any]] = json.loads(
        called("sites", "builtin:tiny", "--json")[1]
    )
    assert "pattern.3" in {row["site"] for row in rows}
    assert "pattern.3 " in called("sites", "builtin:tiny")[1]


def test_generate_goes_on_with_the_prompt() -> None:
    """Greedy without a seed; a seed fixes what is drawn."""
    assert (
        "Paris"
        in called(
            "generate",
            "builtin:tiny",
            "The capital of France is",
            "--max-new-tokens",
            "2",
        )[1]
    )
    drawn = [called("generate", "builtin:tiny", "The", "--seed", "5") for _ in "ab"]
    assert drawn[0] == drawn[1]


def test_generate_tells_machines_what_it_was_asked() -> None:
    """With `--json`: the text is what stands there without."""
    given = ("generate", "builtin:tiny", "The", "--seed", "5")
    found = json.loads(called(*given, "--json")[1])
    assert called(*given)[1] == found.pop("text") + "\n"
    assert {"model": "builtin:tiny", "prompt": "The", "seed": 5} == found


@attrs.frozen
class Row:
    """A stand-in for one law's row."""

    law: str
    holds: bool
    value: float = float("nan")
    tolerance: float = 0.0
    note: str = ""


@attrs.frozen
class Verdict:
    """A stand-in for a certificate."""

    holds: bool
    rows: tuple[Row, ...]


@pytest.mark.parametrize("holds", [True, False])
def test_verify_exits_with_one_if_a_law_fails(
    monkeypatch: pytest.MonkeyPatch, *, holds: bool
) -> None:
    """The exit code is the verdict, in both forms, and the JSON is strict."""
    verdict = Verdict(holds=holds, rows=(Row("a law", holds),))
    monkeypatch.setattr(funlens.testing, "verify", lambda spec: verdict)
    code, text = called("verify", "builtin:tiny")
    assert (int(not holds), True) == (code, ("FAILS" in text) is not holds)
    code, text = called("verify", "builtin:tiny", "--json")
    assert int(not holds) == code
    assert {"law": "a law", "holds": holds, "value": None} == {
        key: json.loads(text)["laws"][0][key] for key in ("law", "holds", "value")
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "builtin:absent"],
        ["info"],
        ["sing"],
        ["generate", "builtin:tiny", "The", "--max-new-tokens", "0"],
        ["demo", "--out", "no/such/folder/report.html"],
    ],
)
def test_wrong_usage_exits_with_two(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    """The message goes to the error stream, without a traceback."""
    assert 2 == main_with(monkeypatch, arguments)
    said = capsys.readouterr()
    assert "" == said.out
    assert said.err.strip()
    assert "Traceback" not in said.err


def test_version_and_help_exit_with_zero(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The version is the package's, and the help names the commands."""
    assert 0 == main_with(monkeypatch, ["--version"])
    assert funlens.__version__ in capsys.readouterr().out
    assert 0 == main_with(monkeypatch, ["--help"])
    said = capsys.readouterr().out
    assert [] == [name for name in NAMES if name not in said]
