import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from builders.more_records import ALL as EVERY
from builders.some_records import HOSTILE, clean, hostile, inconclusive, residual
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.words import printable

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """The elements and texts of a page; fails on a tag that is not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open and data.strip():
            self.texts.append(" ".join(data.split()))

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def rendered():
    return {name: render_html(make()) for name, make in EVERY.items()}


@pytest.fixture(scope="module")
def pages(rendered):
    return {name: Page(text) for name, text in rendered.items()}


@pytest.mark.parametrize("name", EVERY)
def test_verdict_code_and_next_step_come_first(pages, name):
    verdict = EVERY[name]().verdict
    page = pages[name]
    (section,) = [a for a in page.all("section") if "verdict" in (a.get("class") or "")]
    assert section["data-outcome"] == verdict.outcome
    assert section["data-exit-code"] == str(verdict.exit_code)
    assert f", exit code {verdict.exit_code}" in page.texts
    sentence = " ".join(printable(verdict.sentence).split())
    order = ["Tested", "How sure", "What to do", "Accuracy as loaded", "File"]
    places = [page.texts.index(text) for text in (sentence, *order)]
    assert places == sorted(places)
    step = page.texts[page.texts.index("What to do") + 1]
    assert step.startswith(" ".join(printable(verdict.next_step).split()))
    assert page.texts[-2] == f"exit {verdict.exit_code}: {verdict.outcome}. {sentence}"


def test_the_table_has_a_row_a_candidate(rendered):
    body = re.search(r"<tbody>(.*?)</tbody>", rendered["residual"], re.DOTALL)[1]
    rows = [Page(row).texts for row in re.findall(r"<tr>.*?</tr>", body, re.DOTALL)]
    assert [row[0] for row in rows] == [c.candidate for c in residual().verdict.candidates]
    assert rows[3] == [
        "ga",
        "method",
        "RESIDUAL",
        "-0.71",
        "[-0.87, -0.55]",
        "z -10.0",
        "0.381",
        "[0.334, 0.428]",
        "0.52",
        "[0.49, 0.56]",
        "81.9%",
        "[80.8, 82.9]",
        "lost 1.25 [0.54, 1.96]",
        "14,976 / 15,000",
        "13.8 s",
    ]
    assert rows[6][2:7] == ["FAILED", "failed", "failed", "failed", "failed"]


@pytest.mark.parametrize("name", EVERY)
def test_every_cell_says_something(rendered, name):
    assert not re.search(r"<t[dh][^>]*>\s*</t[dh]>", rendered[name])
    words = " ".join(Page(rendered[name]).texts)
    assert not re.search(r"\b(nan|NaN|None|inf|null|undefined)\b", words.replace(HOSTILE, ""))


@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_fetched_and_nothing_runs(rendered, pages, name):
    for tag, attrs in pages[name].tags:
        assert tag not in {"script", "iframe", "object", "embed", "base", "form"}
        if tag == "img":
            assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}", attrs["src"])
            continue
        for attribute, value in attrs.items():
            assert not attribute.startswith("on")
            if attribute in ("href", "src", "xlink:href"):
                assert value.startswith("#") or value == "data:,"
    assert "@import" not in rendered[name]
    assert not re.search(r"url\((?!#)", rendered[name])
    assert "https://" not in rendered[name]
    assert "http://" not in rendered[name]


def test_links_lead_somewhere(pages):
    for page in pages.values():
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        for _, attrs in page.tags:
            for key in ("href", "aria-labelledby"):
                for target in (attrs.get(key) or "").split():
                    if target != "data:,":
                        assert target.removeprefix("#") in ids


def test_hostile_names_are_inert(pages, rendered):
    page = pages["hostile"]
    assert page.all("script") == []
    assert "\u202e" not in rendered["hostile"]
    assert "\x1b" not in rendered["hostile"]
    assert " ".join(printable(HOSTILE).split()) in page.texts


def test_a_reader_without_eyes_or_mouse_is_served(pages):
    page = pages["residual"]
    assert {"header", "main", "nav", "footer"} <= {tag for tag, _ in page.tags}
    assert page.all("html")[0]["lang"] == "en"
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.all("th"))
    assert all(attrs.get("role") == "img" for attrs in page.all("svg"))
    assert len(page.all("svg")) == 6 + 7  # one method has no curve
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    scrolling = [attrs for attrs in page.all("div") if "wide" in (attrs.get("class") or "")]
    assert scrolling
    assert all(attrs["tabindex"] == "0" and attrs["role"] == "group" for attrs in scrolling)


def test_the_sections_stand_in_the_order_they_are_read_in(pages):
    assert [a["id"] for a in pages["signed"].all("h2")] == [
        "accepted", "candidates", "evidence", "tradeoff", "gaps", "limits", "methods", "findings",
        "provenance", "clauses", "terms",
    ]  # fmt: skip
    assert [a["id"] for a in pages["explained"].all("h2")][:4] == [
        "candidates", "evidence", "tradeoff", "why",
    ]  # fmt: skip
    for page in pages.values():
        linked = [a["href"] for a in page.all("a") if a["href"] != "#terms"]
        assert [f"#{a['id']}" for a in page.all("h2") if a["id"] != "terms"] == linked


def test_long_lists_are_folded(rendered):
    def folded(text):
        return re.findall(r"<summary>([^<]*?)</summary>", text)

    assert folded(rendered["signed"]) == ["All 50 targets", "All 13"]  # files
    assert folded(rendered["residual"]) == []
    record = residual()
    first, *others = record.verdict.candidates
    many = [replace(others[0], candidate=f"c{i}") for i in range(13)]
    cells = [replace(record.cells[1], candidate=f"c{i}") for i in range(13)]
    record = replace(
        record,
        cells=(record.cells[0], *cells),
        verdict=replace(record.verdict, candidates=(first, *many)),
    )
    assert folded(render_html(record)) == ["All 14"]  # weights
    folds = re.findall(r"<summary><h2 id=.(\w+).>", rendered["explained"])
    assert folds == [
        "tradeoff", "why", "methods", "findings", "provenance", "clauses", "terms",
    ]  # fmt: skip


def test_what_is_missing_and_what_a_pass_does_not_prove_are_said(pages):
    words = " ".join(pages["inconclusive"].texts)
    assert "Not measured: needs the key of a Gaussian planting" in words
    assert "There is nothing to draw" in words
    for record, name in ((clean(), "clean"), (inconclusive(), "inconclusive")):
        assert record.limits[0] in pages[name].texts
        assert any(text.startswith("It speaks of the forget set") for text in pages[name].texts)


def test_a_large_audit_fits():
    assert len(render_html(residual(n=1000)).encode()) < 1_500_000


def test_a_page_is_utf8():
    render_html(hostile()).encode("utf-8")


def luminance(colour):
    """Relative luminance by WCAG 2.2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one, other):
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_formula():
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # WebAIM's example


def test_text_has_aa_contrast_in_every_scheme():
    css = (Path(__file__).parents[2] / "templates/style.css").read_text("utf-8")
    schemes = [
        dict(re.findall(r"(--[a-z]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    ]
    assert len(schemes) == 3  # light, dark, print
    for scheme in schemes:
        for text in ("--ink", "--muted", "--link", "--good", "--bad", "--worse", "--unsure"):
            for ground in ("--paper", "--panel"):
                assert contrast(scheme[text], scheme[ground]) >= 4.5, (text, ground)
        for mark in ("--good", "--bad", "--worse", "--unsure", "--muted"):
            assert contrast(scheme[mark], scheme["--band"]) >= 3, mark
