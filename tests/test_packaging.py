"""What is written in more than one place says the same everywhere."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from reproduction import notebooks, paths
from reproduction.settings import Profile
from selm.errors import EXTRAS
from selm.methods import METHODS

ROOT = paths.repository()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
NOT_LOCKED = ("peers", "gam", "browser")  # the extras that nothing else needs
LOCKED = tuple(extra for extra in PROJECT["optional-dependencies"] if extra not in NOT_LOCKED)
FOR_USERS = ("embed", "train", "maps", "plots", "probes", "search", "book")  # extras that the library may import

PLATFORMS = [
    {"sys_platform": "linux", "platform_machine": "x86_64", "python_full_version": "3.11.7"},
    {"sys_platform": "linux", "platform_machine": "x86_64", "python_full_version": "3.14.0"},
    {"sys_platform": "linux", "platform_machine": "aarch64", "python_full_version": "3.12.3"},
    {"sys_platform": "darwin", "platform_machine": "arm64", "python_full_version": "3.13.1"},
]


def requirements(*extras: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def locked() -> list[Requirement]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_environment_lists_the_same_packages_with_the_same_bounds() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip[-1] == "-e ."
    assert {str(Requirement(line)) for line in pip[:-1]} == {str(line) for line in requirements(*FOR_USERS, "test")}
    python = next(entry for entry in environment["dependencies"] if str(entry).startswith("python"))
    bounds = SpecifierSet(python.removeprefix("python"))
    assert "3.11" in bounds and "3.10" not in bounds and SpecifierSet(PROJECT["requires-python"]).contains("3.11")


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda p: f"{p['sys_platform']}-{p['python_full_version']}")
def test_lock_satisfies_every_requirement_once(platform: dict[str, str]) -> None:
    environment = platform | {
        "python_version": platform["python_full_version"].rsplit(".", 1)[0],
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    pins: dict[str, str] = {}
    for line in locked():
        if line.marker is None or Marker(str(line.marker)).evaluate(environment):
            name = canonicalize_name(line.name)
            assert name not in pins, f"{name} is locked twice for {platform}"
            (specifier,) = line.specifier
            assert specifier.operator == "==", line
            pins[name] = specifier.version
    for requirement in requirements(*LOCKED):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is missing from requirements.lock"
        assert requirement.specifier.contains(pins[name]), f"{requirement} but {pins[name]} is locked"


def test_every_extra_is_locked_but_those_that_nothing_needs() -> None:
    (loop,) = re.findall(r"^for extra in ([a-z ]+); do", (ROOT / ".ci" / "lock").read_text(), re.M)
    assert loop.split() == list(LOCKED)
    assert not {canonicalize_name(line.name) for line in locked()} & {"geoclip", "playwright"}


def test_lock_names_no_registry_and_no_folder() -> None:
    for line in (ROOT / "requirements.lock").read_text().splitlines()[1:]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; [^@/]+)?", line), line


def test_a_package_has_one_bound_in_all_extras() -> None:
    every = {str(requirement) for requirement in requirements(*PROJECT["optional-dependencies"])}
    assert len({canonicalize_name(Requirement(line).name) for line in every}) == len(every)


def test_what_embeds_and_what_is_plain_bring_no_torch() -> None:
    names = {canonicalize_name(requirement.name) for requirement in requirements("embed")}
    assert "onnxruntime" in names and not names & {"torch", "torchvision", "pyrosm", "geopandas"}


def test_both_tables_of_contents_agree() -> None:
    assert (ROOT / "_toc.yml").read_text() == (ROOT / "book" / "_toc.yml").read_text()


def test_every_page_of_the_contents_exists() -> None:
    for name in notebooks.chapters(ROOT / "_toc.yml"):
        assert (ROOT / "book" / f"{name}.md").exists() != (ROOT / "book" / f"{name}.ipynb").exists(), name


def test_the_repository_address_is_written_once() -> None:
    address = notebooks.repository_address(ROOT / "_config.yml")
    found = subprocess.run(
        ["git", "grep", "-lF", address], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    assert {path for path in found if not path.endswith(".ipynb")} <= {"_config.yml"}


def _notebooks() -> list[Path]:
    return notebooks.notebooks(ROOT / "book")


@pytest.mark.parametrize("path", _notebooks(), ids=lambda path: path.name)
def test_notebook_stands_alone(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    tags = [set(cell["metadata"].get("tags", [])) for cell in cells]
    sources = ["".join(cell["source"]) for cell in cells]
    (parameters,) = [source for source, tag in zip(sources, tags, strict=True) if "parameters" in tag]
    assert 'profile = os.environ.get("SELM_PROFILE", "demo")' in parameters
    (colab,) = [source for source, tag in zip(sources, tags, strict=True) if "colab" in tag]
    assert colab == notebooks.colab_cell(notebooks.repository_address(ROOT / "_config.yml"))
    assert "provenance" in tags[-1]


@pytest.mark.parametrize("path", _notebooks(), ids=lambda path: path.name)
def test_committed_notebook_is_clean(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    text = path.read_text()
    assert path.stat().st_size < 2 * 2**20, "too large to keep in git"
    for wrong in (
        '"papermill":',
        "injected-parameters",
        "/home/",
        "/root/",
        "/tmp/",
        "/Users/",
        "widget-view",
        "Traceback",
    ):
        assert wrong not in text, wrong
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            assert output.get("name") != "stderr"


def test_decisions_names_fields_that_exist() -> None:
    page = (ROOT / "book" / "decisions.md").read_text()
    named = re.findall(r"`(maps|views|encoder|pretraining|probing)\.(\w+)`", page)
    parts = {field.name: field for field in dataclasses.fields(Profile)}
    assert len(named) > 20
    for part, name in named:
        kind = type(parts[part].default_factory())  # type: ignore[misc]
        assert name in {field.name for field in dataclasses.fields(kind)}, f"{part}.{name}"


def test_decisions_quotes_the_defaults() -> None:
    page = (ROOT / "book" / "decisions.md").read_text()
    profile = Profile("defaults", "", (), stand_ins=False)
    own = {type(recipe.settings).__name__: recipe.settings for recipe in METHODS.values()}
    quoted = re.findall(r"`(\w+)\.(\w+)` = (\([\d., ]+\)|[\d.]+)", page)
    assert len(quoted) > 10
    for part, name, value in quoted:
        default = getattr(own[part] if part in own else getattr(profile, part), name)
        assert default == (tuple(float(v) for v in value[1:-1].split(",")) if value[0] == "(" else float(value)), name


def test_decisions_mentions_every_field_of_pretraining_that_is_ours() -> None:
    page = (ROOT / "book" / "decisions.md").read_text()
    lines = (ROOT / "selm" / "settings.py").read_text().split("class Pretraining")[1]
    for name in re.findall(r"^    (\w+): .*no value in the paper", lines, re.M):
        assert f"`pretraining.{name}`" in page, name


def test_styles_are_package_data() -> None:
    styles = list((ROOT / "selm" / "maps" / "styles").glob("*.xml"))
    assert styles and PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["selm"]


def test_training_imports_neither_mapnik_nor_geopandas() -> None:
    code = (
        "import sys, selm.pretrain, selm.embedding.embedder\n"
        "bad = {'mapnik', 'geopandas', 'pyrosm', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_code_for_this_file_is_portable() -> None:
    """No committed file names a folder of somebody's machine."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    wrong = re.compile(rb"(/home/[a-z]|/Users/[A-Z])")
    for name in files:
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and path.suffix not in {".png", ".woff"} and path != Path(__file__):
            found = wrong.search(path.read_bytes())
            assert found is None, f"{name}: {found}"


