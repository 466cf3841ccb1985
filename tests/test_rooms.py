"""Who may import whom: a room stands above all that it imports, and nothing is imported back up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("errors", "statistics"),
    ("records", "atomic"),
    ("models",),
    ("case",),
    ("training",),
    ("methods", "checks", "hypotheses", "poisons"),
    ("engine", "verdict"),
    ("reports",),
    ("commands",),
    ("cli",),
    ("__main__",),
)
"""From the ground up. Rooms on one floor have nothing to say to each other."""
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
WITHOUT_TORCH = ("errors", "atomic", "records", "statistics", "verdict", "reports", "cli")


def path_of(room: str) -> Path:
    return ROOT / room if room == "reports" else ROOT / "audit" / room


def files(room: str) -> list[Path]:
    path = path_of(room)
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide their room"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def rooms_of(path: Path) -> set[str]:
    parts = (name.split(".") for name in imports(path))
    return {p[1] for p in parts if p[0] == "poison_audit" and len(p) > 1 and p[1] in FLOOR}


def test_every_file_is_in_a_room():
    there = {path.stem for path in (ROOT / "audit").iterdir() if path.suffix in ("", ".py")}
    assert there - {"__pycache__"} == set(FLOOR) - {"reports"} | {"__init__"}


@pytest.mark.parametrize("room", FLOOR)
def test_a_room_imports_only_rooms_below(room):
    for path in files(room):
        for other in rooms_of(path) - {room}:
            assert FLOOR[other] < FLOOR[room], f"{path} imports {other}"


def test_methods_never_import_each_other():
    for path in files("methods"):
        if path.stem != "__init__":
            assert not {name for name in imports(path) if "poison_audit.methods" in name}, path


def test_deciding_and_rendering_work_without_torch():
    names = [
        ".".join(("poison_audit", *path.relative_to(path_of(room).parent).with_suffix("").parts))
        for room in WITHOUT_TORCH
        for path in files(room)
    ]
    code = f"import sys; import {', '.join(names)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0
