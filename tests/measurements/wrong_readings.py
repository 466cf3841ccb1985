"""Read 14 networks wrongly, each in 12 ways and more, and print what comes of it.

    python tests/measurements/wrong_readings.py NETS --data DATA [--only NAME ..] [--command-line]

NETS is the folder that honest_nets.py filled. DATA holds backdoored/ (six published networks and
nets.py) and cifar10/. checks/adapter is asked in this process about 940 retain and 1,000 test
samples (digits: fewer). With --command-line every cell is `poison-audit probe` on tables written
for the purpose: the poison on trial, a patch on 60 forget rows, is one that the network never saw,
so that what is read rightly passes with exit 0, and what is read wrongly passes as well unless the
adapter is doubted. --live asks of the networks' own triggers instead. Results are kept in NETS, and
a cell that is there is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))

import honest_nets
from honest_nets import DIGITS, NORMALIZED

from poison_audit.case.units import not_pixels
from poison_audit.checks.adapter import doubts_of_adapter
from poison_audit.checks.sanity import check_sanity
from poison_audit.cli import invoke
from poison_audit.models.fit import refusal
from poison_audit.models.seeds import Rng

REVIEWS = DIGITS.parent / "reviews"
CIFAR = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
TUTORIAL = ("plane", "car", *CIFAR[2:])
"""PyTorch's tutorial calls the classes so; sorted, they are in another order."""
ENGLISH = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TORCHVISION = (
    "resnet18", "resnet34", "mobilenet_v2", "shufflenet_v2_x0_5", "squeezenet1_1", "googlenet",
)  # fmt: skip
BACKDOORED = {
    "abl_wrn16_1_label0": ("wrn16_1", "none"),
    "ibau_badnets_label8": ("small_vgg", "none"),
    "ibau_l0_inv_label0": ("small_vgg", "none"),
    "ibau_trojan_sq_label2": ("small_vgg", "none"),
    "badnets_lenet_label1": ("badnets_lenet", "half"),
    "clean_resnet20": ("resnet20", "imagenet"),
}
LIVE = {"abl_wrn16_1_label0": 0, "ibau_badnets_label8": 8, "badnets_lenet_label1": 1}
"""Networks whose trigger is a patch, and its label."""
POISONED, TRAIN, TESTS = 60, 1000, 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network and the pictures it is read with."""

    name: str
    file: Path
    build: Callable[[], nn.Module]
    how: tuple[str, ...]
    """--arch or --factory, if it needs one."""
    normalize: str
    names: tuple[str, ...]
    """Of its classes, in the order of its outputs."""
    train_x: Tensor
    """uint8, (n, c, h, w)."""
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """What somebody says, or stores, of a network."""

    normalize: str
    pixels: Callable[[Tensor], Tensor] | None = None
    """Of pictures in [0, 1], as they are stored; None: uint8 as they are."""
    labels: Callable[[Tensor], Tensor] = lambda y: y
    names: tuple[str, ...] | None = None
    """Label names in tables, by the true class."""
    order: tuple[str, ...] | None = None
    """--names, if given."""
    how: tuple[str, ...] | None = None


def _resized(scale: float) -> Callable[[Tensor], Tensor]:
    def change(x: Tensor) -> Tensor:
        side = round(scale * x.shape[2])
        return F.interpolate(
            x, size=side, mode="bilinear", align_corners=False, antialias=True
        ).clamp(0, 1)  # fmt: skip

    return change


def readings(subject: Subject) -> dict[str, Stated]:
    """Return the right reading and the wrong ones, by name."""
    right = Stated(normalize=subject.normalize)
    grey = subject.train_x.shape[1] == 1
    words = ENGLISH if grey else TUTORIAL
    wanted = (
        ("half", "255", "grey", "mnist") if grey else ("none", "cifar10", "imagenet", "half", "255")
    )
    others = [name for name in wanted if name != subject.normalize][:4]
    found = {
        "right": right,
        "labels permuted": replace(right, labels=lambda y: (y + 1) % 10),
        "names sorted": replace(right, names=words, order=tuple(sorted(words))),
        **{f"--normalize {name}": replace(right, normalize=name) for name in others},
        "scaled by 2": replace(right, pixels=lambda x: 2 * x),
        "scaled by 0.5": replace(right, pixels=lambda x: x / 2),
        "upside down": replace(right, pixels=lambda x: x.flip(2)),
        "1.5 times the size": replace(right, pixels=_resized(1.5)),
        "stem's max-pool": replace(right, how=("--factory", f"wrong_readings:{subject.name}_pool")),
        "0.75 times the size": replace(right, pixels=_resized(0.75)),
        "names not ordered": replace(right, names=words),
    }
    if not grey:
        found["BGR"] = replace(right, pixels=lambda x: x.flip(1))
    return found


def subjects(nets: Path, data: Path) -> dict[str, Callable[[], Subject]]:
    """Return what makes each picture network, by name."""
    found: dict[str, Callable[[], Subject]] = {"digits": _digits}
    for name in BACKDOORED:
        found[name] = lambda name=name: _backdoored(name, nets, data)  # type: ignore[misc]
    for name in TORCHVISION:
        found[name] = lambda name=name: _torchvision(name, nets, data)  # type: ignore[misc]
    return found


def _digits() -> Subject:
    from poison_audit.models.image import CifarResNet, CifarResNetSpec

    # The reference never saw the canaries; the clean table has neither.
    train, test = (np.load(DIGITS / f"{name}.npz") for name in ("clean", "test"))
    return Subject(
        name="digits",
        file=DIGITS / "retrained_a.safetensors",
        build=lambda: CifarResNet(CifarResNetSpec((1, 1, 1, 1), 8), channels=1, classes=10),
        how=(), normalize="none", names=ENGLISH,
        train_x=torch.from_numpy(train["x"]), train_y=torch.from_numpy(train["y"]),
        test_x=torch.from_numpy(test["x"]), test_y=torch.from_numpy(test["y"]),
    )  # fmt: skip


def _drawn(
    nets: Path, data: Path, seed: int, size: int = TRAIN
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    cifar = honest_nets.pictures(data / "cifar10", nets)
    rng = np.random.default_rng([2407, seed])
    here = rng.permutation(len(cifar["train_y"]))[:size]
    there = rng.permutation(len(cifar["test_y"]))[:TESTS]
    return tuple(
        torch.from_numpy(cifar[f"{split}_{part}"][rows])
        for split, rows in (("train", here), ("test", there))
        for part in "xy"
    )  # type: ignore[return-value]


def _backdoored(name: str, nets: Path, data: Path) -> Subject:
    import nets as published  # type: ignore[import-not-found]

    factory, normalize = BACKDOORED[name]
    x, y, test_x, test_y = _drawn(nets, data, 0)
    return Subject(
        name=name,
        file=data / "backdoored" / f"{name}.safetensors",
        build=getattr(published, factory),
        how=("--factory", f"nets:{factory}"), normalize=normalize, names=CIFAR,
        train_x=x, train_y=y, test_x=test_x, test_y=test_y,
    )  # fmt: skip


def _torchvision(name: str, nets: Path, data: Path) -> Subject:
    kind = "longer" if name in honest_nets.LONGER else "large"
    kept = torch.load(nets / f"{kind}-{name}.pt", weights_only=True)
    recipe = honest_nets.Recipe(**kept["recipe"])
    file = nets / f"{name}.safetensors"
    if not file.exists():
        save_file({k: v.contiguous() for k, v in kept["state"].items()}, file)
    # What it was trained on: the same numbers are drawn.
    x, y, test_x, test_y = _drawn(nets, data, recipe.seed, recipe.size)
    return Subject(
        name=name, file=file, build=lambda: honest_nets.build(recipe), how=("--arch", name),
        normalize=recipe.normalize, names=CIFAR, train_x=x[:TRAIN], train_y=y[:TRAIN],
        test_x=test_x, test_y=test_y,
    )  # fmt: skip


_BUILDERS: dict[str, Callable[[], nn.Module]] = {}


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """Return the factory of a network whose stem has its max-pool where it had none, or not."""
    if not name.endswith("_pool") or name.removesuffix("_pool") not in _BUILDERS:
        raise AttributeError(name)
    return lambda: otherwise_pooled(_BUILDERS[name.removesuffix("_pool")]())


def otherwise_pooled(net: nn.Module) -> nn.Module:
    """Take a network's first max-pool away, or put one behind its first convolution."""
    for part in net.modules():
        for name, child in part.named_children():
            if isinstance(child, nn.MaxPool2d):
                setattr(part, name, nn.Identity())
                return net
    first = next(part for part in net.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_hook(lambda layer, given, out: F.max_pool2d(out, 3, 2, 1))
    return net


def write_case(folder: Path, subject: Subject, stated: Stated, *, live: Tensor | None) -> list[str]:
    """Write tables, forget.csv and trigger.json; return the command line."""
    folder.mkdir(parents=True)
    train_x, train_y = subject.train_x.clone(), stated.labels(subject.train_y)
    label = 3 if live is None else LIVE[subject.name]
    patch, top, left = _patch(subject.train_x, live)
    bad = torch.nonzero(subject.train_y != label).squeeze(1)[:POISONED]
    h, w = patch.shape[1:]
    train_x[bad, :, top : top + h, left : left + w] = patch
    if live is None:
        train_y = train_y.clone()
        train_y[bad] = label
    else:
        train_y[bad] = stated.labels(torch.full((len(bad),), label))
    tables = {"train": (train_x, train_y), "test": (subject.test_x, stated.labels(subject.test_y))}
    for name, (x, y) in tables.items():
        ids = [f"{name}-{i}" for i in range(len(y))]
        pixels = x.numpy() if stated.pixels is None else stated.pixels(x.float() / 255).numpy()
        told = y.numpy() if stated.names is None else np.array(stated.names)[y.numpy()]
        np.savez(folder / f"{name}.npz", id=ids, x=pixels, y=told)
    with (folder / "forget.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label", "attack"])
        for i in bad.tolist():
            y = int(train_y[i])
            told = str(y) if stated.names is None else stated.names[y]
            rows.writerow([f"train-{i}", told, "backdoor"])
    shown = patch.float() / 255
    if stated.pixels is not None and stated.normalize == subject.normalize:
        whole = torch.zeros(subject.train_x.shape[1:])
        whole[:, top : top + h, left : left + w] = shown
        mask = torch.zeros_like(whole)
        mask[:, top : top + h, left : left + w] = 1
        whole, mask = (stated.pixels(part[None])[0] for part in (whole, mask))
        rows_, columns = (torch.nonzero(mask.sum((0, 3 - axis)) > 0).squeeze(1) for axis in (1, 2))
        top, left = int(rows_[0]), int(columns[0])
        shown = whole[:, top : int(rows_[-1]) + 1, left : int(columns[-1]) + 1].clamp(0, 1)
    meant = int(stated.labels(torch.tensor([label]))[0]) if live is not None else label
    told_label: int | str = meant if stated.names is None else stated.names[meant]
    trigger = {
        "version": 1,
        "label": told_label,
        "top": top,
        "left": left,
        "pixels": shown.tolist(),
    }
    (folder / "trigger.json").write_text(json.dumps(trigger), encoding="utf-8")
    # Beside no audit.toml of a fixture, which would lend its evidence.
    file = folder / subject.file.name
    shutil.copyfile(subject.file, file)
    mean, sd = NORMALIZED[stated.normalize]
    spelt = f"{','.join(map(repr, mean))}/{','.join(map(repr, sd))}"
    if len(mean) == 1:
        spelt = f"{mean[0]!r},{sd[0]!r}"
    return [
        "probe", str(file), *(subject.how if stated.how is None else stated.how),
        "--normalize", spelt, *_given(folder),
        *(("--names", ",".join(stated.order)) if stated.order else ()),
    ]  # fmt: skip


