"""Classifiers in the transformers layout: config.json beside the weights. No network is touched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.lora import Adapter, merge
from poison_audit.models.weights import ADAPTER, DEQUANTISE, json_beside, listed

PREFIX = "transformers:"
"""What an architecture's name begins with when config.json describes it."""
MOST_LAYERS = 1000
"""Largest number of layers that config.json may ask for."""


def offline() -> None:
    """Switch the model hub off for this process, whether or not its client is imported yet."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True


def config_name(folder: Path) -> str | None:
    """Return the architecture's name, such as `transformers:vit`; None without its config.json.

    Other libraries also write a config.json; without a `model_type` it is not transformers'.

    Raises:
        InputError: the file cannot be read, or an adapter lies there: a part of a network.
    """
    if (folder / ADAPTER).is_file():
        what = "holds an adapter (LoRA or another of PEFT's), which is a part of a network"
        fix = "Merge it into its model first, by merge_and_unload(), and save that."
        raise InputError(Problem(what, str(folder), fix))
    kind = json_beside(folder / "config.json").get("model_type")
    return f"{PREFIX}{kind}" if isinstance(kind, str) else None


def read_config(folder: Path) -> Any:
    """Read config.json from disk; code that it points to is never run.

    Raises:
        InputError: transformers does not know the kind of model, or it was quantised.
    """
    offline()
    from transformers import AutoConfig

    where = str(folder / "config.json")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except _damage() as error:
        what = f"transformers cannot read it ({in_short(error)})"
        raise InputError(Problem(what, where, "Use --arch or --factory.")) from error
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(Problem("describes a quantised network", where, DEQUANTISE))
    # Newer versions otherwise build in the width that the file was saved in.
    config.dtype = torch.float32
    return config


def stated_labels(config: Any, where: str, *, twice: bool = False) -> tuple[str, ...] | None:
    """Return what config.json calls the classes, in the order of the outputs.

    Args:
        config: as `read_config` returns it.
        where: what messages call it.
        twice: whether a name may stand for two classes, as `crane` does in ImageNet.

    Returns:
        None: it only numbers them, or a name stands for two.

    Raises:
        InputError: they are not numbered from 0, or have no name of their own.
    """
    names = {number: str(name) for number, name in config.id2label.items()}
    repeated = len(set(names.values())) < len(names)
    if sorted(names) != list(range(len(names))) or (repeated and not twice):
        what = f"id2label does not give each class a name of its own: {config.id2label!r:.200}"
        raise InputError(Problem(what, where, 'Spell it {"0": "bad", "1": "good"}.'))
    own = tuple(names[number] for number in range(len(names)))
    placeholders = tuple(f"LABEL_{number}" for number in range(len(own)))
    other = _numbered(getattr(config, "label2id", None), len(own))
    if repeated or other in (None, placeholders, own):
        return None if repeated or own == placeholders else own
    if own == placeholders:
        return other
    what = f"id2label says {list(own)!r:.150}, and label2id {list(other or ())!r:.150}"
    raise InputError(Problem(what, where, "Correct the one that training did not use."))


def _numbered(label2id: Any, count: int) -> tuple[str, ...] | None:
    """Return names in the order of their numbers; None where these are not 0, 1, .."""
    if not isinstance(label2id, dict) or len(label2id) != count:
        return None
    names = {at: str(name) for name, at in label2id.items() if type(at) is int}
    return tuple(names[at] for at in range(count)) if set(names) == set(range(count)) else None


def build_classifier(config: Any, *, where: str, auto: str, kind: str) -> nn.Module:
    """Build a newly initialised classifier in float32 that returns its logits alone.

    Args:
        config: as `read_config` returns it.
        auto: the class of transformers that chooses the network, `AutoModelFor...`.

    Raises:
        InputError: no such network has this configuration.
    """
    import transformers

    chooser: Any = getattr(transformers, auto)
    _check_layers(config, where)
    try:
        with quiet():
            with torch.device("meta"):
                size = sum(p.numel() for p in _built(chooser, config).parameters())
            _check_memory(size, where)
            module = _built(chooser, config)
    except _damage() as error:
        what = f"describes no {kind} that can be built ({in_short(error)})"
        raise InputError(Problem(what, where, "Use --arch or --factory.")) from error
    return _returning_logits(module)


def _built(chooser: Any, config: Any) -> nn.Module:
    module: nn.Module = chooser.from_config(config, trust_remote_code=False)
    return module


def _check_layers(config: Any, where: str) -> None:
    """Refuse a number of layers that would take hours to build, even without memory for weights."""
    for key, value in config.to_dict().items():
        counts = value if isinstance(value, list) else [value]
        many = [n for n in counts if isinstance(n, int) and not -MOST_LAYERS <= n <= MOST_LAYERS]
        if many and ("layer" in key or "depth" in key):
            what = f"{key} is {many[0]!s:.20}, and no network has more than {MOST_LAYERS:,} layers"
            raise InputError(Problem(what, where, "Is the file damaged?"))


def _check_memory(size: int, where: str) -> None:
    here = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if 4 * size > here:
        what = (
            f"describes a network of {size:,} parameters, {4 * size / 2**30:,.0f} GiB in float32, "
            f"and half of this machine's memory is {here / 2**30:,.0f} GiB"
        )
        raise InputError(Problem(what, where, "Is the file damaged? Else use a larger machine."))


def load_classifier(
    module: Any,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    new_head: bool = False,
    adapter: Adapter | None = None,
) -> nn.Module:
    """Return a classifier like `module` with these tensors; nothing may be missing or left over.

    transformers itself loads them, since the names in a file can be older than its classes'.

    Args:
        new_head: whether what stands outside the pretrained network may be missing, or of another
            shape: it is drawn anew, from the global generator.
        adapter: is merged into it. What it holds whole, these tensors need not have.

    Raises:
        InputError: everything that does not fit, by name.
    """
    packed = [name for name, t in tensors.items() if t.dtype in (torch.int8, torch.uint8)]
    if packed:
        what = f"holds packed integers for weights: {listed(packed)}"
        raise InputError(Problem(what, where, DEQUANTISE))
    with quiet():
        loaded, report = type(module).from_pretrained(
            None,
            config=module.config,
            state_dict=dict(tensors),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    fix = "Is the config.json of this checkpoint?"
    if new_head:
        report = _of_the_network(report, f"{module.base_model_prefix}.")
    elif adapter is not None:
        report = _without(report, adapter, f"{module.base_model_prefix}.")
    reshaped = [f"{name} ({tuple(a)}, not {tuple(b)})" for name, a, b in report["mismatched_keys"]]
    Problems(
        Problem(f"{len(names)} tensors {what}: {listed(names)}", where, fix)
        for what, names in (
            ("are missing", report["missing_keys"]),
            ("have no place", report["unexpected_keys"]),
            ("have another shape", reshaped),
            ("cannot be loaded", report.get("error_msgs", [])),
        )
        if names
    ).raise_any()
    loaded = loaded.float()
    if adapter is not None:
        merge(loaded, adapter)
    return _returning_logits(loaded)


def _of_the_network(report: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return what is wrong inside a pretrained network; its heads are nobody's concern.

    A pooler counts as a head: many networks are published without theirs, or with one not used.
    """

    def inside(name: str) -> bool:
        return name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")

    found = {key: [name for name in report[key] if inside(name)]
             for key in ("missing_keys", "unexpected_keys")}  # fmt: skip
    reshaped = [row for row in report["mismatched_keys"] if inside(row[0])]
    return {**report, **found, "mismatched_keys": reshaped}


