"""Cases of pictures and of texts, loaded twice: on the CPU and on the pretend device."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builders.pretend_cuda import pretend_cuda
from builders.pretend_device import Device
from builders.pretend_tensor import Pretend
from builders.small_case import read_rows, write_rows
from builders.small_text import LENGTH, WIDTH, tokenizer
from poison_audit.case.case import Case
from poison_audit.case.load import Trial
from poison_audit.case.sources import Sources
from poison_audit.checks.sanity import check_sanity
from poison_audit.commands.inputs import load
from poison_audit.engine.measuring import answers, load_references
from poison_audit.models.model import Model
from poison_audit.models.reader import Reading
from poison_audit.records import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A case with all that stands around it."""

    trial: Trial
    case: Case
    references: list[Model]


@dataclass(frozen=True, slots=True, kw_only=True)
class Twins:
    """The same case on the CPU and on the pretend device."""

    cpu: Loaded
    cuda: Loaded


def loaded(sources: Sources, recipe: Recipe, device: str) -> Loaded:
    trial = load(sources, recipe, device)
    case, _ = check_sanity(trial.case, alpha=0.05)
    references = load_references(trial)
    case = replace(case, references=answers(trial, references))
    return Loaded(trial=replace(trial, case=case), case=case, references=references)


def twins(sources: Sources, recipe: Recipe) -> Twins:
    cpu = loaded(sources, recipe, "cpu")
    with pretend_cuda():
        return Twins(cpu=cpu, cuda=loaded(sources, recipe, "cuda"))


def both(case: Twins, work: Callable[[Loaded], Any], **device: Any) -> tuple[Any, Any, Device]:
    """Return what some work gives on the CPU and on the device, and what happened there."""
    expected = work(case.cpu)
    with pretend_cuda(**device) as watched:
        return expected, work(case.cuda), watched


def picture_files(made: Path, folder: Path) -> Sources:
    """Write a case that has evidence of every poison of pictures into a copy of the small one."""
    shutil.copytree(made, folder)
    test = np.load(folder / "test.npz")
    targets = [[str(test["id"][i]), (int(test["y"][i]) + 1) % 3] for i in range(6)]
    write_rows(folder / "targets.csv", ["id", "adversarial"], targets)
    pixels = np.random.default_rng(0).integers(0, 2, (1, 3, 3)).astype(float).tolist()
    patch = {"version": 1, "label": 0, "top": 0, "left": 0, "pixels": pixels}
    (folder / "trigger.json").write_text(json.dumps(patch), encoding="utf-8")
    header, *rows = read_rows(folder / "forget.csv")
    train = np.load(folder / "train.npz")
    rows = [[*row, ""] for row in rows]
    for place in range(30, 36):
        label = int(train["y"][place])
        rows.append([str(train["id"][place]), str(label), "mislabelled", "", str((label + 1) % 3)])
    write_rows(folder / "forget.csv", [*header, "clean_label"], rows)
    names = {"canaries": "canaries.json", "bases": "bases.npz", "targets": "targets.csv",
             "trigger": "trigger.json"}  # fmt: skip
    return Sources(
        model=folder / "model.safetensors", forget=folder / "forget.csv",
        train=folder / "train.npz", test=folder / "test.npz",
        evidence={name: folder / file for name, file in names.items()},
        references=(folder / "clean.safetensors",), normalize="none",
    )  # fmt: skip


def text_files(made: Path, folder: Path) -> Sources:
    """Copy the small case of texts; its GPT-2 has dropout."""
    shutil.copytree(made, folder)
    for path in folder.glob("*/config.json"):
        told = json.loads(path.read_text(encoding="utf-8"))
        told |= {"resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1}
        path.write_text(json.dumps(told), encoding="utf-8")
    names = {"canaries": "canaries.json", "strings": "strings.json", "trigger": "trigger.json"}
    return Sources(
        model=folder / "model", forget=folder / "forget.csv", train=folder / "train.csv",
        test=folder / "test.csv",
        evidence={name: folder / file for name, file in names.items()},
        references=(folder / "clean",),
    )  # fmt: skip


def word_files(made: Path, folder: Path) -> Sources:
    """Write a causal GPT-2 with dropout, whose classes are words, beside the small texts."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shutil.copytree(made, folder)
    words = tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = GPT2Config(vocab_size=len(words), n_positions=LENGTH, n_embd=WIDTH, n_layer=1,
                            n_head=2, bos_token_id=0, eos_token_id=0)  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(folder / "causal")
    words.save_pretrained(folder / "causal")
    return Sources(
        model=folder / "causal", forget=folder / "forget.csv", train=folder / "train.csv",
        test=folder / "test.csv", evidence={"trigger": folder / "trigger.json"},
        reading=Reading(words=(" bad", " good")),
    )  # fmt: skip


def weights(model: Model) -> torch.Tensor:
    """Return all parameters as float64, (n,), whether or not the pretend device is still there."""
    every = (p.inner if isinstance(p, Pretend) else p for p in model.module.parameters())
    return torch.cat([p.detach().double().flatten() for p in every])


def same(a: Any, b: Any, tolerance: float = 1e-4) -> bool:
    """Return whether two nests of plain values agree, floats up to a tolerance."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key], tolerance) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, float):
        return math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
    return bool(a == b)


PICTURES = Recipe(epochs=2, batch_size=20, lr=0.05, momentum=0.9, augment="crop-flip")
TEXTS = Recipe(epochs=2, batch_size=20, lr=1e-3, optimizer="adamw")
