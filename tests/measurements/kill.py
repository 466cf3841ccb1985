"""Kill a real audit at random moments, go on, and compare its report with an uninterrupted one's.

    python tests/measurements/kill.py --times 50

audits fixtures/digits by all eight methods. Every process is killed (SIGKILL) at a moment drawn
uniformly over the length of an uninterrupted audit; where it had ended before, its report.json must
be that of the uninterrupted audit, timings aside, and another audit is begun.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from poison_audit.models.seeds import Rng

ROOT = Path(__file__).parent.parent.parent
TIMINGS = {"seconds", "probe_seconds", "peak_bytes", "started", "command"}
CODE = "import sys; from poison_audit.cli import invoke; sys.exit(invoke(sys.argv[1:]))"


def main() -> None:
    """Print how many kills there were, and how many resumed reports were identical."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    draws = Rng(asked.seed).named("kills").numpy()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        began = time.monotonic()
        code = start(out / "whole").wait()
        length = time.monotonic() - began
        expected = report(out / "whole")
        print(f"uninterrupted: exit {code}, {length:.0f} s", flush=True)
        kills = same = audits = 0
        while kills < asked.times:
            audits += 1
            own = kills
            while (done := ended(out / f"audit-{audits}", draws.uniform(0, length))) is None:
                kills += 1
                if kills == asked.times:
                    done = start(out / f"audit-{audits}").wait()
                    break
            same += done == code and report(out / f"audit-{audits}") == expected
            print(f"audit {audits}: killed {kills - own} times, {same} of {audits} identical",
                  flush=True)  # fmt: skip
    print(f"{kills} kills in {audits} audits: {same} of {audits} reports identical")


def start(out: Path) -> subprocess.Popen[bytes]:
    """Start the audit."""
    fixture = ROOT / "fixtures" / "digits"
    arguments = [str(fixture / "model.safetensors"), "--forget", str(fixture / "forget.csv")]
    return subprocess.Popen(
        [sys.executable, "-c", CODE, "check", *arguments, "--out", str(out)], cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def ended(out: Path, moment: float) -> int | None:
    """Run the audit up to a moment in seconds; return its exit code, or None if it was killed."""
    process = start(out)
    try:
        return process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return None


def report(out: Path) -> Any:
    """Return report.json without what may differ between two equal audits."""
    return _without_timings(json.loads((out / "report.json").read_text("utf-8")))


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_timings(v) for k, v in value.items() if k not in TIMINGS}
    return [_without_timings(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
