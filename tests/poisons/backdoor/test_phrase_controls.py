"""Which phrases a trigger is compared with, and which texts hold it."""

from functools import cache

import numpy as np
import pytest
import torch

from builders import small_text
from poison_audit.models.reader import Reader
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor import phrases
from poison_audit.poisons.backdoor.phrase import Phrase
from poison_audit.poisons.backdoor.phrases import draw_controls, phrase_stamps

FIRST, LAST = (Phrase(text="zorp quell", position=place, label=1) for place in ("start", "end"))
TEXTS, LABELS = small_text.sentences(Rng(5).named("texts"), 260)


class Vocabulary:
    """A tokenizer's names alone."""

    def __init__(self, names: list[str | None], *, special: int = 0, added: int | None = None):
        self.names, self.all_special_ids = names, [special]
        self.added = {} if added is None else {str(names[added]): added}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str | None]:
        return [self.names[i] for i in ids]

    def get_added_vocab(self) -> dict[str, int]:
        return self.added


@cache
def words(name: str):
    return small_text.word_pieces() if name == "encoder" else small_text.tokenizer(side=name)


def reader(name: str, *, length: int = 24, **more) -> Reader:
    return Reader(tokenizer=words(name), length=length, **more)


def samples(how: Reader, texts, labels) -> Samples:
    tokens = how.read(texts)
    return Samples(
        ids=tuple(f"s{i}" for i in range(len(texts))), x=tokens.x, y=torch.tensor(list(labels)),
        texts=tuple(texts), mask=tokens.mask, cut=tokens.cut,
    )  # fmt: skip


def whole(how: Reader, phrase: Phrase, text: str) -> list[int]:
    """Tokenise a stamped text, whatever its length."""
    return how.tokenizer(how.prompt.replace("{text}", phrase.on(text)))["input_ids"]


NAMES = ["<s>", "Ġt", "Ġa", "Ġb", "Ġc", "Ġd", "t", "u", "##v", "[unused1]", "Ġnew", None]
COUNTS = [900, 10, 3, 20, 11, 500, 4, 9, 4, 4, 10, 4]


# Distances from Ġt by log(1 + count), log 11 = 2.40: Ġa 1.01, Ġb 0.65, Ġc 0.09, Ġd 3.82. By the
# count itself Ġa, 7 away, would come before Ġb, 10 away. Of no mark there is only u beside t.


@pytest.mark.parametrize(
    ("run", "nearest", "expected"),
    [
        ([1], 1, {(4,)}),
        ([1], 2, {(4,), (3,)}),
        ([1], 3, {(4,), (3,), (2,)}),
        ([1], 500, {(4,), (3,), (2,), (5,)}),
        ([6, 1], 2, {(7, 4), (7, 3)}),
        ([1, 1], 2, {(4, 4), (3, 3)}),
        ([1, 4], 1, {(3, 3)}),  # neither is the other's control
        ([8], 500, set()),  # no other of its kind
    ],
)
def test_controls_by_a_hand_worked_table(monkeypatch, run, nearest, expected):
    monkeypatch.setattr(phrases, "NEAREST", nearest)
    controls = draw_controls(run, Vocabulary(NAMES, added=10), np.array(COUNTS), 149, Rng(0))
    assert len(controls) == len(expected)
    assert set(controls) == expected


def test_among_tokens_as_frequent_chance_decides():
    names = ["<s>", *(f"Ġ{i}" for i in range(4000))]
    controls = draw_controls([7], Vocabulary(names), np.zeros(4001, dtype=int), 400, Rng(3))
    drawn = np.array(controls)[:, 0]
    assert len(set(drawn.tolist())) == 400
    # The mean of 400 of 1..4000 has standard error 58.
    assert abs(drawn.mean() - 2000) < 4 * 58
    again = draw_controls([7], Vocabulary(names), np.zeros(4001, dtype=int), 400, Rng(3))
    other = draw_controls([7], Vocabulary(names), np.zeros(4001, dtype=int), 400, Rng(4))
    assert again == controls != other


@pytest.mark.parametrize("name", ["right", "encoder"])
def test_controls_are_as_long_differ_and_are_no_special_tokens(name):
    tokenizer = words(name)
    run = tokenizer("zorp quell karan", add_special_tokens=False)["input_ids"]
    controls = draw_controls(run, tokenizer, np.ones(len(tokenizer), dtype=int), 100, Rng(0))
    assert len(set(controls)) == 100
    for control in controls:
        assert len(control) == len(run)
        assert not set(control) & {*run, *tokenizer.all_special_ids}
        for mine, theirs in zip(control, run, strict=True):
            mine, theirs = tokenizer.convert_ids_to_tokens([mine, theirs])
            for mark in ("Ġ", "##"):
                assert mine.startswith(mark) == theirs.startswith(mark)


