"""The parts of a report beyond the table of candidates: why, evidence, found, rehearsal."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from builders.more_records import (
    ALL,
    NETWORK,
    activated,
    attacked,
    explained,
    found_in_part,
    hostile_everywhere,
    moved,
    orthogonality,
    rehearsed,
    shift,
    unexplained,
    unlooked,
)
from builders.some_records import HOSTILE, clean, residual
from poison_audit.poisons.backdoor.reading import BACKDOOR
from poison_audit.records import WORST_FIRST, Outcome, Step
from poison_audit.reports.formats.terminal import render_terminal
from poison_audit.reports.page.drawing import COLOURS, MARKS
from poison_audit.reports.page.evidence_charts import trigger_chart
from poison_audit.reports.page.html import render_html
from poison_audit.reports.page.why_charts import orthogonality_chart, shift_chart
from poison_audit.reports.view.evidence import evidence_of
from poison_audit.reports.view.figure import TONES, figure
from poison_audit.reports.view.rehearsed import LABEL
from poison_audit.reports.view.view import view
from poison_audit.reports.view.words import printable

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg):
    return ElementTree.fromstring(
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )


def shown(record, *, width=200):
    out = io.StringIO()
    render_terminal(record, console=Console(file=out, width=width))
    return out.getvalue()


def section(page, name):
    """The text of one section of a page, without its tags."""
    part = re.search(rf'<section[^>]*aria-labelledby="{name}".*?</section>', page, re.DOTALL)
    return None if part is None else " ".join(re.sub(r"<[^>]+>", " ", part[0]).split())


def values(svg, colour, *, along, at):
    """The places of the marks of a colour, in the values of an axis that has two labels `at`.

    A label of the y axis stands some pixels below its line, all by the same.
    """
    labels = {}
    for text in parse(svg).iter(f"{SVG}text"):
        if text.get(along):
            labels.setdefault(text.text, float(text.get(along)))
    low, high = at
    unit = (labels[high] - labels[low]) / (float(high) - float(low))
    return [
        round(float(low) + (float(use.get(along)) - labels[low]) / unit, 1)
        for use in parse(svg).iter(f"{SVG}use")
        if f"fill: var(--{colour})" in (use.get("style") or "")
    ]


def test_hypotheses_stand_apart_from_candidates_and_gaps():
    for record in (explained(), unexplained()):
        seen, without = view(record), view(residual())
        assert seen.probes == without.probes
        assert seen.rows == without.rows
        assert seen.gaps == without.gaps
        assert seen.exit_line == without.exit_line


def test_why_tells_ratio_interval_chance_and_diagnosis():
    text = section(render_html(explained()), "why")
    assert "decides nothing" in text
    assert "Ratio to random clean samples 2.40 [2.00, 3.00]" in text
    assert "so far or further: p = 0.016" in text  # 1/61
    assert "0.40 [0.30, 0.60]" in text
    assert "2.1% [0.4, 3.8] of the way from deployed to reference" in text
    assert explained().diagnosis in text
    assert "0.82 times as far from each other" in text
    terminal = shown(explained())
    assert explained().diagnosis in terminal
    assert shift().reason in terminal


def test_there_is_no_why_where_nothing_was_asked():
    record = replace(clean(), cells=tuple(replace(c, movement=moved()) for c in clean().cells))
    assert view(record).why is None
    assert section(render_html(record), "why") is None
    assert "decides nothing):" not in shown(record)


def test_what_was_not_measured_says_why():
    text = section(render_html(unexplained()), "why")
    assert text.count("Not measured: retain holds fewer samples than the forget set") == 2
    assert "<svg" not in text
    assert text.count("not measured: needs a reference") == 7 * 3  # methods that ran, measures
    assert "The whole network: not measured: it was not asked for." in text
    alone = replace(orthogonality(), details=orthogonality().details)
    seen = view(replace(residual(), findings=(alone,))).why
    assert seen.hypotheses[0].network == "The whole network: not measured: needs a reference."


def test_movement_is_a_row_a_run():
    gd = view(explained()).why.movements[0]
    assert (gd.name, gd.seed, gd.moved) == ("gd", "", "3.21")
    assert gd.distance == "1.014 [1.004, 1.024]"
    assert gd.covered == "4.2% [3.2, 5.2]"  # 4.23, 3.23 and 5.23
    assert gd.aligned == "0.21 [0.20, 0.22]"
    record = explained()
    one = replace(record.cells[1], movement=moved(references=1))
    twice = replace(one, seed=1)
    seen = view(replace(record, cells=(one, twice))).why.movements
    assert [m.seed for m in seen] == ["0", "1"]
    assert seen[0].distance == "1.014"  # of one reference there is no range


def test_the_shift_chart_puts_the_forget_set_where_it_belongs():
    svg = shift_chart(shift(), describe=HOSTILE)
    assert parse(svg).find(f"{SVG}desc").text == printable(HOSTILE)
    for colour, heights in (("ink", [1.0, 2.5, 5.5, 12.0]), ("muted", [0.5, 1.25, 2.5, 5.0])):
        x = values(svg, colour, along="x", at=("0", "100"))
        y = values(svg, colour, along="y", at=("0.0", "10.0"))
        assert x[:4] == [10, 25, 50, 100]  # then the legend's mark
        rises = [b - y[0] for b in y[:4]]
        assert rises == pytest.approx([b - heights[0] for b in heights], abs=0.11)
    assert "var(--band)" in svg


def test_fractions_without_random_subsets_leave_the_band_out():
    details = dict(shift().details)
    for end in ("mean", "low", "high"):
        details[f"random_l1_{end}"] = [*details[f"random_l1_{end}"][:3], None]
    svg = shift_chart(replace(shift(), details=details), describe="d")
    assert values(svg, "ink", along="x", at=("0", "100"))[:4] == [10, 25, 50, 100]
    assert values(svg, "muted", along="x", at=("0", "100"))[:3] == [10, 25, 50]
    assert 100 not in values(svg, "muted", along="x", at=("0", "100"))
    none = replace(shift(), statistic=None, interval=None, outcome=Outcome.NOT_MEASURED)
    assert shift_chart(none, describe="d") is None


def test_the_orthogonality_chart_shows_every_null_and_the_network():
    svg = orthogonality_chart(orthogonality(NETWORK), describe="d")
    texts = [t.text for t in parse(svg).iter(f"{SVG}text")]
    names = ["forget set", "random clean subsets", "random direction", "whole network"]
    assert [t for t in texts if t in names] == names
    at = {"along": "x", "at": ("0", "100")}
    assert values(svg, "ink", **at) == pytest.approx([12.0, 2.1], abs=0.11)
    assert values(svg, "muted", **at) == pytest.approx([30.0, 5.0], abs=0.11)
    assert "whole network" not in orthogonality_chart(orthogonality(), describe="d")


def test_columns_of_attacks_nobody_looked_for_do_not_grow():
    seen = view(unlooked())
    assert [p.title for p in seen.probes] == [p.title for p in view(residual()).probes]
    gaps = {gap.title: gap for gap in seen.gaps}
    assert "Backdoor" not in gaps
    assert "(backdoor)" in seen.untested
    required = [
        replace(f, gating=True) if f.probe == "backdoor" else f for f in unlooked().findings
    ]
    titles = [p.title for p in view(replace(unlooked(), findings=tuple(required))).probes]
    assert "Backdoor" in titles
    assert "Targeted" not in titles


def test_attacks_are_told_in_points():
    row = view(attacked()).rows[0]
    of = {shown.probe: shown for shown in row.figures}
    assert of["targeted"].text == "+78.0 [72.0, 84.0]"  # 40/50 - 0.02, -+ 0.06
    assert of["targeted"].note == "40 of 50 hit"
    assert of["backdoor"].text == "+87.9 [81.9, 93.9]"  # 0.9 - 0.021
    assert of["backdoor"].note == "rate 90.0%"
    assert of["indiscriminate"].text == "+0.8 [0.2, 1.4]"  # 83.92 - 83.12
    assert of["indiscriminate"].note == "accuracy 83.1%"
    assert "success rate 80.0% [70.0, 85.0]" in of["targeted"].extras
    assert "control triggers: mean 2.1%, sd 1.1%, highest 6.4%" in of["backdoor"].extras
    assert "stamped inputs in reference retrained 0.4%" in of["backdoor"].extras
    assert of["indiscriminate"].remedy.endswith("show an effect of 20.0 points 9 times in 10.")


def test_figures_stand_without_their_details():
    for finding in attacked().findings:
        bare = figure(replace(finding, details={}))
        assert bare.value


def test_targets_say_who_hits_them():
    seen = view(attacked()).evidence
    assert len(seen.targets) == 50
    assert seen.fold
    first, second, last = seen.targets[0], seen.targets[42], seen.targets[49]
    assert (first.name, first.label, first.adversarial) == ("test/00000.png", "0", "1")
    assert first.hit == "all 3"
    assert second.hit == "ga"  # deployed hits the first 40, ga 45, retrained 1
    assert last.hit == "none"
    assert seen.targets_summary == (
        "40 of 50 targets hit in the deployed model, and 20 of 1,000 controls."
    )
    assert "<details>" in render_html(attacked())


def test_deficits_stand_by_reference_with_or_without_details():
    (told,) = view(attacked()).evidence.deficits
    assert (told.reference, told.deficit) == ("retrained", "+0.80 [0.20, 1.40]")
    bare = replace(attacked(), findings=tuple(replace(f, details={}) for f in attacked().findings))
    (counted,) = view(bare).evidence.deficits
    assert counted.deficit == "+0.80"  # (4196 - 4156) / 5000


def test_the_trigger_stands_among_its_controls():
    svg = trigger_chart(evidence_of(attacked().cells[0], BACKDOOR), tone="bad", describe=HOSTILE)
    marked = values(svg, "bad", along="x", at=("0", "100"))
    assert marked[0] == pytest.approx(90.0, abs=0.1)
    assert "<script" not in svg


def test_what_unlearning_made_stronger_looks_worse_than_what_is_left():
    assert WORST_FIRST.index(Outcome.ACTIVATED) < WORST_FIRST.index(Outcome.RESIDUAL)
    assert TONES[Outcome.ACTIVATED] == "worse"
    assert COLOURS["worse"] != COLOURS["bad"]
    assert MARKS["worse"] not in {mark for tone, mark in MARKS.items() if tone != "worse"}
    page = render_html(activated())
    assert '<section class="verdict worse"' in page
    assert "fill: var(--worse)" in page
    assert "a triangle" in section(page, "candidates")


def test_methods_that_knew_a_part_say_so_in_verdict_and_methods():
    page = render_html(found_in_part())
    told = "The methods were given only 40 of 400 forget samples; the probes looked at all of them."
    retrained = "it is not clean by definition"
    for name in ("verdict", "methods"):
        assert told in section(page, name)
        assert retrained in section(page, name)
    assert told in shown(found_in_part())
    assert view(residual()).found == ()
    unsized = replace(found_in_part(), subject={})
    assert "only 10.0% of the forget samples" in view(unsized).found[0]


def test_a_rehearsal_is_labelled_and_stays_apart():
    record = rehearsed()
    page = render_html(record)
    text = section(page, "rehearsal")
    assert LABEL in text
    assert record.rehearsal.sentence in text
    assert "400 canaries" in text
    assert "Held: the copy holds" in text
    assert "poisoned copy" in text
    assert "+0.02" in text
    assert "+0.02" not in section(page, "candidates")
    seen, without = view(record), view(replace(record, rehearsal=None))
    assert (seen.rows, seen.gaps, seen.exit_line) == (without.rows, without.gaps, without.exit_line)
    assert replace(seen, rehearsed=None) == without
    ssd = seen.rehearsed.rows[2]
    assert (ssd.name, ssd.outcome, ssd.figures[0].text) == ("ssd", "CLEAN", "+0.02 [-0.14, 0.18]")
    terminal = shown(record)
    block = terminal[terminal.index(LABEL) : terminal.rindex(LABEL)]
    assert "ssd" in block
    assert "ssd" not in terminal.replace(block, "")


def test_a_rehearsal_that_did_not_take_says_so():
    text = section(render_html(ALL["not_held"]()), "rehearsal")
    assert "Not held" in text
    assert "one that passes proves nothing" in text


def test_hostile_strings_are_inert_in_every_part():
    page = render_html(hostile_everywhere())
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    for name in ("why", "evidence", "rehearsal"):
        assert "alert(1)" in section(page, name)
    text = shown(hostile_everywhere())
    assert "\u202e" not in text
    assert "\x1b[31m" not in text


def test_facts_tell_what_was_found_and_asked():
    plan = {g.title: dict(g.pairs) for g in view(found_in_part()).facts}["Plan and policy"]
    assert plan["Share of the forget set given to methods"] == "0.1"
    assert plan["Hypotheses"] == "none"
    record = residual()
    asked = replace(
        record, plan=replace(record.plan, hypotheses=(Step(name="shift", params={"subsets": 60}),))
    )
    plan = {g.title: dict(g.pairs) for g in view(asked).facts}["Plan and policy"]
    assert plan["Hypotheses"] == "shift (subsets = 60)"
    assert "Seed of that choice" not in plan


def test_a_narrow_terminal_keeps_what_was_measured():
    lines = shown(attacked(), width=80).splitlines()
    (head,) = [line for line in lines if line.startswith("candidate ")]
    assert head.split() == ["candidate", "verdict", "targeted", "backdoor", "deficit", "accuracy"]
    assert max(map(len, lines)) <= 80
    assert any(line.rstrip().endswith("84.2]") for line in lines)  # the last column is whole
    wide = shown(attacked(), width=200)
    assert "indiscriminate" in wide
    (head,) = [line for line in wide.splitlines() if line.startswith("candidate ")]
    assert "gaussian" not in head  # nobody measured it
