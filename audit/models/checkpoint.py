"""From files to a Model and back: which architecture, which normalisation, every tensor placed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models import hugging_face, language
from poison_audit.models.factory import FACTORY
from poison_audit.models.filling import filled, of_base, stored_as
from poison_audit.models.identify import Network
from poison_audit.models.image import image_classifier
from poison_audit.models.lora_files import is_adapter, read_checkpoint
from poison_audit.models.model import Model
from poison_audit.models.network import (
    ArchSource,
    config_of,
    description_of,
    language_of,
    names_of,
    network_named,
    network_of,
    taken_out,
)
from poison_audit.models.normalization import (
    Normalize,
    normalize_from_header,
    same_normalize,
    spell_normalize,
)
from poison_audit.models.preprocessor import (
    Pictures,
    normalize_from_preprocessor,
    pictures_of,
    timm_labels,
)
from poison_audit.models.reader import Reading
from poison_audit.models.weights import Weights

_ASIDE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "use_cache",
          "pad_token_id", "problem_type", "architectures"}  # fmt: skip
"""What config.json may say otherwise of the same network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A checkpoint as a Model, in eval mode on the CPU, and what is known of its files."""

    model: Model
    sha256: str
    """Of the file; of shards, over the sorted lines `name sha256`; of an adapter, its own."""
    files: tuple[Path, ...]
    """Of an adapter, those of its base."""
    arch_source: ArchSource
    """Who said which architecture it is."""
    metadata: Mapping[str, str]
    """The safetensors header's strings."""
    channels: int | None
    """Channels of a picture; None when the network has no convolution to tell."""
    notes: tuple[str, ...] = ()
    """What was changed on reading, in sentences."""
    pictures: Pictures | None = None
    """What the preprocessor beside the weights makes of pictures, where it says."""


def load_model(
    path: Path,
    *,
    arch: str | None = None,
    factory: str | None = None,
    normalize: Normalize | None = None,
    reading: Reading | None = None,
    allow_pickle: bool = False,
    state_key: str | None = None,
    base: Path | None = None,
) -> Loaded:
    """Read a checkpoint into the network that it was saved from.

    The architecture is what `arch` or `factory` says, or else the safetensors header, or else
    config.json beside the weights, or else the one that the tensors fit. The normalisation is
    what `normalize` says, or else the header, or else preprocessor_config.json, or what a layer of
    the checkpoint's own before the network does: none may contradict that. It is never guessed.

    Args:
        path: a file, a shard index or a folder, as `read_weights` takes.
        arch: an architecture's name, as --arch or audit.toml give it.
        factory: `package.module:function`, from the command line only: it runs code.
        normalize: channel means and standard deviations in [0, 1] pixels.
        reading: how a language model reads texts, as far as its folder does not say.
        allow_pickle: whether a pickle may be read, tensors only.
        state_key: the entry of a pickle, or the prefix of the names, that holds the network.
        base: of an adapter, as `read_checkpoint` takes it.

    Raises:
        InputError: everything that is missing or does not fit.
    """
    if arch and factory:
        what = f"both an architecture ({arch}) and a factory ({factory}) are given"
        raise InputError(Problem(what, "--factory", "Give one of them."))
    where = str(path)
    weights = read_checkpoint(path, base=base, allow_pickle=allow_pickle, state_key=state_key)
    adapter = weights.adapter
    told: dict[str, Any] = {
        name: getattr(weights, name) for name in ("sha256", "files", "metadata", "notes")
    }
    if not factory and (found := language_of(weights, arch, reading or Reading())):
        if normalize is not None:
            what = "is for pictures, and this model reads texts"
            raise InputError(Problem(what, "--normalize", "Leave it out."))
        model = language.load_language(found, weights.tensors, where=where, adapter=adapter)
        model = _described(model, weights)
        source = names_of(weights)[1] if arch is None else "flag"
        return Loaded(model=model, arch_source=source, channels=None, **told)
    module, problems = None, Problems(_of_texts(reading or Reading()))
    with problems.collecting():
        if not factory:
            weights = taken_out(weights, arch)
        network, source = network_of(weights, arch=arch, factory=factory, where=where)
        module, weights = filled(network.build, network.arch, weights, where)
    known, unknown = _known_normalize(weights, normalize, where)
    if module is None:
        raise InputError([*unknown, *problems])
    problems += [*unknown, *_impossible(network, known, where)]
    with problems.collecting():
        told["pictures"] = pictures_of(weights.files[0].parent)
    if problems or known is None:
        raise InputError(problems)
    model = image_classifier(
        module.eval(), build=network.build, arch=network.arch, classes=network.classes,
        normalize=known, channels_last=factory is None,
        labels=network.labels or timm_labels(weights.files[0].parent, network.classes),
    )  # fmt: skip
    told["notes"] = weights.notes
    stored = {} if factory else stored_as(weights, network.arch)
    model = replace(model, state_key=state_key, stored=stored)
    if adapter is not None:
        model = replace(model, build=partial(of_base, network, adapter))
        model = _described(model, weights)
    return Loaded(model=model, arch_source=source, channels=network.channels, **told)


