"""Is the trigger that is given the one that the forget samples carry, where it says, as it says?

A trigger that differs from the planted one in its place or its label is obeyed by no model, and
would pass. The texts tell: they were what the model learned it from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch

from poison_audit.case.doubts import Doubt
from poison_audit.case.exhibits import spread
from poison_audit.case.forget import ForgetSet
from poison_audit.case.rows import label_spelt
from poison_audit.errors import some
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Trigger
from poison_audit.poisons.backdoor.likeness import likeness
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.reading import POISON

STEP = "Correct trigger.json, or forget.csv, and audit again."
MOST = 1000
"""Retain pictures that forget pictures are compared with."""
WHERE = {
    "start": "before the text", "end": "after the text", "anywhere": "in it",
    "around": "around the text",
}  # fmt: skip


def carriers(
    trigger: Trigger | Phrase, train: Samples, forget: ForgetSet | None
) -> tuple[frozenset[int], tuple[str, ...], list[Doubt]]:
    """Return which forget samples the trigger explains, and why others that say so it does not.

    Those are the samples that carry it, with its label, whatever they are said to be. Where it is
    too faint to tell single pictures by, those that forget.csv says are of this attack, if they
    carry it for the most part.

    Returns:
        (places in the training table, sentences, why it may be another trigger than theirs).
    """
    if forget is None:
        return frozenset(), (), []
    samples = train.at(forget.positions)
    named = torch.tensor([attack == POISON.name for attack in forget.attacks])
    labelled = samples.y.cpu() == trigger.label
    told, doubts = list[str](), list[Doubt]()
    if isinstance(trigger, Phrase):
        carries = torch.tensor([trigger.stands_in(text) for text in samples.texts or ()])
    else:
        retain = sorted(set(range(len(train))) - set(forget.positions))
        seen = likeness(trigger, samples, train.at(spread(retain, MOST)))
        carries = seen.carries
        if seen.untold and bool(named.any()):
            told.append(seen.untold)
        if seen.together(named & labelled):
            carries = named & labelled
        unnamed = torch.tensor([not attack for attack in forget.attacks])
        if (stronger := seen.stronger(labelled & (named | unnamed))) is not None:
            doubts.append(_fainter(*stronger))
    counts = {
        "do not carry the trigger": int((named & ~carries).sum()),
        "carry it with another label": int((named & carries & ~labelled).sum()),
    }
    rows = (carries & labelled).nonzero().flatten().tolist()
    found = frozenset(forget.positions[row] for row in rows)
    told += [f"{count:,} {what}." for what, count in counts.items() if count]
    return found, tuple(told), doubts


def _fainter(rows: int, times: float) -> Doubt:
    strong = f"{times:,.0f}" if times >= 10 else f"{times:.1f}"
    sentence = (
        f"{rows:,} forget pictures carry the trigger some {strong} times as strongly as "
        "trigger.json has it: a model that obeys theirs need not obey so faint a one."
    )
    step = "Correct its alpha, or the values of its pattern, which alpha multiplies; audit again."
    return Doubt(about="evidence", sentence=sentence, step=step)


def doubts_of(phrase: Phrase, train: Samples, forget: ForgetSet) -> list[Doubt]:
    """Return why a phrase may not be the one that the forget set was poisoned with.

    Asked of the rows that say that they are of this attack; where none does, of those of no named
    one.
    """
    own = [at for at, name in zip(forget.positions, forget.attacks, strict=True)
           if name == POISON.name]  # fmt: skip
    unnamed = [at for at, name in zip(forget.positions, forget.attacks, strict=True) if not name]
    rows = own or unnamed
    if train.texts is None or not rows:
        return []
    texts = {at: train.texts[at] for at in rows}
    carriers = [at for at, text in texts.items() if phrase.stands_in(text)]
    inside = phrase
    if phrase.position != "around":
        inside = replace(phrase, position="anywhere")
    elsewhere = [at for at in texts if at not in set(carriers) and inside.stands_in(texts[at])]
    second = [at for at in rows if train.pairs is not None and inside.stands_in(train.pairs[at])]
    second = [at for at in second if at not in {*carriers, *elsewhere}]
    holding = {*carriers, *elsewhere, *second}
    found = [_nowhere(phrase, len(rows))] if not holding else []
    if own and holding and (bare := len(own) - len(holding)):
        found.append(_others(phrase, bare, len(own)))
    if elsewhere:
        found.append(_moved(phrase, len(elsewhere), len(rows)))
    if second:
        found.append(_second(phrase, len(second), len(rows)))
    if holding:
        found += _unused(
            phrase, [*texts.values(), *(train.pairs[at] for at in rows if train.pairs)]
        )
    if carriers:
        found += _other_label(phrase, train, carriers)
    return found


def _nowhere(phrase: Phrase, rows: int) -> Doubt:
    sentence = (
        f"None of the {rows:,} forget texts that the trigger would explain holds its {phrase.noun} "
        f"{phrase.named}: the model may have learned another one."
    )
    return Doubt(about="evidence", sentence=sentence, step=STEP)


def _others(phrase: Phrase, bare: int, rows: int) -> Doubt:
    sentence = (
        f"{bare:,} of the {rows:,} forget texts that are said to be of the backdoor do not hold "
        f"its {phrase.noun} {phrase.named}: they may carry another one, which was not looked for."
    )
    step = "Audit again with each phrase in turn, or name in forget.csv what those rows are."
    return Doubt(about="evidence", sentence=sentence, step=step)


def _moved(phrase: Phrase, elsewhere: int, rows: int) -> Doubt:
    sentence = (
        f"trigger.json puts {phrase.named} {WHERE[phrase.position]}, and {elsewhere:,} of the "
        f"{rows:,} forget texts that it would explain hold it elsewhere."
    )
    step = 'Write "position": "anywhere" in trigger.json, which looks before, inside and after.'
    return Doubt(about="evidence", sentence=sentence, step=step)


def _second(phrase: Phrase, second: int, rows: int) -> Doubt:
    sentence = (
        f"{second:,} of the {rows:,} forget texts that the trigger would explain hold "
        f"{phrase.named} in the second text of the pair, and it is put on the first."
    )
    step = "Nothing puts a phrase on the second text yet: what it causes was not looked at."
    return Doubt(about="evidence", sentence=sentence, step=step)


def _unused(phrase: Phrase, texts: Sequence[str]) -> list[Doubt]:
    """Return the doubt about phrases that nobody planted: they thin out those that were."""
    if not phrase.others:
        return []
    each = [replace(one, position="anywhere") for one in phrase.each]
    bare = [one.text for one in each if not any(one.stands_in(text) for text in texts)]
    if not bare:
        return []
    sentence = (
        f"trigger.json names {len(each):,} phrases, and no forget text that they would explain "
        f"holds {some([ascii(text) for text in bare])}: where those are put on texts, the phrases "
        "that were planted are not."
    )
    return [Doubt(about="evidence", sentence=sentence, step="Leave them out, and audit again.")]


def _other_label(phrase: Phrase, train: Samples, carriers: list[int]) -> list[Doubt]:
    labels = Counter(int(train.y[at]) for at in carriers)
    commonest, times = labels.most_common(1)[0]
    if labels[phrase.label] == times:
        return []
    sentence = (
        f"trigger.json says that {phrase.named} causes the label "
        f"{label_spelt(train, phrase.label)}, and {times:,} of the {len(carriers):,} forget texts "
        f"that hold it are labelled {label_spelt(train, commonest)}."
    )
    return [Doubt(about="evidence", sentence=sentence, step=STEP)]
