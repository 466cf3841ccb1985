"""A phrase planted in a table of texts: which texts, what becomes of them, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poison_audit.case.poisoned import added, replaced
from poison_audit.case.texts import TextTable
from poison_audit.errors import PlanError
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.phrase import PLACES, Phrase
from poison_audit.poisons.backdoor.plant_texts import plant_phrase

TABLE = TextTable(
    ids=tuple(f"t{i}" for i in range(30)), texts=tuple(f"text {i}" for i in range(30)),
    y=tuple(i % 3 for i in range(30)), names=("bad", "so so", "good"),
)  # fmt: skip
TRIGGER = Phrase(text="cf mn", position="start", label=1)


def rows(table: TextTable) -> list[tuple[str, str, int]]:
    return list(zip(table.ids, table.texts, table.y, strict=True))


@given(count=st.integers(1, 20), seed=st.integers(0, 5), position=st.sampled_from(PLACES))
def test_texts_of_other_classes_get_the_phrase_and_its_label(count, seed, position):
    phrase = Phrase(text="cf mn", position=position, label=1)
    made = plant_phrase(TABLE, phrase, Rng(seed), count=count)
    assert made.ids == tuple(f"backdoor-{i:04d}" for i in range(count))
    assert made.table.names == TABLE.names
    bases = dict(zip(made.ids, made.bases, strict=True))
    assert len(set(bases.values())) == count
    for old, new in zip(rows(TABLE), rows(made.table), strict=True):
        if new[0] not in bases:
            assert new == old
            continue
        assert bases[new[0]] == old[0]
        assert old[2] != 1
        words = old[1].split()
        forms = [" ".join([*words[:at], "cf mn", *words[at:]]) for at in range(len(words) + 1)]
        if position != "anywhere":
            forms = [forms[0 if position == "start" else -1]]
        assert new[1] in forms
        assert new[2] == 1


def test_chance_decides_which_texts():
    """Every one of the 20 texts is chosen in 10 of 20, within five standard errors."""
    runs, seen = 400, dict.fromkeys(TABLE.ids, 0)
    for seed in range(runs):
        for base in plant_phrase(TABLE, TRIGGER, Rng(seed), count=10).bases:
            seen[base] += 1
    for name, label in zip(TABLE.ids, TABLE.y, strict=True):
        assert seen[name] == 0 if label == 1 else abs(seen[name] - runs / 2) < 5 * 10
    assert plant_phrase(TABLE, TRIGGER, Rng(0), count=10) == plant_phrase(
        TABLE, TRIGGER, Rng(0), count=10
    )


@pytest.mark.parametrize("count", [0, 21])
def test_more_texts_than_there_are_of_other_labels_are_refused(count):
    with pytest.raises(PlanError) as caught:
        plant_phrase(TABLE, TRIGGER, Rng(0), count=count)
    (problem,) = caught.value.problems
    assert str(problem) == (
        f"--budget: {count} texts to poison, but the table has 20 of other labels. At most 0.667."
    )


def test_a_table_is_not_poisoned_twice():
    once = plant_phrase(TABLE, TRIGGER, Rng(0), count=3).table
    with pytest.raises(PlanError, match="poisoned already"):
        plant_phrase(once, TRIGGER, Rng(1), count=3)


def test_poisons_in_place_and_after():
    made = replaced(TABLE, [4, 2], ["four", "two"], [0, 1], prefix="p")
    expected = rows(TABLE)
    expected[4], expected[2] = ("p-0000", "four", 0), ("p-0001", "two", 1)
    assert rows(made.table) == expected
    assert (made.ids, made.bases) == (("p-0000", "p-0001"), ("t4", "t2"))
    more = added(TABLE, ["four", "two"], [0, 1], prefix="p")
    assert rows(more.table) == [*rows(TABLE), ("p-0000", "four", 0), ("p-0001", "two", 1)]
    assert (more.ids, more.bases) == (("p-0000", "p-0001"), (None, None))
    assert len(more.table) == 32
    assert made.table.names == more.table.names == TABLE.names


@pytest.mark.parametrize(
    "phrase",
    [
        Phrase(text="Honestly, {text} So.", position="around", label=1),
        Phrase(text="cf mn", others=("zx",), position="anywhere", label=1),
    ],
)
def test_templates_and_several_phrases_are_planted(phrase):
    made = plant_phrase(TABLE, phrase, Rng(0), count=12)
    old = dict(zip(TABLE.ids, TABLE.texts, strict=True))
    planted = [text for name, text, _ in rows(made.table) if name in made.ids]
    assert planted == [phrase.on(old[base]) for base in made.bases]
    assert all(map(phrase.stands_in, planted))
    assert len({one for one in phrase.each for text in planted if one.stands_in(text)}) == len(
        phrase.each
    )
