"""Kill a command at random moments, give it again, and compare with what is uninterrupted.

    python tests/measurements/kill.py [check|train|plant|repair] [--times 50]

check audits fixtures/digits by all eight methods, repair looks for its repair, train trains on that
table for three epochs, plant puts a backdoor into it. Every process is killed (SIGKILL) at a moment
drawn uniformly over the length of an uninterrupted one; where it had ended before, what it wrote
must be what the uninterrupted one wrote (of report.json all but timings), and another is begun.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from poison_audit.models.seeds import Rng

ROOT = Path(__file__).parent.parent.parent
TIMINGS = {"seconds", "probe_seconds", "peak_bytes", "started", "command"}
CODE = "import sys; from poison_audit.cli import invoke; sys.exit(invoke(sys.argv[1:]))"


DIGITS = ROOT / "fixtures" / "digits"
INCIDENT = (str(DIGITS / "model.safetensors"), "--forget", str(DIGITS / "forget.csv"))
TABLE = DIGITS / "train.npz"
COMMANDS: Mapping[str, Callable[[Path], list[str]]] = {
    "check": lambda out: ["check", *INCIDENT, "--out", str(out)],
    "repair": lambda out: ["repair", *INCIDENT, "-o", str(out / "fixed.safetensors")],
    "train": lambda out: [
        "train", str(out / "train.npz"), "--arch", "cifar-resnet:1-1-1-1:w8", "--normalize", "none",
        *("--recipe=epochs=3", "--recipe=lr=0.1", "--recipe=batch_size=64"),
        *("-o", str(out / "model.safetensors")),
    ],
    "plant": lambda out: [
        *("plant", str(out / "train.npz"), "--attack", "backdoor", "--label", "3"),
        *("-o", str(out / "planted")),
    ],
}  # fmt: skip
"""What is asked of a folder that holds the table, and what was left."""


def main() -> None:
    """Print how many kills there were, and how many of the resumed ones came to the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="?", default="check", choices=COMMANDS)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    command = COMMANDS[asked.command]
    draws = Rng(asked.seed).named("kills").numpy()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        began = time.monotonic()
        code = start(command, out / "whole").wait()
        length = time.monotonic() - began
        expected = written(out / "whole")
        print(f"uninterrupted: exit {code}, {length:.0f} s, {len(expected)} files", flush=True)
        kills = same = runs = 0
        while kills < asked.times:
            runs += 1
            here, own = out / f"run-{runs}", kills
            while (done := ended(command, here, draws.uniform(0, length))) is None:
                kills += 1
                if kills == asked.times:
                    done = start(command, here).wait()
                    break
            same += done == code and written(here) == expected
            print(f"run {runs}: killed {kills - own} times, {same} of {runs} identical", flush=True)
    print(f"{asked.command}: {kills} kills in {runs} runs, {same} of {runs} identical")


def start(command: Callable[[Path], list[str]], out: Path) -> subprocess.Popen[bytes]:
    """Start it."""
    if not out.exists():
        out.mkdir()
        shutil.copy(TABLE, out)
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *command(out)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def ended(command: Callable[[Path], list[str]], out: Path, moment: float) -> int | None:
    """Run it up to a moment in seconds; return its exit code, or None if it was killed."""
    process = start(command, out)
    try:
        return process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None


def written(out: Path) -> dict[str, Any]:
    """Return what was written: the digest of every file, and of a report what must be equal.

    Of an audit that alone is looked at: its page and its other formats say the same with times.
    """
    reports = {p.relative_to(out).as_posix(): _report(p) for p in sorted(out.rglob("report.json"))}
    if "report.json" in reports:
        return reports
    return reports | {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.parent.name in (out.name, "planted")
    }


def _report(path: Path) -> Any:
    return _without_timings(json.loads(path.read_text("utf-8")))


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_timings(v) for k, v in value.items() if k not in TIMINGS}
    return [_without_timings(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