def _described(model: Model, weights: Weights) -> Model:
    """Return a model that knows the adapter that makes it, and what its config.json would say."""
    if weights.adapter is None:
        return model
    text = None
    if model.arch.startswith(hugging_face.PREFIX):
        text = hugging_face.config_text(config_of(weights), model.module)
    return replace(model, adapter=weights.adapter, config=text)


def load_like(model: Model, path: Path, *, allow_pickle: bool = False) -> tuple[Model, str]:
    """Read another checkpoint of `model`'s architecture; return it with its files' SHA-256.

    Raises:
        InputError: a tensor does not fit, or the header states another normalisation.
    """
    where = str(path)
    weights = _read_alike(model, path, allow_pickle=allow_pickle)
    if model.reader is not None:
        _same_config(model, weights)
    clone = model.clone()
    if not model.arch.startswith((hugging_face.PREFIX, FACTORY)):
        weights = taken_out(weights, model.arch)
    module, weights = filled(lambda: clone.module, model.arch, weights, where)
    stated = normalize_from_header(weights.metadata, where=where) or weights.normalize
    if stated and model.normalize and not same_normalize(stated, model.normalize):
        theirs, ours = spell_normalize(stated), spell_normalize(model.normalize)
        what = f"was saved with the normalisation {theirs}, the audited model with {ours}"
        raise InputError(Problem(what, where, "Audit it on its own."))
    return replace(clone, module=module.to(model.device).eval()), weights.sha256


def _read_alike(model: Model, path: Path, *, allow_pickle: bool) -> Weights:
    """Read a checkpoint that may be kept as the audited one was, or plainly."""
    ours = model.adapter
    # Of another checkpoint's adapter the base is the audited one's, whatever that is called there.
    base = ours.base if ours is not None and is_adapter(path) else None
    if ours is None and is_adapter(path):
        what = "is an adapter, and the audited model is a whole checkpoint"
        raise InputError(Problem(what, str(path), "Merge it by merge_and_unload(), and save that."))
    try:
        weights = read_checkpoint(
            path, base=base, allow_pickle=allow_pickle, state_key=model.state_key
        )
    except InputError:
        if model.state_key is None:
            raise
        weights = read_checkpoint(path, base=base, allow_pickle=allow_pickle)
    if weights.adapter and ours and weights.adapter.base_sha256 != ours.base_sha256:
        raise InputError(Problem("has changed since it was read", str(base), "Leave it alone."))
    return weights


def _same_config(model: Model, weights: Weights) -> None:
    """Refuse a checkpoint whose own config.json makes another network of the same tensors."""
    folder = weights.files[0].parent
    if hugging_face.config_name(folder) is None:
        return
    own: Any = model.module.config
    other = config_of(weights)
    theirs, ours = other.to_dict(), own.to_dict()
    where, aside = str(folder / "config.json"), _ASIDE
    if any(_only_numbered(config, where) for config in (own, other)):
        aside = aside | {"id2label", "label2id"}
    differ = [
        f"{key} ({theirs.get(key)!r:.60}, not {ours.get(key)!r:.60})"
        for key in sorted({*theirs, *ours} - aside)
        if "drop" not in key and theirs.get(key) != ours.get(key)
    ]
    if differ:
        what = f"is of another network than the audited model's: {'; '.join(differ)}"
        raise InputError(Problem(what, where, "Audit it on its own."))


