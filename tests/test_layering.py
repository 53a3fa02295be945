"""Imports point one way: each folder imports only from the folders that its row names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CORE = {"functions", "networks", "sets", "solvers"}
MAY_IMPORT: dict[str, set[str]] = {
    "functions": set(),
    "kernels": {"functions"},
    "networks": {"functions"},
    "sets": {"kernels"},
    "solvers": {"functions", "kernels", "networks", "sets"},
    "adjoints": {"functions", "sets", "solvers"},
    "sampling": {"functions", "sets", "solvers"},
    "runs": set(),
    "data": {"runs"},
    "structured": CORE | {"kernels", "adjoints", "runs"},
    "experiments": {"networks", "sets", "solvers", "runs", "data", "structured"},
    "icnn_rl": CORE | {"adjoints", "sampling"},  # the public names
    "configs": set(),  # YAML files
    "envs": {"icnn_rl"},
    "agents": CORE | {"icnn_rl", "runs", "envs"},
    "agents.runs": {"runs", "agents", "envs"},
    "agents.benchmark": {"runs", "agents.runs"},
    "agents.cluster": {"agents.benchmark", "agents.runs"},
    "__main__": {"cli"},
    "cli": {"icnn_rl", "runs", "experiments", "agents.runs", "agents.benchmark", "agents.cluster"},
}
"""A row's key is a folder, or a module beside the folders; every folder may import from itself."""


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    imported: str  # a module
    name: str | None = None  # in it, where that is no module itself
    for_types: bool = False  # for type checkers alone


def sources() -> dict[str, str]:
    """The source of every module of the package, by its name."""
    modules = {}
    for path in glob("icnn_rl/**/*.py", root_dir=ROOT, recursive=True):
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        modules[name] = (ROOT / path).read_text()
    return modules


def folder(module: str) -> str:
    """The row of a module."""
    inside = module.split(".")[1:] or ["icnn_rl"]
    two = ".".join(inside[:2])
    return two if two in MAY_IMPORT else inside[0]


def imports(modules: dict[str, str]) -> Iterator[Import]:
    """Imports of the package's own modules, within functions and for type checkers, too."""
    for module, source in modules.items():
        tree = ast.parse(source)
        guards = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        guarded = {node for guard in guards for node in ast.walk(guard)}
        for node in ast.walk(tree):
            match node:
                case ast.Import(names):
                    found = [(alias.name, None) for alias in names]
                case ast.ImportFrom(str(origin), names, 0):
                    found = [(origin, alias.name) for alias in names]
                case ast.ImportFrom():
                    raise AssertionError(f"{module}:{node.lineno}: a relative import")
                case _:
                    continue
            for origin, name in found:
                if origin.split(".")[0] != "icnn_rl":
                    continue
                if f"{origin}.{name}" in modules:
                    origin, name = f"{origin}.{name}", None
                yield Import(module, node.lineno, origin, name, node in guarded)


def forbidden(modules: dict[str, str]) -> list[str]:
    """Imports that the table does not allow."""
    return [
        f"{each.module}:{each.line} imports {each.imported}"
        for each in imports(modules)
        if (target := folder(each.imported)) not in MAY_IMPORT[folder(each.module)]
        and target != folder(each.module)
    ]


def private(modules: dict[str, str]) -> list[str]:
    """Imports of another folder's private modules and names."""
    return [
        f"{each.module}:{each.line} imports {each.imported}.{each.name or ''}"
        for each in imports(modules)
        if folder(each.imported) != folder(each.module)
        and any(
            part.startswith("_") and not part.endswith("__")
            for part in (*each.imported.split("."), each.name or "")
        )
    ]


def cycle(modules: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, if there are any.

    A part may name the type of the object that it belongs to, for type checkers.
    """
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for each in imports(modules):
        if not each.for_types:
            graph[each.module].add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_folder_has_a_row() -> None:
    assert {folder(module) for module in sources()} == set(MAY_IMPORT)


def test_folders_import_only_what_their_row_names() -> None:
    assert forbidden(sources()) == []


def test_the_rows_name_only_what_is_imported() -> None:
    used: dict[str, set[str]] = {row: set() for row in MAY_IMPORT}
    for each in imports(sources()):
        used[folder(each.module)].add(folder(each.imported))
    idle = {row: allowed - used[row] for row, allowed in MAY_IMPORT.items()}
    assert {row: names for row, names in idle.items() if names} == {}


def test_the_table_has_no_circle() -> None:
    TopologicalSorter(MAY_IMPORT).prepare()


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    assert cycle(sources()) == []


def test_what_is_private_stays_in_its_folder() -> None:
    assert private(sources()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from icnn_rl.solvers import minimize",
        "import icnn_rl.solvers.level",
        "from icnn_rl import solvers",
        "def f():\n    from icnn_rl.solvers import minimize",
        "if TYPE_CHECKING:\n    from icnn_rl.solvers.level import Level",
    ],
)
def test_imports_upwards_are_found_wherever_they_stand(source: str) -> None:
    modules = {"icnn_rl.solvers": "", "icnn_rl.solvers.level": "", "icnn_rl.sets.box": source}
    assert len(forbidden(modules)) == 1
    assert forbidden(modules | {"icnn_rl.sets.box": "from icnn_rl.kernels import polyhedron"}) == []


def test_private_names_and_modules_are_found() -> None:
    source = "from icnn_rl.sets._parts import f\nfrom icnn_rl.sets.box import _bounds, Box"
    assert len(private({"icnn_rl.solvers.level": source})) == 2
    assert private({"icnn_rl.sets.ball": source}) == []


def test_circles_are_found() -> None:
    ball, box = "from icnn_rl.sets import box", "def f():\n    import icnn_rl.sets.ball"
    assert cycle({"icnn_rl.sets.ball": ball, "icnn_rl.sets.box": box})
    assert not cycle({"icnn_rl.sets.ball": ball, "icnn_rl.sets.box": ""})
    box = "if TYPE_CHECKING:\n    import icnn_rl.sets.ball"
    assert not cycle({"icnn_rl.sets.ball": ball, "icnn_rl.sets.box": box})