@pytest.mark.parametrize(("folder", "extras"), [("selm", FOR_USERS), ("tests", ("cluster", "test", *FOR_USERS))])
def test_every_import_is_declared(folder: str, extras: tuple[str, ...]) -> None:
    """What the code imports is a dependency of ours, not only of some dependency."""
    distributions = {"PIL": "pillow", "faiss": "faiss-cpu", "sklearn": "scikit-learn", "yaml": "pyyaml"}
    declared = {canonicalize_name(requirement.name) for requirement in requirements(*extras)}
    own = {"benchmarks", "selm", "reproduction", "google", *(path.stem for path in (ROOT / "tests").rglob("*.py"))}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - own:
                assert canonicalize_name(distributions.get(top, top)) in declared, f"{path.relative_to(ROOT)}: {top}"


def test_a_missing_library_is_named_with_the_extra_that_brings_it() -> None:
    """`EXTRAS` has what the library imports of the extras for embedding, training and maps, each where it is listed."""
    listed = PROJECT["optional-dependencies"]
    for extra in ("embed", "train", "maps"):
        for name in (Requirement(text).name for text in listed[extra] if not text.startswith("pyproj")):
            assert EXTRAS[name] == next(one for one in ("embed", "train", "maps") if any(
                Requirement(text).name == name for text in listed[one])), name  # fmt: skip
