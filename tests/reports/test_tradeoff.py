"""Utility against residue: who is Pareto-optimal, and which points are one method's budgets."""

import re
from dataclasses import replace
from xml.etree import ElementTree

from builders.more_records import attacked
from builders.signed_records import SWEEP, swept
from builders.some_records import inconclusive, residual
from poison_audit.reports.page.html import render_html
from poison_audit.reports.page.tradeoff import best, points, sweeps, tradeoff

SVG = "{http://www.w3.org/2000/svg}"


def names(shown):
    return [p.name for p in shown]


def test_the_points_are_those_of_the_table():
    shown = points(swept())
    assert names(shown) == [row[0] for row in SWEEP]
    ga = shown[4]
    assert (ga.residue, ga.harm, ga.tone) == (-0.71, 0.71, "bad")  # overshot is as far from 0
    assert round(ga.accuracy, 6) == 81.0
    assert points(inconclusive()) == ()
    assert "scrub" not in names(points(residual()))  # it failed


def test_what_nobody_beats_in_both():
    #  accuracy, |score|: deployed 83.1, 1.29; scrub 79.1, 0.05; @0.05 82, 0.52; @0.02 83, 0.90;
    #  ga 81, 0.71 is beaten by scrub@0.05, ga@0.02 82.9, 0.95 by scrub@0.02; ours ties scrub@0.05
    assert names(best(points(swept()))) == [
        "deployed",
        "scrub",
        "scrub@0.05",
        "scrub@0.02",
        "ours@home",
    ]
    assert best(()) == ()


def test_less_than_none_of_a_one_sided_effect_is_no_gain():
    record = attacked()
    far = [
        replace(f, statistic=-0.04) if (f.probe, f.candidate) == ("targeted", "ga") else f
        for f in record.findings
    ]
    (ga,) = [p for p in points(replace(record, findings=tuple(far))) if p.name == "ga"]
    assert (ga.residue, ga.harm) == (-4.0, 0.0)  # in points


def test_budgets_of_one_method_are_joined_and_others_are_not():
    record = swept()
    assert [names(line) for line in sweeps(points(record), record.cells)] == [
        ["scrub@0.02", "scrub@0.05", "scrub"],
        ["ga@0.02", "ga"],
    ]
    assert sweeps(points(residual()), residual().cells) == []


def test_the_chart_rings_the_best_and_says_so():
    svg = tradeoff(swept(), describe="d")
    root = ElementTree.fromstring(
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )
    rings = [u for u in root.iter(f"{SVG}use") if "fill-opacity: 0" in (u.get("style") or "")]
    assert len(rings) == 5
    page = render_html(swept())
    assert "Beaten by no other in both: deployed, scrub, scrub@0.05, scrub@0.02, ours@home." in page
    assert "joins the budgets" in page
    assert "joins the budgets" not in render_html(residual())


def test_numbers_that_no_probe_writes_are_not_drawn():
    record = swept()
    far = [
        replace(f, statistic=1e300) if (f.probe, f.candidate) == ("gaussian", "ga") else f
        for f in record.findings
    ]
    record = replace(record, findings=tuple(far))
    assert "ga" not in names(points(record))
    assert re.search(r">ga@0.02<", tradeoff(record, describe="d"))
