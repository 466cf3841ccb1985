"""Which network a checkpoint is of: as told, or by its header, its config.json or its tensors."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from poison_audit.errors import InputError, Problem
from poison_audit.models import hugging_face, language
from poison_audit.models.factory import FACTORY, first_channels, head_size, import_factory
from poison_audit.models.identify import Network, architecture, canonical, identify
from poison_audit.models.lora_files import TASKS
from poison_audit.models.nearest import nearest
from poison_audit.models.reader import VOCABULARIES, Reading
from poison_audit.models.saving import ARCH_KEY
from poison_audit.models.weights import Weights
from poison_audit.models.wrappers import bare_names, inner

_TOLD = "--arch NAME, or --factory package.module:function for your own."
PICTURES = "AutoModelForImageClassification"
ENDS = {"sequence": "ForSequenceClassification", "causal": "ForCausalLM"}
"""What the names of transformers' classes end with, by the kind of network."""
ArchSource = Literal["flag", "factory", "header", "config", "identified"]


def names_of(weights: Weights) -> tuple[list[str], ArchSource]:
    """Return the architectures that a checkpoint may be of, and who said so."""
    if name := weights.metadata.get(ARCH_KEY):
        return [name], "header"
    if name := hugging_face.config_name(weights.files[0].parent):
        return [name], "config"
    return identify(weights.tensors), "identified"


def taken_out(weights: Weights, arch: str | None) -> Weights:
    """Return the tensors of a network of pictures alone, and what a layer before it normalises by.

    What config.json describes is left as it is: transformers knows its names.
    """
    told = arch or weights.metadata.get(ARCH_KEY)
    told = told or hugging_face.config_name(weights.files[0].parent)
    if told and told.startswith(hugging_face.PREFIX):
        return weights
    found = inner(weights.tensors)
    return replace(
        weights, tensors=found.tensors, normalize=found.normalize, holder=found.holder,
        notes=(*weights.notes, *found.notes),
    )  # fmt: skip


def network_of(
    weights: Weights, *, arch: str | None, factory: str | None, where: str
) -> tuple[Network, ArchSource]:
    """Return the network that a checkpoint is of, and who said so; InputError: nobody rightly."""
    if factory:
        return _from_factory(factory, weights.tensors), "factory"
    if arch:
        return network_named(arch, weights, "--arch"), "flag"
    names, source = names_of(weights)
    if len(names) == 1:
        return network_named(names[0], weights, where), source
    if names:
        what = f"the tensors fit several architectures: {', '.join(names)}"
    elif like := nearest(weights.tensors):
        what = f"the tensors fit no architecture that is known; they look like {like}"
    else:
        first = list(weights.tensors.items())[:3]
        shown = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in first)
        what = (
            f"the {len(weights.tensors)} tensors fit no architecture that is known; they begin "
            f"with {shown}"
        )
    raise InputError(Problem(what, where, _TOLD))


def _from_factory(factory: str, tensors: Mapping[str, Tensor]) -> Network:
    build = import_factory(factory)
    with torch.random.fork_rng(devices=[]):
        module = build()
    own = dict(module.named_parameters())
    bare = bare_names(own)
    pairs = [
        (tensor, tensors[bare[name]].float())
        for name, tensor in own.items()
        if bare[name] in tensors
    ]
    if pairs and all(torch.equal(built, stored) for built, stored in pairs):
        what = f"{factory} returns the checkpoint's own weights"
        fix = "Return a newly initialised network: retraining must not start from the poison."
        raise InputError(Problem(what, "--factory", fix))
    return Network(
        build=build,
        arch=f"{FACTORY}{factory}",
        classes=head_size(module, factory),
        channels=first_channels(module),
    )


def network_named(name: str, weights: Weights, where: str) -> Network:
    """Return the network of an architecture's name; InputError if a checkpoint cannot be of it."""
    if name.startswith(FACTORY):
        what = f"was saved from a factory ({name.removeprefix(FACTORY)!r})"
        fix = "Name the factory by --factory: no file may choose code to run."
        raise InputError(Problem(what, where, fix))
    if name.startswith(hugging_face.PREFIX):
        return _from_config(name, weights, where)
    return architecture(name, canonical(weights.tensors), where=where)


def language_of(weights: Weights, arch: str | None, reading: Reading) -> language.Language | None:
    """Return the language model that the checkpoint's folder describes; None: it is none."""
    if hugging_face.config_name(weights.files[0].parent) is None:
        return None
    described = description_of(weights, [arch] if arch else names_of(weights)[0])
    if described is None:
        return None
    config, kind = described
    folder, adapter = weights.files[0].parent, weights.adapter
    if adapter is None:
        return language.read_language(folder, config, kind=kind, reading=reading)
    if reading.start is not None:
        what = "of an adapter, training began with its base"
        raise InputError(Problem(what, "--start", "Leave it out (under [model], too)."))
    # Training's own tokenizer lies beside an adapter, if it lies anywhere.
    own = any((adapter.folder / name).is_file() for name in VOCABULARIES)
    found = language.read_language(
        folder, config, kind=kind, reading=reading, tokenizer=adapter.folder if own else None
    )
    build = partial(language.pretrained, found.build, adapter.base, allow_pickle=adapter.pickles)
    return replace(found, build=build)


def description_of(weights: Weights, names: Sequence[str]) -> tuple[Any, language.Kind] | None:
    """Return the configuration beside the weights and what kind of language model it is of."""
    folder = weights.files[0].parent
    if list(names) != [hugging_face.config_name(folder)]:
        return None
    config = config_of(weights)
    kind = language.kind_of(config)
    return None if kind is None else (config, kind)


def config_of(weights: Weights) -> Any:
    """Return the configuration beside the weights: of an adapter's base as it was trained on.

    A pretrained network's own says nothing of the head that an adapter brings.

    Raises:
        InputError: it cannot be read, or describes a quantised network.
    """
    folder = weights.files[0].parent
    config = hugging_face.read_config(folder)
    if (adapter := weights.adapter) is None:
        return config
    kind = TASKS[adapter.config.get("task_type")]
    stated = adapter.config.get("auto_mapping")
    if kind:
        config.architectures = [ENDS[kind]]
    elif isinstance(stated, dict) and isinstance(name := stated.get("base_model_class"), str):
        config.architectures = [name]
    of = language.kind_of(config)
    auto = language.AUTO[of][0] if of is not None else PICTURES
    where, shapes = str(folder / "config.json"), []
    for count in (2, 3):
        config_of_so_many = copy.deepcopy(config)
        config_of_so_many.num_labels = count
        shapes.append(hugging_face.shapes_of(config_of_so_many, where=where, auto=auto))
    held = [
        adapter.whole[name].shape[0]
        for name, shape in shapes[0].items()
        if shape != shapes[1].get(name) and name in adapter.whole
    ]
    if held:
        config.num_labels = held[0]
    return config


def _from_config(name: str, weights: Weights, where: str) -> Network:
    folder = weights.files[0].parent
    found = hugging_face.config_name(folder)
    if found != name:
        there = f"the config.json beside the weights is {found}" if found else "there is none"
        what = f"{name} needs its config.json, but {there}"
        raise InputError(Problem(what, where, "Put the checkpoint's config.json beside it."))
    config = config_of(weights)
    auto, kind = PICTURES, "image classifier"
    where, channels = str(folder / "config.json"), getattr(config, "num_channels", 3)
    build = partial(hugging_face.build_classifier, config, where=where, auto=auto, kind=kind)
    labels = hugging_face.stated_labels(config, where, twice=True)
    return Network(
        build=build, arch=name, classes=config.num_labels, channels=channels, labels=labels
    )
