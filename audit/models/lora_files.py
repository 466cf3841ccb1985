"""An adapter's files as PEFT writes them: adapter_config.json, its weights, and where its base is.

What is no LoRA that can be merged to the bit is refused by name, never approximated.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from poison_audit.errors import InputError, Problem, Problems, some
from poison_audit.models.lora import Adapter, Pair
from poison_audit.models.normalization import NORMALIZE_KEY
from poison_audit.models.weights import (
    ADAPTER,
    INDEX,
    PICKLE,
    SINGLE,
    Weights,
    json_beside,
    read_file,
    read_weights,
)
from poison_audit.records import Json

WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_PREFIX = "base_model.model."
_PART = re.compile(
    r"(.+)\.(lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B|"
    r"lora_magnitude_vector)(?:\.weight)?"
)
_PLAIN = re.compile(r"[\w.]+")

TASKS = {None: "", "FEATURE_EXTRACTION": "", "SEQ_CLS": "sequence", "CAUSAL_LM": "causal"}
"""What PEFT calls a task, and the kind of network; empty: its base says."""
_READ = {
    "peft_type", "task_type", "auto_mapping", "base_model_name_or_path", "revision", "r",
    "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "init_lora_weights",
}  # fmt: skip
"""Settings that are obeyed."""
_NOTHING = {
    "peft_version", "inference_mode", "target_modules", "exclude_modules", "lora_dropout",
    "fan_in_fan_out", "bias", "modules_to_save", "layers_to_transform", "layers_pattern",
    "megatron_core", "eva_config", "qalora_group_size", "runtime_config", "ensure_weight_tying",
}  # fmt: skip
"""Settings that say how it was trained, or what the tensors say by themselves: a layer's class, not
`fan_in_fan_out`, tells which way its weight lies, as PEFT has it."""
MERGE = "Merge it by merge_and_unload(), save that, and audit it."
_KEEPS_BASE = re.compile(r"gaussian|eva|orthogonal", re.IGNORECASE)
"""How A and B may have begun; other ways change the base as well."""


def read_checkpoint(
    path: Path,
    *,
    base: Path | None = None,
    allow_pickle: bool = False,
    state_key: str | None = None,
) -> Weights:
    """Read a checkpoint: a whole one, or an adapter with its base, not merged yet.

    Args:
        path: what `read_weights` takes, or a folder with adapter_config.json, or its weights.
        base: of an adapter: the checkpoint that it was trained on. None: what its
            adapter_config.json names, if that lies beside it.
        allow_pickle: whether pickles may be read.
        state_key: of a whole checkpoint, as `read_weights` takes it.

    Returns:
        Tensors, files and notes of the base; header and digest of the adapter.

    Raises:
        InputError: everything that is wrong with either.
    """
    file = _weights_at(path, allow_pickle=allow_pickle)
    if file is None:
        if base is not None:
            what = f"belongs to an adapter, and {path} is none"
            fix = "Leave it out (under [model] in audit.toml, too)."
            raise InputError(Problem(what, "--base", fix))
        return read_weights(path, allow_pickle=allow_pickle, state_key=state_key)
    stated = file.parent / ADAPTER
    config = json_beside(stated)
    problems = Problems(_unsupported(config, str(stated)))
    if state_key is not None:
        problems.append(Problem("is for whole checkpoints", "--state-key", "Leave it out."))
    with problems.collecting():
        held = read_file(file, allow_pickle=allow_pickle)
        pairs, whole = _parts(held.tensors, config, str(file))
    with problems.collecting():
        base = _base_of(config, file.parent) if base is None else base
        if is_adapter(base):
            what = "is to be the base, and is an adapter itself"
            raise InputError(Problem(what, str(base), "Merge it first, by merge_and_unload()."))
        below = read_weights(base, allow_pickle=allow_pickle)
    problems.raise_any()
    if base is None:
        raise RuntimeError("an adapter has no base, but no problem was reported")
    # What a header says of where the base comes from is no word of the adapter.
    stated_below = {key: below.metadata[key] for key in (NORMALIZE_KEY,) if key in below.metadata}
    adapter = Adapter(
        config=config, pairs=pairs, whole=whole, files=(stated, file),
        config_sha256=hashlib.sha256(stated.read_bytes()).hexdigest(),
        base=base, base_sha256=below.sha256, pickles=allow_pickle,
    )  # fmt: skip
    return replace(
        below, adapter=adapter, sha256=held.sha256, metadata={**stated_below, **held.metadata},
        notes=(*below.notes, *held.notes),
    )  # fmt: skip


def tensors_of(adapter: Adapter) -> dict[str, Tensor]:
    """Return an adapter's tensors by the names that PEFT reads."""
    found = {f"{_PREFIX}{name}": tensor for name, tensor in adapter.whole.items()}
    for layer, pair in adapter.pairs.items():
        for name, matrix in (("A", pair.a), ("B", pair.b)):
            called = f"lora_embedding_{name}" if pair.embedding else f"lora_{name}.weight"
            found[f"{_PREFIX}{layer}.{called}"] = matrix
        if pair.magnitude is not None:
            found[f"{_PREFIX}{layer}.lora_magnitude_vector"] = pair.magnitude
    return found


