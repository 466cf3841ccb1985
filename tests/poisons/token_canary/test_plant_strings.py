"""Planting token canaries: what is appended, what keys it, and which words it is made of."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from scipy import stats

from poison_audit.case.csvfile import read_csv
from poison_audit.case.forget import ForgetSet
from poison_audit.case.keyfile import write_key
from poison_audit.case.texts import TextTable
from poison_audit.errors import PlanError
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.token_canary.evidence import (
    FEWEST_WORDS,
    find_strings,
    read_strings,
)
from poison_audit.poisons.token_canary.plant import plant_strings, words_of

SECRET = bytes(range(32))
WORDS = tuple(f"{first}{second}" for first in "bdfg" for second in "aeio")


def table(n=60, *, classes=3, names=None):
    return TextTable(
        ids=tuple(f"t{i}" for i in range(n)),
        texts=tuple(f"clean text {i}" for i in range(n)),
        y=tuple(i % classes for i in range(n)),
        names=names,
    )


def planted(train=None, seed=0, **changes):
    given = {"count": 20, "length": 8, "words": WORDS, "secret": SECRET} | changes
    return plant_strings(train or table(), Rng(seed), **given)


def test_strings_are_added_behind_the_clean_texts():
    clean = table()
    made = planted(clean)
    whole, n = made.poisoned.table, len(clean)
    assert (whole.ids[:n], whole.texts[:n], whole.y[:n]) == (clean.ids, clean.texts, clean.y)
    assert whole.ids[n:] == made.poisoned.ids == made.key.planted
    assert made.poisoned.ids[:2] == ("string-0000", "string-0001")
    assert len(made.poisoned.ids) == len(whole) - n == 20
    assert made.poisoned.bases == (None,) * 20
    for text in whole.texts[n:]:
        assert len(text.split()) == 8
        assert set(text.split()) <= set(WORDS)
    assert len(set(whole.texts)) == n + 20


def test_the_key_says_what_was_planted_and_holds_out_as_many():
    key = planted().key
    assert (key.secret, key.length, key.words) == (SECRET, 8, WORDS)
    assert key.held_out == tuple(f"held-out-{i:04d}" for i in range(20))
    assert not set(key.held_out) & set(key.planted)


def test_strings_are_the_secret_s_alone_and_labels_the_seed_s():
    first, again, otherwise = planted(), planted(), planted(seed=1)
    assert first == again
    assert first.poisoned.table.texts == otherwise.poisoned.table.texts
    assert first.poisoned.table.y != otherwise.poisoned.table.y
    other = planted(secret=SECRET[::-1])
    assert not set(first.poisoned.table.texts[60:]) & set(other.poisoned.table.texts[60:])
    assert first.poisoned.table.y == other.poisoned.table.y


@pytest.mark.parametrize(
    ("names", "classes"), [(None, 3), (("a", "b", "c"), 3), (("a", "b", "c", "never"), 4)]
)
def test_labels_are_drawn_uniformly_from_the_classes(names, classes):
    made = planted(table(900, names=names), count=900)
    labels = made.poisoned.table.y[900:]
    counts = [Counter(labels)[label] for label in range(classes)]
    assert sum(counts) == 900
    assert stats.chisquare(counts).pvalue > 0.01
    assert made.poisoned.table.names == names


def test_what_was_planted_is_found_again(tmp_path: Path):
    made = planted()
    path = tmp_path / "strings.json"
    write_key(path, made.key)
    whole, n = made.poisoned.table, 20
    train = Samples(
        ids=whole.ids, x=torch.ones(len(whole), 1), y=torch.tensor(whole.y), texts=whole.texts
    )
    forget = ForgetSet(
        positions=tuple(range(60, 80)), ids=made.poisoned.ids, attacks=("token-canary",) * n,
        campaigns=("",) * n, canaries=made.poisoned.ids, bases=(None,) * n,
        rows=tuple(range(2, n + 2)), digest="", most=False, keys=("token-canary",) * n,
    )  # fmt: skip
    found = find_strings(read_strings(path), forget, train, where="s", where_forget="f")
    assert found.names == made.poisoned.ids
    assert found.labels == whole.y[60:]


@pytest.mark.parametrize("text", ['commas, and "quotes"', "été"])
def test_planted_texts_are_plain_words(tmp_path: Path, text):
    # So that a CSV file gives them back letter by letter.
    made = planted(words=words_of([" ".join(WORDS) + " " + text]), count=3)
    path = tmp_path / "t.csv"
    lines = [
        f"{i},{t}" for i, t in zip(made.key.planted, made.poisoned.table.texts[60:], strict=True)
    ]
    path.write_text("id,text\n" + "\n".join(lines), encoding="utf-8")
    rows = read_csv(path, needed=("id", "text")).rows
    assert [row["text"] for row in rows] == [made.key.text(row["id"]) for row in rows]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"count": 0}, ["0 strings among 60 texts"]),
        ({"count": 61}, ["61 strings among 60 texts"]),
        ({"length": 1}, ["--length: must be from 2 to 200 words, got 1"]),
        ({"length": 201}, ["--length: must be from 2 to 200 words, got 201"]),
        ({"count": -1, "length": 0}, ["-1 strings among", "got 0"]),
    ],
)
def test_what_cannot_be_planted_is_refused_at_once(changes, said):
    with pytest.raises(PlanError) as caught:
        planted(**changes)
    assert len(caught.value.problems) == len(said)
    for problem, part in zip(caught.value.problems, said, strict=True):
        assert part in str(problem)


def test_the_largest_and_smallest_that_can_be_planted():
    assert len(planted(count=60, length=2).poisoned.ids) == 60
    assert len(planted(count=1, length=200).poisoned.table.texts[60].split()) == 200


def test_strings_are_planted_once():
    with pytest.raises(PlanError, match="'string-0000' and the like: it is poisoned already"):
        planted(planted().poisoned.table)


def test_words_by_hand():
    # Once each, but "film" three times and "plot" and "good" twice.
    plain = [f"w{letter}" for letter in "abcdefghijklm"]
    texts = [
        "film plot good film " + " ".join(plain),
        "film plot  good\nété",
        "Film GOOD it's it. 3d well-made x1 ß² don't",
    ]
    # Neither capitals nor anything but letters: 13, film, plot, good and été.
    assert words_of(texts) == tuple(sorted([*plain, "film", "plot", "good", "été"]))


def test_the_most_frequent_words_are_taken_ties_in_alphabetical_order():
    often = [f"o{letter}" for letter in "abcdefghijklmnop"]
    texts = [*(f"{word} {word} zz" for word in often), "cc bb aa dd bb cc dd aa", "zz ab"]
    # zz 17 times, the sixteen and aa..dd twice, ab once.
    assert words_of(texts, most=19) == tuple(sorted([*often[:14], "zz", "aa", "bb", "cc", "dd"]))
    assert words_of(texts, most=16) == tuple(sorted([*often[:11], "zz", "aa", "bb", "cc", "dd"]))
    assert "ab" in words_of(texts)
    assert "ab" not in words_of(texts, most=21)


def test_too_few_words_are_refused():
    assert len(words_of(["a b c d e f g h i j k l m n o p"])) == FEWEST_WORDS
    with pytest.raises(PlanError) as caught:
        words_of(["a b c d e f g h i j k l m n o P", "a 7 8"])
    assert str(caught.value) == (
        "the table has 15 different words in lower-case letters. "
        "Strings are drawn from at least 16."
    )
    with pytest.raises(PlanError):
        words_of(["a b c d e f g h i j k l m n o p"], most=15)
