"""The first screens of the reports that people meet: short sentences that answer five questions."""

from __future__ import annotations

import pytest

from builders.sentences import first_screen, sentences
from builders.situations import OUTCOMES, SITUATIONS
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.view import view


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_situation_is_what_its_name_says(name):
    assert SITUATIONS[name]().verdict.outcome is OUTCOMES[name]


@pytest.mark.parametrize("name", SITUATIONS)
def test_no_sentence_of_the_first_screen_is_long(name):
    found = first_screen(SITUATIONS[name]())
    assert len(found) > 8
    assert [one for one in found if len(one.split()) > 30] == []


def test_sentences_are_counted():
    text = "It leaks: 0.38 (95% interval 0.26 to 0.50). Run `a b --c`; then --out DIR. CLEAN."
    assert sentences(text) == ["It leaks: ten (ten interval ten to ten)", "Run name", "then name"]


FIRST = {
    "clean, everything tested": ["No poison found", "found no reason to block the release"],
    "clean, half untested": ["No poison found in what was tested", "a trigger that still works"],
    "residual backdoor": [
        "Still poisoned",
        "97.0% of inputs with it get the label that the attacker chose, and 2.5% without it",
        "`poison-audit repair`",
    ],
    "residual canaries, a clean repair": ["Still poisoned", "Clean by itself: weight_distortion"],
    "inconclusive, few canaries": [
        "Cannot tell whether it is poisoned",
        "40 canaries are too few: with about 217 a clean model would pass 9 times in 10",
    ],
    "inconclusive, adapter": ["the model is probably read wrongly", "83.0% was expected"],
    "broken candidate": ["Not usable: it lost too much accuracy", "Do not use this repair"],
    "accepted risk": ["let through as an accepted risk", "until 2027-03-31"],
    "activated": ["the repair made it worse", "go back to the model that it was made of"],
    "asleep": ["the poison is only asleep", "once BatchNorm's statistics are recomputed"],
    "texts": ["Still poisoned", "95.0% of inputs with it get the label"],
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_the_first_screen_answers_what_a_new_reader_asks(name):
    # Is it poisoned, how sure, what was not looked at, what now, which file.
    seen = view(SITUATIONS[name]())
    told = " ".join((seen.answer, seen.sentence, seen.untested, seen.next_step))
    assert [part for part in FIRST[name] if part not in told] == []
    sure = "Not at all" if seen.tone == "unsure" and seen.exit_code == "3" else "At most 5 in 100 "
    assert seen.how_sure.startswith(sure)
    assert (seen.untested == "") == (name == "clean, everything tested")
    assert "SHA-256" in seen.file


def test_what_was_not_measured_was_not_decided():
    page = render_html(SITUATIONS["inconclusive, adapter"]())
    assert "Everything: no candidate was measured." in page
    assert "Every probe measured" not in page
