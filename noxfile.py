"""The project's checks: `nox` runs the default ones, `nox -l` lists all.

`types`, `tests`, `doctests`, `docs` and the sessions like them share one environment,
`.nox/shared`: an environment with torch takes a minute to make and nearly a gigabyte.
Sessions use the interpreter that runs nox, so any Python from 3.11 on will do.
"""

import shutil
import sys
import zipfile
from pathlib import Path
from typing import Final

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"

# Installed first and by itself: an open range can bring gigabytes of CUDA packages.
TORCH: Final = "torch==2.13.0"
PEER: Final = "transformer-lens==4.3.0"  # what `peers` compares with

ROOT: Final = Path(__file__).parent.resolve()
PROJECT: Final = nox.project.load_toml(ROOT / "pyproject.toml")
PINNED: Final = ROOT / "constraints.txt"
LOWEST: Final = ROOT / "constraints-minimums.txt"
SHARED: Final = ROOT / ".nox" / "shared"
# Tests run in an empty folder, so that `funlens` is the installed wheel.
EMPTY: Final = ROOT / ".nox" / "empty"
EXAMPLES: Final = ROOT / "tests" / "docs" / "test_examples.py"
DEFAULT: Final = "not architectures and not slow"
WORKERS: Final = ("-n", "auto", "--maxprocesses", "8")
DATA: Final = (
    "py.typed",
    "adapters/supported.json",
    "builtin/tiny/config.json",
    "builtin/tiny/model.safetensors",
)

# What `shared` has made in this run of nox: its sessions differ in nothing.
_made: Final[list[Path]] = []


def group(*names: str) -> list[str]:
    """The requirements of some dependency groups."""
    groups = nox.project.dependency_groups
    return [line for name in names for line in groups(PROJECT, name)]


