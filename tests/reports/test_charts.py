import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders.some_records import HOSTILE, clean, hostile, inconclusive, residual, several_seeds
from poison_audit.poisons.gaussian.reading import GAUSSIAN, Scores
from poison_audit.reports.page import drawing
from poison_audit.reports.page.charts import forest, loss_curve
from poison_audit.reports.page.evidence_charts import recognised_chart, roc, scores_chart
from poison_audit.reports.page.html import render_html
from poison_audit.reports.page.tradeoff import spread, tradeoff
from poison_audit.reports.view.evidence import evidence_of
from poison_audit.reports.view.words import printable

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    # As in a page, where an <svg> needs no namespace.
    return ElementTree.fromstring(
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )


def texts(svg):
    return ["".join(text.itertext()) for text in parse(svg).iter(f"{SVG}text")]


def scores_of(cell):
    return evidence_of(cell, GAUSSIAN)


def every_chart(record):
    return [
        forest(record, "gaussian", describe="d"),
        forest(record, "exposure", describe="d"),
        scores_chart(scores_of(record.cells[0]), tone="bad", describe="d"),
        tradeoff(record, describe="d"),
        loss_curve(record.cells[1:2], name="loss1", describe="d"),
    ]


@pytest.fixture(scope="module")
def drawn():
    return every_chart(residual())


def test_the_same_record_draws_the_same_bytes(drawn):
    mpl.rcParams["font.size"] = 33  # what a matplotlibrc may say
    try:
        assert every_chart(residual()) == drawn
        assert mpl.rcParams["font.size"] == 33
        assert mpl.rcParams["svg.fonttype"] != "none"
    finally:
        mpl.rcdefaults()


def test_charts_take_colour_and_type_from_the_page(drawn):
    for svg in drawn:
        assert "var(--ink)" in svg
        assert set(re.findall(r"#[0-9a-f]{6}\b", svg)) <= {"#000000"}
        assert not re.search(r"font-family|font:|<style|DejaVu", svg)


def test_every_chart_tells_what_it_shows(drawn):
    for svg in drawn:
        root = parse(svg)
        title, text = root.get("aria-labelledby").split()
        labels = {element.get("id"): element.text for element in root}
        assert root.get("role") == "img"
        assert labels[title]
        assert labels[text] == "d"


def test_ids_are_unique_on_a_page(drawn):
    ids = [element.get("id") for svg in drawn for element in parse(svg).iter()]
    ids = [name for name in ids if name]
    assert len(ids) == len(set(ids))
    targets = set(re.findall(r'href="#(.*?)"|url\(#(.*?)\)', "".join(drawn)))
    assert {"".join(pair) for pair in targets} <= set(ids)


def test_a_forest_names_every_candidate(drawn):
    names = [candidate.candidate for candidate in residual().verdict.candidates]
    for svg in drawn[:2]:
        assert [text for text in texts(svg) if text in names] == names
        assert texts(svg).count("not measured") == 1


def marks(svg):
    """Horizontal positions of the marks of a tone, and the shapes' ids."""
    return [
        (float(use.get("x")), float(use.get("y")))
        for use in parse(svg).iter(f"{SVG}use")
        if re.search(r"fill: var\(--(good|bad|worse|unsure)\)", use.get("style") or "")
    ]


def test_a_forest_puts_every_estimate_where_it_belongs(drawn):
    shown = [f for f in residual().findings if f.probe == "gaussian" and f.interval]
    places = marks(drawn[0])
    assert len(places) == len(shown)
    # The labels of the axis say where which value is.
    labels = {
        float(text.text.replace("\u2212", "-")): float(text.get("x"))
        for text in parse(drawn[0]).iter(f"{SVG}text")
        if re.fullmatch(r"\u2212?\d\.\d", text.text)
    }
    slope = (labels[1.0] - labels[0.0]) / 1.0
    for (x, _), finding in zip(places, shown, strict=True):
        assert x == pytest.approx(labels[0.0] + slope * finding.statistic, abs=0.01)
    heights = [y for _, y in places]
    assert heights == sorted(heights)


