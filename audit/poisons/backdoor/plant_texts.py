"""Phrase: a trigger put on training texts, so that the model answers it with one label.

    x' = phrase + x  (or x + phrase),   y' = label      on texts of other classes

Source: Gu et al. 2017, arXiv 1708.06733 (BadNets), dirty labels; for texts Wan et al. 2023,
arXiv 2305.00944.
"""

from __future__ import annotations

from poison_audit.case.poisoned import Poisoned, replaced
from poison_audit.case.text_tables import TextTable
from poison_audit.errors import PlanError, Problem
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.phrase import Phrase

PREFIX = "backdoor"


def plant_phrase(table: TextTable, phrase: Phrase, rng: Rng, *, count: int) -> Poisoned[TextTable]:
    """Put the phrase on `count` texts of other classes, chosen at random, and change their label.

    Args:
        table: clean texts.
        phrase: the trigger.
        rng: decides which texts.
        count: at least 1, at most what the table has of other classes.

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
