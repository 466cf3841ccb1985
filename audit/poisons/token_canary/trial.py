"""Token canaries on trial: their key is read, tied to the forget set, and told."""

from __future__ import annotations

import torch

from poison_audit.case.case import Case
from poison_audit.case.files import Evidence, Files
from poison_audit.case.forgotten import partial_key
from poison_audit.case.keyfile import keyed_rows, named_by_key
from poison_audit.errors import Problem, Problems
from poison_audit.poisons.token_canary.evidence import PlantedStrings, find_strings, read_strings
from poison_audit.poisons.token_canary.reading import POISON


def planted_strings(case: Case) -> PlantedStrings | None:
    """Return the token canaries of a case; None: no key was given."""
    found: PlantedStrings | None = case.evidence.get(POISON.name)
    return found


def token_canary_evidence(files: Files, device: torch.device | str, problems: Problems) -> Evidence:
    """Read the key, and prove that it is that of the forget set."""
    train, forget = files.train, files.forget
    key = strings = None
    if (path := files.sources.evidence.get("strings")) is not None:
        with problems.collecting():
            key = read_strings(path)
        if train is not None and train.texts is None and forget is not None:
            what = "token canaries are texts, and the samples are pictures"
            problems.append(Problem(what, str(path)))
        if train is not None and train.pairs is not None:
            what = "token canaries are texts that stand alone, and the samples are pairs of texts"
            problems.append(Problem(what, str(path)))
    if key is not None and forget is not None and train is not None and train.texts is not None:
        where = str(files.sources.forget)
        forget = named_by_key(forget, POISON.name, set(key.planted))
        with problems.collecting():
            strings = find_strings(key, forget, train, where=str(path), where_forget=where)
    if strings is None or key is None or forget is None or train is None:
        return Evidence(planted=None, subject={"strings": None})
    told = {
        "path": str(path),
        "commitment": strings.key.commitment,
        "length": strings.key.length,
        "words": len(strings.key.words),
        "planted": len(strings.key.planted),
        "in_forget_set": len(strings),
    }
    return Evidence(
        planted=strings,
        subject={"strings": told},
        explains=frozenset(row.position for row in keyed_rows(forget, POISON.name, "")),
        doubts=partial_key("strings", key.planted, strings.names, train.ids),
    )
