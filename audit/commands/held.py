"""What a Python program holds in memory -> the files that an audit reads.

An audit knows files alone, so that it is the same whoever asks for it: models become safetensors or
a transformers folder, pictures an `.npz`, texts a CSV, forget sets a CSV or a JSON list. No value
changes on the way.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from poison_audit.case.items import INPUTS, LABELS, array_of, item_of
from poison_audit.errors import InputError, Problem
from poison_audit.models.hugging_face import offline
from poison_audit.models.saving import write_tensors

TWICE = 8
"""Items that are asked for twice, at places spread over a data set: augmentation shows."""
MADE = "_poison_audit_made"
"""The attribute of a module that was made here from another: what its header would say."""


class Held:
    """A folder for what was in memory, and what has to be said of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[str] = []
        """What the program should know, in sentences."""
        self.shape: tuple[int, ...] | None = None
        """Of the pictures that were in memory, (c, h, w) or (h, w, c)."""

    def table(self, data: Any, name: str) -> Path:
        """Return the file of a table.

        Args:
            data: a path; arrays `(x, y)` or by name; a TensorDataset; a map-style Dataset; a
                DataLoader, of which its data set counts, in its order; Hugging Face's Dataset.
            name: what it is called: train, test.

        Raises:
            InputError: it is none of these, or its items are no samples.
        """
        if isinstance(data, str | Path):
            return Path(data)
        if isinstance(data, DataLoader):
            if isinstance(data.sampler, RandomSampler):
                self.told.append(
                    f"{name}: the loader shuffles. Positions count in its data set's own order."
                )
            return self.table(data.dataset, name)
        if type(data).__module__.partition(".")[0] == "datasets" and hasattr(data, "features"):
            return self._of_hub(data, name)
        return self._written(_arrays(data, name), name)

    def _of_hub(self, data: Any, name: str) -> Path:
        plain = data.with_format(None)
        if any(type(each).__name__ == "Image" for each in data.features.values()):
            folder = self.folder / name
            plain.flatten_indices(keep_in_memory=True).save_to_disk(folder)
            return folder
        columns = list(data.column_names)
        return self._csv(columns, ([row[key] for key in columns] for row in plain), name)

    def _written(self, arrays: dict[str, Any], name: str) -> Path:
        x = arrays["x"]
        self.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(x, list):
            called = {"x": "text", "y": "label"}
            columns = [called.get(key, key) for key in arrays]
            return self._csv(columns, zip(*arrays.values(), strict=True), name)
        self.shape = self.shape or tuple(x.shape[1:])
        path = self.folder / f"{name}.npz"
        np.savez(path, **arrays)
        return path

    def _csv(self, header: Sequence[str], rows: Iterable[Iterable[Any]], name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{name}.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
            writer.writerow(header)
            writer.writerows(rows)
        return path

    def forget(self, given: Any) -> Path:
        """Return the file of a forget set.

        Args:
            given: a path; positions from 0; ids; one boolean a sample; or columns as of
                forget.csv, by name or as a DataFrame.

        Raises:
            InputError: it is none of these.
        """
        if isinstance(given, str | Path):
            return Path(given)
        if hasattr(given, "to_dict") and hasattr(given, "columns"):
            given = given.to_dict("list")
        if isinstance(given, Mapping):
            columns = {key: _listed(each) for key, each in given.items()}
            return self._csv(list(columns), zip(*columns.values(), strict=True), "forget")
        values = sorted(given) if isinstance(given, set | frozenset) else _listed(given)
        kinds = {type(value) for value in values}
        if kinds == {bool}:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / "forget.json"
            path.write_text(json.dumps(values), encoding="utf-8")
            return path
        if kinds <= {int} or kinds <= {str}:
            return self._csv(["id" if str in kinds else "index"], ([v] for v in values), "forget")
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        fix = "Give positions from 0, ids, one boolean a sample, or a file"
        raise InputError(Problem(f"holds {names}", "forget", fix))

    def model(self, model: Any, name: str, tokenizer: Any = None) -> Path:
        """Return the file, or the folder, of a model.

        Args:
            model: a path; a module; a model of transformers.
            name: what it is called.
            tokenizer: what a model of texts reads by, or the processor of one of pictures.

        Raises:
            InputError: it is none of these.
        """
        if isinstance(model, str | Path):
            return Path(model)
        if not isinstance(model, nn.Module):
            what = f"expected a torch.nn.Module or a path, got {type(model).__name__}"
            raise InputError(Problem(what, name, "Load the weights into the network first"))
        self.folder.mkdir(parents=True, exist_ok=True)
        module, made = bare(model), getattr(model, MADE, {})
        if not is_described(module):
            path = self.folder / f"{name}.safetensors"
            write_tensors(path, module.state_dict(), made)
            return path
        offline()
        folder = self.folder / name
        described: Any = module
        described.save_pretrained(folder)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        if made and (file := folder / "model.safetensors").is_file():
            write_tensors(file, load_file(file), {**made, "format": "pt"})
        return folder


def bare(module: nn.Module) -> nn.Module:
    """Return the network within DataParallel and torch.compile."""
    while True:
        within = getattr(module, "_orig_mod", None)
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            within = module.module
        if not isinstance(within, nn.Module):
            return module
        module = within


def is_described(module: nn.Module) -> bool:
    """Return whether transformers wrote the network, so that a config.json describes it."""
    return hasattr(module, "save_pretrained") and hasattr(
        getattr(module, "config", None), "to_dict"
    )


def _listed(values: Any) -> list[Any]:
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    return [value.item() if hasattr(value, "item") else value for value in plain]


def _arrays(data: Any, name: str) -> dict[str, Any]:
    """Return `x`, an array or a list of texts, `y`, and what else an object says by name."""
    if isinstance(data, Mapping):
        found = {key: array_of(each) for key, each in data.items()}
        called = {**dict.fromkeys(INPUTS, "x"), **dict.fromkeys(LABELS, "y")}
        renamed = {called.get(key, key): each for key, each in found.items()}
        return _checked(renamed, name)
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, tuple) and len(data) == 2:
        return _checked({"x": array_of(data[0]), "y": array_of(data[1])}, name)
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        what = f"expected samples that can be counted and asked for, got {type(data).__name__}"
        fix = "Give a map-style Dataset, a TensorDataset, arrays (x, y), or a path"
        raise InputError(Problem(what, name, fix))
    return _of_items(data, name)