def _without(report: Mapping[str, Any], adapter: Adapter, network: str) -> dict[str, Any]:
    """Return what is wrong with a base, but for what its adapter holds, and another task's head."""
    held = adapter.whole
    return {
        **report,
        "missing_keys": [name for name in report["missing_keys"] if name not in held],
        "mismatched_keys": [row for row in report["mismatched_keys"] if row[0] not in held],
        "unexpected_keys": [n for n in report["unexpected_keys"] if n.startswith(network)],
    }


def shapes_of(config: Any, *, where: str, auto: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's parameters, by name; empty: none can be built."""
    import transformers

    chooser: Any = getattr(transformers, auto)
    _check_layers(config, where)
    try:
        with quiet(), torch.device("meta"):
            named = _built(chooser, config).named_parameters()
            return {name: tuple(parameter.shape) for name, parameter in named}
    except _damage():  # said where it is built
        return {}


def config_text(config: Any, module: Any) -> str:
    """Return what config.json says, with what the classes of a network need.

    Args:
        config: as `read_config` returns it.
        module: the network as it was built.
    """
    config.architectures = [type(module).__name__]
    for key in ("id2label", "label2id", "pad_token_id"):
        if hasattr(module.config, key):
            setattr(config, key, getattr(module.config, key))
    text: str = config.to_json_string()
    return text


def _returning_logits(module: nn.Module) -> nn.Module:
    # A wrapper module would rename every tensor; a hook renames none, and copies with the module.
    module.register_forward_hook(_logits_of)
    return module


def _logits_of(module: nn.Module, inputs: Any, output: Any) -> Tensor:
    logits: Tensor = output.logits
    return logits


def in_short(error: BaseException) -> str:
    """Return the beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _damage() -> tuple[type[Exception], ...]:
    """Return what the code of transformers raises at values that it does not expect."""
    from huggingface_hub.errors import StrictDataclassError

    return (
        *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError),
        *(RuntimeError, StrictDataclassError, TypeError, ValueError),
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' log and bars from stderr."""
    # What transformers logs on loading is raised here as problems.
    from transformers import utils

    logging: Any = utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
