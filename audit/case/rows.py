"""Rows of a CSV file that name samples of a table."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from poison_audit.case.csvfile import CsvFile, first
from poison_audit.case.labels import as_integer, as_whole
from poison_audit.errors import InputError, Problem, did_you_mean
from poison_audit.models.samples import Samples

NAMING = ("id", "path", "text", "index")
"""The columns that name a sample."""


def find_samples(table: CsvFile, samples: Samples, *, where: str) -> list[int | Problem]:
    """Return for each row the position of the sample it names, or what is wrong with it.

    It may be named by its `id`, its `path` (relative to the samples' table, to the file that names
    it or to the working folder, or absolute), its `text`, and its `index` (the position from 0).
    Where several of these stand in a row they must name the same sample.

    Args:
        table: the file.
        samples: what its rows name.
        where: what messages call the samples' table.

    Raises:
        InputError: no column names the samples, or by their positions while the order is in doubt.
    """
    columns = [name for name in NAMING if name in table.columns]
    if not columns:
        fix = "Name them by id, path, text or index."
        raise InputError(Problem("no column names the samples", table.where, fix))
    if columns == ["index"] and samples.doubted_order:
        raise InputError(Problem(samples.doubted_order, table.where, "Name them by path or id."))
    names = _Names(samples, Path(table.where).parent)
    return [
        _sample(row, place, columns, names, where)
        for row, place in zip(table.rows, table.places(), strict=True)
    ]


def _sample(
    row: Mapping[str, str], place: str, columns: Sequence[str], names: _Names, where: str
) -> int | Problem:
    stated = [name for name in columns if row[name]]
    # Where a table has no paths or texts, such columns say nothing that others do not.
    stated = [n for n in stated if names.holds(n) or names.places(n, row[n])] or stated
    if not stated:
        return Problem(f"the {columns[0]} is empty", place)
    if stated == ["index"] and names.samples.doubted_order:
        return Problem(names.samples.doubted_order, place, "Name it by path or id.")
    found = {name: names.places(name, row[name]) for name in stated}
    for name, at in found.items():
        if not at:
            what = f"no sample of {where} has the {name} {row[name]!r:.200}"
            return Problem(what, place, names.advice(name, row[name]))
    common = set.intersection(*map(set, found.values()))
    if len(common) == 1:
        return common.pop()
    if common:
        name = stated[-1]
        what = f"{len(common)} samples of {where} have the {name} {row[name]!r:.200}"
        return Problem(what, place, "Name it by id or index.")
    told = " and ".join(
        f"the {name} {row[name]!r:.80} is sample {at[0]} ({names.samples.ids[at[0]]!r:.80})"
        for name, at in found.items()
    )
    return Problem(f"{told}", place, "Correct one, or leave out the column that is of another use.")


class _Names:
    """By what the samples of a table can be named, and where each then stands."""

    def __init__(self, samples: Samples, beside: Path) -> None:
        self.samples = samples
        self.beside = beside
        self.gone = {out.position: out for out in samples.left_out}
        self.ids = {name: place for place, name in enumerate(samples.ids)}
        self.texts: defaultdict[str, list[int]] = defaultdict(list)
        for place, text in enumerate(samples.texts or ()):
            self.texts[text].append(place)
        self.paths: defaultdict[str, list[int]] = defaultdict(list)
        for place, path in enumerate(samples.paths or samples.ids):
            self.paths[slashed(path)].append(place)

    def holds(self, column: str) -> bool:
        """Say whether samples of this table can be named by such a column."""
        samples = self.samples
        return {"text": samples.texts is not None, "path": samples.paths is not None}.get(
            column, True
        )

    def places(self, column: str, text: str) -> Sequence[int]:
        """Return the positions of the samples that a cell names."""
        if column == "text":
            return self.texts.get(text, ())
        if column == "index":
            number = as_whole(text)
            if number is None or number in self.gone:
                return ()
            # Of the table's rows, some are no samples.
            number -= sum(position < number for position in self.gone)
            return (number,) if 0 <= number < len(self.samples) else ()
        if column == "id":
            found = self.ids.get(text)
            # 12.0 is what pandas makes of 12 once a cell of its column was empty.
            if found is None and (number := as_whole(text)) is not None:
                found = self.ids.get(str(number))
            return () if found is None else (found,)
        return self.paths.get(slashed(text)) or self._file(slashed(text))

    def _file(self, path: str) -> Sequence[int]:
        """Return the positions of a file that is named otherwise than in its table."""
        folder = self.samples.folder
        if folder is None or "\0" in path:
            return ()
        inside = set[str]()
        for start in (self.beside, Path()):
            # What is a link stays one: a picture has its own name in its table's folder.
            whole = Path(os.path.abspath(start / path))  # noqa: PTH100
            for root in (Path(os.path.abspath(folder)), folder.resolve()):  # noqa: PTH100
                if whole.is_relative_to(root):
                    inside.add(whole.relative_to(root).as_posix())
        return sorted({place for name in inside for place in self.paths.get(name, ())})

    def advice(self, column: str, text: str) -> str:
        """Return what to do about a name that no sample has."""
        named = [
            out.where for out in self.samples.left_out
            if text == {"id": out.id, "index": str(out.position)}.get(column)
        ]  # fmt: skip
        if named:
            return f"{named[0]} holds no text that the model can read: remove this row."
        if column == "index" and text == str(len(self.samples)):
            return "Positions count from 0."
        if column == "path" and self.samples.folder is not None:
            return f"Write paths relative to {self.samples.folder}."
        return ""


def slashed(path: str) -> str:
    r"""Return a path as one of POSIX, whatever it was written on.

    >>> slashed(r".\cat\1.png"), slashed("./cat//1.png")
    ('cat/1.png', 'cat/1.png')
    """
    return PurePosixPath(path.replace("\\", "/")).as_posix()


def repeated(noun: str, values: Sequence[object], table: CsvFile) -> list[Problem]:
    """Return the rows whose value stands in an earlier row as well; None counts as no value."""
    row_of: dict[object, int] = {}
    problems = []
    for value, number in zip(values, table.numbers, strict=True):
        if value is not None and (other := row_of.setdefault(value, number)) != number:
            what = f"the same {noun} as in {table.unit} {other}"
            problems.append(Problem(what, table.place(number), "Remove one."))
    return first(problems, table.where)


def wrong_label(row: dict[str, str], samples: Samples, position: int, where: str) -> str:
    """Say that a row's `label`, a name or a number, is not its sample's; empty if it is."""
    stated, trained = row.get("label", ""), int(samples.y[position])
    name = label_name(samples, trained)
    alike = name is not None and stated.casefold() == name.casefold()
    if not stated or alike or as_whole(stated) == trained:
        return ""
    return f"the label is {stated!r}, but {where} says {label_spelt(samples, trained)}"


def label_name(samples: Samples, label: int) -> str | None:
    """Return what a class is called, where its table says."""
    return samples.names[label] if samples.names and label < len(samples.names) else None


def label_written(samples: Samples, label: int) -> str:
    """Return a label as a table says it: by its name, where there is one."""
    return label_name(samples, label) or str(label)


def label_spelt(samples: Samples, label: int) -> str:
    """Return a class number and, where there is one, its name."""
    name = label_name(samples, label)
    return f"{label} ({name!r})" if name else str(label)


def label_named(text: str, place: str, samples: Samples, what: str = "label") -> int | Problem:
    """Return the class that a cell names, by a name or a number of the samples' classes.

    Args:
        text: the cell.
        place: where it stands, for messages.
        samples: whose classes they are.
        what: what messages call it.
    """
    if not text:
        return Problem(f"the {what} is empty", place)
    if samples.names and text in samples.names:
        return samples.names.index(text)
    classes = len(samples.names) if samples.names else int(samples.y.max()) + 1
    number = as_integer(text)
    if number is not None and 0 <= number < classes:
        return number
    hint = (
        did_you_mean(text, samples.names) if samples.names else f"Classes are 0 to {classes - 1}."
    )
    return Problem(f"unknown {what} {text!r:.60}", place, hint)
