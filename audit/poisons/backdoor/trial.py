"""The trigger of a backdoor on trial: read, and told."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch

from poison_audit.case.case import Case
from poison_audit.case.doubts import Doubt
from poison_audit.case.exhibits import spread
from poison_audit.case.files import Evidence, Files
from poison_audit.case.forget import ForgetSet
from poison_audit.case.provenance import digest_of
from poison_audit.case.rows import label_spelt
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.carried import carriers, doubts_of
from poison_audit.poisons.backdoor.evidence import ANYWHERE, Trigger, read_trigger
from poison_audit.poisons.backdoor.phrase import Phrase, read_phrase
from poison_audit.poisons.backdoor.reading import POISON
from poison_audit.poisons.backdoor.recovered import OWN, recovered, sentences, what
from poison_audit.poisons.backdoor.shared import doubts_of_part
from poison_audit.poisons.backdoor.stamping import stamper

FEWEST = 12
"""Forget samples without a common pattern from which on that is worth a sentence."""
NOTHING = (
    "No trigger was given, and none was recovered from the {:,} forget samples that name no other "
    "attack: they share no common pattern or phrase; perhaps a style."
)
CONFIRM = "Give the trigger that was planted (--trigger), if it can be learned."
TRIED = 50
"""Texts on which is tried whether the tokenizer makes anything of a phrase."""


def trigger_of(case: Case) -> Trigger | Phrase | None:
    """Return the patch or the phrase of a case; None: it is not known."""
    found: Trigger | Phrase | None = case.evidence.get(POISON.name)
    return found


def backdoor_evidence(files: Files, device: torch.device | str, problems: Problems) -> Evidence:
    """Read the trigger: a patch for pictures, a phrase for texts."""
    path, train, loaded = files.sources.evidence.get("trigger"), files.train, files.loaded
    nothing = Evidence(planted=None, subject={"trigger": None})
    if train is None or loaded is None:
        return nothing
    if path is None:
        return nothing if problems or files.forget is None else _unasked(files, device)
    classes: dict[str, Any] = {"classes": loaded.model.classes, "names": files.names}
    trigger: Trigger | Phrase
    how: dict[str, Any]
    doubts: list[Doubt] = []
    with problems.collecting():
        if loaded.model.reader is not None:
            trigger = phrase = read_phrase(path, **classes)
            if problem := _unseen(phrase, loaded.model.reader, train, str(path)):
                raise InputError(problem)
            if files.forget is not None:
                doubts = doubts_of(phrase, train, files.forget)
            how = {**phrase.told, "position": phrase.position}
        else:
            trigger = read_trigger(path, shape=tuple(train.x.shape[1:]), **classes).to(device)
            how = _told(trigger)
        told = {"path": str(path), "sha256": digest_of(path)[0], **how, "label": trigger.label}
        carrying, unlike, fainter = carriers(trigger, train, files.forget)
        doubts += fainter
        doubts += _of_part(trigger, train, carrying, files.forget)
        return Evidence(
            planted=trigger, subject={"trigger": told}, explains=carrying, unlike=unlike,
            doubts=tuple(doubts), stamp=stamper(trigger, loaded.model.reader),
        )  # fmt: skip
    return nothing


def _unasked(files: Files, device: torch.device | str) -> Evidence:
    """Return the trigger that the forget set itself shows, where nobody gave one.

    A pattern that is no more than an estimate may miss what the model learned, so that nothing
    passes by it; what is found by it is found.
    """
    train, forget, loaded = files.train, files.forget, files.loaded
    if train is None or forget is None or loaded is None:
        raise ValueError("a trigger is looked for once all tables are read")
    found = recovered(train, forget)
    reader = loaded.model.reader
    seen = [
        each for each in found.campaigns
        if not isinstance(each.trigger, Phrase) or reader is None
        or _unseen(each.trigger, reader, train, "") is None
    ]  # fmt: skip
    found = replace(found, campaigns=tuple(seen))
    doubts = misnamed(train, forget)
    if not found.campaigns:
        limits = (NOTHING.format(len(found.places)),) if len(found.places) >= FEWEST else ()
        return Evidence(
            planted=None, subject={"trigger": None}, limits=limits, doubts=tuple(doubts)
        )
    first = found.campaigns[0]
    trigger = first.trigger
    if isinstance(trigger, Phrase):
        how: dict[str, Any] = trigger.told
    else:
        how = _told(trigger)
        trigger = trigger.to(device)
    if not first.exact:
        sentence = "The recovered trigger is an estimate: the planted one may do more than it does."
        doubts.append(Doubt(about="evidence", sentence=sentence, step=CONFIRM))
    doubts += _of_part(first.trigger, train, frozenset(first.carriers), forget)
    told = {
        "recovered": f"from {len(first.carriers):,} of {len(found.places):,} forget samples",
        **how,
        "label": trigger.label,
    }
    return Evidence(
        planted=trigger, subject={"trigger": told}, explains=frozenset(first.carriers),
        doubts=tuple(doubts), trust=sentences(found, train), stamp=stamper(trigger, reader),
    )  # fmt: skip


def misnamed(train: Samples, forget: ForgetSet) -> list[Doubt]:
    """Return doubts about rows that name another attack, and carry a trigger to the pixel.

    Rows that a key names are proved by it. Estimates count for nothing: poisons of one target may
    show it faintly, all of them.
    """
    doubts = []
    names = zip(forget.attacks, forget.canaries, strict=True)
    unproved = {name for name, canary in names if canary is None}
    for attack in sorted(unproved - {*OWN}):
        found = recovered(train, forget, attacks=(attack,))
        for each in found.campaigns:
            if each.exact:
                sentence = (
                    f"{len(each.carriers):,} of the {len(found.places):,} forget samples that are "
                    f"said to be {attack} carry a trigger. {what(each.trigger)}, label "
                    f"{label_spelt(train, each.trigger.label)}: what it does was not looked at."
                )
                step = "Leave their attack empty in forget.csv, or give the trigger: audit again."
                doubts.append(Doubt(about="evidence", sentence=sentence, step=step))
    return doubts


def _told(trigger: Trigger) -> dict[str, Any]:
    """Return what a report says of a trigger of pictures; the files beside it are in its digest."""
    top, left, height, width = trigger.box
    values = torch.cat([trigger.keep, trigger.add]).cpu().numpy().tobytes()
    place = {"position": ANYWHERE} if trigger.anywhere else {"top": top, "left": left}
    return {
        "mode": trigger.mode, "size": [height, width], **place,
        "values_sha256": hashlib.sha256(values).hexdigest(),
    }  # fmt: skip


def _of_part(
    trigger: Trigger | Phrase, train: Samples, carrying: frozenset[int], forget: ForgetSet | None
) -> list[Doubt]:
    if forget is None:
        return []
    named = dict(zip(forget.positions, forget.attacks, strict=True))
    own = [place for place in carrying if named[place] in ("", POISON.name)]
    retain = sorted(set(range(len(train))) - set(forget.positions))
    return doubts_of_part(trigger, train, own, retain)


def _unseen(phrase: Phrase, reader: Reader, samples: Samples, where: str) -> Problem | None:
    """Return the problem of a phrase that a tokenizer makes nothing of, as if it were not there."""
    at = spread(list(range(len(samples))), TRIED)
    some = samples.at(at)
    for one in phrase.each:
        if _reads_alike(one, reader, some):
            what = (
                f"the tokenizer reads a text with {one.text!a} as it reads it without: no token "
                "is it"
            )
            fix = (
                "Is it the tokenizer that the model was trained with? If so, the model cannot see "
                "this phrase: write the one that it was trained with, or leave the trigger out."
            )
            return Problem(what, f"{where} {phrase.noun}", fix)
    return None


def _reads_alike(phrase: Phrase, reader: Reader, some: Samples) -> bool:
    """Say whether every text is read with the phrase as without it."""
    texts = some.texts or ()
    rows = {}
    for name, each in (("bare", texts), ("stamped", [phrase.on(text) for text in texts])):
        read = reader.read(each, some.pairs)
        lengths = read.mask.sum(1).tolist()
        rows[name] = [row[:n].tolist() for row, n in zip(read.x, lengths, strict=True)]
        cut = read.cut.tolist()
    alike = [a == b for a, b in zip(rows["bare"], rows["stamped"], strict=True)]
    # Of a long text the end is cut off, and a phrase with it: that tells nothing.
    whole = [same for same, lost in zip(alike, cut, strict=True) if not lost]
    return bool(whole) and all(whole)
