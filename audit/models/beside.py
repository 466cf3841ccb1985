"""What lies beside the weights of a language model: its configuration and its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from poison_audit.atomic import written_whole
from poison_audit.errors import InputError, Problem
from poison_audit.models.language import BESIDE
from poison_audit.models.lora_files import WEIGHTS
from poison_audit.models.model import Model
from poison_audit.models.weights import ADAPTER, INDEX, SINGLE, listed


def weights_file(output: Path, *, texts: bool, adapter: bool = False) -> Path:
    """Return the file of the weights of a model that is saved as `output`.

    A model of texts becomes a folder, unless `output` names a .safetensors file; so does an
    adapter, which is whole in such a file.

    >>> weights_file(Path("fixed"), texts=True).as_posix()
    'fixed/model.safetensors'
    >>> weights_file(Path("fixed.safetensors"), texts=True).as_posix()
    'fixed.safetensors'
    """
    if adapter and output.suffix != ".safetensors":
        return output / WEIGHTS
    return output / SINGLE if texts and output.suffix != ".safetensors" else output


def files_beside(model: Model, *, adapter: bool = False) -> dict[str, bytes]:
    """Return the contents of what belongs beside a model's weights, by name; of pictures: nothing.

    Args:
        adapter: whether these are its adapter's weights alone.

    Raises:
        InputError: a file that the model was read from is there no more.
    """
    found = {}
    ours = model.adapter if adapter else None
    for file in model.reader.files if model.reader else ():
        if ours is not None and file.parent != ours.folder:
            continue  # it stays with the base
        try:
            found[file.name] = file.read_bytes()
        except OSError as error:
            raise InputError(Problem(f"cannot be read ({error.strerror})", str(file))) from error
    if ours is not None:
        told = {**ours.config, "base_model_name_or_path": str(ours.base)}
        found[ADAPTER] = json.dumps(told, indent=1, sort_keys=True).encode()
    elif found and model.config is not None:
        found["config.json"] = model.config.encode()
    return found


def write_beside(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder, over those of the same names; a reader finds each one whole."""
    for name, content in contents.items():
        file = folder / name
        if not (file.is_file() and file.read_bytes() == content):
            with written_whole(file) as partial:
                partial.write_bytes(content)


def wrong_company(file: Path, contents: Mapping[str, bytes]) -> list[Problem]:
    """Return what lies where weights are to be written, and would be read as a part of the model.

    A `model.safetensors` has its folder to itself: files that the model brings are written over.
    Any other name shares the folder: there they must be the same.

    Args:
        file: of the weights; its folder need not exist.
        contents: what the model brings, as `files_beside` returns it.
    """
    folder = file.parent
    there = sorted(path.name for path in folder.iterdir()) if contents and folder.is_dir() else []
    foreign = (*BESIDE, ADAPTER)
    strange = [name for name in there if name in foreign and name not in contents]
    if file.name in (SINGLE, WEIGHTS):
        strange += [name for name in there if name == INDEX or name.endswith(".safetensors")]
        strange = [name for name in strange if name != file.name]
    else:
        strange += [
            name for name in there
            if name in contents and (folder / name).read_bytes() != contents[name]
        ]  # fmt: skip
    if not strange:
        return []
    what = f"holds files of another model: {listed(strange)}"
    return [Problem(what, str(folder), "Choose another folder, or remove them.")]
