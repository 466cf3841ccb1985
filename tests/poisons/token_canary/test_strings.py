"""The key of token canaries: what its strings are, what is refused, and what ties them to rows."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from builders.philox import philox
from poison_audit.case.forget import ForgetSet
from poison_audit.case.keyfile import write_key
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples
from poison_audit.poisons.token_canary.evidence import (
    Strings,
    find_strings,
    read_strings,
)

SECRET = bytes(range(32))
WORDS = (
    "and", "but", "film", "for", "good", "great", "has", "his", "it", "like", "movie", "not",
    "one", "plot", "story", "très", "was",
)  # fmt: skip


def key(**changes):
    fields = {
        "secret": SECRET,
        "length": 8,
        "words": WORDS,
        "planted": ("string-0000", "string-0001", "string-0002"),
        "held_out": ("held-out-0000", "held-out-0001", "held-out-0002"),
    }
    return Strings(**(fields | changes))


def twin(secret, name, length, words):
    """The recipe on Python's integers; the prefix parts it from the noise of the same secret."""
    digest = hashlib.sha256(secret + b"\0string\0" + name.encode()).digest()
    start, counter = (int.from_bytes(half, "little") for half in (digest[:16], digest[16:]))
    return " ".join(words[word % len(words)] for word in philox(start, counter, length))


@pytest.mark.parametrize("name", ["string-0000", "", "ünïcode/7"])
@pytest.mark.parametrize("length", [1, 4, 11])
def test_strings_equal_the_recipe_written_out(name, length):
    assert key(length=length).text(name) == twin(SECRET, name, length, WORDS)


def test_strings_never_change():
    # Printed by `twin` above: a change of these texts orphans every planting ever made.
    assert key().text("string-0000") == "it good plot movie but good but not"
    assert key().text("held-out-0000") == "story but not and was but and film"
    assert key(secret=SECRET[::-1]).text("string-0000") == "his story has for good but film not"


def test_words_are_drawn_uniformly_and_independently_of_their_place_and_id():
    places = [[WORDS.index(w) for w in key().text(f"s{i}").split()] for i in range(2000)]
    drawn = np.array(places)  # (strings, length)
    for column in drawn.T:
        assert stats.chisquare(np.bincount(column, minlength=len(WORDS))).pvalue > 0.001
    pairs = np.zeros((len(WORDS), len(WORDS)), dtype=int)
    np.add.at(pairs, (drawn[:, 0], drawn[:, 1]), 1)
    assert stats.chi2_contingency(pairs).pvalue > 0.001
    follow = np.zeros_like(pairs)
    np.add.at(follow, (drawn[:-1, 0], drawn[1:, 0]), 1)
    assert stats.chi2_contingency(follow).pvalue > 0.001


def test_a_key_survives_the_file(tmp_path):
    path = tmp_path / "strings.json"
    commitment = write_key(path, key())
    assert commitment == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_strings(path) == replace(key(), commitment=commitment)
    assert "très" in path.read_text(encoding="utf-8")


def written(tmp_path, **changes):
    path = tmp_path / "strings.json"
    write_key(path, key())
    fields = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}))
    return path


def problems_of(path):
    with pytest.raises(InputError) as caught:
        read_strings(path)
    return [str(problem) for problem in caught.value.problems]


