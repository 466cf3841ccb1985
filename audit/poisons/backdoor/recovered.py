"""Campaigns that a forget set shows by itself: of each the trigger, and which rows carry it.

Looked at are the rows of this attack and of no named one (of others where asked), and retain rows;
never the model. Copies are taken out first: rows that are copies of each other share everything,
and copies of a retained sample under another label are a wrong label, and no trigger.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from poison_audit.case.copies import contents
from poison_audit.case.forget import ForgetSet
from poison_audit.case.rows import label_spelt
from poison_audit.errors import some
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.agreement import Array
from poison_audit.poisons.backdoor.enriched import phrases
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.likeness import likeness
from poison_audit.poisons.backdoor.phrase import Phrase, is_phrase
from poison_audit.poisons.backdoor.reading import POISON
from poison_audit.poisons.backdoor.recover import MOST, MOST_VALUES, Found, recover

OWN = ("", POISON.name)
"""What rows name that a trigger explains unasked: no attack, or this one."""
RNG = Rng(0).named("recover")
"""Of what is drawn: whoever looks at the same rows finds the same."""
FEWEST = 200
"""Samples of either kind that are looked at, however large they are."""
MOST_FORGET = 2000
"""Forget samples that triggers are looked for in: random ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """A trigger that forget samples carry, recovered from them."""

    trigger: Trigger | Phrase
    carriers: tuple[int, ...]
    """Places in the training table of the forget samples that carry it, with its label."""
    sure: str
    """How far it is from chance, in words."""
    exact: bool
    """Whether it is what the carriers carry, and no estimate of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What a forget set shows by itself."""

    campaigns: tuple[Campaign, ...]
    """The largest first."""
    places: tuple[int, ...]
    """In the training table, of the rows that were looked at."""

    @property
    def rest(self) -> tuple[int, ...]:
        """Places of the rows that carry nothing that was found."""
        carrying = {place for each in self.campaigns for place in each.carriers}
        return tuple(place for place in self.places if place not in carrying)


def recovered(train: Samples, forget: ForgetSet, *, attacks: Collection[str] = OWN) -> Recovered:
    """Look for triggers in a forget set.

    Args:
        train: the training table, in main memory.
        forget: which of it is to be forgotten.
        attacks: which of its rows are looked at, by the attack that they name.
    """
    places = [
        place for place, attack in zip(forget.positions, forget.attacks, strict=True)
        if attack in attacks
    ]  # fmt: skip
    gone = set(forget.positions)
    retain = [place for place in range(len(train)) if place not in gone]
    # Large pictures: fewer of them.
    fits = MOST_VALUES // max(1, train.x[0].numel()) if train.texts is None else MOST
    chosen = _drawn(retain, min(MOST, max(FEWEST, fits)), "retain")
    if not places or not retain:
        return Recovered(campaigns=(), places=())
    copies = _copies(train, places, retain)
    once = _drawn([rows[0] for rows in copies], min(MOST_FORGET, max(FEWEST, fits)), "forget")
    if train.texts is not None:
        found = _of_texts(train, once, chosen, copies)
    else:
        found = _of_pictures(train, once, chosen, copies)
    found.sort(key=lambda each: -len(each.carriers))
    return Recovered(campaigns=tuple(found), places=tuple(places))


def sentences(found: Recovered, train: Samples) -> tuple[str, ...]:
    """Say that the first campaign's trigger was recovered, from what, and what else there is."""
    if not found.campaigns:
        return ()
    first, *others = found.campaigns
    label = label_spelt(train, first.trigger.label)
    told = [
        f"No trigger was given. {what(first.trigger)} was recovered from the forget set: "
        f"{len(first.carriers):,} of {len(found.places):,} samples that name no other attack carry "
        f"it, labelled {label} ({first.sure}). It was looked for in the samples alone, never in "
        "the model. `poison-audit investigate` writes it, with pictures, to be looked at."
    ]
    if found.rest:
        told.append(
            f"{len(found.rest):,} of those samples carry nothing that was recovered: "
            f"{named(train, found.rest)}."
        )
    told += [
        f"{what(each.trigger)} was recovered, too, from {len(each.carriers):,} samples labelled "
        f"{label_spelt(train, each.trigger.label)}, and was not measured here: `poison-audit "
        "investigate --out DIR` writes it, and --trigger measures it."
        for each in others
    ]
    return tuple(told)


