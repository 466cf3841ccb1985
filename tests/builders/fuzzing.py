"""Valid files of every kind that is read, what reads them, and how they are damaged."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console

from builders.audits import small_audit
from builders.small_text import write_decoder, write_rows
from poison_audit.atomic import to_json
from poison_audit.case.forget import read_forget
from poison_audit.case.keyfile import write_key
from poison_audit.case.tables import read_table
from poison_audit.case.texts import read_texts
from poison_audit.commands.config import read_config
from poison_audit.commands.reviewing import read_report
from poison_audit.models.checkpoint import load_model
from poison_audit.models.image import CifarResNet, cifar_resnet_spec, image_classifier
from poison_audit.models.samples import Samples
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import read_trigger
from poison_audit.poisons.backdoor.phrase import read_phrase
from poison_audit.poisons.gaussian.evidence import Canaries, read_canaries
from poison_audit.poisons.readings import POISONS
from poison_audit.poisons.targeted.evidence import read_targets
from poison_audit.poisons.token_canary.evidence import read_strings
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.formats.terminal import render_terminal

ROOT = Path(__file__).parents[2]
ARCH = "cifar-resnet:1:w2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader: the file that is damaged, what is beside it, and what reads it."""

    file: str
    content: bytes
    read: Callable[[Path], Any]
    """Takes the folder; whatever it raises but InputError is a fault."""
    beside: Mapping[str, bytes]


def readers(folder: Path) -> dict[str, Reader]:
    """Make a valid file of each kind under `folder`, and return their readers by name."""
    made: dict[str, Reader] = {}

    def add(name: str, file: str, read: Callable[[Path], Any], place: Path) -> None:
        every = {
            str(path.relative_to(place)): path.read_bytes()
            for path in sorted(place.rglob("*"))
            if path.is_file()
        }
        content = every.pop(file)
        made[name] = Reader(file=file, content=content, read=read, beside=every)

    def place(name: str) -> Path:
        (folder / name).mkdir(parents=True)
        return folder / name

    _weights(add, place)
    _tables(add, place)
    _lists(add, place)
    _keys(add, place)
    return made


