"""Wheel and sdist: the same bytes from the same tree, all that they need inside, and a wheel that works without extras."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from conftest import TINY_SPACE

ROOT = Path(__file__).parents[1]
EPOCH = "1700000000"
NOT_OURS = shutil.ignore_patterns(".git", ".venv", "*_cache", "__pycache__", "reports", "dist", "site")
pytestmark = pytest.mark.slow


def build(folder: Path) -> dict[str, Path]:
    """Wheel and sdist by their suffixes, of a copy of the tree in this folder."""
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, ignore=NOT_OURS)
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder / "dist")]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH}
    subprocess.run(command, cwd=tree, env=environment, check=True, timeout=300, capture_output=True)
    return {path.suffix: path for path in (folder / "dist").iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling is not installed: pip install hatchling")
    return build(tmp_path_factory.mktemp("first"))


def test_two_builds_are_the_same_to_the_byte(built: dict[str, Path], tmp_path: Path) -> None:
    again = build(tmp_path)
    assert set(built) == set(again) == {".whl", ".gz"}
    for suffix, path in built.items():
        assert path.name == again[suffix].name
        assert path.read_bytes() == again[suffix].read_bytes(), suffix


def test_the_wheel_has_types_licences_and_data(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = set(wheel.namelist())
        info = next(name for name in names if name.endswith(".dist-info/METADATA")).rpartition("/")[0]
        said = wheel.read(f"{info}/METADATA").decode()
    assert "meliuscli/py.typed" in names
    licences = ("LICENSE", "meliuscli/data/embedded/LICENSE-fashion-mnist")
    assert {f"{info}/licenses/{name}" for name in licences} <= names
    assert all(f"License-File: {name}\n" in said for name in licences)
    assert "License-Expression: Apache-2.0\n" in said
    spaces = {f"meliuscli/search_spaces/{path.name}" for path in (ROOT / "search_spaces").glob("*.toml")}
    data = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "meliuscli").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert spaces
    assert spaces | data <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]


def test_the_sdist_builds_and_tests_itself(built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    needed = ("pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "mkdocs.yml")
    assert {*needed, "tests/conftest.py", "docs/index.md", "action.yml", ".pre-commit-hooks.yaml"} <= names


def needed_packages() -> set[str]:
    """The distributions that meliuscli needs without any extra, and what these need, as installed here."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    left, found = list(project["dependencies"]), set[str]()
    while left:
        requirement, _, condition = left.pop().partition(";")
        match = re.match(r"[\w.-]+", requirement.strip())
        assert match is not None
        name = re.sub(r"[-_.]+", "-", match[0]).lower()
        if "extra ==" in condition or name in found:
            continue
        try:
            more = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # what another system or Python needs
            continue
        found.add(name)
        left += more
    return found


def fresh_environment(folder: Path, wheel: Path) -> Path:
    """The programs' directory of an environment with the wheel and what it needs, linked from here, and nothing else."""
    venv.create(folder, symlinks=True, with_pip=False)
    inside = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    here = Path(sysconfig.get_path("purelib"))
    for name in needed_packages():
        files = metadata.files(name) or []
        for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
            if (here / top).exists() and not (inside / top).exists():
                (inside / top).symlink_to(here / top)
    install = [sys.executable, "-m", "pip", "--quiet", "--python", str(folder / "bin" / "python"), "install"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True, timeout=300)
    return folder / "bin"


def test_the_installed_wheel_works_without_extras(built: dict[str, Path], tmp_path: Path) -> None:
    programs = fresh_environment(tmp_path / "fresh", built[".whl"])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [str(programs / "meliuscli"), *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    where = [str(programs / "python"), "-c", "import meliuscli; print(meliuscli.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path / "fresh") in found
    assert "verified" in run("count", "meliusnet29").stdout
    assert "mobilenet-v1" in run("compare", "mobilenet-v1", "meliusnet22").stdout
    assert "meliusnet-cifar" in run("list", "spaces").stdout
    (tmp_path / "tiny.toml").write_text(TINY_SPACE)
    words = ("--trials", "2", "--finalists", "1", "--final-seeds", "1", "--workers", "1", "--study", "s")
    value = json.loads(
        run("search", "--space", "tiny.toml", "--budget", "5e7", *words, "--format", "json", code=0).stdout
    )
    assert value["front"]
    run("report", "study:s", "--html", "page.html")
    assert "<svg" in (tmp_path / "page.html").read_text(encoding="utf-8")
    for lacking, extra in ((("bench", "meliusnet22"), "packed"), (("export", "meliusnet22", "--to", "onnx"), "onnx")):
        assert f"meliuscli[{extra}]" in run(*lacking, code=3).stderr
