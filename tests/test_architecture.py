"""The two buildings: `selm` knows nothing of `reproduction`, imports run one way, private names stay in their file."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILDINGS = ("selm", "reproduction")
MAX_MODULES, MAX_LINES = 56, 12_000  # of selm: 45 and 9,000, maps of servers, encoders by name, selm try, no map


@cache
def files(folder: str) -> tuple[Path, ...]:
    return tuple(sorted((ROOT / folder).rglob("*.py")))


@cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(file): file for building in BUILDINGS for file in files(building)}


def dotted(node: ast.AST) -> str:
    """``a.b`` for such an expression, "" for any other."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in dotted(node.test)


def import_nodes(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """All imports below `node`, those inside functions too, without those that are only for types."""
    found: list[ast.Import | ast.ImportFrom] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            found.append(child)
        if is_type_checking(child):
            assert isinstance(child, ast.If)
            for other in child.orelse:
                found += import_nodes(other)
        else:
            found += import_nodes(child)
    return found


def base_of(node: ast.ImportFrom, file: Path) -> str:
    """The full name of the module that `from … import` names."""
    if not node.level:
        return node.module or ""
    package = module_name(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    package = package[: len(package) - node.level + 1]
    return ".".join([*package, *([node.module] if node.module else [])])


@cache
def imports(file: Path) -> frozenset[str]:
    """The full names that a file imports: ``a.b`` for ``import a.b``, ``a.b.c`` for ``from a.b import c``."""
    names = set()
    for node in import_nodes(tree(file)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        else:
            names |= {f"{base_of(node, file)}.{alias.name}" for alias in node.names}
    return frozenset(names)


def module_of(name: str) -> str | None:
    """The module that an imported name is or lies in; None where it is not of these buildings."""
    while name:
        if name in modules():
            return name
        name = name.rpartition(".")[0]
    return None


def test_selm_imports_nothing_of_the_reproduction() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files("selm")
        for name in sorted(imports(file))
        if name.split(".")[0] in ("reproduction", "benchmarks", "tests")
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("building", BUILDINGS)
def test_imports_run_one_way(building: str) -> None:
    graph = {}
    for file in files(building):
        module = module_name(file)
        targets = {module_of(name) for name in imports(file)}
        graph[module] = {target for target in targets if target and target.split(".")[0] == building} - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1][::-1]  # each imports the next
        pytest.fail("modules import each other in a circle:\n  " + "\n  → ".join(circle))


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@cache
def is_ours(name: str) -> bool:
    """Whether a module is a file or folder of this repository; tests import their helpers by the bare name."""
    inside = Path(*name.split("."))
    return any(
        (ROOT / above / inside).with_suffix(".py").exists() or (ROOT / above / inside).is_dir()
        for above in ("", "tests")
    )


def crossing_names(file: Path) -> set[str]:
    """Underscore names that `file` takes from another of our files."""
    found: set[str] = set()
    bound: set[str] = set()  # what this file calls modules of ours
    taken: list[tuple[ast.AST, str]] = []  # underscore names and what they are taken from
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.ImportFrom) and is_ours(base := base_of(node, file)):
            found |= {alias.name for alias in node.names if private(alias.name)}
            bound |= {alias.asname or alias.name for alias in node.names if is_ours(f"{base}.{alias.name}")}
        elif isinstance(node, ast.Import):
            bound |= {alias.asname or alias.name for alias in node.names if is_ours(alias.name)}
        elif isinstance(node, ast.Attribute) and private(node.attr):
            taken.append((node.value, node.attr))
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            # getattr(module, "_name") and monkeypatch.setattr(module, "_name", …)
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and private(name.value):
                taken.append((node.args[0], name.value))
    return found | {name for module, name in taken if dotted(module) in bound}


def test_no_private_name_crosses_a_file() -> None:
    crossing = {
        f"{file.relative_to(ROOT).as_posix()}: {name}"
        for folder in (*BUILDINGS, "benchmarks", "tests")
        for file in files(folder)
        for name in crossing_names(file)
    }
    assert not crossing, "private names of other files:\n" + "\n".join(sorted(crossing))


def test_selm_is_small() -> None:
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files("selm"))
    assert lines <= MAX_LINES, f"selm has {lines} lines"
    assert len(files("selm")) <= MAX_MODULES, f"selm has {len(files('selm'))} modules"


# What runs code that lies in data, or lets a user's text reach a shell. Archives are read member by member.
DANGEROUS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "yaml.load",
    "pandas.read_pickle",
    "pd.read_pickle",
}
DANGEROUS_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


def dangers(source: ast.Module) -> list[str]:
    found = [f"import of {name.name}" for node in import_nodes(source) if isinstance(node, ast.Import)
             for name in node.names if name.name.split(".")[0] in DANGEROUS_MODULES]  # fmt: skip
    found += [f"import of {node.module}" for node in import_nodes(source) if isinstance(node, ast.ImportFrom)
              if (node.module or "").split(".")[0] in DANGEROUS_MODULES and not node.level]  # fmt: skip
    for call in ast.walk(source):
        if not isinstance(call, ast.Call):
            continue
        name, said = dotted(call.func), {word.arg: ast.unparse(word.value) for word in call.keywords}
        odd = name in DANGEROUS or name.endswith((".extractall", ".extract"))
        odd |= said.get("shell", "False") != "False" or said.get("allow_pickle", "False") != "False"
        odd |= name == "torch.load" and said.get("weights_only") != "True"
        found += [f"{name} in line {call.lineno}"] if odd else []
    return found


def test_no_data_is_run_as_code_and_no_text_reaches_a_shell() -> None:
    found = {str(file.relative_to(ROOT)): dangers(tree(file)) for building in BUILDINGS for file in files(building)}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_dangers_are_seen() -> None:
    for text in ("import pickle", "from dill import load", "def f(): import dill", "eval(x)", "os.system(x)",
                 "run(x, shell=True)", "np.load(f, allow_pickle=True)", "torch.load(f)", "t.extractall()"):  # fmt: skip
        assert dangers(ast.parse(text)), text
    for text in ("model.eval()", "run(x, shell=False)", "torch.load(f, weights_only=True)", "from .pickle import a"):
        assert not dangers(ast.parse(text)), text
