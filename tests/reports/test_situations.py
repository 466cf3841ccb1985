"""The first screens of the reports that people meet: short sentences that answer five questions."""

from __future__ import annotations

import pytest

from builders.sentences import first_screen, sentences
from builders.situations import OUTCOMES, SITUATIONS


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
