"""The page in Chromium: nothing said, nothing fetched, nothing cut off, readable by everybody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import browser as chromium
from builders.more_records import ALL as EVERY
from builders.situations import clean_tested, residual_with_repair
from builders.situations import record as situation
from builders.some_records import residual
from poison_audit.case.shown import Exhibit, InputFile
from poison_audit.records import Acceptance, CandidateVerdict, Outcome
from poison_audit.reports.page.html import render_html

pytestmark = pytest.mark.skipif(bool(chromium.missing()), reason=chromium.missing() or "there")
needs_axe = pytest.mark.skipif(
    not chromium.AXE.exists(), reason="no axe-core: npm install --prefix tests --no-package-lock"
)
HOSTILE = (
    "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'>\">"
    "<svg onload=window.pwned=1>"
    "\u202egnp.exe\x1b[31m\x00{{7*7}}</title></style><a href='javascript:window.pwned=1'>x</a>"
)
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGNggIIDBwAFgQHBrW0W2AAAAABJRU5E"
    "rkJggg=="
)


def hostile():
    """Hostile text wherever a report takes text."""
    record = residual()
    long = HOSTILE + "A" * 2_000
    names = [HOSTILE, long]
    verdict = replace(
        record.verdict,
        sentence=long,
        next_step=HOSTILE,
        candidates=(
            *record.verdict.candidates,
            *(CandidateVerdict(candidate=n, kind="candidate", outcome=Outcome.RESIDUAL, reason=n)
              for n in names),
        ),
    )  # fmt: skip
    subject = {**record.subject, "model": long, "arch": HOSTILE, HOSTILE: HOSTILE, "train": long}
    accepted = (
        Acceptance(probe=HOSTILE, candidate=HOSTILE, bound=9.0, reason=long, owner=HOSTILE,
                   expires="2027-01-01"),
    )  # fmt: skip
    policy = replace(record.plan.policy, accepted=accepted, decided="2026-11-25")
    return replace(
        record,
        plan=replace(record.plan, policy=policy),
        verdict=verdict,
        subject=subject,
        limits=(long, HOSTILE),
        environment={**record.environment, HOSTILE: HOSTILE, "command": long},
        files=(InputFile(role=HOSTILE, path=long, sha256=HOSTILE, size=1),),
        exhibits=(
            Exhibit(role="target", name=HOSTILE, label=HOSTILE, png=HOSTILE),
            Exhibit(role="target", name=HOSTILE, label=long, text=long),
            Exhibit(role="forget", name=long, label="1", attack=HOSTILE, png=PNG),
            Exhibit(role="forget", name="x", label="1", attack="a", png=PNG + "' onerror='x"),
        ),
    )


HANDLERS = """() => [...document.querySelectorAll('*')].flatMap(e => [...e.attributes])
    .filter(a => a.name.startsWith('on') || /^javascript:/i.test(a.value)).length"""
CHOSEN = (
    "residual", "clean", "inconclusive", "unusable", "attacked", "rehearsed", "texts", "hostile",
)  # fmt: skip
RECORDS = {**{name: EVERY[name] for name in CHOSEN}, "hostile everywhere": hostile}
WHEN = {"residual": pytest.mark.slow, "attacked": pytest.mark.slow, "texts": pytest.mark.slow}
"""Hostile pages are looked at by every run, these by CI, the others before a release."""


def marked(name, *more):
    marks = () if name.startswith("h") else WHEN.get(name, pytest.mark.long)
    return pytest.param(name, *more, marks=marks)


NAMES = [marked(name) for name in RECORDS]


@pytest.fixture(scope="module")
def started():
    with chromium.browser() as running:
        yield running


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for number, (name, make) in enumerate(RECORDS.items()):
        made[name] = folder / f"{number}.html"
        made[name].write_text(render_html(make()), encoding="utf-8")
    return made


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_said_fetched_or_cut_off(started, pages, name, width):
    with chromium.opened(started, pages[name], width=width) as seen:
        assert seen.messages == []
        assert seen.requests == []
        assert chromium.overflow(seen.page) <= 0
        assert seen.page.evaluate("() => window.pwned") is None
        assert seen.page.evaluate(HANDLERS) == 0
        box = seen.page.locator("section.verdict").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width


def test_no_column_is_cut_on_a_desk(started, tmp_path):
    # Eleven candidates, of which every probe measured something, with their budgets.
    made = residual_with_repair()
    (tested, _) = clean_tested().cells
    rest = tested.measurements[2:]
    cells = [
        replace(cell, measurements=(*cell.measurements[:2], *rest, cell.measurements[-1]))
        for cell in made.cells
    ]
    page = tmp_path / "all.html"
    page.write_text(render_html(situation(cells, clean_tested().subject["attacks"])), "utf-8")
    with chromium.opened(started, page, width=1280) as seen:
        widths = seen.page.evaluate(
            "() => [...document.querySelectorAll('.wide')].filter(e => e.offsetParent)"
            ".map(e => [e.scrollWidth, e.clientWidth])"
        )
        # An option is not parted after its first dash.
        lines = seen.page.evaluate(
            "() => [...document.querySelectorAll('.verdict code > span')]"
            ".map(e => e.getClientRects().length)"
        )
    assert widths
    assert all(inside <= room for inside, room in widths), widths
    assert lines
    assert set(lines) == {1}


# The colours of a dark page are those of any record.
LIT = [(name, False) for name in RECORDS] + [("residual", True), ("hostile", True)]


@needs_axe
@pytest.mark.parametrize(("name", "dark"), [marked(*each) for each in LIT])
def test_axe_finds_nothing(started, pages, name, dark):
    for width in (390, 1280) if name == "residual" else (390,) if name[0] == "h" else (1280,):
        with chromium.opened(started, pages[name], width=width, dark=dark) as seen:
            assert chromium.violations(seen.page) == []


@pytest.mark.parametrize("name", NAMES)
def test_it_prints_on_a4(started, pages, name, tmp_path):
    with chromium.opened(started, pages[name], width=1280) as seen:
        seen.page.emulate_media(media="print")
        # A4 less its margins of 14 mm is 688 pixels; Chromium lays out 4/3 of it and shrinks that.
        seen.page.set_viewport_size({"width": 917, "height": 1000})
        assert chromium.overflow(seen.page) <= 0
        seen.page.pdf(path=tmp_path / "r.pdf", prefer_css_page_size=True)
    written = (tmp_path / "r.pdf").read_bytes()
    assert written.startswith(b"%PDF")
    assert b"/MediaBox [0 0 594.95996 841.91998]" in written or b"/MediaBox [0 0 595" in written


def test_a_large_report_is_small(pages, tmp_path):
    record = residual(n=1000)
    shown = tuple(
        Exhibit(role="target", name=f"t{i}", label="1", png=PNG, attack="") for i in range(48)
    )
    assert len(render_html(replace(record, exhibits=shown)).encode()) < 1_500_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "seen_by"),
    [
        ("<script>console.log('x')</script>", "messages"),
        ("<img src='https://evil.example/x.png' alt='x'>", "requests"),
        ("<div style='width:3000px'>wide</div>", "overflow"),
        ("<p style='color:#999;background:#fff'>faint</p><img src='data:,'>", "axe"),
    ],
)
def test_faults_are_seen(started, pages, tmp_path, fault, seen_by):
    text = pages["clean"].read_text("utf-8")
    # Without the page's policy, which would stop most of it.
    policy = text[text.index("<meta http-equiv") : text.index("\n", text.index("<meta http-equiv"))]
    page = tmp_path / "fault.html"
    page.write_text(text.replace(policy, "").replace("<main>", f"<main>{fault}"), encoding="utf-8")
    with chromium.opened(started, page, width=390) as seen:
        seen.page.wait_for_timeout(100)
        found = {
            "messages": seen.messages,
            "requests": seen.requests,
            "overflow": chromium.overflow(seen.page) > 0,
            "axe": chromium.AXE.exists() and chromium.violations(seen.page),
        }
        if seen_by == "axe" and not chromium.AXE.exists():
            pytest.skip("no axe-core")
        assert found[seen_by]
