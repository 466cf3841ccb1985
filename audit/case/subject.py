"""What a report says of a trial: what was on it, and what it cannot show."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from poison_audit.case.case import Case
from poison_audit.case.contenders import Contender
from poison_audit.case.files import Evidence, Files
from poison_audit.case.provenance import digest_of
from poison_audit.models.model import Model
from poison_audit.models.outputs import SAID
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.records import Json

TABLES = ("forget", "train", "test")


def subject(
    files: Files, case: Case, brought: Sequence[Evidence], contenders: tuple[Contender, ...]
) -> dict[str, Json]:
    """Return paths, digests and sizes, for the report."""
    sources, loaded, train, forget = files.sources, files.loaded, files.train, files.forget
    if loaded is None or train is None or forget is None or files.test is None:
        raise ValueError("a case has a model, both tables and a forget set")
    return {
        "model": str(sources.model),
        "model_sha256": loaded.sha256,
        **_adapter(case.model),
        "arch": case.model.arch,
        "arch_source": loaded.arch_source,
        "parameters": sum(p.numel() for p in case.model.module.parameters()),
        "classes": case.model.classes,
        "normalize": case.model.normalize,
        **({"kept": "; ".join(loaded.notes)} if loaded.notes else {}),
        "train": str(sources.train),
        "train_size": len(train),
        "train_sha256": train.digest(),
        "forget": str(sources.forget),
        "forget_size": len(case.forget),
        "forget_sha256": forget.digest,
        "retain_size": len(case.retain),
        "test": str(sources.test),
        "test_size": len(case.test),
        "test_sha256": files.test.digest(),
        **{key: part for evidence in brought for key, part in evidence.subject.items()},
        "reading": _reading(case.model, files),
        "attacks": dict(Counter(forget.attacks)),
        "candidates": {
            c.name: {"path": str(c.path), "kind": c.kind, "sha256": c.sha256} for c in contenders
        },
    }


def files_read(
    files: Files, evidence: Sequence[str], contenders: tuple[Contender, ...]
) -> tuple[tuple[str, Path], ...]:
    """Return the role and the path of everything that was read, pictures of a table aside."""
    found, sources = [], files.sources
    if files.loaded is not None:
        role = "weights"
        if (adapter := files.loaded.model.adapter) is not None:
            role, (config, own) = "base", adapter.files
            found += [("weights", own), ("adapter config", config)]
        found += [(role, path) for path in files.loaded.files]
        reader = files.loaded.model.reader
        found += [("beside the weights", path) for path in (reader.files if reader else ())]
    given = {name: getattr(sources, name) for name in TABLES}
    given |= {name: sources.evidence.get(name) for name in evidence}
    found += [(name, path) for name, path in given.items() if path is not None]
    if sources.reading.start is not None:
        found.append(("start", sources.reading.start))
    return (*found, *((f"{each.kind} {each.name}", each.path) for each in contenders))


def _adapter(model: Model) -> dict[str, Json]:
    """Return which base an adapter was merged into, and what it is; empty: there is none."""
    if (adapter := model.adapter) is None:
        return {}
    return {
        "adapter": {
            "config_sha256": adapter.config_sha256,
            "base": str(adapter.base),
            "base_sha256": adapter.base_sha256,
            "named": adapter.config.get("base_model_name_or_path"),
            "layers": len(adapter.pairs),
            "whole": sorted(adapter.whole),
        }
    }


def _reading(model: Model, files: Files) -> dict[str, Json] | None:
    """Return how texts are read, and how many were too long."""
    if model.reader is None:
        return None
    cut = {
        name: int(table.cut.sum())
        for name, table in (("train", files.train), ("test", files.test))
        if table is not None and table.cut is not None
    }
    said = files.sources.reading
    beside = hashlib.sha256()
    for file in sorted(model.reader.files):
        beside.update(f"{file.name}\0{digest_of(file)[0]}\n".encode())
    return {
        "max_tokens": model.reader.length,
        "prompt": model.reader.prompt,
        "label_words": None if said.words is None else list(said.words),
        "start": None if said.start is None else str(said.start),
        "files_sha256": beside.hexdigest(),
        "cut": cut,
    }


def limits(files: Files, brought: Sequence[Evidence]) -> tuple[str, ...]:
    """Return what this case cannot show, in sentences."""
    found = [sentence for evidence in brought for sentence in evidence.limits]
    reader = files.loaded.model.reader if files.loaded is not None else None
    if files.loaded is not None and SAID in files.loaded.notes:
        found.append(SAID)
    if reader is not None:
        found += _cut(reader, {"training": files.train, "test": files.test})
        if reader.stored is not None and reader.stored < reader.length:
            found.append(
                f"Texts were cut to {reader.length} tokens, as --max-tokens or max_tokens says; "
                f"the tokenizer's own files say {reader.stored}."
            )
    return (*found, *(sentence for evidence in brought for sentence in evidence.trust))


def _cut(reader: Reader, tables: Mapping[str, Samples | None]) -> list[str]:
    """Say how many texts were empty, and how many too long for the model."""
    found = []
    for name, table in tables.items():
        if table is not None and table.left_out:
            rows, every = table.left_out, len(table) + len(table.left_out)
            found.append(
                f"{len(rows):,} of {every:,} {name} texts were left out: no token is in them "
                f"({rows[0].where}{', and others' if len(rows) > 1 else ''})."
            )
        cut = 0 if table is None or table.cut is None else int(table.cut.sum())
        if cut and table is not None:
            found.append(
                f"{cut:,} of {len(table):,} {name} texts ({cut / len(table):.1%}) have more than "
                f"{reader.length} tokens: what is beyond was looked at by nobody here."
            )
    return found
