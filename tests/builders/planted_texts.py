"""A clean table of texts, a model's folder, and `plant` on them from the command line."""

from __future__ import annotations

import csv
from pathlib import Path

from builders import small_text
from poison_audit.case.forget import read_forget
from poison_audit.case.texts import read_texts
from poison_audit.cli import invoke
from poison_audit.commands.config import read_config
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.phrase import read_phrase
from poison_audit.poisons.gaussian.embedding import carrying, embedding_check
from poison_audit.poisons.gaussian.evidence import read_canaries
from poison_audit.poisons.readings import POISONS
from poison_audit.poisons.token_canary.evidence import find_strings, read_strings

SIZE = 120
NAMES = ("neg", "pos")
ATTACKS = ("gaussian", "token-canary", "backdoor", "indiscriminate")


def write_clean(folder: Path) -> Path:
    """Write two tables and a model's folder."""
    texts, labels = small_text.sentences(Rng(5), SIZE + 40)
    rows = [(f"r{i}", t, NAMES[y]) for i, (t, y) in enumerate(zip(texts, labels, strict=True))]
    small_text.write_rows(folder / "clean.csv", ["id", "text", "label"], rows[:SIZE])
    small_text.write_rows(folder / "test.csv", ["id", "text", "label"], rows[SIZE:])
    small_text.write_decoder(folder / "base")
    return folder


def options(here: Path, attack: str) -> list[str]:
    return {
        "gaussian": ["--model", str(here / "base")],
        "token-canary": [],
        "backdoor": ["--label", "pos", "--phrase", "zorp quell"],
        "indiscriminate": ["--flip", "neg:pos", "--steps", "0"],
    }[attack]


def plant(here: Path, attack: str, *more: str, data: object = None, out: str = "p") -> int:
    path = str(here / "clean.csv" if data is None else data)
    return invoke(["plant", path, "--attack", attack, "-o", out, *more])


def chain(here: Path, attacks: tuple[str, ...]) -> Path:
    """Plant one attack after the other, and return the last folder."""
    data: object = None
    for number, attack in enumerate(attacks):
        out = f"p{number}"
        test = ["--test", str(here / "test.csv")] if data is None else []
        assert plant(here, attack, *options(here, attack), *test, data=data, out=out) == 0
        data = Path(out) / "train.csv"
    return Path(out)


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def accepted(folder: Path, model) -> set[str]:
    """Read a planted folder as an audit does, and return the attacks whose evidence fits it."""
    config = read_config(folder / "audit.toml")
    train = read_texts(
        config.get("data", "train"), reader=model.reader, names=config.get("data", "names")
    )
    path, found = folder / "forget.csv", set()
    forget = read_forget(path, train, where_train="train.csv", poisons=POISONS)
    where = {"where": "key", "where_forget": "forget.csv"}
    if file := config.get("evidence.gaussian", "canaries"):
        key = read_canaries(file)
        planting = embedding_check(key, forget, train, width=small_text.WIDTH, **where)
        assert planting.bases.ids == key.planted
        assert planting.missing == 0
        carried = carrying(train, key, {})
        carry = [
            name for name, row in zip(train.ids, carried.noisy.tolist(), strict=True) if row >= 0
        ]
        assert set(carry) == set(key.planted)
        found.add("gaussian")
    if file := config.get("evidence.token-canary", "strings"):
        key = read_strings(file)
        assert find_strings(key, forget, train, **where).names == key.planted
        found.add("token-canary")
    if file := config.get("evidence.backdoor", "trigger"):
        phrase = read_phrase(file, classes=2, names=train.names)
        texts = zip(train.ids, train.texts, strict=True)
        named = zip(forget.ids, forget.attacks, strict=True)
        stamped = {name for name, text in texts if phrase.text in text}
        assert stamped == {name for name, attack in named if attack == "backdoor"}
        found.add("backdoor")
    return found
