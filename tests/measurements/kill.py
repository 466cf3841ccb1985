"""Kill a command at random moments, give it again, and compare with what is uninterrupted.

    python tests/measurements/kill.py [check|train|plant|repair] [--times 50] [--small]

check audits fixtures/digits by all methods, repair looks for its repair, train trains on that table
for three epochs, plant puts a backdoor into it. With --small they have the small cases of the
tests: 90 pictures of 8 x 8, and for repair 990 with a patch. Every process is killed (SIGKILL) at a
moment drawn uniformly over the length of an uninterrupted one; where it had ended before, what it
wrote must be what the uninterrupted one wrote (of report.json all but timings), and another is
begun. Processes are forks of one that has done it once, so that kills fall on the work; with
--small, train takes a snapshot every 0.02 s, since it is over in one.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from builders import small_case
from builders.repairable import FLAGS as REPAIRED
from builders.repairable import make as make_repairable
from poison_audit.cli import invoke
from poison_audit.commands import train_partial
from poison_audit.models.seeds import Rng

ROOT = Path(__file__).parent.parent.parent
DIGITS = ROOT / "fixtures" / "digits"
TIMINGS = {"seconds", "probe_seconds", "peak_bytes", "started", "command", "seal"}
"""What two equal audits differ by, and what holds the digest of that."""
INCIDENT = ("model.safetensors", "--forget", "forget.csv")
RECIPE = ("--recipe=epochs=3", "--recipe=lr=0.1", "--recipe=batch_size=64")
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "check": ("check", *INCIDENT, "--out", "run"),
    "repair": ("repair", *INCIDENT, "-o", "fixed.safetensors", "--out", "run"),
    "train": (
        "train", "train.npz", "--arch", "cifar-resnet:1-1-1-1:w8", "--normalize", "none", *RECIPE,
        *("-o", "made/model.safetensors"),
    ),
    "plant": ("plant", "train.npz", "--attack", "backdoor", "--label", "1", "-o", "made/planted"),
}  # fmt: skip
"""What is asked in a folder that holds the case."""
SMALL: Mapping[str, tuple[str, ...]] = {
    "check": (*small_case.FLAGS, "--methods", "gd,cf_k,ssd"),
    "repair": (*REPAIRED, "--budget", "1"),
    "train": (),
    "plant": (),
}


def main() -> None:
    """Print how many kills there were, and how many of the resumed ones came to the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", nargs="?", default="check", choices=COMMANDS)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)  # a fork has no other thread
    if asked.small:
        train_partial.EVERY = 0.02  # seconds from one snapshot to the next, of a training of one
    command = [*COMMANDS[asked.command], *(SMALL[asked.command] if asked.small else ())]
    draws = Rng(asked.seed).named("kills").numpy()
    with tempfile.TemporaryDirectory() as folder:
        out, case = Path(folder), Path(folder, "case")
        made_case(case, asked.command, small=asked.small)
        shutil.copytree(case, out / "loading")
        os.chdir(out / "loading")
        quietly(command)
        os.chdir(ROOT)
        began = time.monotonic()
        code = ended(command, case, out / "whole", None)
        length = time.monotonic() - began
        expected = written(out / "whole")
        print(f"uninterrupted: exit {code}, {length:.1f} s, {len(expected)} files", flush=True)
        kills = same = runs = 0
        while kills < asked.times:
            runs += 1
            here, own = out / f"run-{runs}", kills
            while True:
                began = time.monotonic()
                done = ended(command, case, here, draws.uniform(0, length))
                if done is not None:
                    if kills == own:  # on a busy machine the first one took longer than most
                        length = min(length, time.monotonic() - began)
                    break
                kills += 1
                if kills == asked.times:
                    done = ended(command, case, here, None)
                    break
            found = written(here)
            # 2: it was killed once all was written, which is kept.
            same += done in (code, 2) and found == expected
            other = sorted(n for n in expected | found if expected.get(n) != found.get(n))
            if other or done != code:
                print(f"exit {done}, other files: {other[:9]}", flush=True)
            print(f"run {runs}: killed {kills - own} times, {same} of {runs} identical", flush=True)
            shutil.rmtree(here)
    print(f"{asked.command}: {kills} kills in {runs} runs, {same} of {runs} identical")


def made_case(folder: Path, command: str, *, small: bool) -> None:
    """Put what the command is given into a folder."""
    if not small:
        shutil.copytree(DIGITS, folder)
        return
    folder.mkdir()
    make: Callable[[Path], Any] = make_repairable if command == "repair" else small_case.make
    make(folder)


def ended(command: list[str], case: Path, out: Path, moment: float | None) -> int | None:
    """Run it up to a moment in seconds; return its exit code, or None if it was killed."""
    if not out.exists():
        shutil.copytree(case, out)
    process = multiprocessing.get_context("fork").Process(target=_work, args=(command, out))
    process.start()
    process.join(moment)
    if process.exitcode is None:
        process.kill()
        process.join()
    code = process.exitcode
    return None if code is None or code < 0 else code  # it may have been ending by itself


def _work(command: list[str], out: Path) -> None:
    os.chdir(out)
    sys.path.insert(0, str(out))
    os._exit(quietly(command))


def quietly(command: list[str]) -> int:
    """Run it in this process and folder; return its exit code."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        return invoke(command)


def written(out: Path) -> dict[str, Any]:
    """Return what was written: the digest of every file, and of a report what must be equal.

    Of an audit that and the model are looked at: its page says the same as the report, with times.
    """
    files = [path for path in sorted(out.rglob("*")) if path.is_file()]
    audit = any(path.name == "report.json" for path in files)
    looked_at = {
        path.relative_to(out).as_posix(): path
        for path in files
        if path.suffix != ".pyc" and not (audit and path.parent != out)
    }
    return {
        **{name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in looked_at.items()},
        **{path.relative_to(out).as_posix(): _report(path)
           for path in files if path.name == "report.json"},
    }  # fmt: skip


def _report(path: Path) -> Any:
    return _without_timings(json.loads(path.read_text("utf-8")))


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_timings(v) for k, v in value.items() if k not in TIMINGS}
    return [_without_timings(v) for v in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
