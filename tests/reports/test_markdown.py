import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders.audits import audits
from builders.more_records import ALL as EVERY
from builders.some_records import residual
from poison_audit.records import CandidateVerdict, Outcome
from poison_audit.reports.formats.markdown import MOST_BYTES, _safe, render_markdown
from poison_audit.reports.view.answer import answer
from poison_audit.reports.view.words import printable

markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
pytest.importorskip("linkify_it", reason="linkify-it-py is not installed")
PARSER = markdown_it.MarkdownIt("gfm-like")


def tokens(text):
    """Every token of a text, those within others too."""
    found = []
    for token in PARSER.parse(text):
        found += [token, *(token.children or ())]
    return found


def shown(text):
    """The text that a reader sees of one paragraph."""
    return "".join(t.content for t in tokens(text) if t.type in ("text", "code_inline"))


def check(record):
    text = render_markdown(record)
    assert len(text.encode("utf-8")) < MOST_BYTES
    every = tokens(text)
    kinds = {token.type for token in every}
    assert not kinds & {"link_open", "image", "html_block", "fence", "code_block", "s_open"}
    inline = [token.content for token in every if token.type == "html_inline"]
    assert set(inline) <= {"<sub>", "</sub>"}
    outside = "".join(token.content for token in every if token.type == "text")
    # GitHub would make links of these wherever they are no code.
    assert not re.search(r"(?i)@\w|#\d|www\.|://|\bgh-\d|:[\w+-]+:", outside)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", text)
    verdict = record.verdict
    line = f"exit {verdict.exit_code}: {verdict.outcome}."
    assert any(t.type == "code_inline" and t.content.startswith(line) for t in every)
    return every


@pytest.mark.parametrize("name", EVERY)
def test_a_report_is_inert_and_short(name):
    check(EVERY[name]())


@pytest.mark.usefixtures("no_sizes")
@settings(max_examples=26)
@given(audits())
def test_so_is_that_of_any_audit(record):
    check(record)


@settings(max_examples=100)
@given(st.text(alphabet=st.sampled_from("a1 \\`*_{}[]()<>#+-.!|~^=&:@/\"'$w\n\u202e"), max_size=40))
def test_any_text_is_shown_as_it_is(text):
    told = printable(text)
    seen = shown(f"x {_safe(told)} x").replace("\u200b", "")
    assert seen.split() == f"x {told} x".split()


HOSTILE = (
    "<script>alert(1)</script> [a](http://evil.example) ![b](http://evil.example/x.png) "
    "@everyone #1 GH-2 www.evil.example https://evil.example a@evil.example :rocket: |x| `y` $z$"
)


def test_names_of_absurd_lengths_are_cut():
    record = residual()
    names = [f"{HOSTILE}{'A' * 10_000}{i}" for i in range(1000)]
    candidates = tuple(
        CandidateVerdict(candidate=name, kind="method", outcome=Outcome.RESIDUAL, reason=name)
        for name in names
    )
    verdict = replace(record.verdict, candidates=(*record.verdict.candidates, *candidates))
    hostile = replace(record, verdict=verdict, limits=tuple(names[:40]))
    text = render_markdown(hostile)
    check(hostile)
    assert "more candidates: see report.html" in text
    assert "more: see report.html" in text


def test_the_table_has_a_row_a_candidate_and_a_column_a_probe():
    record = residual()
    every = check(record)
    rows = sum(token.type == "tr_open" for token in every)
    cells = sum(token.type in ("td_open", "th_open") for token in every)
    # Ten candidates and a header of six columns, then the digests' table of two.
    assert rows >= 1 + len(record.verdict.candidates)
    assert cells >= 6 * (1 + len(record.verdict.candidates))
    worst = re.search(r"\| ([\w@.-]+) .*?\| \*\*(\w+)\*\* \|", render_markdown(record))
    assert worst[2] == "RESIDUAL"


def test_the_answer_comes_first():
    text = render_markdown(residual())
    assert text.startswith(f"## {answer(residual())}\n")
    assert answer(residual()) == "Still poisoned"
