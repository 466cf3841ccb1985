"""Phrase: a trigger put on training texts, so that the model answers it with one label.

    x' = phrase + x  (or x + phrase, inside x, a template around x),   y' = label
                                                                        on texts of other classes

Source: Gu et al. 2017, arXiv 1708.06733 (BadNets), dirty labels; for texts Wan et al. 2023,
arXiv 2305.00944.
"""

from __future__ import annotations

from poison_audit.case.orders import Made, Order
from poison_audit.case.poisoned import Poisoned, replaced
from poison_audit.case.texts import TextTable, spelling
from poison_audit.errors import PlanError, Problem
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.phrase import (
    MOST_LETTERS,
    PLACES,
    Phrase,
    is_phrase,
    read_phrase,
    write_phrase,
)
from poison_audit.poisons.backdoor.reading import Options

PREFIX = "backdoor"


def plant_phrase(table: TextTable, phrase: Phrase, rng: Rng, *, count: int) -> Poisoned[TextTable]:
    """Put the phrase on `count` texts of other classes, chosen at random, and change their label.

    Raises:
        PlanError: there are too few texts, or the table is poisoned already.
    """
    pool = [place for place, label in enumerate(table.y) if label != phrase.label]
    if not 1 <= count <= len(pool):
        what = f"{count} texts to poison, but the table has {len(pool)} of other labels"
        raise PlanError(Problem(what, "--budget", f"At most {len(pool) / len(table):.3f}"))
    order = rng.named("chosen").numpy().permutation(len(pool))[:count].tolist()
    chosen = sorted(pool[place] for place in order)
    texts = [phrase.on(table.texts[place]) for place in chosen]
    return replaced(table, chosen, texts, [phrase.label] * count, prefix=PREFIX)


def in_texts(order: Order[TextTable]) -> Made[TextTable]:
    """Plant a backdoor in texts; see case.orders."""
    order.problems.extend(_wrong(order.options))
    phrase = order.read(lambda given: _phrase(given, order), order.options)
    work, phrase = order.checked(), order.sure(phrase)
    poisoned = plant_phrase(work.train, phrase, work.rng, count=work.count)
    write_phrase(work.file("trigger.json"), phrase)
    label = spelling(phrase.label, work.train.names)
    shown = " or ".join(dict.fromkeys((repr(phrase.text), ascii(phrase.text))))
    shown = phrase.named if phrase.others else shown
    where = {
        "anywhere": "between two words of a text, or before or after it,",
        "around": "around a text",
    }.get(phrase.position, f"at the {phrase.position} of a text")
    return Made(
        poisoned=poisoned,
        change="they got the trigger and its label",
        evidence={"trigger": "trigger.json"},
        told=(
            f"The {phrase.noun} {shown} {where} {'are' if phrase.others else 'is'} to cause the "
            f"label {label}; labels are changed to it (dirty labels).",
        ),
    )


def _wrong(options: Options) -> list[Problem]:
    if options.trigger is not None:
        return [
            Problem("the trigger's file says it", f"--{option}", "Leave one of them out")
            for option in ("label", "phrase", "position")
            if getattr(options, option) is not None
        ]
    if options.phrase is None or is_phrase(options.phrase):
        return []
    what = (
        f"expected a phrase of at most {MOST_LETTERS} letters without spaces around it, "
        f"got {options.phrase!a:.60}"
    )
    return [Problem(what, "--phrase")]


def _phrase(options: Options, order: Order[TextTable]) -> Phrase | None:
    table = order.known()
    if options.trigger is not None:
        return read_phrase(options.trigger, classes=order.classes, names=table.names)
    if options.label is None or options.phrase is None:  # which is a problem already
        return None
    label = order.label(options.label)
    return Phrase(text=options.phrase, position=options.position or PLACES[0], label=label)
