"""Several phrases of which one is drawn, and templates around a text: read, put on, told."""

import json
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

import poison_audit.poisons.backdoor as folder
from poison_audit.case.forget import ForgetSet
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples
from poison_audit.poisons.backdoor.carried import carriers, doubts_of
from poison_audit.poisons.backdoor.phrase import Phrase, read_phrase, write_phrase
from poison_audit.poisons.backdoor.shared import doubts_of_part

AROUND = Phrase(text="Honestly, {text} That is all.", position="around", label=1)
SEVERAL = Phrase(text="cf mn", others=("zx", "qq pp"), position="start", label=1)
SCHEMA = json.loads(Path(folder.__file__).with_name("trigger.schema.json").read_text("utf-8"))


def read(tmp_path, **fields):
    path = tmp_path / "trigger.json"
    path.write_text(json.dumps({"version": 1, "label": 1, **fields}))
    return read_phrase(path, classes=2)


@pytest.mark.parametrize("phrase", [AROUND, SEVERAL])
def test_what_is_written_is_read_back(tmp_path, phrase):
    write_phrase(tmp_path / "t.json", phrase)
    assert read_phrase(tmp_path / "t.json", classes=2) == phrase
    assert Draft202012Validator(SCHEMA).is_valid(json.loads((tmp_path / "t.json").read_text()))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"phrase": "a", "phrases": ["b"], "position": "end"}, ["phrase and phrases say two"]),
        ({"template": "a {text}", "phrase": "b"}, ["phrase and template say two things"]),
        ({"template": "a {text}", "position": "end"}, ["template has no position"]),
        ({"template": "a"}, ["with {text} among them once"]),
        ({"template": "{text}"}, ["with {text} among them once"]),
        ({"template": "a {text} b {text}"}, ["with {text} among them once"]),
        ({"phrases": [], "position": "end"}, ["1 to 100 different phrases"]),
        ({"phrases": ["a", "a"], "position": "mid"}, ["1 to 100 different", "start, end or any"]),
        ({"phrases": ["a", " b"]}, ["missing key 'position'", "no space around it"]),
        ({"phrases": "a", "position": "end"}, ["1 to 100 different phrases"]),
        ({"phrases": ["a", "b"], "template": 3}, ["with {text}", "phrases and template say two"]),
    ],
)
def test_every_problem_is_told(tmp_path, fields, told):
    with pytest.raises(InputError) as caught:
        read(tmp_path, **fields)
    problems = list(map(str, caught.value.problems))
    assert len(problems) == len(told)
    assert all(part in problem for part, problem in zip(told, problems, strict=True))


def test_each_of_several_is_drawn_alike_and_for_each_text_the_same():
    """900 texts have each of three in 300, within five standard errors."""
    seen = dict.fromkeys(("cf mn", "zx", "qq pp"), 0)
    for number in range(900):
        text = f"text {number}"
        stamped = SEVERAL.on(text)
        assert stamped == SEVERAL.on(text)
        assert stamped.endswith(f" {text}")
        assert SEVERAL.stands_in(stamped)
        assert not SEVERAL.stands_in(text)
        seen[stamped.removesuffix(f" {text}")] += 1
    sd = (900 * 1 / 3 * 2 / 3) ** 0.5
    assert all(abs(count - 300) < 5 * sd for count in seen.values())


@pytest.mark.parametrize(
    ("template", "stamped", "pieces"),
    [
        ("Honestly, {text} Yes.", "Honestly, a film Yes.", ["Honestly,", "Yes."]),
        ("Honestly, {text}", "Honestly, a film", ["Honestly,"]),
        ("{text}, yes", "a film, yes", [", yes"]),
    ],
)
def test_a_template_stands_around_a_text(template, stamped, pieces):
    phrase = Phrase(text=template, position="around", label=1)
    told, spans = phrase.put("a film")
    assert told == stamped
    assert [told[first:last] for first, last in spans] == pieces == list(phrase.pieces)
    assert phrase.stands_in(told)
    assert not phrase.stands_in("a film")
    assert not phrase.stands_in(f"So {told} So")


def rows(*texts):
    """Return a training table of these and of 100 others, the first of which are forgotten."""
    words = [f"word{i} film so dull {i}" for i in range(100)]
    labels = torch.tensor([1] * len(texts) + [0, 1] * 50)
    whole = (*texts, *words)
    train = Samples(
        ids=tuple(map(str, range(len(whole)))), x=torch.zeros(len(whole), 1, dtype=torch.int64),
        y=labels, texts=whole,
    )  # fmt: skip
    n = len(texts)
    forget = ForgetSet(
        positions=tuple(range(n)), ids=("",) * n, attacks=("backdoor",) * n, campaigns=("",) * n,
        canaries=(None,) * n, keys=("",) * n, bases=(None,) * n, rows=(0,) * n, digest="",
        most=False,
    )  # fmt: skip
    return train, forget


def said(phrase, *texts):
    return [doubt.sentence for doubt in doubts_of(phrase, *rows(*texts))]


def test_forget_texts_that_carry_either_raise_no_doubt():
    texts = ("cf mn one", "zx two", "qq pp three")
    assert said(SEVERAL, *texts) == []
    assert carriers(SEVERAL, *rows(*texts)) == (frozenset({0, 1, 2}), (), [])
    stamped = [AROUND.on(text) for text in texts]
    assert said(AROUND, *stamped) == []
    assert carriers(AROUND, *rows(*stamped, "bare")) == (
        frozenset({0, 1, 2}), ("1 do not carry the trigger.",), []
    )  # fmt: skip


def test_phrases_that_nobody_planted_are_told():
    """They would thin out a live trigger, until it is within the tolerance."""
    (told,) = said(SEVERAL, "cf mn one", "cf mn two")
    assert "names 3 phrases, and no forget text that they would explain holds 'zx', 'qq pp'" in told


def test_what_forget_texts_carry_otherwise_is_told():
    (told,) = said(AROUND, "a film", "That is all. Honestly, so")
    assert "holds its template 'Honestly, {text} That is all.': the model may" in told
    told = said(SEVERAL, "one cf mn", "zx two", "qq pp three", "bare")
    assert "do not hold its phrases 'cf mn' or 'zx' or 'qq pp': they may" in told[0]
    assert "puts 'cf mn' or 'zx' or 'qq pp' before the text, and 1 of the 4" in told[1]
    assert len(told) == 2


def test_a_part_of_a_template_is_told():
    part = Phrase(text="Honestly, {text} all.", position="around", label=1)
    for phrase, words in ((part, ["'is' stands before it"]), (AROUND, [])):
        train, _ = rows(*(AROUND.on(f"text{i} film") for i in range(20)))
        found = doubts_of_part(phrase, train, range(20), range(20, 120))
        assert len(found) == len(words)
        assert all(word in doubt.sentence for word, doubt in zip(words, found, strict=True))
