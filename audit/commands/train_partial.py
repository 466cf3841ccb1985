"""OUTPUT.partial: where an interrupted training stood, so that the same command goes on there."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from poison_audit.atomic import digest_of, written_whole
from poison_audit.commands.train_job import Job, stated
from poison_audit.engine import runs
from poison_audit.models.factory import FACTORY, user_code
from poison_audit.training.ledger import Snapshot, Watch
from poison_audit.training.loop import fast_precision

EVERY = 30.0
"""Seconds between two snapshots."""


def fingerprint(job: Job, *, weights: str) -> str:
    """Return the SHA-256 of everything that decides the trained model.

    Args:
        weights: the digest of the initial weights, which the architecture and the seed decide.
    """
    texts = job.subject.texts
    told = {
        "version": version("poison-audit"),
        "code": runs.code_digest("commands/train*.py"),
        "factory": user_code() if job.model.arch.startswith(FACTORY) else None,
        "torch": torch.__version__,
        "device": job.device.type,
        "precision": fast_precision(job.device),
        "data": job.data.digest(),
        "arch": job.model.arch,
        "normalize": job.subject.normalize,
        "config": texts and [texts.config, texts.reading.words],
        "weights": weights,
        "recipe": stated(job.recipe),
        "seed": job.rng.root,
    }
    return digest_of(told)


def saver(path: Path, key: str) -> Watch:
    """Return what writes a snapshot to `path` every `EVERY` seconds."""
    last = time.monotonic()

    def save(step: int, take: Callable[[], Snapshot]) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            write_partial(path, key, take())
            last = time.monotonic()

    return save


def write_partial(path: Path, key: str, snapshot: Snapshot) -> None:
    """Write a snapshot as safetensors; a reader finds the file whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in snapshot.tensors.items()}
    metadata = {"fingerprint": key, "step": str(snapshot.step)}
    with written_whole(path) as beside:
        beside.write_bytes(safetensors.torch.save(tensors, metadata))


def read_partial(path: Path, key: str) -> tuple[Snapshot | None, str]:
    """Return the snapshot to go on from, and what is to be said of the file.

    A file that is broken, or of another fingerprint, is never used: it will be overwritten.
    """
    if not path.is_file():
        return None, ""
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("fingerprint") != key:
                what = "other data, another recipe, seed, architecture or version"
                return None, f"{path} is of {what}: starting anew."
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        return None, f"{path} cannot be read ({error}): starting anew."
    step = int(metadata["step"])
    return Snapshot(step=step, tensors=tensors), f"{path}: going on after step {step:,}."