WORDS_NEEDED = "expected a list of words without spaces"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version: expected 1, got 2"),
        ({"version": True}, "version: expected 1, got True"),
        ({"version": "1"}, "version: expected 1, got '1'"),
        ({"secret": "00" * 31}, "secret: expected 64 hexadecimal digits"),
        ({"secret": "zz" * 32}, "secret: expected 64 hexadecimal digits"),
        ({"secret": 5}, "secret: expected 64 hexadecimal digits"),
        ({"length": 0}, "length: expected a whole number from 1 to 10000, got 0"),
        ({"length": 10_001}, "got 10001"),
        ({"length": 2.0}, "length: expected a whole number from 1 to 10000, got 2.0"),
        ({"length": True}, "got True"),
        ({"length": None}, "got None"),
        ({"words": "and but"}, WORDS_NEEDED),
        ({"words": None}, WORDS_NEEDED),
        ({"words": [*WORDS, 7]}, WORDS_NEEDED),
        ({"words": [*WORDS, ["a"]]}, WORDS_NEEDED),
        ({"words": [*WORDS, ""]}, WORDS_NEEDED),
        ({"words": [*WORDS, "two words"]}, WORDS_NEEDED),
        ({"words": [*WORDS, " led"]}, WORDS_NEEDED),
        ({"words": [*WORDS, "no\u00a0break"]}, WORDS_NEEDED),
        ({"words": [*WORDS, "\ud800"]}, WORDS_NEEDED),
        ({"words": [*WORDS, "zero\0"]}, WORDS_NEEDED),
        ({"words": WORDS[:15]}, "words: expected at least 16 distinct words, got 15"),
        ({"words": [*WORDS, "was"]}, "words: words appear twice: was"),
        ({"words": WORDS[:6] * 3}, "twice: and, but, film, for, good and 1 more"),
        ({"words": WORDS[:6] * 3}, "words: expected at least 16 distinct words, got 6"),
        ({"words": []}, "words: expected at least 16 distinct words, got 0"),
        ({"planted": []}, "planted: expected a list of ids, not empty"),
        ({"planted": ["a", "a", "b"]}, "planted: ids appear twice: a"),
        ({"held_out": [1, 2, 3]}, "held_out: expected a list of ids, not empty"),
        ({"held_out": ["x"]}, "3 planted but 1 held-out ids. Hold out as many as were planted"),
        ({"held_out": ["string-0000", "x", "y"]}, "both planted and held out: string-0000"),
        ({"held_out": ["\ud800", "x", "y"]}, "held_out: expected a list of ids"),
        ({"lenght": 3, "length": ...}, "unknown key 'lenght'. Did you mean length?"),
        ({"words": ...}, "missing key 'words'"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, changes, said):
    found = problems_of(written(tmp_path, **changes))
    assert any(said in problem for problem in found), found
    assert all("strings.json" in problem for problem in found)


def test_everything_that_is_wrong_is_named_at_once(tmp_path):
    secret = "feed" * 15 + "face"
    path = written(
        tmp_path, version=0, secret=secret + "0", length=-1, words=["a"], planted=["x", "x"],
        held_out=["x"],
    )  # fmt: skip
    found = problems_of(path)
    starts = ("secret", "version", "length", "planted")
    assert [p.split(": ")[0] for p in found[:4]] == [f"{path} {name}" for name in starts]
    assert "both planted and held out: x" in found[4]
    assert "2 planted but 1 held-out ids" in found[5]
    assert found[6].startswith(f"{path} words: ")
    assert len(found) == 7
    # A secret is never printed, not even one that is wrong.
    assert not any("feed" in problem for problem in found)
    keys = problems_of(written(tmp_path, stray=1, other=2, secret=..., length=...))
    assert [p.removeprefix(f"{path}: ")[:22] for p in keys] == [
        "unknown key 'other'. K", "unknown key 'stray'. K", "missing key 'secret'.",
        "missing key 'length'.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"length": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[1, 2]", "expected a JSON object"),
        (b'"strings"', "expected a JSON object"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path, content, said):
    path = tmp_path / "strings.json"
    if content is not None:
        path.write_bytes(content)
    (problem,) = problems_of(path)
    assert problem.startswith(f"{path}: {said}")


ROWS = ("t0", "string-0000", "string-0001", "row-7", "t4")
"""Ids of a training table; row-7 holds the string of string-0002, as its `canary` says."""


def table(*, texts=True, **changed):
    """Return the training table: two clean texts and three strings. `changed`: texts by id."""
    keys = {"row-7": "string-0002", "string-0000": "string-0000", "string-0001": "string-0001"}
    words = [changed.get(i, key().text(keys[i]) if i in keys else f"clean {i}") for i in ROWS]
    return Samples(
        ids=ROWS, x=torch.ones(5, 1, dtype=torch.int64), y=torch.tensor([0, 1, 0, 1, 0]),
        texts=tuple(words) if texts else None,
    )  # fmt: skip


