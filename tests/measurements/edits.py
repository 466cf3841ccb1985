"""Edit a report in one place, 300 times, and count what `verify` says of it.

    python tests/measurements/edits.py RUN_DIRECTORY [--edits 300]

RUN_DIRECTORY is what an audit left, with every format. An edit changes one leaf of report.json, or
one place of a file beside it. It is careless, or careful: then the digest over the whole is
computed again, and the signature, which nobody else can compute, is taken out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

from builders.leaves import Place, edit, leaves, listed, spelt
from poison_audit.cli import invoke
from poison_audit.reports.formats import FORMATS


def told(report: Path) -> tuple[str, str]:
    """Return what verify comes to, and all that it says."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = invoke(["verify", str(report)])
    out.flush()
    said = out.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]
    return {0: "missed", 1: "caught", 2: "refused", 3: "not all checked"}.get(code, "?"), said


def measure(
    folder: Path, *, edits: int, careful: bool
) -> tuple[dict[str, Counter[str]], Counter[str]]:
    """Return what verify says by the part that was edited, and what it listed as on trust."""
    tree = json.loads((folder / "report.json").read_text("utf-8"))
    every = [path for path in leaves(tree) if path[0] != "seal"]
    draws = np.random.default_rng(0)
    parts: dict[str, list[Place]] = {}
    for path in every:
        parts.setdefault(str(path[0]), []).append(path)
    # Every part has its share; raw scores would take nearly all.
    most = -(-edits // len(parts))
    chosen = [
        paths[number] for paths in parts.values() for number in draws.permutation(len(paths))[:most]
    ]
    left = [path for path in every if path not in set(chosen)]
    chosen += [left[number] for number in draws.permutation(len(left))[: edits - len(chosen)]]
    found: dict[str, Counter[str]] = {}
    trusted = Counter[str]()
    for path in chosen[:edits]:
        with tempfile.TemporaryDirectory(dir=folder.parent) as place:
            report = Path(place) / "edited.json"
            report.write_text(edit(tree, path, careful=careful), encoding="utf-8")
            outcome, said = told(report)
        if outcome == "missed" and (words := listed(path, said)):
            outcome = "listed as taken on trust"
            trusted[words] += 1
        elif outcome == "missed":
            print(f"missed: {spelt(path)}", flush=True)
        found.setdefault(str(path[0]), Counter())[outcome] += 1
    return found, trusted


def measure_rendered(folder: Path) -> dict[str, Counter[str]]:
    """Return the same of the files beside the report: ten places of each."""
    found: dict[str, Counter[str]] = {}
    for each in FORMATS.values():
        file = folder / each.file
        if each.file == "report.json" or not file.exists():
            continue
        raw = file.read_bytes()
        for number in np.linspace(0, len(raw) - 1, 10).astype(int).tolist():
            with tempfile.TemporaryDirectory(dir=folder.parent) as place:
                shutil.copy(folder / "report.json", place)
                other = bytes([raw[number] ^ 1])
                (Path(place) / each.file).write_bytes(raw[:number] + other + raw[number + 1 :])
                outcome, _ = told(Path(place) / "report.json")
            found.setdefault(each.file, Counter())[outcome] += 1
    return found


def show(title: str, found: dict[str, Counter[str]]) -> None:
    """Print a table."""
    outcomes = sorted({name for counts in found.values() for name in counts})
    print(f"\n{title}\n\n| part | {' | '.join(outcomes)} |\n{'|---' * (len(outcomes) + 1)}|")
    for part, counts in found.items():
        print(f"| {part} | {' | '.join(str(counts[name]) for name in outcomes)} |")
    total = sum(found.values(), Counter())
    print(f"| all | {' | '.join(str(total[name]) for name in outcomes)} |", flush=True)


def main() -> int:
    """Measure, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--edits", type=int, default=300)
    given = parser.parse_args()
    for careful in (False, True):
        title = "Careful edits" if careful else "Careless edits"
        found, trusted = measure(given.folder, edits=given.edits, careful=careful)
        show(title, found)
        if trusted:
            listed_as = ", ".join(f"{words} {count}" for words, count in trusted.most_common())
            print(f"\nOn trust: {listed_as}", flush=True)
    show("Edits of what was rendered", measure_rendered(given.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
