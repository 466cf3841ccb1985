"""The commands that `plant` and `train` print next run as they are printed."""

import shlex
from pathlib import Path

import numpy as np
from safetensors import safe_open

from poison_audit.cli import invoke

NET = ("--arch", "cifar-resnet:1:w4", "--normalize", "none", "--recipe", "epochs=1", "-q")


def printed(capsys) -> list[list[str]]:
    """Return the arguments of the commands that were printed, the last as what comes next."""
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("Next: poison-audit ")
    told = [line.partition(": poison-audit ") for line in lines]
    return [shlex.split(rest) for _, found, rest in told if found]


def test_from_planting_to_the_audit(case, capsys):
    Path("a b").mkdir()  # a space in a name is nothing that a shell may split at
    into = Path("a b/planted")
    rows = np.load("train.npz")
    np.savez("clean.npz", x=rows["x"].astype(np.float32), y=rows["y"])
    command = ["plant", "clean.npz", "--attack", "backdoor", "--label", "1", "--test", "test.npz"]
    assert invoke([*command, "-o", str(into)]) == 0
    (train,) = printed(capsys)
    assert train[:2] == ["train", str(into / "train.npz")]
    assert invoke([*train[:4], *NET]) == 0
    reference, check = printed(capsys)
    assert check == ["check", str(into / "model.safetensors"), "--forget", str(into / "forget.csv")]
    # As it is printed: the architecture and the recipe stand in the audit.toml that train wrote.
    assert invoke(reference) == 0
    assert printed(capsys) == [check]
    made = (into / "reference.safetensors", into / "model.safetensors")
    theirs, ours = (safe_open(path, framework="numpy").metadata() for path in made)
    assert theirs["poison_audit.recipe"] == ours["poison_audit.recipe"]
    assert (ours["poison_audit.seed"], theirs["poison_audit.seed"]) == ("0", "1")
    left_out = len((into / "forget.csv").read_text("utf-8").splitlines()) - 1
    counts = [int(told["poison_audit.samples"]) for told in (theirs, ours)]
    assert counts[0] + left_out == counts[1]
    assert invoke([*check, "--methods", "none", "--out", "run", "-q"]) in (0, 1, 3)
    # Which of two models the reference is one of is not known.
    Path(into / "other.safetensors").write_bytes(Path(check[1]).read_bytes())
    assert invoke([*reference, "--force"]) == 0
    assert "Next: poison-audit" not in capsys.readouterr().out