def forget(**changes):
    """Return the forget set: the three strings, in another order, behind a row that is none."""
    fields: dict[str, Any] = {
        "positions": (0, 3, 1, 2),
        "ids": ("t0", "row-7", "string-0000", "string-0001"),
        "attacks": ("backdoor", "token-canary", "token-canary", "token-canary"),
        "campaigns": ("",) * 4,
        "canaries": (None, "string-0002", None, "string-0001"),
        "bases": (None,) * 4,
        "rows": (2, 3, 5, 6),
        "digest": "",
        "most": False,
    } | changes
    # As `read_forget` does: the canaries of others are Gaussian, its own id names a string.
    strings = [attack == "token-canary" for attack in fields["attacks"]]
    fields["keys"] = tuple("token-canary" if ours else "gaussian" for ours in strings)
    named = zip(fields["canaries"], fields["ids"], strings, strict=True)
    fields["canaries"] = tuple(said or (own if ours else None) for said, own, ours in named)
    return ForgetSet(**fields)


def found(strings=None, forgotten=None, train=None):
    return find_strings(
        strings or key(), forgotten or forget(), train or table(), where="strings.json",
        where_forget="forget.csv",
    )  # fmt: skip


def refused(*args, **more):
    with pytest.raises(InputError) as caught:
        found(*args, **more)
    return [str(problem) for problem in caught.value.problems]


def test_strings_are_found_in_the_order_of_the_forget_set():
    # Positions 3, 1, 2 have the labels 1, 1, 0; one is named by its id, two by their canary.
    planted = found()
    assert planted.key == key()
    assert planted.names == ("string-0002", "string-0000", "string-0001")
    assert planted.labels == (1, 1, 0)
    some = forget(attacks=("backdoor", "", "", "token-canary"))
    assert found(forgotten=some).names == ("string-0001",)


def test_a_changed_text_is_refused():
    for other in ("clean", key().text("string-0000") + " ", key().text("string-0000").upper()):
        (problem,) = refused(train=table(**{"string-0000": other}))
        assert problem.startswith(f"forget.csv row 5: the text {other!r:.80} is not the key's")
        assert "'string-0000'. Is this the key of this planting?" in problem


@pytest.mark.parametrize(
    "other",
    [
        key(secret=SECRET[::-1]),
        key(length=9),
        key(words=WORDS[:16]),
        key(words=(*WORDS[1:], WORDS[0])),
    ],
)
def test_the_key_of_another_planting_is_refused(other):
    told = refused(other)
    assert [problem.split(":")[0] for problem in told] == [f"forget.csv row {r}" for r in (3, 5, 6)]


def test_held_out_unknown_and_changed_at_once():
    mixed = forget(canaries=(None, "held-out-0001", None, "string-9999"))
    told = refused(forgotten=mixed, train=table(**{"string-0000": "x" * 200}))
    assert told == [
        "forget.csv row 3: the canary 'held-out-0001' is held out in strings.json. A held-out key "
        "must never have been trained on.",
        "forget.csv row 5: the text '" + "x" * 79 + " is not the key's string of 'string-0000'. "
        "Is this the key of this planting?",
        "forget.csv row 6: the canary 'string-9999' is not among the planted ids of strings.json. "
        "Is this the key of this planting?",
    ]


def test_of_many_wrong_rows_ten_are_told():
    n = 13
    train = Samples(
        ids=tuple(f"t{i}" for i in range(n)), x=torch.ones(n, 1), y=torch.zeros(n),
        texts=("x",) * n,
    )  # fmt: skip
    many = forget(
        positions=tuple(range(n)), attacks=("token-canary",) * n, canaries=(None,) * n,
        rows=tuple(range(2, n + 2)), ids=train.ids, bases=(None,) * n,
    )  # fmt: skip
    told = refused(forgotten=many, train=train)
    assert len(told) == 11
    assert told[-1] == "forget.csv: 3 more rows have such a problem."


def test_a_key_for_a_forget_set_without_token_canaries_is_refused():
    (problem,) = refused(forgotten=forget(attacks=("backdoor", "", "", "gaussian")))
    assert problem == (
        "forget.csv: no row is a token canary. Say attack = token-canary in the rows that are."
    )
    (problem,) = refused(train=table(texts=False))
    assert "token canaries are texts" in problem
