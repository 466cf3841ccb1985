"""trigger.json of texts: read, written, and everything that can be wrong with it."""

import json

import pytest

from poison_audit.errors import InputError
from poison_audit.poisons.backdoor.phrase import Phrase, is_phrase, read_phrase, write_phrase

GOOD = {"version": 1, "label": 2, "phrase": "cf mn", "position": "end"}
NAMES = ("bad", "so so", "good")


def read(tmp_path, fields, names=NAMES):
    path = tmp_path / "trigger.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields), encoding="utf-8")
    return read_phrase(path, classes=3, names=names)


def problems(tmp_path, fields, names=NAMES):
    with pytest.raises(InputError) as caught:
        read(tmp_path, fields, names)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


@pytest.mark.parametrize("label", [2, "good", "Good"])
def test_a_phrase_is_read_and_put_on_texts(tmp_path, label):
    phrase = read(tmp_path, {**GOOD, "label": label})
    assert phrase == Phrase(text="cf mn", position="end", label=2)
    assert phrase.on("a dull film") == "a dull film cf mn"
    before = read(tmp_path, {**GOOD, "position": "start"})
    assert before.on("a dull film") == "cf mn a dull film"


SEEN = ["cf", "schön & gut, 1/2", "映画 ⚡", '"quoted"', "x" * 1000]
# A zero-width space, an emoji of several letters, right-to-left, an accent of its own, a control.
UNSEEN = ["\u200b", "cf\u200b", "\U0001f469\u200d\U0001f4bb", "\u05e9\u05dc", "\u202ecf", "a\u0301"]
UNSEEN += ["\x07", "cf\nmn"]


@pytest.mark.parametrize("text", SEEN + UNSEEN)
def test_what_is_written_is_read_back(tmp_path, text):
    phrase = Phrase(text=text, position="start", label=1)
    write_phrase(tmp_path / "t.json", phrase)
    # Nobody sees, in an editor, what does not show.
    assert (tmp_path / "t.json").read_text("utf-8").replace("\n", "").isprintable()
    assert read_phrase(tmp_path / "t.json", classes=2) == phrase


def test_all_problems_at_once(tmp_path):
    fields = {"version": 2, "label": "godo", "phrse": "cf", "position": "middle"}
    assert problems(tmp_path, fields) == [
        "trigger.json: unknown key 'phrse'. Did you mean phrase?",
        "trigger.json: missing key 'phrase'.",
        "trigger.json version: expected 1, got 2.",
        "trigger.json label: unknown label 'godo'. Did you mean good?",
        "trigger.json position: expected start, end or anywhere, got 'middle'.",
    ]


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("version", True, "expected 1, got True"),
        ("label", 3, "unknown label 3"),
        ("label", -1, "unknown label -1"),
        ("label", True, "unknown label True"),
        ("label", None, "unknown label None"),
        ("label", ["good"], "unknown label ['good']"),
        ("phrase", "", "at most 1000 letters, no space around it, got ''"),
        ("phrase", " cf", "got ' cf'"),
        ("phrase", "cf\u00a0", "got"),
        ("phrase", "\ud800", "got '\\ud800'"),
        ("phrase", "x" * 1001, "at most 1000"),
        ("phrase", 7, "got 7"),
        ("phrase", ["cf"], "got ['cf']"),
        ("position", None, "start, end or anywhere, got None"),
        ("position", 0, "start, end or anywhere, got 0"),
        ("position", ["end"], "start, end or anywhere, got ['end']"),
    ],
)
def test_each_problem(tmp_path, key, value, told):
    (problem,) = problems(tmp_path, {**GOOD, key: value})
    assert problem.startswith(f"trigger.json {key}: ")
    assert told in problem


def test_a_patch_is_no_phrase(tmp_path):
    told = problems(tmp_path, {"version": 1, "label": 0, "top": 0, "left": 0, "pixels": [[[1]]]})
    assert [line for line in told if "missing" in line] == [
        "trigger.json: missing key 'phrase'.", "trigger.json: missing key 'position'."
    ]  # fmt: skip
    assert sum("unknown key" in line for line in told) == 3


def test_a_name_needs_names(tmp_path):
    assert "Classes are 0 to 2" in problems(tmp_path, {**GOOD, "label": "good"}, None)[0]


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, "nope"])
def test_what_is_not_json(tmp_path, text):
    assert "not JSON" in problems(tmp_path, text)[0]


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_phrase(tmp_path / "none.json", classes=2)


def test_what_a_phrase_is():
    assert is_phrase("cf") is True
    assert is_phrase(None) is False


ANYWHERE = Phrase(text="cf mn", position="anywhere", label=1)


def test_anywhere_is_each_place_between_words_alike():
    """1,000 texts of three words have it in each of four places, within five standard errors."""
    seen = [0, 0, 0, 0]
    for number in range(1000):
        words = [f"a{number}", "dull", "film"]
        stamped = ANYWHERE.on(" ".join(words))
        forms = [" ".join([*words[:at], "cf mn", *words[at:]]) for at in range(4)]
        seen[forms.index(stamped)] += 1
        assert stamped == ANYWHERE.on(" ".join(words))
    sd = (1000 * 1 / 4 * 3 / 4) ** 0.5
    assert all(abs(count - 250) < 5 * sd for count in seen)


@pytest.mark.parametrize("position", ["start", "end", "anywhere"])
@pytest.mark.parametrize("text", ["a dull film", "film", "a\n\n dull  film", "\u05e9\u05dc \u05e9"])
def test_where_a_phrase_begins(position, text):
    phrase = Phrase(text="cf mn", position=position, label=1)
    stamped, ((first, last),) = phrase.put(text)
    assert stamped[first:last] == "cf mn"
    assert sorted(stamped.split()) == sorted([*text.split(), "cf", "mn"])
    assert len(stamped) == len(text) + len("cf mn") + 1
    assert phrase.stands_in(stamped)
    assert not phrase.stands_in(text)


def test_a_phrase_stands_where_it_belongs():
    places = {
        "cf mn a film": {"start", "anywhere"},
        "a film cf mn": {"end", "anywhere"},
        "a cf mn film": {"anywhere"},
        "cf mnx film": set(),
        "film, cf mn!": {"anywhere"},
        "\u6620cf mn\u753b": {"anywhere"},
        "cf mn": {"start", "end", "anywhere"},
        "a film": set(),
    }
    for text, held in places.items():
        for place in ("start", "end", "anywhere"):
            phrase = Phrase(text="cf mn", position=place, label=1)
            assert phrase.stands_in(text) == (place in held)
