"""A case from its files, with every poison that there is."""

from poison_audit.case.load import Sources, Trial, load_trial
from poison_audit.poisons.probes import READERS
from poison_audit.poisons.readings import POISONS
from poison_audit.records import Recipe


def loaded(sources: Sources, recipe: Recipe) -> Trial:
    return load_trial(sources, recipe=recipe, device="cpu", poisons=POISONS, readers=READERS)
