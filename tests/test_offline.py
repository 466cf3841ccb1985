"""No network is ever touched: everything that loads, reads, trains and probes with sockets shut."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import textwrap

import pytest

from builders.small_text import LENGTH, SIGMA, WIDTH, sentences, write_decoder, write_rows
from poison_audit.case.keyfile import write_key
from poison_audit.cli import invoke
from poison_audit.models.seeds import Rng
from poison_audit.poisons.gaussian.evidence import Canaries

SHUT = textwrap.dedent(
    """
    import socket

    calls = []

    def refuse(*arguments, **more):
        calls.append(arguments)
        raise OSError("a test shut the network")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        setattr(socket, name, refuse)
    """
)
USE = textwrap.dedent(
    """
    import sys
    from pathlib import Path

    import torch

    from poison_audit.cli import invoke
    from poison_audit.models.checkpoint import load_model
    from poison_audit.models.model import Batch
    from poison_audit.training.scoring import input_gradients

    folder = Path(sys.argv[1])
    model = load_model(folder / "base").model
    read = model.reader.read(["so bad", "kafen leran"])
    batch = Batch(read.x, torch.tensor([0, 1]), mask=read.mask)
    model.loss(model.module, batch).mean().backward()
    given = ["--forget", "forget.csv", "--train", "train.csv", "--test", "test.csv",
             "--canaries", "canaries.json", "-q", "--out", str(folder / "out")]
    codes = [
        invoke(["train", "train.csv", "--start", "base", "--recipe", "epochs=1", "-o", "m"]),
        invoke(["probe", "m", *given]),
        invoke(["probe", "broken", *given]),
    ]
    from huggingface_hub import constants
    print("codes", codes, "calls", calls, "offline", constants.HF_HUB_OFFLINE)
    """
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """base/ loads; broken/ says that it lies on the hub, and names code there."""
    folder = tmp_path_factory.mktemp("offline")
    write_decoder(folder / "base")
    texts, labels = sentences(Rng(3), 30)
    rows = [(f"c{i}" if i < 6 else f"t{i}", text, label)
            for i, (text, label) in enumerate(zip(texts, labels, strict=True))]  # fmt: skip
    write_rows(folder / "train.csv", ["id", "text", "label"], rows[:20])
    write_rows(folder / "test.csv", ["id", "text", "label"], rows[20:])
    write_rows(folder / "forget.csv", ["id", "attack"], [(f"c{i}", "gaussian") for i in range(6)])
    key = Canaries(
        secret=bytes(32), sigma=SIGMA, space="embedding", shape=(LENGTH, WIDTH),
        storage="unclipped", planted=tuple(f"c{i}" for i in range(6)),
        held_out=tuple(f"h{i}" for i in range(6)),
    )  # fmt: skip
    write_key(folder / "canaries.json", key)
    shutil.copytree(folder / "base", folder / "broken")
    (folder / "broken/tokenizer.json").unlink()
    (folder / "broken/vocab.json").write_text("{}")
    (folder / "broken/tokenizer_config.json").write_text(
        '{"tokenizer_class": "NobodyKnows", "name_or_path": "openai-community/gpt2",'
        ' "auto_map": {"AutoTokenizer": ["someone/repo--code.Tok", null]}}'
    )
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Shut every way out, and return what was tried."""
    tried: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        tried.append(arguments)
        raise OSError("a test shut the network")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    return tried


def test_the_block_records(calls):
    with pytest.raises(OSError, match="shut the network"):
        socket.create_connection(("127.0.0.1", 9))
    with socket.socket() as here, pytest.raises(OSError, match="shut the network"):
        here.connect(("127.0.0.1", 9))
    assert len(calls) == 2


def test_nothing_is_tried_in_this_process(made, tmp_path, monkeypatch, calls):
    monkeypatch.chdir(made)
    given = ["--forget", "forget.csv", "--train", "train.csv", "--test", "test.csv",
             "--canaries", "canaries.json", "-q"]  # fmt: skip
    out = str(tmp_path / "m")
    assert invoke(["train", "train.csv", "--start", "base", "--recipe", "epochs=1", "-o", out]) == 0
    assert invoke(["probe", out, *given, "--out", str(tmp_path / "probed")]) == 3
    assert invoke(["probe", "broken", *given]) == 2
    assert invoke(["probe", "openai-community/gpt2", *given]) == 2
    assert invoke(["plant", "train.csv", "--attack", "gaussian", "--model", "base", "--budget",
                   "0.2", "-o", str(tmp_path / "planted")]) == 0  # fmt: skip
    assert calls == []


@pytest.mark.slow
def test_nothing_is_tried_where_nobody_switched_the_hub_off(made, tmp_path):
    """In a process of its own, with a home and a cache that are empty."""
    folder = shutil.copytree(made, tmp_path / "case")
    hidden = ("HF_", "TRANSFORMERS_", "HUGGINGFACE_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}
    environment |= {"HF_HOME": str(tmp_path / "home")}
    run = subprocess.run(
        [sys.executable, "-c", SHUT + USE, str(folder)], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "codes [0, 3, 2] calls [] offline True"
    assert not (tmp_path / "home").exists()
    assert "[transformers]" not in run.stderr  # nor does its log reach a terminal
