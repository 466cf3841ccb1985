"""The commands that `plant` and `train` print next run as they are printed."""

import shlex
from pathlib import Path

import numpy as np

from poison_audit.cli import invoke

NET = ("--arch", "cifar-resnet:1:w4", "--normalize", "none", "--recipe", "epochs=1", "-q")


def printed(capsys) -> list[str]:
    """Return the arguments of the last command that was printed."""
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("Next: poison-audit ")
    return shlex.split(line)[2:]


def test_from_planting_to_the_audit(case, capsys):
    Path("a b").mkdir()  # a space in a name is nothing that a shell may split at
    into = Path("a b/planted")
    rows = np.load("train.npz")
    np.savez("clean.npz", x=rows["x"].astype(np.float32), y=rows["y"])
    command = ["plant", "clean.npz", "--attack", "backdoor", "--label", "1", "--test", "test.npz"]
    assert invoke([*command, "-o", str(into)]) == 0
    train = printed(capsys)
    assert train[:2] == ["train", str(into / "train.npz")]
    assert invoke([*train[:4], *NET]) == 0
    check = printed(capsys)
    assert check == ["check", str(into / "model.safetensors"), "--forget", str(into / "forget.csv")]
    reference = ["-o", str(into / "ref_a.safetensors"), "--without", str(into / "forget.csv")]
    assert invoke([*train[:2], *reference, *NET, "--seed", "1"]) == 0
    assert printed(capsys) == check
    assert invoke([*check, "--methods", "none", "--out", "run", "-q"]) in (0, 1, 3)
    # Which of two models the reference is one of is not known.
    Path(into / "other.safetensors").write_bytes(Path(check[1]).read_bytes())
    again = [*train[:2], *reference, *NET, "--seed", "1", "--force"]
    assert invoke(again) == 0
    assert "Next: poison-audit" not in capsys.readouterr().out
