"""targets.csv: the test samples that a targeted attack was to have misclassified, and as what."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.copies import contents
from poison_audit.case.csvfile import CsvFile, first, read_csv
from poison_audit.case.rows import find_samples, label_named, label_spelt, repeated, wrong_label
from poison_audit.errors import InputError, Problem
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng

COLUMNS = ("id", "path", "text", "index", "label", "adversarial", "role")
ROLES = ("target", "control")
"""What a row may be; where nothing is said, a target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Test samples that a targeted attack was to have misclassified."""

    samples: Samples
    """Clean, with their true labels; ids are those of the test table."""
    adversarial: Tensor
    """The label each was to be given, never its true one: int64, (n,)."""
    controls: Targets | None = None
    """Candidates that a toss left alone, each with the label that it was to be given; None: no toss
    decided who was attacked."""

    def __len__(self) -> int:
        return len(self.samples)

    def once(self) -> Targets:
        """Return the targets without those that show what an earlier one shows, under another id.

        They would be one target that counts twice. So would a control that shows what a target
        does.
        """
        kept, controls = self._new(set()), self.controls
        if controls is not None:
            controls = controls.at(controls._new(set(self._shown())))
        return replace(self.at(kept), controls=controls)

    def at(self, places: Sequence[int]) -> Targets:
        """Return the targets at these places, with the controls of all."""
        return replace(self, samples=self.samples.at(places), adversarial=self.adversarial[places])

    def tossed(self, rng: Rng) -> Targets:
        """Return one half of these candidates as targets, drawn at random, the others as controls.

        Of an odd number one more is a target. Both halves keep their order.
        """
        drawn = rng.numpy().permutation(len(self))
        half = (len(self) + 1) // 2
        mine, others = sorted(drawn[:half].tolist()), sorted(drawn[half:].tolist())
        return replace(self.at(mine), controls=self.at(others))

    def _shown(self) -> Iterator[tuple[bytes, int]]:
        return zip(contents(self.samples), self.adversarial.tolist(), strict=True)

    def _new(self, seen: set[tuple[bytes, int]]) -> list[int]:
        """Return the places of those that show something else than `seen` and those before."""
        first: dict[tuple[bytes, int], int] = {}
        for place, pair in enumerate(self._shown()):
            first.setdefault(pair, place)
        return [place for pair, place in first.items() if pair not in seen]

    def to(self, device: torch.device | str) -> Targets:
        """Return the same targets on `device`."""
        return replace(
            self,
            samples=self.samples.to(device),
            adversarial=self.adversarial.to(device),
            controls=None if self.controls is None else self.controls.to(device),
        )


def read_targets(
    path: Path, test: Samples, *, where_test: str, reader: Reader | None = None
) -> Targets:
    """Read which samples of `test` were attacked, and the label each was to be given.

    A row names its sample as `find_samples` says. Labels are names or class numbers. A `text` that
    is not in the test table, with its true `label`, is a prompt of its own. A row whose `role` is
    control was not attacked, and a toss decided that.

    Args:
        path: targets.csv.
        test: the test table.
        where_test: what messages call the test table.
        reader: of the model, where it reads texts.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    table = read_csv(path, needed=("adversarial",), known=COLUMNS)
    test, prompts = _with_prompts(test, table, reader)
    found = find_samples(table, test, where=where_test)
    problems = first(prompts + [p for p in found if isinstance(p, Problem)], table.where)
    positions = [position if isinstance(position, int) else None for position in found]
    problems += repeated("sample", positions, table)
    labels = [
        label_named(row["adversarial"], place, test, "adversarial label")
        for row, place in zip(table.rows, table.places(), strict=True)
    ]
    problems += first([label for label in labels if isinstance(label, Problem)], table.where)
    problems += first(_untrue(table, found, labels, test, where_test), table.where)
    roles = [row.get("role", "") or ROLES[0] for row in table.rows]
    problems += first(_wrong_roles(table, roles), table.where)
    if problems:
        raise InputError(problems)
    every = Targets(
        samples=test.at([position for position in found if isinstance(position, int)]),
        adversarial=torch.tensor(
            [label for label in labels if isinstance(label, int)],
            dtype=torch.int64,
            device=test.y.device,
        ),
    )
    targets, controls = ([at for at, role in enumerate(roles) if role == own] for own in ROLES)
    return replace(every.at(targets), controls=every.at(controls) if controls else None)


