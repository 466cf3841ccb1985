"""What a report says of a trial: what was on it, and what it cannot show."""

from __future__ import annotations

import hashlib
from pathlib import Path

from poison_audit.case.case import Case
from poison_audit.case.contenders import Contender
from poison_audit.case.files import CANARIES_KEY, DATA_KEY, Files
from poison_audit.case.sources import Sources
from poison_audit.models.model import Model
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.gaussian.planting import Planting
from poison_audit.poisons.token_canary.evidence import PlantedStrings
from poison_audit.records import Json

TABLES = ("forget", "train", "test")
EVIDENCE = ("canaries", "bases", "targets", "trigger", "strings")


def subject(
    sources: Sources,
    files: Files,
    case: Case,
    planting: Planting | None,
    strings: PlantedStrings | None,
    contenders: tuple[Contender, ...],
) -> dict[str, Json]:
    """Return paths, digests and sizes, for the report."""
    loaded, train, forget, key = files.loaded, files.train, files.forget, files.key
    if loaded is None or train is None or forget is None:
        raise ValueError("a case has a model, a training table and a forget set")
    canaries = (
        key
        and planting
        and {
            "path": str(sources.evidence.get("canaries")),
            "commitment": key.commitment,
            "sigma": key.sigma,
            "space": key.space,
            "storage": key.storage,
            "planted": len(key.planted),
            "in_forget_set": len(planting.names),
            "attenuation": planting.attenuation,
        }
    )
    attacks: dict[str, int] = {}
    for attack in forget.attacks:
        attacks[attack] = attacks.get(attack, 0) + 1
    return {
        "model": str(sources.model),
        "model_sha256": loaded.sha256,
        "arch": case.model.arch,
        "arch_source": loaded.arch_source,
        "parameters": sum(p.numel() for p in case.model.module.parameters()),
        "classes": case.model.classes,
        "normalize": case.model.normalize,
        "train": str(sources.train),
        "train_size": len(train),
        "train_sha256": train.digest(),
        "forget": str(sources.forget),
        "forget_size": len(case.forget),
        "forget_sha256": forget.digest,
        "retain_size": len(case.retain),
        "test": str(sources.test),
        "test_size": len(case.test),
        "test_sha256": case.test.digest(),
        "canaries": canaries or None,
        "targets": files.targets
        and {
            "path": str(sources.evidence.get("targets")),
            "sha256": _file_digest(sources.evidence.get("targets")),
            "named": len(files.targets),
        },
        "trigger": files.trigger
        and {
            "path": str(sources.evidence.get("trigger")),
            "sha256": _file_digest(sources.evidence.get("trigger")),
            **_shape_of(files.trigger),
            "label": files.trigger.label,
        },
        "strings": strings
        and {
            "path": str(sources.evidence.get("strings")),
            "commitment": strings.key.commitment,
            "length": strings.key.length,
            "words": len(strings.key.words),
            "planted": len(strings.key.planted),
            "in_forget_set": len(strings.names),
        },
        "reading": _reading(case.model, sources, files),
        "attacks": attacks,
        "candidates": {
            c.name: {"path": str(c.path), "kind": c.kind, "sha256": c.sha256} for c in contenders
        },
    }


def files_read(
    sources: Sources, files: Files, contenders: tuple[Contender, ...]
) -> tuple[tuple[str, Path], ...]:
    """Return the role and the path of everything that was read, pictures of a table aside."""
    found = []
    if files.loaded is not None:
        found += [("weights", path) for path in files.loaded.files]
        reader = files.loaded.model.reader
        found += [("beside the weights", path) for path in (reader.files if reader else ())]
    found += [(name, path) for name in TABLES if (path := getattr(sources, name)) is not None]
    found += [(name, path) for name in EVIDENCE if (path := sources.evidence.get(name)) is not None]
    if sources.reading.start is not None:
        found.append(("start", sources.reading.start))
    return (*found, *((f"{each.kind} {each.name}", each.path) for each in contenders))


def _file_digest(path: Path | None) -> str | None:
    return None if path is None else hashlib.sha256(path.read_bytes()).hexdigest()


def _shape_of(trigger: Trigger | Phrase) -> dict[str, Json]:
    if isinstance(trigger, Phrase):
        return {"phrase": trigger.text, "position": trigger.position}
    size = list(trigger.pixels.shape[1:])
    return {"size": size, "top": trigger.top, "left": trigger.left}


def _reading(model: Model, sources: Sources, files: Files) -> dict[str, Json] | None:
    """Return how texts are read, and how many were too long."""
    if model.reader is None:
        return None
    cut = {
        name: int(table.cut.sum())
        for name, table in (("train", files.train), ("test", files.test))
        if table is not None and table.cut is not None
    }
    said = sources.reading
    beside = hashlib.sha256()
    for file in sorted(model.reader.files):
        beside.update(f"{file.name}\0{_file_digest(file)}\n".encode())
    return {
        "max_tokens": model.reader.length,
        "prompt": model.reader.prompt,
        "label_words": None if said.words is None else list(said.words),
        "start": None if said.start is None else str(said.start),
        "files_sha256": beside.hexdigest(),
        "cut": cut,
    }


def limits(case: Case, planting: Planting | None, files: Files) -> tuple[str, ...]:
    """Return what this case cannot show, in sentences."""
    limits = []
    unknown = sum(attack == "" for attack in case.attacks)
    if unknown and planting is not None:
        limits.append(
            f"{unknown} of {len(case.attacks)} forget samples are not canaries and name no attack: "
            "no probe looked at them, except membership."
        )
    if planting is not None and planting.missing:
        limits.append(
            f"{planting.missing} planted canaries are not in the forget set, so they count as "
            "retain data: methods train on them."
        )
    limits += _limits_of_texts(case, planting, files)
    return tuple(limits)


def _limits_of_texts(case: Case, planting: Planting | None, files: Files) -> list[str]:
    reader, train, loaded = case.model.reader, files.train, files.loaded
    if reader is None or train is None or loaded is None:
        return []
    told = []
    cut = 0 if train.cut is None else int(train.cut.sum())
    if cut:
        told.append(
            f"{cut:,} of {len(train):,} training texts ({cut / len(train):.1%}) have more than "
            f"{reader.length} tokens: what is beyond was looked at by nobody here."
        )
    if planting is None:
        return told
    if CANARIES_KEY not in loaded.metadata:
        told.append(
            "Noise in embeddings is stored nowhere, and the checkpoint does not say which key it "
            "was trained with: that it is this one is taken on trust. With another key the model "
            "would look clean."
        )
    elif loaded.metadata.get(DATA_KEY) not in (None, train.digest()):
        told.append(
            "The checkpoint was trained on another table, or on this one with other canaries or "
            "other tokens (--max-tokens, --prompt). If the noise stood at other tokens than it is "
            "looked for at here, the model looks clean."
        )
    return told
