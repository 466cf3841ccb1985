"""Is the phrase that is given the one that the forget set's texts carry, where it says, as it says?

A trigger that differs from the planted one in its place or its label is obeyed by no model, and
would pass. The texts tell: they were what the model learned it from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from poison_audit.case.doubts import Doubt
from poison_audit.case.forget import ForgetSet
from poison_audit.case.rows import label_spelt
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.evidence import Phrase
from poison_audit.poisons.backdoor.reading import POISON

STEP = "Correct trigger.json, or forget.csv, and audit again."
WHERE = {"start": "before the text", "end": "after the text", "anywhere": "in it"}


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
    inside = replace(phrase, position="anywhere")
    elsewhere = [at for at in texts if at not in set(carriers) and inside.stands_in(texts[at])]
    found = [_nowhere(phrase, len(rows))] if not carriers and not elsewhere else []
    if elsewhere:
        found.append(_moved(phrase, len(elsewhere), len(rows)))
    if carriers:
        found += _other_label(phrase, train, carriers)
    return found


def _nowhere(phrase: Phrase, rows: int) -> Doubt:
    sentence = (
        f"None of the {rows:,} forget texts that the trigger would explain holds its phrase "
        f"{phrase.text!a}: the model may have learned another one."
    )
    return Doubt(about="evidence", sentence=sentence, step=STEP)


def _moved(phrase: Phrase, elsewhere: int, rows: int) -> Doubt:
    sentence = (
        f"trigger.json puts {phrase.text!a} {WHERE[phrase.position]}, and {elsewhere:,} of the "
        f"{rows:,} forget texts that it would explain hold it elsewhere."
    )
    step = 'Write "position": "anywhere" in trigger.json, which looks before, inside and after.'
    return Doubt(about="evidence", sentence=sentence, step=step)


def _other_label(phrase: Phrase, train: Samples, carriers: list[int]) -> list[Doubt]:
    labels = Counter(int(train.y[at]) for at in carriers)
    commonest, times = labels.most_common(1)[0]
    if labels[phrase.label] == times:
        return []
    sentence = (
        f"trigger.json says that {phrase.text!a} causes the label "
        f"{label_spelt(train, phrase.label)}, and {times:,} of the {len(carriers):,} forget texts "
        f"that hold it are labelled {label_spelt(train, commonest)}."
    )
    return [Doubt(about="evidence", sentence=sentence, step=STEP)]
