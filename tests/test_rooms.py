"""Who may import whom: a room imports only rooms above it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = [
    "errors", "files", "records", "evidence", "diagnosis", "stats", "rates", "growth", "seeds",
    "provenance", "places", "models", "memory", "sharding", "data", "config", "policy", "case",
    "trial", "exhibits", "ledger", "modes", "training", "methods", "attacks", "probes", "honesty",
    "hypotheses", "plan", "flags", "runs", "cells", "unlearning", "caveats", "engine", "cluster",
    "forecast", "tuning", "details", "judge", "decide", "decide_rehearsal", "redeciding",
    "comparing", "verifying", "rehearsal", "rendering", "reviewing", "progress", "commands",
    "planter", "trainer", "starting", "cli",
]  # fmt: skip
# Neighbours that have nothing to say to each other.
NEVER = {
    "probes": {"methods", "attacks", "trial"},
    "methods": {"trial"},
    "hypotheses": {"methods", "probes", "attacks", "trial"},
    "decide": {"models", "data", "case", "training", "methods", "probes", "engine", "plan"},
    "rendering": {"models", "data", "case", "training", "methods", "probes", "engine", "plan"},
}
WITHOUT_TORCH = [
    "errors",
    "files",
    "records",
    "evidence",
    "stats",
    "rates",
    "growth",
    "provenance",
    "places",
    "config",
    "policy",
    "details",
    "judge",
    "decide",
    "decide_rehearsal",
    "diagnosis",
    "redeciding",
    "comparing",
    "verifying",
    "reviewing",
    "rendering",
    "cli",
]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide their room"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room_of(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "audit" and len(parts) > 1 and parts[1] in ROOMS else None


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def test_every_file_is_in_a_room():
    for path in files("audit"):
        top = path.relative_to(ROOT / "audit").parts[0].removesuffix(".py")
        assert top == "__init__" or top in ROOMS, path


@pytest.mark.parametrize("path", files("audit"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_rooms_above(path):
    here = path.relative_to(ROOT / "audit").parts[0].removesuffix(".py")
    if here == "__init__":
        return
    for name in imports(path):
        room = room_of(name)
        if room is None or room == here:
            continue
        assert ROOMS.index(room) < ROOMS.index(here), f"{path} imports {name}"
        assert room not in NEVER.get(here, set()), f"{path} imports {name}"


def test_methods_never_import_each_other():
    for path in (ROOT / "audit/methods").glob("[a-z]*.py"):
        inside = {name for name in imports(path) if name.startswith("audit.methods")}
        assert not inside, path


@pytest.mark.parametrize("path", files("reports"), ids=lambda path: str(path.relative_to(ROOT)))
def test_reports_read_records_only(path):
    for name in imports(path):
        assert not name.startswith("audit") or name.startswith("audit.records"), name


def test_deciding_and_rendering_work_without_torch():
    there = {path.stem for path in (ROOT / "audit").iterdir()}
    wanted = ", ".join(f"audit.{room}" for room in WITHOUT_TORCH if room in there)
    code = f"import sys; import {wanted}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