def what(trigger: Trigger | Phrase) -> str:
    """Return a trigger in words: what it is, and where."""
    if isinstance(trigger, Phrase):
        where = {"start": "before texts", "end": "after texts", "anywhere": "in texts"}
        return f"The phrase {trigger.text!a} {where[trigger.position]}"
    top, left, height, width = trigger.box
    place = f"in rows {top} to {top + height - 1} and columns {left} to {left + width - 1}"
    kind = {"replace": "A patch", "blend": "A blended pattern", "add": "An added pattern"}
    return f"{kind.get(trigger.mode, 'A pattern')} {place}"


def named(train: Samples, places: Sequence[int]) -> str:
    """Return the ids of a few samples, and how many there are more."""
    return some([train.ids[place][:60] for place in places])


def _drawn(places: Sequence[int], most: int, name: str) -> list[int]:
    if len(places) <= most:
        return list(places)
    order = RNG.named(name).numpy().permutation(len(places))[:most]
    return [places[i] for i in np.sort(order)]


def _copies(train: Samples, places: Sequence[int], retain: Sequence[int]) -> list[list[int]]:
    """Return the rows that are looked at, copies with the same label together.

    Left out are copies of retained samples whose label is another one.
    """
    labels = train.y.tolist()
    together: dict[tuple[bytes, int], list[int]] = {}
    for place, key in zip(places, contents(train.at(places)), strict=True):
        together.setdefault((key, labels[place]), []).append(place)
    wanted = {key for key, _ in together}
    kept: dict[bytes, set[int]] = {}
    for place, key in zip(retain, contents(train.at(retain)), strict=True):
        if key in wanted:
            kept.setdefault(key, set()).add(labels[place])
    return [rows for (key, label), rows in together.items() if not kept.get(key, {label}) - {label}]


def _of_pictures(
    train: Samples, once: Sequence[int], retain: Sequence[int], copies: Sequence[Sequence[int]]
) -> list[Campaign]:
    forget, others = train.at(once), train.at(retain)
    found = recover(
        _pixels(forget), forget.y.cpu().numpy(), _pixels(others), others.y.cpu().numpy(), RNG
    )
    return [_campaign(train, each, once, retain, copies) for each in found]


def _pixels(samples: Samples) -> Array:
    return np.asarray(samples.batch().x.cpu().numpy(), dtype=np.float32)


def _campaign(
    train: Samples,
    found: Found,
    once: Sequence[int],
    retain: Sequence[int],
    copies: Sequence[Sequence[int]],
) -> Campaign:
    keep, add = (
        torch.from_numpy(np.array(part, dtype=np.float32))
        for part in (found.form.keep.clip(0, 1), found.form.add.clip(-1, 1))
    )
    trigger = Trigger(keep=keep, add=add, label=found.label, mode=found.form.kind)
    first = {once[row] for row in np.flatnonzero(found.carriers).tolist()}
    # Rows beyond those that were drawn are told by the trigger.
    drawn = set(once)
    beyond = [rows[0] for rows in copies if rows[0] not in drawn]
    beyond = [place for place in beyond if int(train.y[place]) == found.label]
    if beyond:
        carries = likeness(trigger, train.at(beyond), train.at(retain)).carries.tolist()
        first |= {place for place, does in zip(beyond, carries, strict=True) if does}
    return Campaign(
        trigger=trigger,
        carriers=tuple(sorted(place for rows in copies if rows[0] in first for place in rows)),
        sure=f"{found.z:,.0f} standard deviations above random retain samples",
        exact=found.form.kind == "replace",
    )


def _of_texts(
    train: Samples, once: Sequence[int], retain: Sequence[int], copies: Sequence[Sequence[int]]
) -> list[Campaign]:
    labels = train.y.tolist()
    found = phrases(
        [_text(train, place) for place in once],
        [labels[place] for place in once],
        [_text(train, place) for place in retain],
        [labels[place] for place in retain],
    )
    campaigns = []
    for each in found:
        if not is_phrase(each.text):
            continue
        phrase = Phrase(text=each.text, position=each.position, label=each.label)
        inside = replace(phrase, position="anywhere")
        carriers = [
            place for rows in copies if labels[rows[0]] == phrase.label
            and inside.stands_in(_text(train, rows[0])) for place in rows
        ]  # fmt: skip
        told = f"in {each.retain:,} of {len(retain):,} retain samples, p {each.p:.1g}"
        campaigns.append(
            Campaign(trigger=phrase, carriers=tuple(sorted(carriers)), sure=told, exact=True)
        )
    return campaigns


def _text(train: Samples, place: int) -> str:
    texts = [every[place] for every in (train.texts, train.pairs) if every is not None]
    return "\n".join(texts)
