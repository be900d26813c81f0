"""What is shipped: the wheel's files, one name for the passes, and what every file of the package owes its reader."""

import ast
import inspect
import shutil
import statistics
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import fxkd

ROOT = Path(__file__).parent.parent
SOURCES = sorted(path.relative_to(ROOT) for folder in ("fxkd", "passes") for path in (ROOT / folder).rglob("*.py"))
SOURCES = [path for path in SOURCES if path.parts[:2] != ("fxkd", "passes")]  # the link: its files are in passes/
PASSES = [path.as_posix() for path in SOURCES if path.parts[0] == "passes"]
PUBLIC = {
    name: value
    for name, value in vars(fxkd).items()
    if not name.startswith("_") and not inspect.ismodule(value) and getattr(value, "__module__", "").startswith("fxkd")
}


def build(kind: str, source: Path, out: Path) -> Path:
    """Build a ``wheel`` or an ``sdist`` of ``source`` in a process of its own, without a network."""
    out.mkdir(exist_ok=True)
    script = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", script, str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads, so that nothing is built in the checkout itself."""
    copy = tmp_path_factory.mktemp("checkout")
    for name in ("fxkd", "passes"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", checkout, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module", params=["checkout", "sdist"])
def wheel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in a wheel built from the checkout, and in one built from the sdist."""
    source: Path = request.getfixturevalue(request.param)
    if request.param == "sdist":
        unpacked = tmp_path_factory.mktemp("unpacked")
        with tarfile.open(source) as archive:
            archive.extractall(unpacked, filter="data")
        (source,) = unpacked.iterdir()
    with zipfile.ZipFile(build("wheel", source, tmp_path_factory.mktemp("wheel"))) as archive:
        return archive.namelist()


def installed_name(source: Path) -> str:
    """Where a source file ends up: ``passes/run.py`` in ``fxkd/passes/run.py``."""
    return source.as_posix() if source.parts[0] == "fxkd" else f"fxkd/{source.as_posix()}"


def test_wheel_holds_every_module_once(wheel: list[str]) -> None:
    modules = sorted(name for name in wheel if name.endswith(".py"))
    assert modules == sorted(map(installed_name, SOURCES))


def test_wheel_holds_types_and_licence_and_nothing_beside_fxkd(wheel: list[str]) -> None:
    assert "fxkd/py.typed" in wheel
    assert any(name.endswith("licenses/LICENSE") for name in wheel)
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"fxkd"}


def test_sdist_holds_the_passes_once(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    assert sorted(name for name in names if name.startswith("passes/") and name.endswith(".py")) == PASSES
    assert not [name for name in names if name.startswith("fxkd/passes")]


def test_passes_have_one_name() -> None:
    script = "import sys, fxkd.passes; assert 'fxkd.passes' in sys.modules; assert 'passes' not in sys.modules"
    subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, check=True)


def test_passes_are_a_link() -> None:
    link = ROOT / "fxkd/passes"
    assert link.is_symlink()
    assert link.readlink() == Path("../passes")


@pytest.mark.parametrize("source", SOURCES, ids=str)
def test_module_says_what_it_is_for(source: Path) -> None:
    assert ast.get_docstring(ast.parse((ROOT / source).read_text()))


def test_files_are_short() -> None:
    assert statistics.median(len((ROOT / source).read_text().splitlines()) for source in SOURCES) < 200


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_has_docstring_and_example(name: str) -> None:
    docstring = inspect.getdoc(PUBLIC[name]) or ""
    assert docstring
    if not (inspect.isclass(PUBLIC[name]) and issubclass(PUBLIC[name], Exception)):
        assert ">>> " in docstring, f"fxkd.{name} shows no example"