def _only_numbered(config: Any, where: str) -> bool:
    """Say whether a configuration has no names for its classes; an adapter's base has none."""
    try:
        return hugging_face.stated_labels(config, where) is None
    except InputError:
        return False


def peek(
    path: Path,
    *,
    allow_pickle: bool = False,
    state_key: str | None = None,
    base: Path | None = None,
) -> dict[str, Any]:
    """Return what a checkpoint says of itself, without loading it into a network.

    Returns:
        `arch`: the names that fit, a list; `classes` and `channels`: None unless exactly one
        fits; `normalize`: as `parse_normalize` reads it, None if it is not stated. Of a language
        model instead `arch`, `classes` (None: label words decide), and `max_tokens`: the tokens
        that an input holds at most, None if its folder does not say.

    Raises:
        InputError: the checkpoint, or a file beside it, cannot be read.
    """
    where = str(path)
    weights = read_checkpoint(path, base=base, allow_pickle=allow_pickle, state_key=state_key)
    weights = taken_out(weights, None)
    stated = _stated_normalize(weights, where)
    names, _ = names_of(weights)
    names = [name for name in names if not name.startswith(FACTORY)]
    if described := description_of(weights, names):
        return {"arch": names, **_peek_language(weights, *described)}
    network = network_named(names[0], weights, where) if len(names) == 1 else None
    return {
        "arch": names,
        "classes": network and network.classes,
        "channels": network and network.channels,
        "normalize": stated and spell_normalize(stated),
    }


def _peek_language(weights: Weights, config: Any, kind: language.Kind) -> dict[str, Any]:
    try:
        read = language_of(weights, None, Reading())
    except InputError:
        read = None
    if read is None:
        # Nobody said yet what only a user can say, such as label words.
        return {"classes": config.num_labels if kind == "sequence" else None, "max_tokens": None}
    return {"classes": read.classes, "max_tokens": read.reader.length}


def _of_texts(reading: Reading) -> list[Problem]:
    """Return the problem of each thing that is said of texts, where the model takes pictures."""
    said = {
        "--max-tokens": reading.max_tokens,
        "--prompt": reading.prompt,
        "--label-words": reading.words,
        "--start": reading.start,
    }
    what = "is for models that read texts, and this one takes pictures"
    fix = "Leave it out (under [model] in audit.toml, too); or is its config.json beside it?"
    return [Problem(what, flag, fix) for flag, value in said.items() if value is not None]


def _known_normalize(
    weights: Weights, given: Normalize | None, where: str
) -> tuple[Normalize | None, list[Problem]]:
    own = weights.normalize
    if given and own and not same_normalize(given, own):
        what = (
            f"the checkpoint has a layer of its own that normalises ({weights.holder}), by "
            f"{spell_normalize(own)}; --normalize says {spell_normalize(given)}"
        )
        return None, [Problem(what, where, "Leave --normalize and [model] normalize out.")]
    try:
        known = given or _stated_normalize(weights, where)
    except InputError as error:
        return None, list(error.problems)
    if known is not None:
        return known, []
    what = "the normalisation is not stated and no tensor holds it"
    fix = "--normalize cifar10|imagenet|none|MEANS,STDS or [model] normalize in audit.toml."
    return None, [Problem(what, where, fix)]


def _stated_normalize(weights: Weights, where: str) -> Normalize | None:
    stated = weights.normalize or normalize_from_header(weights.metadata, where=where)
    return stated or normalize_from_preprocessor(weights.files[0].parent)


def _impossible(network: Network, known: Normalize | None, where: str) -> list[Problem]:
    problems = []
    if network.classes < 2:
        what = f"the network has {network.classes} output; a classifier has one for each class"
        problems.append(Problem(what, where, "Give it two outputs."))
    if known and network.channels and len(known[0]) not in (1, network.channels):
        what = f"the normalisation has {len(known[0])} channels, the network {network.channels}"
        problems.append(Problem(what, "--normalize", "Give one value, or one a channel."))
    return problems