def test_the_roc_has_the_exact_rate_of_every_threshold():
    # P(N(0, 1) > t) is 0.1 at 1.2816, 0.5 at 0, 0.00003 at 4 and 0.8413 at -1.
    rates, found = roc([1.2815515655, 4.0, -1.0, 0.0])
    assert rates == pytest.approx([0.001, 0.1, 0.5, 0.841345, 1.0], abs=1e-6)
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_the_roc_chart_steps_up_at_those_rates():
    seen = Scores(scores=(1.2815515655, 4.0, -1.0, 0.0), held_out=(), dropped=0)
    svg = recognised_chart(seen, tone="bad", describe=HOSTILE)
    assert "<script" not in svg
    at = {}
    for text in parse(svg).iter(f"{SVG}text"):
        side = "x" if "middle" in (text.get("style") or "") else "y"
        at.setdefault((side, text.text), float(text.get(side)))
    decade = (at["x", "10%"] - at["x", "0.1%"]) / 2
    (line,) = [
        p.get("d")
        for p in parse(svg).iter(f"{SVG}path")
        if "stroke: var(--bad)" in (p.get("style") or "") and p.get("d").count("L") > 4
    ]
    numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", line)]
    steps = [
        ((x - at["x", "0.1%"]) / decade - 3, (at["y", "0"] - y) / (at["y", "0"] - at["y", "50%"]))
        for x, y in zip(numbers[::2], numbers[1::2], strict=True)
    ]
    # As (log10 of the rate, share / 50%); a label's baseline lies a little below its tick.
    for expected in ((-3.0, 0.5), (-1.0, 0.5), (-1.0, 1.0), (-0.30103, 1.5), (-0.0750, 2.0)):
        assert any(step == pytest.approx(expected, abs=0.06) for step in steps), (expected, steps)


def test_scores_beyond_any_chance_make_no_endless_histogram():
    far = Scores(scores=(1e6, -1e6, 0.0), held_out=(), dropped=0)
    svg = scores_chart(far, tone="bad", describe="d")
    assert len(svg) < 100_000


def test_every_seed_gets_its_mark():
    svg = forest(several_seeds(), "gaussian", describe="d")
    assert len(marks(svg)) == 3


def test_nothing_measured_draws_nothing():
    record = inconclusive()
    assert forest(record, "gaussian", describe="d") is None
    assert scores_of(record.cells[0]) is None
    assert "Leak scores" not in render_html(record)
    assert tradeoff(record, describe="d") is None
    assert loss_curve(clean().cells, name="l", describe="d") is None


def test_names_stay_text():
    for svg in every_chart(hostile())[:4]:
        parse(svg)  # well formed
        assert "<script" not in svg
    named = forest(hostile(), "gaussian", describe=HOSTILE)
    assert parse(named).find(f"{SVG}desc").text == printable(HOSTILE)


def test_dollars_in_a_name_are_no_formula():
    name = "$\\frac{$"
    record = residual()
    first, *others = record.verdict.candidates
    verdict = replace(record.verdict, candidates=(replace(first, candidate=name), *others))
    found = [
        replace(f, candidate=name) if f.candidate == "deployed" else f for f in record.findings
    ]
    record = replace(record, verdict=verdict, findings=tuple(found))
    assert name in texts(forest(record, "gaussian", describe="d"))
    assert name in texts(tradeoff(record, describe="d"))


@pytest.mark.parametrize(
    ("losses", "ticks"),
    [
        ((1e-3, 1e3, 1.0), {"0.001", "1000"}),
        ((0.0, 1e3, 1.0), {"0", "500", "1000"}),  # zero has no logarithm
        ((2.0, 1.0, 3.0), {"1", "2", "3"}),
    ],
)
def test_losses_that_span_decades_are_drawn_on_a_logarithm(losses, ticks):
    cell = residual().cells[1]
    cell = replace(cell, cost=replace(cell.cost, losses=losses))
    shown = set(texts(loss_curve([cell], name="l", describe="d")))
    assert ticks <= shown


@given(st.lists(st.floats(0, 10), min_size=1, max_size=12).map(sorted), st.floats(0.1, 2))
def test_names_are_spread_apart_and_in_order(wanted, gap):
    places = spread(wanted, gap=gap, low=0.0, high=10.0)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(places))
    if gap * (len(wanted) - 1) <= 10:
        assert all(-1e-9 <= place <= 10 + 1e-9 for place in places)


def test_names_with_room_stay_where_they_are():
    assert spread([1.0, 4.0, 9.0], gap=1.0, low=0.0, high=10.0) == [1.0, 4.0, 9.0]


def test_roles_have_colours_of_their_own():
    assert len(set(drawing.VARIABLES.values())) == len(drawing.VARIABLES)