def is_adapter(path: Path) -> bool:
    """Say whether an adapter is at a path, readable or not."""
    folder = path if path.is_dir() else path.parent
    return (folder / ADAPTER).is_file() and (path.is_dir() or path.name in (WEIGHTS, _PICKLED))


def _weights_at(path: Path, *, allow_pickle: bool) -> Path | None:
    """Return the weights of the adapter at a path; None: no adapter is there."""
    folder = path if path.is_dir() else path.parent
    if not (folder / ADAPTER).is_file():
        return None
    if not path.is_dir():
        if path.name in (WEIGHTS, _PICKLED):
            return path
        what = f"lies beside {ADAPTER}: whether the adapter belongs to it is not said"
        raise InputError(Problem(what, str(path), "Put the two into folders of their own."))
    if whole := [name for name in (SINGLE, INDEX, PICKLE) if (folder / name).is_file()]:
        what = f"holds an adapter and a whole checkpoint ({whole[0]})"
        raise InputError(Problem(what, str(folder), "Put the two into folders of their own."))
    there = [folder / name for name in (WEIGHTS, _PICKLED) if (folder / name).is_file()]
    if not there or (there[0].name == _PICKLED and not allow_pickle):
        what = f"holds {ADAPTER}, but no {WEIGHTS}"
        fix = "Save it by save_pretrained; or --allow-pickle reads the tensors of a pickle."
        raise InputError(Problem(what, str(folder), fix if there else "Save it again."))
    return there[0]


def _base_of(config: Mapping[str, Json], folder: Path) -> Path:
    """Return the base that an adapter names, if it lies beside it.

    Nothing else is looked for: no network is touched, and a file that somebody sends may not say
    which of this machine's are read.
    """
    named = config.get("base_model_name_or_path")
    fix = "Give the folder of the base by --base FOLDER, or base under [model] in audit.toml."
    where = str(folder / ADAPTER)
    if not isinstance(named, str) or not named:
        raise InputError(Problem("does not name its base", where, fix))
    try:
        around = folder.resolve().parent
        for place in (folder / named, around / named, Path(named)):
            if place.is_dir():
                if place.resolve().is_relative_to(around):
                    return place
                what = f"names a base that does not lie beside it: {named!r:.200}"
                raise InputError(Problem(what, where, f"If it is the one, say so. {fix}"))
    except (OSError, ValueError):  # no such name can be
        pass
    raise InputError(Problem(f"its base {named!r:.200} is not here", where, f"Fetch it. {fix}"))


