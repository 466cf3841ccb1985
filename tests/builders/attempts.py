"""What is tried against an audit in a folder that holds its case, and what came of it.

Every function here returns what came, in words, and whether that is right. `o` is the run directory
of the small case, which was probed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import load_file, save_file

from builders import small_case
from poison_audit.case.keyfile import write_key
from poison_audit.cli import invoke
from poison_audit.commands import check
from poison_audit.poisons.gaussian.evidence import Canaries, read_canaries

MAIN = (sys.executable, "-c", "from poison_audit.cli import main; main()")
GIVEN = ("model.safetensors", "--forget", "forget.csv", *small_case.FLAGS, "-q")
PROBE = ("probe", *GIVEN, "--out", "o")
OF_DIGITS = ("probe", "model.safetensors", "--forget", "forget.csv", "-q", "--out", "o")


def run(*arguments: str) -> tuple[int, str]:
    """Run a command in this process: its exit code, and all that it says."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = invoke(arguments)
    said.flush()
    return code, said.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]


def refused(*words: str, command: tuple[str, ...] = PROBE) -> tuple[str, bool]:
    """Expect an input error that says these words."""
    code, said = run(*command)
    right = code == 2 and all(word in said for word in words) and "Traceback" not in said
    return _told(code, said), right


def found(code: int = 1) -> tuple[str, bool]:
    """Expect that `verify` finds something."""
    got, said = run("verify", "o")
    return _told(got, said), got == code and "Traceback" not in said


def never_passes(*more: str, word: str = "") -> tuple[str, bool]:
    """Expect any exit code of an audit but 0."""
    code, said = run(*OF_DIGITS, *more)
    return _told(code, said), code in (1, 2, 3) and word in said and "Traceback" not in said


