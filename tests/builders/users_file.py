"""A user's own file, for mypy alone: pyproject.toml asks of it what `--strict` does."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import poison_audit as pa


def check(model: nn.Module, train: TensorDataset, test: DataLoader[torch.Tensor]) -> bool:
    def told(progress: pa.Progress) -> None:
        print(progress.job.candidate, progress.done, progress.total)

    record: pa.AuditRecord = pa.audit(
        model,
        train=train,
        test=(torch.zeros(2, 3, 8, 8), [0, 1]),
        forget=[1, 2],
        recipe={"epochs": 3, "lr": 0.1},
        evidence=["canaries.json"],
        methods=["gd"],
        normalize=((0.5,), (0.5,)),
        tolerances={"gaussian": 0.3},
        progress=told,
    )
    fixed: nn.Module = pa.unlearn(
        model, method="scrub", train=train, test=test, forget="forget.csv", recipe={"epochs": 3}
    )
    for finding in record.findings:
        print(finding.probe, finding.statistic, finding.outcome)
    again = pa.probe(
        "model.safetensors",
        train=Path("a.npz"),
        test="b.npz",
        forget=[True, False],
        candidates={"fixed": fixed},
        gate="fixed",
    )
    found = pa.repair(model, train=train, test=test, forget={"id": ["a"]}, recipe={"epochs": 3})
    planted = pa.plant(train, attack="backdoor", out="planted", label=0)
    saved: Path = again.save("out", ["sarif"])
    return record.passed and found.passed and saved.exists() and len(planted.train) > 0
