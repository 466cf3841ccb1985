"""Names of poisons and probes stand in their own folders, so that a new one touches no other."""

import ast
from pathlib import Path

import pytest

from poison_audit.poisons.readings import POISONS
from poison_audit.verdict.readings import READINGS

ROOT = Path(__file__).parent.parent
NAMES = frozenset({*POISONS, *READINGS})
THEIRS = ("audit/poisons/", "audit/checks/", "reports/page/evidence_charts.py")
"""Where the names may stand: their folders, their tables and their charts."""


def files() -> list[str]:
    paths = [p for room in ("audit", "reports") for p in (ROOT / room).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def named(path: str) -> frozenset[str]:
    """The names that stand in a file as strings."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return NAMES & {text for text in said if isinstance(text, str)}


def test_the_names_are_those_of_the_tables():
    assert {
        "gaussian", "exposure", "token-canary", "targeted", "backdoor", "indiscriminate",
        "mislabelled", "membership", "utility",
    } <= NAMES  # fmt: skip


@pytest.mark.parametrize("path", [p for p in files() if not p.startswith(THEIRS)])
def test_no_other_file_names_a_poison_or_a_probe(path):
    assert not named(path)
