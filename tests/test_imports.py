"""The layout is the architecture: imports point down only, and Ray stays in its room."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"spaces": set(), "evaluators": {"spaces"}, "search": {"spaces", "evaluators"}}
ONLY_IN = {"ray": "search/ray_cluster/"}
NEVER = {"torch_pruning", "modelopt"}


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in the file it does."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            names.add(node.module.partition(".")[0])
    return names


def sources(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_downwards(package: str) -> None:
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    assert {path: found for path in sources(package) if (found := imported(path) & forbidden)} == {}


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_ray_is_imported_in_its_room_only(package: str) -> None:
    rooms = {path.relative_to(ROOT).as_posix() for path in sources(package) if "ray" in imported(path)}
    assert [room for room in rooms if not room.startswith(ONLY_IN["ray"])] == []


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_peers_are_no_runtime_dependencies(package: str) -> None:
    assert {path: found for path in sources(package) if (found := imported(path) & NEVER)} == {}


def test_evaluators_and_spaces_know_no_optuna() -> None:
    for package in ("spaces", "evaluators"):
        assert [path for path in sources(package) if "optuna" in imported(path)] == []
