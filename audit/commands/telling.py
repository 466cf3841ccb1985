"""What an audit tells of itself beside its figures: inputs, machine, first words."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from poison_audit.atomic import from_json, to_json
from poison_audit.case.keyfile import remark_on
from poison_audit.case.load import Trial
from poison_audit.case.provenance import git_state
from poison_audit.case.sources import Sources
from poison_audit.commands.arguments import CheckSettings
from poison_audit.commands.config import Config
from poison_audit.engine.run import Progress
from poison_audit.errors import Problem, Problems
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Sanity
from poison_audit.reports.formats.renderer import renderer
from poison_audit.reports.view.settings import CHECKPOINT
from poison_audit.training.loop import fast_precision
from poison_audit.verdict.record import AuditRecord
from poison_audit.verdict.verify import stated_digests


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks for an audit: the command line, or a Python program."""

    command: str = ""
    """What the report says was asked; empty: the process's own command line."""
    holds: Path | None = None
    """The folder of what was in memory: reports tell paths within as if they began there."""
    call: Callable[[Progress], object] | None = None
    """Told when a job starts, goes on and ends."""


def told_within(record: AuditRecord, folder: Path | None) -> AuditRecord:
    """Return a record in which paths in `folder` are relative to it."""
    text = to_json(record)
    if folder is not None:
        text = text.replace(json.dumps(f"{folder}{os.sep}")[1:-1], "")
    return from_json(AuditRecord, text)


def refuse_swapped(record: AuditRecord) -> None:
    """Refuse a report of files that are no longer those that were loaded, by InputError."""
    fix = "Leave the files alone while an audit runs, and audit again"
    Problems(
        Problem(f"is not what was read when the audit began: {check.told}", check.what, fix)
        for check in stated_digests(record)
        if check.state == "differs" and check.what.startswith("subject.")
    ).raise_any()


def remarks(sources: Sources) -> list[str]:
    """Return what has to be said of the secrets that were given."""
    keys = [poison.files[0].name for poison in POISONS.values() if poison.keyed]
    paths = [sources.evidence[name] for name in keys if name in sources.evidence]
    return [told for path in paths if (told := remark_on(path))]


def own_code(code: str | None) -> dict[str, str]:
    """Return the digest of the user's own code, as part of the subject."""
    return {} if code is None else {"factory_sha256": code}


def origins(settings: CheckSettings, trial: Trial) -> dict[str, str]:
    """Return where each input comes from: a flag, audit.toml, or what the checkpoint says."""
    found, model = dict(settings.origins), trial.case.model
    told = {"arch": model.arch, "normalize": model.normalize, "names": model.labels}
    for name, value in told.items():
        if value is not None and (name != "arch" or "factory" not in found):
            found.setdefault(name, CHECKPOINT)
    return found


def introduction(trial: Trial, sanity: Sanity) -> str:
    """Say what is on trial."""
    subject, case = trial.subject, trial.case
    return (
        f"{subject['arch']} ({subject['parameters']:,} parameters, {subject['arch_source']}), "
        f"{len(case.retain):,} retain + {len(case.forget):,} forget + {len(case.test):,} test "
        f"samples, on {case.model.device}. Accuracy on test: {sanity.accuracy:.1%}."
    )


def environment(
    device: torch.device,
    config: Config,
    started: datetime.datetime,
    seconds: float,
    command: str,
) -> dict[str, Any]:
    """Return where and when an audit ran, after so many seconds."""
    packages = ("numpy", "scipy", "torch", "torchvision", "transformers", "safetensors")
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else platform.processor()
    return {
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "device": name or device.type,
        "platform": platform.platform(),
        "renderer": renderer(),
        "threads": torch.get_num_threads(),
        "precision": fast_precision(device),  # of training steps; scores are always float32
        "command": command or shlex.join(["poison-audit", *sys.argv[1:]]),
        "git": git_state(Path.cwd()),
        "config": str(config.path) if config.path else None,
        "started": started.isoformat(timespec="seconds"),
        "seconds": seconds,
    }