def _told(code: int, said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    word = next((x for x in lines if x.startswith(("  - ", "DIFFERS", "NOT CHECKED"))), "")
    return f"exit {code}. {(word or (lines or [''])[-1]).strip(' -')[:90]}"


def edited(change: Callable[[dict[str, Any]], object]) -> tuple[str, bool]:
    """Expect that `verify` finds an edit of the report."""
    rewrite(Path("o/report.json"), change)
    return found()


def rewrite(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a JSON file holds."""
    tree = json.loads(path.read_text("utf-8"))
    change(tree)
    path.write_text(json.dumps(tree), encoding="utf-8")


# Links, and files of somebody else's


def linked(name: str, target: str) -> tuple[str, bool]:
    """Expect that no link in the run directory is followed."""
    there = Path("o", name)
    shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)
    Path("outside").mkdir()
    there.symlink_to(Path("..", target))
    weights = Path("model.safetensors").read_bytes()
    told, right = refused("Choose another --out")
    kept = Path("model.safetensors").read_bytes() == weights and not any(Path("outside").iterdir())
    return told, right and kept


def folder_of_somebody() -> tuple[str, bool]:
    """Expect that `--out .` leaves alone what is there."""
    mine = [".backup.20240101", ".env.1", "report.md"]
    for name in mine:
        Path(name).write_text("mine", encoding="utf-8")
    told, right = refused("is no run directory", command=(*PROBE[:-1], "."))
    return told, right and all(Path(name).read_text("utf-8") == "mine" for name in mine)


def piped(name: str, words: str) -> tuple[str, bool]:
    """Expect that a pipe is not waited for."""
    Path(name).unlink(missing_ok=True)
    os.mkfifo(name)
    return refused(words)


# Cells


def cell(change: Callable[[dict[str, Any]], object]) -> tuple[str, bool]:
    """Expect that a cell that nobody here measured is measured again."""
    before = Path("o/report.json").read_text("utf-8")
    (path,) = Path("o/cells").glob("deployed-*.json")
    rewrite(path, change)
    code, said = run(*PROBE)
    same = [json.loads(text)["findings"] for text in (before, Path("o/report.json").read_text())]
    again = "what lay in the run directory is" in said and same[0] == same[1]
    return f"exit {code}. {'measured again' if again else 'taken'}", again


def forge(tree: dict[str, Any]) -> None:
    """Put scores there that a clean model would show."""
    for seen in tree["measurements"]:
        if seen["probe"] == "gaussian":
            n = len(seen["evidence"]["scores"])
            seen["evidence"]["scores"] = [(-1.0) ** i for i in range(n)]
        if seen["probe"] == "exposure":
            seen["evidence"]["wins"] = [-5] * len(seen["evidence"]["wins"])
    tree["digest"] = "0" * 64


# Reports


def page_rewritten() -> tuple[str, bool]:
    """Expect that a page that says something else is found."""
    page = Path("o/report.html")
    text = page.read_text("utf-8")
    page.write_text(text.replace("INCONCLUSIVE", "CLEAN").replace("RESIDUAL", "CLEAN"), "utf-8")
    return found()


def without_weights(tree: dict[str, Any]) -> None:
    """Take the weights' entry out."""
    tree["subject"]["model_sha256"] = "0" * 64
    tree["files"] = [each for each in tree["files"] if each["role"] != "weights"]


def at_weights(tree: dict[str, Any], **changes: Any) -> None:
    """Change the weights' entry."""
    next(each for each in tree["files"] if each["role"] == "weights").update(changes)


def repointed(tree: dict[str, Any]) -> None:
    """Let the weights be another model's, with every digest of it."""
    digest = hashlib.sha256(Path("clean.safetensors").read_bytes()).hexdigest()
    at_weights(tree, path="clean.safetensors", sha256=digest)
    tree["subject"]["model_sha256"] = digest


def swapped() -> tuple[str, bool]:
    """Replace a candidate once it was read, and before the report is written."""
    measured = check.run  # type: ignore[attr-defined]
    shutil.copy("clean.safetensors", "mine.safetensors")

    def swap(*given: Any, **more: Any) -> Any:
        cells = measured(*given, **more)
        shutil.copy("model.safetensors", "mine.safetensors")
        return cells

    check.run = swap  # type: ignore[attr-defined]
    try:
        return refused(
            "is not what was read", command=(*PROBE, "--candidate", "a=mine.safetensors")
        )
    finally:
        check.run = measured  # type: ignore[attr-defined]


def twice() -> tuple[str, bool]:
    """Give one key two values."""
    report = Path("o/report.json")
    text = report.read_text("utf-8")
    report.write_text(text.replace('"limits": [', '"limits": [],\n "limits": ['), encoding="utf-8")
    return refused("stands twice", command=("verify", "o"))


def other_code(command: str) -> tuple[str, bool]:
    """Write an exit code of which a shell makes 0."""
    rewrite(Path("o/report.json"), lambda tree: tree["verdict"].update(exit_code=256))
    return refused("expected one of 0, 1 or 3", command=(command, "o"))


# Inputs


def half_a_character() -> tuple[str, bool]:
    """Give ids that are no text."""
    held = dict(np.load("test.npz"))
    held["id"] = np.array([f"\ud800{i}" for i in range(len(held["y"]))])
    np.savez("other.npz", **held)
    return refused("half of a character", command=(*PROBE, "--test", "other.npz"))


def wide() -> tuple[str, bool]:
    """Give a table of 100,000 columns."""
    names = ["id", *(f"c{i}" for i in range(100_000))]
    rows = ",".join(names), ",".join("0" * len(names))
    Path("forget.csv").write_text("\n".join(rows) + "\n", encoding="ascii")
    return refused("unknown column")


def deep() -> tuple[str, bool]:
    """Give an audit.toml of 20,000 dotted keys."""
    Path("deep.toml").write_text(".".join(["a"] * 20_000) + " = 1\n", encoding="ascii")
    return refused("deep.toml", command=(*PROBE, "--config", "deep.toml"))


def bomb(name: str) -> tuple[str, bool]:
    """Give a picture of a few kilobytes that fills the memory, or that is none."""
    if name.endswith(".svg"):
        Path(name).write_text("<!DOCTYPE svg [<!ENTITY a '" + "x" * 9999 + "'>]><svg>&a;</svg>")
    else:
        Image.new("1", (20_000, 20_000)).save(name)
    Path("t.csv").write_text(f"path,label\n{name},0\n", encoding="ascii")
    return refused("the picture cannot be read", command=(*PROBE, "--test", "t.csv"))


def rows_without_end() -> tuple[str, bool]:
    """Give a Parquet file of a few kilobytes with twenty million rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 20_000_000
    table = pa.table({"path": pa.nulls(n, "string"), "label": pa.array(np.zeros(n, np.int8))})
    pq.write_table(table, "t.parquet", row_group_size=n, compression="zstd")
    return refused("rows in", command=(*PROBE, "--test", "t.parquet"))


def large_report() -> tuple[str, bool]:
    """Give a report of 500 MB."""
    with Path("o/report.json").open("r+b") as file:
        file.truncate(500 << 20)
    return refused("larger than 64 MiB", command=("render", "o"))


# Processes


def shell(script: str, right: str, *arguments: str) -> tuple[str, bool]:
    """Run a command in a shell, as `"$@"`; the script's stdout is compared."""
    done = subprocess.run(
        ["sh", "-c", script, "sh", *MAIN, *arguments], capture_output=True, text=True, check=False
    )
    told = (done.stdout.strip() or done.stderr.strip()).splitlines() or [""]
    return told[-1][:90], right in done.stdout and "Traceback" not in done.stderr


# What is to pass and must not


def copies(share: float) -> tuple[str, bool]:
    """Let ten pictures stand 120 times each for the test table, some labels exchanged."""
    draws = np.random.default_rng(0)
    held = np.load("test.npz")
    x, y = np.repeat(held["x"][:10], 120, axis=0), np.repeat(held["y"][:10], 120)
    noise = draws.integers(-1, 2, x.shape)
    x = np.clip(x.astype(int) + noise, 0, 255).astype(np.uint8)
    moved = draws.permutation(len(y))[: round(share * len(y))]
    y[moved] = draws.permutation(y[moved])
    np.savez("test.npz", x=x, y=y)
    return never_passes("--reference", "retrained_a.safetensors", word="nearly the same")


def near_reference() -> tuple[str, bool]:
    """Let the deployed model, moved by a millionth, be the reference."""
    tensors = load_file("model.safetensors")
    near = {name: x * (1 + 1e-6) if x.is_floating_point() else x for name, x in tensors.items()}
    save_file(near, "near.safetensors")
    return refused(command=(*OF_DIGITS, "--reference", "near.safetensors"))


def fake_key() -> tuple[str, bool]:
    """Bring a fresh secret, and a training table that holds its noise: the first screen says so."""
    held, own = dict(np.load("train.npz")), read_canaries(Path("canaries.json"))
    bases = np.load("bases.npz")
    key = Canaries(secret=bytes(range(32)), sigma=0.2, space="pixel", shape=own.shape,
                   storage="unclipped", planted=own.planted, held_out=own.held_out)  # fmt: skip
    rows = {name: place for place, name in enumerate(held["id"].tolist())}
    of = {name: x for name, x in zip(bases["id"].tolist(), bases["x"], strict=True)}
    table = held["x"].astype(np.float32) / (255 if held["x"].dtype == np.uint8 else 1)
    with Path("forget.csv").open(encoding="utf-8") as file:
        header, *lines = (line.rstrip("\n").split(",") for line in file)
    names, base = header.index("id"), header.index("base")
    noise = key.noise([line[names] for line in lines])
    for line, added in zip(lines, noise, strict=True):
        picture = of[line[base]]
        scale = 255 if picture.dtype == np.uint8 else 1
        table[rows[line[names]]] = picture.reshape(own.shape) / scale + added
    np.savez("train.npz", **{**held, "x": table.astype(np.float32)})
    Path("canaries.json").unlink()
    write_key(Path("canaries.json"), key)
    code, said = run(*OF_DIGITS)
    told = code == 2 or "taken on trust" in Path("o/report.html").read_text("utf-8")
    return _told(code, said), code in (1, 2, 3) or told