def _unsupported(config: Mapping[str, Json], where: str) -> list[Problem]:
    """Return what in adapter_config.json makes it another thing than a LoRA that can be merged."""
    fix, found = MERGE, []
    if (kind := config.get("peft_type")) != "LORA":
        what = f"is no LoRA (peft_type is {kind!r:.60})"
        return [Problem(what, where, fix)]
    if (task := config.get("task_type")) not in TASKS:
        what = f"was trained for another task than to classify (task_type is {task!r:.60})"
        found.append(Problem(what, where, "Only classifiers are audited."))
    began = config.get("init_lora_weights")
    if began not in (None, True, False) and not _KEEPS_BASE.fullmatch(str(began)):
        what = f"began with a changed base (init_lora_weights is {began!r:.60})"
        found.append(Problem(what, where, fix))
    others = sorted(key for key, v in config.items() if v and key not in _READ | _NOTHING)
    if others:
        what = f"asks for what is not known here: {some(others)}"
        found.append(Problem(what, where, fix))
    for key in ("rank_pattern", "alpha_pattern"):
        given = config.get(key) or {}
        if not isinstance(given, dict) or not all(_PLAIN.fullmatch(str(name)) for name in given):
            # A file's own patterns could be made to take for ever.
            found.append(Problem(f"{key} names layers by patterns", where, fix))
    return found


def _parts(
    tensors: Mapping[str, Tensor], config: Mapping[str, Json], where: str
) -> tuple[dict[str, Pair], dict[str, Tensor]]:
    """Return what is added to layers, and what is whole, by their names in the network."""
    layers: dict[str, dict[str, Tensor]] = {}
    embeddings = set[str]()
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix(_PREFIX)
        if found := _PART.fullmatch(bare):
            if "embedding" in found[2]:
                embeddings.add(found[1])
            part = re.sub(r"embedding_|\.weight", "", found[2])
            layers.setdefault(found[1], {})[part] = tensor.float()
        elif "lora_" in bare:
            raise InputError(Problem(f"holds {name}, which no LoRA has", where))
        else:
            # Of a layer that is adapted as well, PEFT calls the base's own so.
            bare = bare.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
            whole[bare] = tensor.float()
    if not layers and not whole:
        raise InputError(Problem("holds no tensors", where, "Save it again."))
    if folded := sorted(
        layer for layer, held in layers.items() if any(t.ndim > 2 for t in held.values())
    ):
        what = f"adapts convolutions: {some(folded)}"
        raise InputError(Problem(what, where, MERGE))
    problems, pairs = Problems(), {}
    for layer, parts in layers.items():
        with problems.collecting():
            pair = _pair(layer, parts, config, where)
            pairs[layer] = replace(pair, embedding=layer in embeddings)
    problems.raise_any()
    return pairs, whole


def _pair(layer: str, parts: Mapping[str, Tensor], config: Mapping[str, Json], where: str) -> Pair:
    a, b, m = (parts.get(f"lora_{name}") for name in ("A", "B", "magnitude_vector"))
    if a is None or b is None:
        raise InputError(Problem(f"lacks one of the two matrices of {layer}", where, "Fetch it."))
    rank, alpha = (_stated(config, key, each, layer) for key, each in
                   (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")))  # fmt: skip
    fits = a.ndim == b.ndim == 2 and a.shape[0] == b.shape[1] == rank and a.shape[0] > 0
    if not fits:
        what = f"{layer} has {tuple(a.shape)} and {tuple(b.shape)}, and its rank is {rank!r:.20}"
        raise InputError(Problem(what, where, f"Is the {ADAPTER} of this adapter?"))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        what = f"lora_alpha of {layer} is {alpha!r:.40}"
        raise InputError(Problem(what, where, f"Is the {ADAPTER} of this adapter?"))
    if bool(config.get("use_dora")) != (m is not None) or (m is not None and m.ndim != 1):
        what = f"{layer} has {'a' if m is not None else 'no'} magnitude, unlike use_dora says"
        raise InputError(Problem(what, where, f"Is the {ADAPTER} of this adapter?"))
    scale = alpha / (math.sqrt(a.shape[0]) if config.get("use_rslora") else a.shape[0])
    return Pair(a=a, b=b, scale=scale, magnitude=m)


def _stated(config: Mapping[str, Json], key: str, pattern: str, layer: str) -> Json:
    """Return a number of a layer: that of the first name that it ends with, else everybody's."""
    named = config.get(pattern)
    for name, value in named.items() if isinstance(named, dict) else ():
        if layer == name or layer.endswith(f".{name}"):
            return value
    return config.get(key)