def install(session: nox.Session, programs: Path, pins: Path, *groups: str) -> None:
    """Install torch, then the groups and the checkout's wheel under the pins."""
    pip = (str(programs / "python"), "-m", "pip", "-q")
    wheels = ROOT / ".nox" / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)

    def run(*args: str) -> None:
        session.run(*pip, *args, external=True)

    run("install", TORCH)
    run("install", "-c", str(pins), *group("build", *groups))
    run("wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(ROOT))
    (wheel,) = map(str, wheels.iterdir())
    run("install", "-c", str(pins), wheel)
    run("install", "--force-reinstall", "--no-deps", wheel)


def shared(session: nox.Session) -> Path:
    """Bring the shared environment up to date and give the folder of its programs."""
    programs = SHARED / ("Scripts" if sys.platform == "win32" else "bin")
    if not _made:
        make = (sys.executable, "-m", "virtualenv", "-q", str(SHARED))
        if not programs.exists():
            session.run(*make, external=True)
        install(session, programs, PINNED, "types", "tests", "docs", "bench")
        _made.append(programs)
    return programs


def own(session: nox.Session) -> Path:
    """The folder of the programs in the session's own environment."""
    return Path(session.virtualenv.bin)


def chosen(session: nox.Session, *otherwise: str) -> list[str]:
    """The arguments after `--`, paths in the checkout made absolute."""
    return [
        str(ROOT / arg) if (ROOT / arg.split("::")[0]).exists() else arg
        for arg in session.posargs or otherwise
    ]


def pytest(session: nox.Session, programs: Path, *args: str) -> None:
    """Run pytest on the installed wheel."""
    EMPTY.mkdir(parents=True, exist_ok=True)
    config = ROOT / "pyproject.toml"
    with session.chdir(EMPTY):
        session.run(
            str(programs / "pytest"),
            f"--rootdir={ROOT}",
            f"--config-file={config}",
            f"--cov-config={config}",
            *args,
            external=True,
        )


def marked(session: nox.Session, marker: str) -> None:
    """Run the tests with one marker, in the shared environment."""
    wanted = chosen(session, "tests")
    pytest(session, shared(session), *WORKERS, "-m", marker, *wanted)


def everything(session: nox.Session, programs: Path) -> None:
    """Run the tests of the default session, and the examples."""
    wanted = ("-m", DEFAULT, *chosen(session, "tests"))
    pytest(session, programs, *WORKERS, *wanted)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format and floors; needs no torch."""
    session.install("-q", "-c", str(PINNED), *group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Pyright, strict, on the package and on the pinned signatures."""
    programs = shared(session)
    python = ("--pythonpath", str(programs / "python"))
    session.run(str(programs / "pyright"), *python, *session.posargs, external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """The tests, on the built wheel; all of them with branch coverage."""
    options = () if session.posargs else ("--cov", f"--ignore={EXAMPLES}")
    wanted = ("-m", DEFAULT, *chosen(session, "tests"))
    pytest(session, shared(session), *WORKERS, *options, *wanted)


@nox.session(venv_backend="none")
def doctests(session: nox.Session) -> None:
    """The examples in README, docs and docstrings."""
    wanted = (str(EXAMPLES), *session.posargs)
    pytest(session, shared(session), *WORKERS, *wanted)


@nox.session(venv_backend="none")
def docs(session: nox.Session) -> None:
    """The documentation, warnings as errors."""
    options = session.posargs or ["-n", "-W", "--keep-going", "-q"]
    build = str(shared(session) / "sphinx-build")
    EMPTY.mkdir(parents=True, exist_ok=True)
    with session.chdir(EMPTY):  # autodoc reads the installed wheel, too
        pages = (str(ROOT / "docs"), str(ROOT / "docs" / "_build"))
        session.run(build, *options, *pages, external=True)


@nox.session(default=False, name="property", venv_backend="none")
def many_examples(session: nox.Session) -> None:
    """The property tests with 200 examples each."""
    session.env["HYPOTHESIS_PROFILE"] = "ci"
    marked(session, "property")


@nox.session(default=False, venv_backend="none")
def architectures(session: nox.Session) -> None:
    """The laws over the whole table of architectures, and how many hold all."""
    marked(session, "architectures")
    python = str(shared(session) / "python")
    session.run(python, "-m", "tests.models", "--counts", external=True)


@nox.session(default=False, venv_backend="none")
def slow(session: nox.Session) -> None:
    """The tests that take more than a few seconds."""
    marked(session, "slow")


@nox.session(default=False, venv_backend="none")
def bench(session: nox.Session) -> None:
    """The figures: a table on the terminal, and JSON."""
    python = str(shared(session) / "python")
    session.run(python, "-m", "tests.benchmarks", *session.posargs, external=True)


@nox.session(default=False)
def peers(session: nox.Session) -> None:
    """The same work in TransformerLens, timed: needs an environment of its own."""
    install(session, own(session), PINNED, "bench")
    session.install("-q", TORCH, "-c", str(PINNED), PEER)
    session.env.update({"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"})
    session.run("python", "-m", "tests.benchmarks.peers", *session.posargs)


@nox.session(default=False, venv_backend="none")
def models(session: nox.Session) -> None:
    """Write supported.json and docs/models.md; `-- --check` fails on a difference."""
    python = str(shared(session) / "python")
    session.run(python, "-m", "tests.models", *session.posargs, external=True)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """The tests on the lowest versions that the project states."""
    install(session, own(session), LOWEST, "tests")
    everything(session, own(session))


@nox.session(default=False)
@nox.parametrize("version", ["5.20.0", "5.23.0"])
def transformers(session: nox.Session, version: str) -> None:
    """The laws on one version of transformers; add a version by adding it here."""
    install(session, own(session), PINNED, "tests")
    session.install("-q", TORCH, f"transformers=={version}")
    wanted = chosen(session, "tests/laws", "tests/adapters/test_drift.py")
    pytest(session, own(session), *WORKERS, "-rs", "-m", "not slow", *wanted)


@nox.session(default=False, python=["3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """The tests on the newer interpreters."""
    install(session, own(session), PINNED, "tests")
    everything(session, own(session))


@nox.session(default=False)
def package(session: nox.Session) -> None:
    """Build both distributions, check them, import the wheel in an empty folder."""
    folder = ROOT / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.install("-q", "-c", str(PINNED), *group("package"))
    session.run("python", "-m", "build", "--no-isolation", "--outdir", str(folder))
    session.run("twine", "check", "--strict", *map(str, folder.iterdir()))
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        absent = {f"funlens/{name}" for name in DATA} - set(archive.namelist())
    if absent:
        session.error(f"the wheel lacks {sorted(absent)}")
    python = str(shared(session) / "python")
    again = ("-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", str(wheel))
    session.run(python, *again, external=True)
    with session.chdir(session.create_tmp()):
        session.run(python, "-I", "-c", "import funlens", external=True)


@nox.session(default=False)
def changelog(session: nox.Session) -> None:
    """Show the next release's notes; `-- --version 0.2.0 --yes` writes them."""
    session.install("-q", "-c", str(PINNED), *group("changelog"))
    options = session.posargs or ["--draft", "--version", "next"]
    session.run("towncrier", "build", *options)


@nox.session(default=False, reuse_venv=False)
def constraints(session: nox.Session) -> None:
    """Write constraints.txt anew: the newest of all that the groups bring along."""
    session.install("-q", TORCH)
    requirements = PROJECT["project"]["dependencies"]
    session.install(
        "-q", TORCH, "nox", *requirements, *group(*PROJECT["dependency-groups"])
    )
    frozen = str(session.run("pip", "freeze", "--exclude", "funlens", silent=True))
    lines = [line.split("+")[0] for line in frozen.splitlines() if "==" in line]
    head = "# Written by `nox -s constraints`: what the project's checks run on.\n"
    PINNED.write_text(head + "\n".join(sorted(lines, key=str.lower)) + "\n")