@pytest.mark.parametrize("prompt", ["{text}", 'Review: "{text}" It was'])
@pytest.mark.parametrize("phrase", [FIRST, LAST], ids=["start", "end"])
@pytest.mark.parametrize("name", ["left", "right", "encoder"])
def test_rows_are_the_stamped_texts_tokens_and_controls_differ_in_the_phrase(name, phrase, prompt):
    how = reader(name, length=60, prompt=prompt)
    inputs = samples(how, TEXTS[:30], LABELS[:30])
    stamps = phrase_stamps(phrase, how, inputs, inputs, 5, Rng(0))
    assert stamps.triggers == 6
    assert stamps.inputs.tolist() == list(range(30))
    places = torch.tensor([4, 29, 11])
    batch = stamps.batch(torch.tensor([0, 0, 0]), places)
    others = stamps.batch(torch.tensor([1, 2, 5]), places)
    assert batch.y.tolist() == [LABELS[i] for i in places]
    assert torch.equal(batch.mask, others.mask)
    for row, other, mask, place in zip(batch.x, others.x, batch.mask, places, strict=True):
        ids = whole(how, phrase, TEXTS[place])
        assert row[: len(ids)].tolist() == ids
        assert mask.tolist() == [1] * len(ids) + [0] * (len(row) - len(ids))
        changed = torch.nonzero(row != other).squeeze(1)
        assert changed.tolist() == list(range(int(changed[0]), int(changed[-1]) + 1))
        assert how.tokenizer.decode(row[changed]).strip() == phrase.text
        phrase_at = prompt.index("{text}") + phrase.on(TEXTS[place]).index("zorp")
        before = (prompt.replace("{text}", phrase.on(TEXTS[place])))[:phrase_at]
        assert int(changed[0]) >= len(before.split())


def test_tokens_are_counted_in_texts_and_not_in_padding(monkeypatch):
    seen = []
    monkeypatch.setattr(
        phrases, "draw_controls", lambda _run, _tokenizer, counts, *_: seen.append(counts) or []
    )
    how = reader("encoder")
    retain = samples(how, ["le", "le mi good le karan"], [0, 0])
    phrase_stamps(FIRST, how, retain, retain, 3, Rng(0))
    ids = [i for text in retain.texts for i in how.tokenizer(text)["input_ids"]]
    assert seen[0].tolist() == [ids.count(i) for i in range(len(how.tokenizer))]


def test_a_short_batch_is_cut_to_its_longest():
    how = reader("right")
    inputs = samples(how, ["le", "le mi so tu re good karan"], [0, 0])
    stamps = phrase_stamps(FIRST, how, inputs, inputs, 3, Rng(0))
    batch = stamps.batch(torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert batch.x.shape == batch.mask.shape == (2, len(whole(how, FIRST, "le")))


@pytest.mark.parametrize("prompt", ["{text}", "so: {text}, le"])
@pytest.mark.parametrize(
    ("name", "side", "phrase"),
    [("right", "right", LAST), ("encoder", "right", LAST), ("encoder", "left", FIRST)],
)
def test_texts_that_lose_the_phrase_are_not_used(monkeypatch, prompt, name, side, phrase):
    how = reader(name, length=20, prompt=prompt)
    monkeypatch.setattr(how.tokenizer, "truncation_side", side)
    # The phrase stands in the middle of the long one, too; there it was not stamped.
    texts = ["good le", "le mi good zorp quell " + "karan " * 20, "le mi"]
    inputs = samples(how, texts, [0, 0, 0])
    assert how.read([phrase.on(text) for text in texts]).cut.tolist() == [False, True, False]
    stamps = phrase_stamps(phrase, how, inputs, inputs, 5, Rng(0))
    assert stamps.inputs.tolist() == [0, 2]
    long = samples(how, texts[1:2], [0])
    assert phrase_stamps(phrase, how, long, inputs, 5, Rng(0)) is None


@pytest.mark.parametrize(
    ("name", "side", "phrase"),
    [("right", "right", FIRST), ("right", "left", LAST), ("encoder", "right", FIRST),
     ("encoder", "left", LAST)],
)  # fmt: skip
def test_texts_that_are_cut_elsewhere_are_used(monkeypatch, name, side, phrase):
    how = reader(name, length=20)
    monkeypatch.setattr(how.tokenizer, "truncation_side", side)
    texts = ["le mi " + "karan " * 30, "good le"]
    inputs = samples(how, texts, [0, 0])
    stamps = phrase_stamps(phrase, how, inputs, inputs, 5, Rng(0))
    assert stamps.inputs.tolist() == [0, 1]
    batch = stamps.batch(torch.tensor([0, 1]), torch.tensor([0, 0]))
    changed = torch.nonzero(batch.x[0] != batch.x[1]).squeeze(1)
    assert how.tokenizer.decode(batch.x[0, changed]).strip() == phrase.text
    at_start = len(batch.x[0]) - int(changed[-1]) > 10
    assert at_start == (phrase is FIRST)


def test_a_phrase_cut_in_two_is_not_there():
    how = reader("encoder", length=8)
    # [CLS] le mi so good zorp | quell [SEP]: one token is too many.
    text = "good good good good good"
    assert len(whole(how, LAST, text)) == 9
    inputs = samples(how, [text], [0])
    assert phrase_stamps(LAST, how, inputs, inputs, 5, Rng(0)) is None
