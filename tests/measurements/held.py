"""Attack an audit in every way that was found, and say what became of each.

    python tests/measurements/held.py [--only WORDS]

An attempt edits, links, floods or starves what an audit reads and writes. Each begins with files of
its own, and says what is right: a refusal in words (exit code 2), figures that are measured again,
an edit that `verify` finds. The table says whether that came. Ends with 1 if something did not.
`attacks.py` is something else: it measures poisoning attacks.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from builders import small_case
from builders.attempts import (
    OF_DIGITS,
    PROBE,
    at_weights,
    bomb,
    cell,
    copies,
    deep,
    edited,
    fake_key,
    folder_of_somebody,
    forge,
    half_a_character,
    large_report,
    linked,
    near_reference,
    never_passes,
    other_code,
    page_rewritten,
    piped,
    refused,
    repointed,
    rows_without_end,
    run,
    shell,
    swapped,
    twice,
    wide,
    without_weights,
)

DIGITS = Path(__file__).parents[2] / "fixtures" / "digits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is tried in a folder that holds a case."""

    name: str
    right: str
    try_it: Callable[[], tuple[str, bool]]
    """-> what came of it, and whether that is right."""
    digits: bool = False
    """Whether the case is that of fixtures/digits, else the small one, audited in `o`."""


HEAD = '{ "$@"; echo "code $?" >code; } 2>&1 | head -c 1 >/dev/null; cat code'
TERM = """
"$@" 2>/dev/null &
while [ ! -e new/run.json ]; do sleep 0.1; done
kill $!; wait $!; echo "code $?"
"""
MISSING = ("probe", "none", "--forget", "none.csv", *(f"--reference=none{n}" for n in range(500)))
NO_LINK, AGAIN, FINDS = "exit 2, nothing written", "measured again", "verify: exit 1"
IN_WORDS, SAME_CODE = "exit 2 in words", "the exit code stays"
ATTEMPTS = (
    *(
        Attempt(name=f"OUT/{name} is a link", right=NO_LINK, try_it=partial(linked, name, target))
        for name, target in (("lock", "model.safetensors"), ("run.json", "model.safetensors"),
                             ("cells", "outside"), ("models", "outside"))
    ),
    Attempt(name="--out . among files of one's own", right=NO_LINK, try_it=folder_of_somebody),
    *(
        Attempt(name=f"a FIFO as {name}", right=IN_WORDS, try_it=partial(piped, name, words))
        for name, words in (("forget.csv", "pipe"), ("canaries.json", "pipe"),
                            ("test.npz", "pipe"), ("o/run.json", "Choose another"),
                            ("o/cells/x.json", "Choose another"))
    ),
    Attempt(name="a cell without evidence", right=AGAIN,
            try_it=partial(cell, lambda t: t["measurements"][0].update(evidence={"scores": []}))),
    Attempt(name="a cell with a clean model's scores", right=AGAIN, try_it=partial(cell, forge)),
    Attempt(name="a cell without signature", right=AGAIN,
            try_it=partial(cell, lambda t: t.pop("signature"))),
    Attempt(name="the page says CLEAN", right=FINDS, try_it=page_rewritten),
    *(
        Attempt(name=name, right=FINDS, try_it=partial(edited, change))
        for name, change in (
            ("the weights' entry is removed", without_weights),
            ("the weights' entry is renamed", lambda t: at_weights(t, role="other")),
            ("the weights' entry is another model's", repointed),
            ("limits are emptied", lambda t: t.update(limits=[])),
            ("limits are forged", lambda t: t.update(limits=["Independently certified."])),
            ("decided_again is added", lambda t: (
                t["environment"].update(decided_again="x"), t["sanity"].update(low=0.999999))),
            ("comparability is null", lambda t: t.update(comparability=None)),
            ("attacks are dropped", lambda t: t["subject"].update(attacks={})),
            ("sizes, versions and seeds", lambda t: (
                t["subject"].update(test_size=10**6), t.update(tool_version="9.9"),
                t["plan"].update(seed=9))),
            ("exhibits are dropped", lambda t: t.update(exhibits=[])),
            ("the costs", lambda t: t["cells"][0].update(probe_seconds=0.0)),
        )
    ),
    Attempt(name="a candidate is swapped meanwhile", right=IN_WORDS, try_it=swapped),
    Attempt(name="one key has two values", right=IN_WORDS, try_it=twice),
    *(
        Attempt(name=f"exit_code 256, {command}", right=IN_WORDS,
                try_it=partial(other_code, command))
        for command in ("render", "verify", "decide")
    ),
    Attempt(name="half of a character in ids", right=IN_WORDS, try_it=half_a_character),
    Attempt(name="20,000 dotted TOML keys", right=IN_WORDS, try_it=deep),
    Attempt(name="100,000 columns of CSV", right=IN_WORDS, try_it=wide),
    *(
        Attempt(name=f"a bomb, {name}", right=IN_WORDS, try_it=partial(bomb, name))
        for name in ("b.png", "b.tiff", "b.gif", "b.svg")
    ),
    Attempt(name="20 million rows in a small Parquet", right=IN_WORDS, try_it=rows_without_end),
    Attempt(name="a report of 500 MB", right=IN_WORDS, try_it=large_report),
    *(
        Attempt(name=f"render {streams}", right=SAME_CODE,
                try_it=partial(shell, f'"$@" {streams}; echo code $? >code; cat code',
                               "code 3", "render", "o"))
        for streams in (">&-", "2>&-", ">/dev/full 2>&1")
    ),
    Attempt(name="2>&1 | head -c 1", right="the exit code stays 2",
            try_it=partial(shell, HEAD, "code 2", *MISSING)),
    Attempt(name="ulimit -v 700000", right="exit 4, and why",
            try_it=partial(shell, 'ulimit -v 700000; "$@" 2>&1; echo "code $?"',
                           "code 4", *PROBE)),
    Attempt(name="SIGTERM", right="exit 130",
            try_it=partial(shell, TERM, "code 130", *PROBE[:-1], "new")),
    Attempt(name="ten pictures 120 times, with noise", right="never exit 0", digits=True,
            try_it=partial(copies, 0.0)),
    Attempt(name="the same, 1% of labels exchanged", right="never exit 0", digits=True,
            try_it=partial(copies, 0.01)),
    Attempt(name="a reference moved by 1e-6", right=IN_WORDS, digits=True, try_it=near_reference),
    Attempt(name="another normalisation", right="never exit 0", digits=True,
            try_it=partial(never_passes, "--normalize", "0/2")),
    Attempt(name="a reference at the gate", right=IN_WORDS, digits=True,
            try_it=partial(refused, command=(*OF_DIGITS, "--gate", "retrained_a"))),
    Attempt(name="a tolerance of 1e300", right=IN_WORDS, digits=True,
            try_it=partial(refused, command=(*OF_DIGITS, "--tolerance", "gaussian=1e300"))),
    Attempt(name="a key that training never saw", right="said to be on trust", digits=True,
            try_it=fake_key),
)  # fmt: skip


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def main() -> int:
    """Try all, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="Attempts whose name holds these words.")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    chosen = [each for each in ATTEMPTS if only in each.name]
    failed = 0
    with tempfile.TemporaryDirectory() as place:
        small = Path(place, "small")
        small.mkdir()
        small_case.make(small)
        with inside(small):
            run(*PROBE)
        print("| attempt | right | what came | held | s |\n|---|---|---|---|---|")
        for number, each in enumerate(chosen):
            folder = Path(place, str(number))
            shutil.copytree(DIGITS if each.digits else small, folder)
            began = time.monotonic()
            with inside(folder):
                told, right = each.try_it()
            shutil.rmtree(folder)
            failed += not right
            name, told = (text.replace("|", "/") for text in (each.name, told))
            row = (name, each.right, told, "yes" if right else "NO", f"{_since(began):.1f}")
            print(f"| {' | '.join(row)} |", flush=True)
    print(f"\n{len(chosen) - failed} of {len(chosen)} held.")
    return int(failed > 0)


def _since(began: float) -> float:
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