def _wrong_roles(table: CsvFile, roles: Sequence[str]) -> list[Problem]:
    known = " or ".join(ROLES)
    problems = [
        Problem(f"unknown role {role!r:.60}", place, f"Use {known}.")
        for role, place in zip(roles, table.places(), strict=True)
        if role not in ROLES
    ]
    if not problems and ROLES[0] not in roles:
        problems = [Problem("no row is a target", table.where, f"The role is {known}.")]
    return problems


def _with_prompts(
    test: Samples, table: CsvFile, reader: Reader | None
) -> tuple[Samples, list[Problem]]:
    """Return the test samples and, after them, the prompts that the table brings itself."""
    by_text = "text" in table.columns and not {"id", "path"} & set(table.columns)
    alone = test.texts is not None and test.pairs is None
    if reader is None or test.texts is None or not (alone and by_text and "label" in table.columns):
        return test, []
    known = set(test.texts)
    rows = [
        (row, place)
        for row, place in zip(table.rows, table.places(), strict=True)
        if row["text"] and row["text"] not in known
    ]
    if not rows:
        return test, []
    labels = [label_named(row["label"], place, test, "label") for row, place in rows]
    problems = [label for label in labels if isinstance(label, Problem)]
    texts = [row["text"] for row, _ in rows]
    tokens = reader.read(texts)
    prompts = Samples(
        ids=tuple(f"prompt in {place}" for _, place in rows),
        x=tokens.x,
        y=torch.tensor([0 if isinstance(label, Problem) else label for label in labels]),
        texts=tuple(texts),
        mask=tokens.mask,
        cut=tokens.cut,
    )
    width = max(test.x.shape[1], prompts.x.shape[1])
    return _widened(test, width).joined(_widened(prompts, width)), problems


def _widened(samples: Samples, width: int) -> Samples:
    """Return texts with padding up to `width` tokens."""
    if samples.mask is None:
        raise ValueError("only texts are padded")
    more = (0, width - samples.x.shape[1])
    return replace(samples, x=F.pad(samples.x, more), mask=F.pad(samples.mask, more))


def write_targets(path: Path, targets: Targets, names: Sequence[str] | None = None) -> None:
    """Write targets.csv and the controls in it, labels by name where `names` are given."""

    def spelt(label: int) -> str:
        return names[label] if names is not None else str(label)

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label", "adversarial", "role"])
        for role, part in zip(ROLES, (targets, targets.controls), strict=True):
            if part is None:
                continue
            pairs = zip(part.samples.y.tolist(), part.adversarial.tolist(), strict=True)
            for name, (label, wanted) in zip(part.samples.ids, pairs, strict=True):
                writer.writerow([name, spelt(label), spelt(wanted), role])


def _untrue(
    table: CsvFile,
    found: Sequence[int | Problem],
    labels: Sequence[int | Problem],
    test: Samples,
    where_test: str,
) -> list[Problem]:
    """Return the rows whose `label` is not the test table's, or whose adversarial one is."""
    problems = []
    for row, place, position, label in zip(table.rows, table.places(), found, labels, strict=True):
        if not isinstance(position, int):
            continue
        true = int(test.y[position])
        if what := wrong_label(row, test, position, where_test):
            problems.append(Problem(what, place))
        if label == true:
            what = f"the adversarial label is the true one, {label_spelt(test, true)}"
            problems.append(Problem(what, place, "Name the label it was to be given instead."))
    return problems
