"""Who may import whom: a room stands above all that it imports, and nothing is imported back up."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    ("errors",),
    ("records", "atomic"),
    ("models", "statistics"),
    ("case", "training"),
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


def test_the_house_is_small():
    """Rooms are folders, each poison's own among them, and files directly under audit/."""
    inside = [path for path in (ROOT / "audit").iterdir() if path.name != "__pycache__"]
    folders = [path for path in inside if path.is_dir()]
    poisons = [
        path for path in (ROOT / "audit/poisons").iterdir() if (path / "__init__.py").exists()
    ]
    modules = [path for path in inside if path.suffix == ".py"]
    assert len(folders) <= 11
    assert len(inside) - len(folders) <= 7
    assert len(folders) + len(poisons) + len(modules) <= 24


def test_a_chain_of_imports_passes_at_most_nine_floors():
    """The longest way down from any room under audit/, the tables and the poisons as one."""

    @cache
    def floors(room: str) -> int:
        below = {other for path in files(room) for other in rooms_of(path)} - {room, "reports"}
        return 1 + max((floors(other) for other in below), default=0)

    assert max(floors(room) for room in FLOOR if room != "reports") <= 9


def test_no_file_is_too_long():
    every = {
        path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines())
        for folder in ("audit", "reports")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert not {name for name, lines in every.items() if lines > 350}


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
    readings = sorted(
        path for name in ("reading.py", "readings.py") for path in (ROOT / "audit").rglob(name)
    )
    below = [(path_of(room).parent, path) for room in WITHOUT_TORCH for path in files(room)]
    names = [
        ".".join(("poison_audit", *path.relative_to(parent).with_suffix("").parts))
        for parent, path in [*below, *((ROOT / "audit", path) for path in readings)]
    ]
    assert {"poison_audit.poisons.gaussian.reading", "poison_audit.checks.readings"} <= set(names)
    code = f"import sys; import {', '.join(names)}; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0
