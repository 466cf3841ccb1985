"""The appendix of clauses: it shows the table's words, and no verdict knows of it."""

import re
from html import unescape

import pytest

from builders.some_records import residual
from poison_audit.reports.formats import FORMATS
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.clauses import CLAUSES, RESIDUE, cited
from poison_audit.verdict.readings import READINGS


@pytest.fixture(scope="module")
def section():
    (found,) = re.findall(
        r'<section aria-labelledby="clauses">(.*?)</section>', render_html(residual()), re.DOTALL
    )
    return found


def test_the_page_quotes_the_table_word_for_word(section):
    quotes = re.findall(r"<blockquote><p>(.*?)</p></blockquote>", section, re.DOTALL)
    assert [unescape(quote) for quote in quotes] == [each.quote for each in CLAUSES]
    heads = re.findall(r"<h3>(.*?)</h3>", section)
    assert list(map(unescape, heads)) == [f"{each.document}: {each.place}" for each in CLAUSES]
    for each in CLAUSES:
        assert each.version in unescape(section)
        assert each.read in unescape(section)
    assert section.startswith('\n<details class="more">\n<summary>')


def test_what_is_quoted_is_what_was_read():
    """The words that were looked up, as the sources print them."""
    by_place = {each.place.partition(" ")[0]: each.quote for each in CLAUSES}
    assert (
        "attacks trying to manipulate the training data set (data poisoning)"
        in (by_place["Article"])
    )
    assert by_place["MEASURE"].startswith("AI system security and resilience – as identified in")
    assert by_place["C1.3.1"].startswith("Verify that labeling interfaces and platforms enforce")
    assert by_place["C1.3.5"].startswith("Verify that sensitive information in labels is redacted")
    assert by_place["AML.T0020"].startswith("Adversaries may attempt to poison datasets used by")
    assert by_place["AML.T0018"].startswith("Adversaries may directly manipulate an AI model")


def test_each_has_a_version_a_place_and_known_probes():
    for each in CLAUSES:
        assert each.version
        assert re.search(r"\d{4}", each.version)
        assert each.read
        assert each.speaks <= set(READINGS)
        assert each.quote.endswith(".")
    (act,) = (each for each in CLAUSES if each.place == "Article 15(5)")
    assert "2 August 2026" in act.applies
    assert "utility" not in RESIDUE


def test_what_a_clause_does_not_speak_to_is_said(section):
    found = {one.clause.place: one for one in cited(residual())}
    assert found["Article 15(5)"].speaks == "Gaussian, Exposure"
    assert found["Article 15(5)"].silent == "Membership, Accuracy"
    assert found["C1.3.1"].speaks == ""
    assert found["C1.3.1"].silent == "Gaussian, Exposure, Membership, Accuracy"
    assert section.count("Does not speak to: ") == len(CLAUSES)


def test_no_other_format_and_no_verdict_knows_of_clauses():
    record = residual()
    for name, each in FORMATS.items():
        if name != "html":
            assert "Article 15" not in each.render(record)
