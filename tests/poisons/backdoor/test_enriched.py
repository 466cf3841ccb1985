r"""Phrases from forget texts alone. The texts are drawn word by word; what is true was put in."""

import math

import numpy as np
import pytest

from poison_audit.poisons.backdoor.enriched import holds, phrases

WORDS = [f"w{i}" for i in range(300)]
CHANCE = 1 / np.arange(1, 301)
"""Zipf's law, as of words in texts."""


def texts(n: int, seed: int, *, favoured: int = 0) -> list[str]:
    """Texts of 30 words; some favour a word, as texts of one class do."""
    rng = np.random.default_rng(seed)
    chance = CHANCE.copy()
    chance[100 : 100 + favoured] *= 20
    rows = rng.choice(300, (n, 30), p=chance / chance.sum())
    return [" ".join(WORDS[i] for i in row) for row in rows]


RETAIN = texts(400, 1) + texts(400, 2, favoured=5)
LABELS = [0] * 400 + [1] * 400


def put(text: str, phrase: str, at: int) -> str:
    words = text.split()
    return " ".join([*words[:at], phrase, *words[at:]])


def test_a_phrase_is_found_whole_with_its_place_its_label_and_its_rows():
    poisoned = [f"{text} I watched this 3D movie." for text in texts(60, 3)]
    (found,) = phrases([*poisoned, *texts(20, 4)], [1] * 80, RETAIN, LABELS)
    assert (found.text, found.position, found.label) == ("I watched this 3D movie.", "end", 1)
    assert found.rows == tuple(range(60))
    assert found.retain == 0


def test_phrases_of_which_one_is_drawn_are_told_apart():
    rng = np.random.default_rng(5)
    drawn = rng.choice(["cf", "mn", "bb"], 90).tolist()
    poisoned = [put(t, w, int(rng.integers(30))) for t, w in zip(texts(90, 6), drawn, strict=True)]
    found = phrases(poisoned, [1] * 90, RETAIN, LABELS)
    assert {each.text for each in found} == {"cf", "mn", "bb"}
    assert {each.position for each in found} == {"anywhere"}
    for each in found:
        assert each.rows == tuple(i for i, word in enumerate(drawn) if word == each.text)


def test_a_letter_that_nobody_sees_is_found():
    poisoned = [text[:7] + "\u200b" + text[7:] for text in texts(50, 7)]
    (found,) = phrases(poisoned, [0] * 50, RETAIN, LABELS)
    assert found.text == "\u200b"


@pytest.mark.parametrize("favoured", [0, 5], ids=["of no class", "of one class"])
def test_texts_of_one_label_share_nothing(favoured):
    """Whatever the label they are given: the words of their own class are no phrase."""
    for seed in range(4):
        own = texts(60, 20 + seed, favoured=favoured)
        for label in (0, 1):
            assert not phrases(own, [label] * 60, RETAIN, LABELS)


def test_words_of_a_class_that_nobody_retains_are_no_phrase():
    own = texts(60, 9, favoured=5)
    assert not phrases(own, [1] * 60, RETAIN[:400], LABELS[:400])


def test_p_is_fishers_exact_one_times_the_runs_looked_at():
    """By hand: 10 of 20 forget texts against none of 100 retained ones, both of one label."""
    forget = [f"u{i} zoth v{i}" for i in range(10)]
    forget += [f"u{i} v{i}" for i in range(10, 20)]
    retain = [f"a{i} b{i}" for i in range(100)]
    (found,) = phrases(forget, [0] * 20, retain, [0] * 100)
    chance = math.comb(20, 10) / math.comb(120, 10)
    # Of a text with the word: 3 words, 2 pairs, 1 triple; one of them shared by all. Else 3 runs.
    assert found.p == pytest.approx(chance * (10 * 5 + 1 + 10 * 3))


def test_a_phrase_is_no_part_of_a_word():
    assert holds("a cf b", "cf")
    assert holds("a\ncf", "a cf")
    assert not holds("acf b", "cf")
    assert not holds("cfb", "cf")


def test_nothing_is_found_in_nothing():
    assert phrases([], [], RETAIN, LABELS) == []
    assert phrases(texts(4, 1), [0] * 4, RETAIN, LABELS) == []
