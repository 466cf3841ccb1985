"""targets.csv: the test samples that a targeted attack was to have misclassified, and as what."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.copies import contents
from poison_audit.case.csvfile import CsvFile, first, read_csv
from poison_audit.case.labels import as_integer
from poison_audit.case.rows import find_samples, label_spelt, repeated, wrong_label
from poison_audit.errors import InputError, Problem, did_you_mean
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples

COLUMNS = ("id", "path", "text", "index", "label", "adversarial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Targets:
    """Test samples that a targeted attack was to have misclassified."""

    samples: Samples
    """Clean, with their true labels; ids are those of the test table."""
    adversarial: Tensor
    """The label each was to be given, never its true one: int64, (n,)."""

    def __len__(self) -> int:
        return len(self.samples)

    def once(self) -> Targets:
        """Return the targets without those that show what an earlier one shows, under another id.

        They would be one target that counts twice.
        """
        first: dict[tuple[bytes, int], int] = {}
        pairs = zip(contents(self.samples), self.adversarial.tolist(), strict=True)
        for place, pair in enumerate(pairs):
            first.setdefault(pair, place)
        kept = list(first.values())
        return replace(self, samples=self.samples.at(kept), adversarial=self.adversarial[kept])

    def to(self, device: torch.device | str) -> Targets:
        """Return the same targets on `device`."""
        return replace(
            self, samples=self.samples.to(device), adversarial=self.adversarial.to(device)
        )


def read_targets(
    path: Path, test: Samples, *, where_test: str, reader: Reader | None = None
) -> Targets:
    """Read which samples of `test` were attacked, and the label each was to be given.

    A row names its sample as `find_samples` says. Labels are names or class numbers. A `text` that
    is not in the test table, with its true `label`, is a prompt of its own.

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
        _label(row["adversarial"], place, test)
        for row, place in zip(table.rows, table.places(), strict=True)
    ]
    problems += first([label for label in labels if isinstance(label, Problem)], table.where)
    problems += first(_untrue(table, found, labels, test, where_test), table.where)
    if problems:
        raise InputError(problems)
    return Targets(
        samples=test.at([position for position in found if isinstance(position, int)]),
        adversarial=torch.tensor(
            [label for label in labels if isinstance(label, int)],
            dtype=torch.int64,
            device=test.y.device,
        ),
    )


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
    labels = [_label(row["label"], place, test, "label") for row, place in rows]
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
    """Write targets.csv, labels by name where `names` are given."""

    def spelt(label: int) -> str:
        return names[label] if names is not None else str(label)

    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "label", "adversarial"])
        labels, wanted = (map(spelt, y.tolist()) for y in (targets.samples.y, targets.adversarial))
        writer.writerows(zip(targets.samples.ids, labels, wanted, strict=True))


def _label(text: str, place: str, test: Samples, what: str = "adversarial label") -> int | Problem:
    if not text:
        return Problem(f"the {what} is empty", place)
    if test.names and text in test.names:
        return test.names.index(text)
    number, classes = as_integer(text), len(test.names) if test.names else int(test.y.max()) + 1
    if number is not None and 0 <= number < classes:
        return number
    hint = did_you_mean(text, test.names) if test.names else f"Classes are 0 to {classes - 1}."
    return Problem(f"unknown {what} {text!r}", place, hint)


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