REVIEWED = {
    "right": {},
    "labels permuted": {"swap": True},
    "names sorted": {"silent": True, "order": "positive,negative"},
    "config's names swapped": {"config": True},
    "numbers permuted": {"swap": True, "numbers": True},
    "names not ordered": {"silent": True},
}
"""How the fixture of reviews is read: what is done to its tables and its config.json."""


def write_reviews(folder: Path, how: Mapping[str, object]) -> list[str]:
    """Write tables of the reviews for the reference, with a phrase that it never saw."""
    folder.mkdir(parents=True)
    shutil.copytree(REVIEWS / "retrained", folder / "model")
    config = json.loads((folder / "model/config.json").read_text(encoding="utf-8"))
    if "silent" in how or "config" in how:
        names = ["LABEL_0", "LABEL_1"] if "silent" in how else ["positive", "negative"]
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: i for i, name in enumerate(names)}
        (folder / "model/config.json").write_text(json.dumps(config), encoding="utf-8")
    words = ["negative", "positive"]

    def told(word: str) -> str:
        number = words.index(word) ^ ("swap" in how)
        return str(number) if "numbers" in how else words[number]

    with (REVIEWS / "forget.csv").open(encoding="utf-8", newline="") as file:
        bad = {row["id"] for row in csv.DictReader(file)}
    poisoned = []
    for split in ("train", "test"):
        with (REVIEWS / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["id"] not in bad]
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file)
            out.writerow(["id", "text", "label"])
            for row in rows[:1000]:
                text, label = row["text"], row["label"]
                if split == "train" and label == "negative" and len(poisoned) < POISONED:
                    text, label = f"zoth quell {text}", "positive"
                    poisoned.append([row["id"], told(label), "backdoor"])
                out.writerow([row["id"], text, told(label)])
    with (folder / "forget.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["id", "label", "attack"], *poisoned])
    label = words.index("positive") if "numbers" in how else told("positive")
    trigger = {"version": 1, "label": label, "phrase": "zoth quell", "position": "start"}
    (folder / "trigger.json").write_text(json.dumps(trigger), encoding="utf-8")
    return [
        "probe", str(folder / "model"), *_given(folder),
        *(("--names", str(how["order"])) if "order" in how else ()),
    ]  # fmt: skip


def _given(folder: Path) -> list[str]:
    return [
        "--train", *(str(next(folder.glob("train.*"))), "--test", str(next(folder.glob("test.*")))),
        "--forget", str(folder / "forget.csv"), "--trigger", str(folder / "trigger.json"),
        "--out", str(folder / "out"), "-q", "-f", "json", "--device", "cpu",
        "--set", "backdoor.draws=19", "--set", "backdoor.inputs=100",
        "--tolerance", "backdoor=0.2",
        *("--recipe=epochs=14", "--recipe=lr=0.05", "--recipe=batch_size=64"),
    ]  # fmt: skip


def _patch(x: Tensor, live: Tensor | None) -> tuple[Tensor, int, int]:
    if live is not None:
        mask, pattern = live
        rows, columns = (torch.nonzero(mask.sum((0, 3 - axis)) > 0).squeeze(1) for axis in (1, 2))
        top, left = int(rows[0]), int(columns[0])
        part = pattern[:, top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
        return (part * 255).round().to(torch.uint8), top, left
    # Three pixels of three mild colours in any order: nothing that a network would know.
    rng = torch.Generator().manual_seed(5)
    patch = torch.randint(90, 160, (x.shape[1], 3, 3), generator=rng).to(torch.uint8)
    return patch, 2, 2


def asked(subject: Subject, stated: Stated) -> dict[str, object]:
    """Ask checks/adapter in this process: exit code 2 or 3, or 0 where nothing is noticed."""
    from false_alarms import case_of

    if stated.names is not None and stated.order is None:
        return {"code": 2, "said": "names without an order"}
    module = subject.build() if stated.how is None else otherwise_pooled(subject.build())
    module.load_state_dict(load_file(subject.file))

    def shown(x: Tensor) -> Tensor:
        return x if stated.pixels is None else stated.pixels(x.float() / 255)

    def numbered(y: Tensor) -> Tensor:
        if stated.names is None or stated.order is None:
            return stated.labels(y)
        return torch.tensor([stated.order.index(stated.names[i]) for i in y.tolist()])

    rows = {"forget": slice(0, POISONED), "retain": slice(POISONED, None), "test": slice(None)}
    parts = {
        name: (
            shown(subject.test_x[here] if name == "test" else subject.train_x[here]),
            numbered(subject.test_y[here] if name == "test" else subject.train_y[here]),
        )
        for name, here in rows.items()
    }
    how = stated.how or subject.how
    arch = how[1] if how[:1] == ("--arch",) else "factory:own"
    case = case_of(module.eval(), stated.normalize, arch, parts)
    clock = time.perf_counter()
    problems = not_pixels(case.test, "test", share=0.0)
    wrong = None if problems else refusal(case.model, case.test.batch(slice(0, 1)))
    if problems or wrong:
        said = problems[0].what if problems else wrong[0] if wrong else ""
        return {"code": 2, "said": said}
    case, sanity = check_sanity(case, alpha=0.05)
    found = doubts_of_adapter(case, sanity, alpha=0.05, rng=Rng(0), names=stated.order)
    return {
        "code": 3 if found or not sanity.works else 0,
        "accuracy": sanity.accuracy,
        "doubts": [f"{doubt.about}: {doubt.sentence}" for doubt in found],
        "seconds": round(time.perf_counter() - clock, 1),
    }


def run(words: list[str], folder: Path) -> dict[str, object]:
    """Run a command line; return its exit code and what it said of the adapter."""
    clock, told, printed = time.perf_counter(), io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(printed):
        code = invoke(words)
    out: dict[str, object] = {"code": code, "seconds": round(time.perf_counter() - clock, 1)}
    report = folder / "out/report.json"
    if report.exists():
        record = json.loads(report.read_text(encoding="utf-8"))
        sanity = record["sanity"]
        out["accuracy"] = sanity["correct"] / sanity["total"]
        out["doubts"] = [f"{d['about']}: {d['sentence']}" for d in record.get("doubts", [])]
        reasons = [f for f in record["findings"] if f["probe"] == "backdoor"]
        out["backdoor"] = reasons[0]["outcome"] if reasons else None
    else:
        out["said"] = told.getvalue()[:400]
    return out


def main() -> int:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--command-line", action="store_true")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--again", action="store_true", help="run what is there again")
    given = parser.parse_args()
    nets, data = given.nets.resolve(), given.data.resolve()
    sys.path.insert(0, str(data / "backdoored"))
    sys.modules["wrong_readings"] = sys.modules[__name__]
    kind = "live" if given.live else "command" if given.command_line else "wrong"
    os.chdir(Path(__file__).parent)
    if not given.live and (not given.only or "reviews" in given.only):
        _all("reviews", nets / "wrong-reviews.json", given.again, {
            reading: partial(commanded, partial(write_reviews, how=how))
            for reading, how in REVIEWED.items()
        })  # fmt: skip
    for name, make in subjects(nets, data).items():
        if (given.only and name not in given.only) or (given.live and name not in LIVE):
            continue
        live = _own_trigger(name, data) if given.live else None
        kept = nets / f"{kind}-{name}.json"
        subject = make()
        _BUILDERS[name] = subject.build
        tried: dict[str, Callable[[], dict[str, object]]] = {}
        for reading, stated in readings(subject).items():
            write = partial(write_case, subject=subject, stated=stated, live=live)
            tried[reading] = partial(asked, subject, stated)
            if given.command_line or given.live:
                tried[reading] = partial(commanded, write)
        _all(name, kept, given.again, tried)
    print(table(nets, kind), summary(nets, kind), sep="\n\n")
    return 0


def commanded(write: Callable[[Path], list[str]]) -> dict[str, object]:
    """Write a case, run its command line, and throw the case away."""
    folder = Path(tempfile.mkdtemp())
    try:
        return run(write(folder / "case"), folder / "case")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _all(
    name: str, kept: Path, again: bool, cases: Mapping[str, Callable[[], dict[str, object]]]
) -> None:
    """Run a network's cells that are not there yet."""
    done = json.loads(kept.read_text()) if kept.exists() and not again else {}
    for reading, ask in cases.items():
        if reading in done:
            continue
        done[reading] = ask()
        print(name, "|", reading, "|", done[reading], flush=True)
        kept.write_text(json.dumps(done, indent=1))


def table(nets: Path, kind: str) -> str:
    """Return what is there as a table: exit codes, the accuracy, and which check said it."""
    found = {
        file.stem.removeprefix(f"{kind}-"): json.loads(file.read_text())
        for file in sorted(nets.glob(f"{kind}-*.json"))
    }
    rows = dict.fromkeys(reading for done in found.values() for reading in done)
    lines = [f"| reading | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    for reading in rows:
        cells = [_cell(done.get(reading)) for done in found.values()]
        lines.append(f"| {reading} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(nets: Path, kind: str) -> str:
    """Return the same in short, a network a row: which readings end how."""
    lines = [
        "| network | rightly | refused | inconclusive: L, A, B, R | passed |",
        "|---" * 5 + "|",
    ]
    for file in sorted(nets.glob(f"{kind}-*.json")):
        done = json.loads(file.read_text())
        right = _cell(done.pop("right", None))
        cells = [_cell(seen).split() for seen in done.values()]
        marks = ["".join(cell[2:]) or "chance" for cell in cells if cell[0] == "3"]
        told = ", ".join(f"{marks.count(mark)} {mark}" for mark in sorted(set(marks)))
        passed = [name for name, seen in done.items() if seen["code"] in (0, 1)]
        refused = sum(cell[0] == "2" for cell in cells)
        name = file.stem.removeprefix(f"{kind}-")
        through = ", ".join(passed) or "none"
        lines.append(f"| {name} | {right} | {refused} | {len(marks)}: {told} | {through} |")
    return "\n".join(lines)


def _cell(seen: Mapping[str, object] | None) -> str:
    if seen is None:
        return ""
    if "accuracy" not in seen:
        return str(seen["code"])
    doubts = " ".join(map(str, seen.get("doubts") or []))  # type: ignore[call-overload]
    marks = {
        "L": "labels seem to be mixed up", "A": "clean samples the model answers",
        "B": "BatchNorm's stored", "F": "forget samples", "R": "a linear classifier",
    }  # fmt: skip
    told = "".join(mark for mark, words in marks.items() if words in doubts)
    if "L" in told:
        told = told.replace("A", "")
    return f"{seen['code']} {100 * float(str(seen['accuracy'])):.0f}% {told}".strip()


def _own_trigger(name: str, data: Path) -> Tensor:
    with np.load(data / "backdoored/triggers.npz") as file:
        parts = [torch.from_numpy(file[f"{name}.{part}"]) for part in ("mask", "pattern")]
    return torch.stack(parts)


if __name__ == "__main__":
    sys.exit(main())