def _checked(found: dict[str, Any], name: str) -> dict[str, Any]:
    if not {"x", "y"} <= set(found):
        what = f"holds {', '.join(map(str, found)) or 'nothing'}: no samples and labels"
        raise InputError(Problem(what, name, "Call them x and y"))
    x = found["x"]
    if isinstance(x, np.ndarray) and x.dtype.kind in "iu" and x.dtype != np.uint8:
        what = f"x is {x.dtype}, which are no pictures; tokens, perhaps"
        raise InputError(Problem(what, name, "Give pictures, or the texts themselves"))
    return found


def _of_items(data: Any, name: str) -> dict[str, Any]:
    count = len(data)
    if not count:
        raise InputError(Problem("holds no sample", name))
    for place in {round(i * (count - 1) / (TWICE - 1)) for i in range(TWICE)}:
        first, again = (item_of(data[place], place, name) for _ in range(2))
        if not np.array_equal(first[0], again[0]):
            what = f"gives another sample each time that {place} is asked for: it augments"
            fix = 'Give it without random transforms, and say so by recipe={"augment": ..}'
            raise InputError(Problem(what, name, fix))
    items = [item_of(data[place], place, name) for place in range(count)]
    labels = [label for _, label in items]
    if isinstance(items[0][0], str):
        return {"x": [text for text, _ in items], "y": labels}
    shapes = {x.shape for x, _ in items}
    if len(shapes) > 1:
        told = " and ".join(map(str, sorted(shapes)[:2]))
        raise InputError(Problem(f"its pictures are of several sizes, {told}", name, "Resize them"))
    return _checked({"x": np.stack([x for x, _ in items]), "y": np.asarray(labels)}, name)
