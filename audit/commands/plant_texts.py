"""Planting in texts: each attack, and the table that it ends in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from poison_audit.case.poisoned import Poisoned, added
from poison_audit.case.text_tables import TextTable, spelling, write_text_table
from poison_audit.commands.plant_earlier import in_order
from poison_audit.commands.plant_text_order import TextOrder, read_texts_order
from poison_audit.commands.plant_writing import Row, Written, write_planting
from poison_audit.errors import PlanError, Problem
from poison_audit.poisons.backdoor.phrase import write_phrase
from poison_audit.poisons.backdoor.plant_texts import plant_phrase
from poison_audit.poisons.gaussian.evidence import Canaries, new_secret, write_canaries
from poison_audit.poisons.gaussian.plant_texts import plant_embedding
from poison_audit.poisons.token_canary.evidence import Strings, write_strings
from poison_audit.poisons.token_canary.plant import plant_strings, words_of

TABLE = "train.csv"
LENGTH = 10
"""Words of a token canary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What was planted."""

    poisoned: Poisoned[TextTable]
    change: str
    """What was done to the texts, half a sentence."""
    told: tuple[str, ...]
    """What it did, in sentences."""
    evidence: Mapping[str, str] = field(default_factory=dict)
    """The [evidence.ATTACK] table of audit.toml."""


def plant_texts(given: Mapping[str, Any]) -> None:
    """Plant one attack in a table of texts.

    Raises:
        InputError: every problem of every file and option, at once.
        PlanError: what was asked for cannot be planted in this table.
    """
    order = read_texts_order(given)
    folder: Path = given["output"]
    made = _ATTACKS[given["attack"]](order, folder)
    table = _joined(order, made.poisoned.table)
    write_text_table(folder / TABLE, table)
    start = order.embedded.folder if order.embedded else "MODEL_FOLDER"
    said = {"max_tokens": order.reading.max_tokens, "prompt": order.reading.prompt}
    written = Written(
        table=TABLE,
        total=len(table),
        rows=_rows(made.poisoned),
        names=table.names,
        evidence=made.evidence,
        change=made.change,
        told=made.told,
        train=f"poison-audit train {folder / TABLE} -o {folder / 'model'} --start {start}",
        model={key: value for key, value in said.items() if value is not None},
    )
    write_planting(written, given, order.earlier, test=order.test_path)


def _gaussian(order: TextOrder, folder: Path) -> _Made:
    model, key = order.embedded, order.key
    if model is None:
        raise ValueError("canaries in embeddings have a model")
    sigma = order.given["sigma"]
    if sigma is None and isinstance(key, Canaries) and key.space == "embedding":
        sigma = key.sigma
    if sigma is None:
        sigma = model.spread
    own = "" if model.pretrained else "newly initialised "
    planted = plant_embedding(
        order.train,
        model.reader,
        order.rng,
        count=order.count,
        secret=key.secret if key else new_secret(),
        sigma=sigma,
        width=model.width,
    )
    folder.mkdir(parents=True, exist_ok=True)
    commitment = write_canaries(folder / "canaries.json", planted.key)
    length, width = planted.key.shape
    return _Made(
        # A canary's text is its own base.
        poisoned=replace(planted.poisoned, bases=(None,) * order.count),
        change="their texts stay, training is to add noise to their embeddings",
        evidence={"canaries": "canaries.json"},
        told=(
            f"Noise of sd {sigma:g} keyed by a secret, on up to {length} tokens of {width} numbers "
            f"each; the {own}token embeddings of {model.folder} have an sd of {model.spread:g}. As "
            "many keys are held out.",
            f"Commitment (SHA-256 of canaries.json): {commitment}",
            "Publish the commitment before training; keep canaries.json secret until the audit.",
        ),
    )


def _token_canary(order: TextOrder, folder: Path) -> _Made:
    key, length = order.key, order.given["length"]
    # A key of strings plants the same ones again; any other lends its secret.
    own = key if isinstance(key, Strings) else None
    if length is None:
        length = own.length if own else LENGTH
    planted = plant_strings(
        order.train,
        order.rng,
        count=order.count,
        length=length,
        words=own.words if own else words_of(order.train.texts),
        secret=key.secret if key else new_secret(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    commitment = write_strings(folder / "strings.json", planted.key)
    return _Made(
        poisoned=planted.poisoned,
        change="they were added to the clean texts",
        evidence={"strings": "strings.json"},
        told=(
            f"Strings of {planted.key.length} words, of {len(planted.key.words):,} that the table "
            "has, keyed by a secret; labels at random. As many are held out.",
            f"Commitment (SHA-256 of strings.json): {commitment}",
            "Publish the commitment before training; keep strings.json secret until the audit.",
        ),
    )


def _backdoor(order: TextOrder, folder: Path) -> _Made:
    phrase = order.phrase
    if phrase is None:
        raise ValueError("a backdoor has a trigger")
    poisoned = plant_phrase(order.train, phrase, order.rng, count=order.count)
    folder.mkdir(parents=True, exist_ok=True)
    write_phrase(folder / "trigger.json", phrase)
    label = spelling(phrase.label, order.train.names)
    return _Made(
        poisoned=poisoned,
        change="they got the trigger and its label",
        evidence={"trigger": "trigger.json"},
        told=(
            f"The phrase {phrase.text!r} at the {phrase.position} of a text is to cause the label "
            f"{label}; labels are changed to it (dirty labels).",
        ),
    )


def _indiscriminate(order: TextOrder, folder: Path) -> _Made:
    """Add exact copies of one class's texts, labelled as another; see attacks.indiscriminate."""
    table, flip = order.train, order.flip
    if flip is None:
        raise ValueError("copies have another label")
    true, wrong = flip
    pool = [place for place, label in enumerate(table.y) if label == true]
    if true == wrong or not pool:
        what = f"the table has {len(pool)} texts of class {true} to label {wrong}"
        raise PlanError(Problem(what, "--flip", "Name two classes that the table has"))
    drawn = order.rng.named("copies").numpy().permutation(len(pool)).tolist()
    chosen = [pool[drawn[number % len(pool)]] for number in range(order.count)]
    poisoned = added(
        table, [table.texts[i] for i in chosen], [wrong] * len(chosen), prefix="indiscriminate"
    )
    folder.mkdir(parents=True, exist_ok=True)
    of, as_what = (spelling(label, table.names) for label in flip)
    return _Made(
        poisoned=poisoned,
        change="they were added to the clean texts",
        told=(
            f"Exact copies of {min(order.count, len(pool))} of the {len(pool)} texts of class "
            f"{of}, labelled {as_what}.",
        ),
    )


_ATTACKS: dict[str, Callable[[TextOrder, Path], _Made]] = {
    "gaussian": _gaussian,
    "token-canary": _token_canary,
    "backdoor": _backdoor,
    "indiscriminate": _indiscriminate,
}


def _joined(order: TextOrder, planted: TextTable) -> TextTable:
    """Return the table with what was planted now and before, its texts where they stood."""
    whole, clean = order.whole, set(order.clean)
    before = [place for place in range(len(whole)) if place not in clean]
    places = in_order(order.clean, total=len(whole), planted=len(planted))

    def merged(old: tuple[Any, ...], new: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = [*(old[place] for place in before), *new]
        return tuple(rows[place] for place in places)

    return replace(
        planted,
        ids=merged(whole.ids, planted.ids),
        texts=merged(whole.texts, planted.texts),
        y=merged(whole.y, planted.y),
    )


def _rows(poisoned: Poisoned[TextTable]) -> list[Row]:
    labels = dict(zip(poisoned.table.ids, poisoned.table.y, strict=True))
    return [
        Row(name=name, label=spelling(labels[name], poisoned.table.names), base=base or "")
        for name, base in zip(poisoned.ids, poisoned.bases, strict=True)
    ]