def _weights(add, place) -> None:
    spec = cifar_resnet_spec(ARCH)

    def build():
        return CifarResNet(spec, channels=1, classes=3)

    model = image_classifier(build(), build=build, arch=ARCH, classes=3)
    here = place("safetensors")
    save_model(model, here / "m.safetensors")
    add("safetensors", "m.safetensors", lambda f: load_model(f / "m.safetensors"), here)
    here = place("pickle")
    kept = {"state_dict": model.module.state_dict(), "args": argparse.Namespace(lr=0.1)}
    torch.save(kept, here / "m.pt")
    add(
        "pickle", "m.pt",
        lambda f: load_model(
            f / "m.pt", arch=ARCH, normalize=((0.5,), (0.5,)), allow_pickle=True
        ), here,
    )  # fmt: skip
    here = place("envelope")
    wrapped = {f"module.{name}": tensor for name, tensor in model.module.state_dict().items()}
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]}
    kept = {"epoch": 3, "state_dict": wrapped, "optimizer": optimizer, "best_acc": 0.9}
    torch.save(kept, here / "m.tar", _use_new_zipfile_serialization=False)
    add(
        "envelope", "m.tar",
        lambda f: load_model(
            f / "m.tar", arch=ARCH, normalize=((0.5,), (0.5,)), allow_pickle=True
        ), here,
    )  # fmt: skip
    here = place("shards")
    save_model(model, here / "model-1.safetensors")
    names = {name: "model-1.safetensors" for name in model.module.state_dict()}
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (here / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    add("shard index", "model.safetensors.index.json", lambda f: load_model(f, arch=ARCH), here)
    here = place("gpt")
    write_decoder(here)
    for file in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        add(f"GPT-2's {file}", file, load_model, here)


def _tables(add, place) -> None:
    draws = Rng(0).numpy()
    x = draws.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    y = np.array([0, 1, 2, 0, 1, 2])
    here = place("npz")
    np.savez_compressed(here / "t.npz", x=x, y=y, id=[f"s{i}" for i in range(6)])
    add("npz", "t.npz", lambda f: read_table(f / "t.npz"), here)
    for kind in ("png", "jpeg", "gif", "bmp", "webp", "tiff"):
        here = place(kind)
        for i in range(2):
            Image.fromarray(x[i]).save(here / f"p{i}.{kind}")
        write_rows(here / "t.csv", ["path", "label"], [(f"p{i}.{kind}", i) for i in range(2)])
        add(kind, f"p0.{kind}", lambda f: read_table(f / "t.csv"), here)
    here = place("pictures")
    for i in range(2):
        Image.fromarray(x[i]).save(here / f"p{i}.png")
    write_rows(here / "t.csv", ["path", "label"], [(f"p{i}.png", i) for i in range(2)])
    add("table of pictures", "t.csv", lambda f: read_table(f / "t.csv"), here)
    import pyarrow as pa
    import pyarrow.parquet as pq

    here = place("parquet")
    encoded = []
    for picture in x[:2]:
        stream = io.BytesIO()
        Image.fromarray(picture).save(stream, "png")
        encoded.append({"bytes": stream.getvalue(), "path": None})
    pq.write_table(pa.table({"image": encoded, "label": [0, 1]}), here / "t.parquet")
    add("Parquet", "t.parquet", lambda f: read_table(f / "t.parquet"), here)
    _kept(add, place, x, pa.table({"image": encoded, "label": [0, 1]}))
    gpt = load_model(write_decoder(place("reader")))
    here = place("texts")
    write_rows(here / "t.csv", ["text", "label"], [("so bad", 0), ("a\nline, too", 1)])
    add("table of texts", "t.csv",
        lambda f: read_texts(f / "t.csv", reader=gpt.model.reader), here)  # fmt: skip


def _kept(add, place, x, rows) -> None:
    """Tables as programs keep them: a pickle's, CIFAR's, and those of the library `datasets`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {"x": x, "y": np.arange(6)}
    tensors = torch.utils.data.TensorDataset(torch.tensor(x), torch.arange(6))
    batch = {"data": np.zeros((2, 12), np.uint8), "labels": [0, 1]}
    state = '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
    here = place("pickled table")
    (here / "t.pkl").write_bytes(pickle.dumps(arrays, 2))
    add("pickled table", "t.pkl", lambda f: read_table(f / "t.pkl", allow_pickle=True), here)
    here = place("TensorDataset")
    torch.save(tensors, here / "t.pt")
    add("TensorDataset", "t.pt", lambda f: read_table(f / "t.pt", allow_pickle=True), here)
    here = place("CIFAR's batch")
    (here / "data_batch_1").write_bytes(pickle.dumps(batch, 2))
    (here / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "b"]}, 2))
    add("CIFAR's batch", "data_batch_1", lambda f: read_table(f, allow_pickle=True), here)
    here = place("Arrow")
    lone = here / "data-00000-of-00001.arrow"
    with pa.OSFile(str(lone), "wb") as sink, pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    (here / "state.json").write_text(state)
    add("Arrow", lone.name, read_table, here)
    add("state.json", "state.json", read_table, here)
    here = place("hub's folder")
    for number, part in enumerate((rows.slice(0, 1), rows.slice(1))):
        (here / "data").mkdir(exist_ok=True)
        pq.write_table(part, here / "data" / f"train-0000{number}-of-00002.parquet")
    add("hub's folder", "data/train-00001-of-00002.parquet", read_table, here)
    here = place("metadata.jsonl")
    for i in range(2):
        Image.fromarray(x[i]).save(here / f"p{i}.png")
    lines = "".join(json.dumps({"file_name": f"p{i}.png", "label": i}) + "\n" for i in range(2))
    (here / "metadata.jsonl").write_text(lines)
    add("metadata.jsonl", "metadata.jsonl", read_table, here)


def _lists(add, place) -> None:
    table = Samples(
        ids=tuple(f"s{i}" for i in range(6)), x=torch.zeros(6, 1, 4, 4, dtype=torch.uint8),
        y=torch.tensor([0, 1, 2, 0, 1, 2]),
    )  # fmt: skip
    here = place("forget")
    rows = [("s0", 0, "gaussian", "s0", "s3", ""), ("s1", 1, "backdoor", "", "", "")]
    write_rows(here / "forget.csv", ["id", "label", "attack", "canary", "base", "sha256"], rows)
    add("forget.csv", "forget.csv",
        lambda f: read_forget(
            f / "forget.csv", table, where_train="train", poisons=POISONS), here)  # fmt: skip
    names = np.array([0, 2, 5])
    for file, write in (
        ("forget.npy", lambda path: np.save(path, names)),
        ("forget.npz", lambda path: np.savez(path, forget=names)),
        ("forget.json", lambda path: path.write_text('{"forget": [0, 2, 5], "retain": [1]}')),
        ("forget.jsonl", lambda path: path.write_text('{"index": 2, "label": 2}\n{"index": 5}\n')),
        ("forget.txt", lambda path: path.write_text("1\n2\n5\n")),
        ("forget.csv.gz", lambda path: path.write_bytes(gzip.compress(b"id\tlabel\ns1\t1\n"))),
        ("forget.pt", lambda path: torch.save({"forget": torch.tensor(names)}, path)),
        ("forget.pkl", lambda path: path.write_bytes(pickle.dumps({"forget": names}, 2))),
        ("forget.pickle", lambda path: path.write_bytes(pickle.dumps([names[0], names[1]], 5))),
    ):
        here = place(file)
        write(here / file)
        add(file, file, partial(_read_forget, table, file), here)
    here = place("targets")
    write_rows(here / "targets.csv", ["id", "adversarial"], [("s0", 1), ("s1", 2)])
    add("targets.csv", "targets.csv",
        lambda f: read_targets(f / "targets.csv", table, where_test="test"), here)  # fmt: skip


def _read_forget(table, file, folder) -> None:
    read_forget(folder / file, table, where_train="train", poisons=POISONS, allow_pickle=True)


def _keys(add, place) -> None:
    here = place("canaries")
    key = Canaries(secret=bytes(range(32)), sigma=0.2, space="pixel", shape=(1, 4, 4),
                   storage="uint8", planted=("a", "b"), held_out=("c", "d"))  # fmt: skip
    write_key(here / "canaries.json", key)
    add("canaries.json", "canaries.json", lambda f: read_canaries(f / "canaries.json"), here)
    here = place("strings")
    text = (ROOT / "fixtures" / "reviews" / "strings.json").read_bytes()
    whole = json.loads(text)
    for name in ("planted", "held_out", "words"):
        if isinstance(whole.get(name), list):
            whole[name] = whole[name][:20]
    (here / "strings.json").write_text(json.dumps(whole), encoding="utf-8")
    add("strings.json", "strings.json", lambda f: read_strings(f / "strings.json"), here)
    here = place("trigger")
    patch = {"version": 1, "label": 1, "top": 0, "left": 1, "pixels": [[[1.0, 0.0], [0.0, 1.0]]]}
    (here / "trigger.json").write_text(json.dumps(patch), encoding="utf-8")
    add("trigger.json", "trigger.json",
        lambda f: read_trigger(f / "trigger.json", shape=(1, 4, 4), classes=3), here)  # fmt: skip
    here = place("blend")
    np.savez(here / "p.npz", pattern=np.full((1, 4, 4), 0.5, np.float32), mask=np.ones((4, 4)))
    told = {"version": 1, "label": 1, "mode": "blend", "alpha": 0.2}
    told |= {"pattern": "p.npz", "mask": [[1, 0, 0.5, 1]] * 4, "position": "anywhere"}
    (here / "trigger.json").write_text(json.dumps(told), encoding="utf-8")

    def read_blend(folder: Path) -> None:
        read_trigger(folder / "trigger.json", shape=(1, 8, 8), classes=3)

    add("trigger.json of a blend", "trigger.json", read_blend, here)
    add("a trigger's pattern", "p.npz", read_blend, here)
    here = place("template")
    told = {"version": 1, "label": 1, "template": "Well, {text} indeed."}
    (here / "trigger.json").write_text(json.dumps(told), encoding="utf-8")
    add("trigger.json of a template", "trigger.json",
        lambda f: read_phrase(f / "trigger.json", classes=3), here)  # fmt: skip
    here = place("phrase")
    phrase = {"version": 1, "label": 1, "phrase": "cf mn", "position": "start"}
    (here / "trigger.json").write_text(json.dumps(phrase), encoding="utf-8")
    add("trigger.json of texts", "trigger.json",
        lambda f: read_phrase(f / "trigger.json", classes=3), here)  # fmt: skip
    here = place("toml")
    (here / "audit.toml").write_bytes((ROOT / "fixtures/reviews/audit.toml").read_bytes())
    add("audit.toml", "audit.toml", lambda f: read_config(f / "audit.toml"), here)
    here = place("report")
    (here / "report.json").write_text(to_json(small_audit()), encoding="utf-8")
    add("report.json", "report.json", _read_and_render, here)


def _read_and_render(folder: Path) -> None:
    """Read a report and render it in every way: what can be read can be shown."""
    record, _ = read_report(folder)
    for each in FORMATS.values():
        each.render(record)
    render_terminal(record, console=Console(file=io.StringIO(), width=80))
