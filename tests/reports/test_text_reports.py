"""Reports of texts: how they are read, token canaries and phrases in words and charts."""

import io
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from rich.console import Console

from builders.more_records import attacked, rehearsed, unlooked
from builders.some_records import HOSTILE, clean, missing, residual, unusable
from builders.text_records import LONG, SUBJECT, hostile_texts, texts
from poison_audit.poisons.token_canary.reading import StringRanks
from poison_audit.records import Outcome, Step
from poison_audit.reports.formats.terminal import render_terminal
from poison_audit.reports.page.evidence_charts import strings_chart
from poison_audit.reports.page.html import render_html
from poison_audit.reports.view.figure import figure
from poison_audit.reports.view.view import view
from poison_audit.reports.view.words import printable, quoted

SVG = "{http://www.w3.org/2000/svg}"


def facts(record):
    return {group.title: dict(group.pairs) for group in view(record).facts}


def words(page):
    bare = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


def terminal(record, width=200):
    out = io.StringIO()
    render_terminal(record, console=Console(file=out, width=width))
    return out.getvalue()


def titles(record):
    return [probe.title for probe in view(record).probes]


def test_how_texts_are_read_stands_in_the_provenance():
    assert facts(texts())["How texts are read"] == {
        "Tokens of an input, at most": "128",
        "Prompt": "none: a text stands alone",
        "Training texts too long, and cut": "1,234 of 30,000 (4.1%)",  # 4.113
        "Test texts too long, and cut": "0 of 5,000 (0.0%)",
    }
    reading = {"max_tokens": 64, "prompt": "Review:\n{text}\nIt was", "cut": {"train": 3}}
    told = facts(replace(texts(), subject={"reading": reading}))["How texts are read"]
    assert told["Prompt"] == r"“Review:\n{text}\nIt was”"
    assert told["Training texts too long, and cut"] == "3"  # of how many is not recorded
    assert "How texts are read" not in facts(residual())


def test_keys_and_trigger_of_texts_are_told_in_their_own_words():
    data = facts(texts())["Data"]
    assert data["Key of the token canaries, SHA-256 (the commitment)"] == "5d" * 32
    assert data["Token canaries, words of each"] == "10"
    assert data["Token canaries planted"] == "240"
    assert data["Trigger, its phrase"] == "“zorp quell”"
    assert data["Trigger, where it stands"] == "before the text"
    assert data["Canary noise, standard deviation"] == "0.02 in embedding units"
    assert data["Canary noise, space"] == "embedding"
    assert not any("storage" in term for term in data)
    at_end = {**SUBJECT, "trigger": {**SUBJECT["trigger"], "position": "end"}, "strings": None}
    data = facts(replace(texts(), subject=at_end))["Data"]
    assert data["Trigger, where it stands"] == "after the text"
    assert data["Key of the token canaries"] == "none"


def test_texts_have_no_normalisation_and_pictures_no_strings():
    term = "Normalisation: means; deviations"
    assert term not in facts(texts())["Model"]
    assert term in facts(residual())["Model"]
    subject = {**residual().subject, "reading": None, "strings": None, "normalize": None}
    bare = replace(residual(), subject=subject)
    assert facts(bare)["Model"][term] == "none"
    assert facts(bare)["Data"] == facts(residual())["Data"]
    assert facts(bare)["Data"]["Canary storage"] == "uint8"


def test_nothing_of_pictures_is_said_of_texts():
    trial = replace(texts(), rehearsal=rehearsed().rehearsal)
    for text in (words(render_html(trial)), terminal(trial)):
        assert not re.search(r"pixel|patch|picture|image|normali[sz]ation", text, re.IGNORECASE)
    seen = dict(view(trial).rehearsed.facts)
    assert seen["Noise, standard deviation in embedding units"] == "0.137"
    assert "Noise, standard deviation in pixels" in dict(view(rehearsed()).rehearsed.facts)
    lost = replace(unusable(), subject={"reading": SUBJECT["reading"]})
    assert "Check tokenizer, prompt and label order" in view(lost).gaps[0].remedy
    assert "Check architecture, normalisation" in view(unusable()).gaps[0].remedy


def test_token_canaries_are_a_column_of_texts():
    names = ["Gaussian", "Exposure", "Token canaries", "Backdoor", "Membership", "Accuracy"]
    assert titles(texts()) == names
    deployed = view(texts()).rows[0].figures[2]
    assert deployed.text == "0.85 [0.80, 0.90]"  # 0.848 -+ 0.047: 0.801 to 0.895
    assert deployed.z == ""
    assert deployed.extras == (
        "98.75% interval",
        "z = +18.6",  # 0.348 / 0.0187
        "p < 1e-6",
        "240 token canaries",
        "held-out strings: mean 0.49, p = 0.630 for uniform ranks",
        "spread of the scores 0.29",
        "64 fresh strings a canary",
    )
    lines = terminal(texts()).splitlines()
    (head,) = [line for line in lines if line.startswith("candidate ")]
    assert "token canaries" in head
    assert max(map(len, terminal(texts(), width=80).splitlines())) <= 80


def test_a_bound_near_the_tolerance_of_token_canaries_is_not_shown_as_on_it():
    (found,) = [f for f in texts().findings if (f.probe, f.candidate) == ("token-canary", "clean")]
    near = replace(found, interval=replace(found.interval, low=0.4304, high=0.5704))
    assert figure(near).interval == "[0.4304, 0.5704]"  # 0.43 and 0.57 are the tolerance


def test_held_out_strings_without_a_p_value():
    (found,) = [f for f in texts().findings if (f.probe, f.candidate) == ("token-canary", "clean")]
    bare = replace(found, details={"held_out_mean": 0.51234})
    assert "held-out strings: mean 0.51" in figure(bare).extras


def lacking(record, **more):
    """Planned, and without evidence, as the tool's own plan has it for pictures."""
    step = Step(name="token-canary")
    gone = [
        replace(missing("token-canary", c.candidate, 0, "needs the key"), **more)
        for c in record.verdict.candidates
    ]
    plan = replace(record.plan, probes=(*record.plan.probes, step))
    return replace(record, plan=plan, findings=(*record.findings, *gone))


def test_pictures_lack_no_token_canaries():
    for record in (clean(), residual(), attacked(), unlooked()):
        without, planned = view(record), view(lacking(record, gating=False))
        assert planned.probes == without.probes
        assert planned.rows == without.rows
        assert planned.gaps == without.gaps
    # Said to be planted, they are missed all the same.
    required = view(lacking(clean(), gating=True))
    assert "Token canaries" in [probe.title for probe in required.probes]
    assert any("Token canaries" in gap.title for gap in required.gaps)


def test_texts_lack_what_nobody_planted():
    bare = [f for f in texts().findings if f.probe != "token-canary"]
    record = lacking(replace(texts(), findings=tuple(bare)), gating=False)
    assert "Token canaries" not in titles(record)
    assert "(token canaries)" in view(record).untested
    assert not any(gap.title == "Token canaries" for gap in view(record).gaps)


def test_a_run_that_failed_makes_no_column():
    # It has a finding of every probe that was planned, whatever anybody looked for.
    record = unlooked()
    failed = [
        replace(missing(probe, "scrub", 0, "the loss is not finite", outcome=Outcome.FAILED))
        for probe in ("targeted", "token-canary")
    ]
    seen = view(replace(record, findings=(*record.findings, *failed)))
    assert [p.title for p in seen.probes] == titles(residual())
    assert any("Targeted" in gap.title and gap.who == "scrub" for gap in seen.gaps)


def test_a_phrase_and_its_controls_stand_in_the_evidence():
    text = words(render_html(texts()))
    assert "It is “zorp quell” , before the text ." in text
    assert "phrases of as many tokens, about as frequent in the retain texts, at its place" in text
    assert "72 of 240 true strings beat all 64 fresh ones" in text
    # (8 + 7 i) mod 65 is 64 where i mod 65 is 8: at 8, 73, 138 and 203
    assert "of the held-out strings 4 of 240 do. By chance one in 65 does." in text
    shown = view(texts()).rows[0].figures[3]
    assert "149 control phrases: mean 8.1%, sd 1.3%, highest 11.5%" in shown.extras
    assert "without the trigger 7.5%" in shown.extras
    page = render_html(attacked())
    assert "patches of the same pixels in random orders" in page
    assert "before the text" not in words(page)
    assert "fresh strings" not in page


def test_hostile_phrases_prompts_and_paths_are_inert():
    page = render_html(hostile_texts())
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    data = facts(hostile_texts())["Data"]
    phrase = data["Trigger, its phrase"]
    assert phrase.startswith(f"“{printable(HOSTILE)}\u05e9\u05dc\u05d5\u05dd")
    assert f"…” ({len(HOSTILE) + len(LONG):,} characters)" in phrase
    assert len(phrase) < 1300
    assert data["Trigger, where it stands"] == printable(HOSTILE)
    assert len(page) < len(render_html(texts())) + 10_000
    assert all(text.isprintable() for group in view(hostile_texts()).facts
               for pair in group.pairs for text in pair)  # fmt: skip


def test_a_quotation_is_whole_up_to_its_bound():
    assert quoted("a" * 1000) == f"“{'a' * 1000}”"
    assert quoted("a" * 1001) == f"“{'a' * 1000}…” (1,001 characters)"


def bars(svg, colour):
    """(left, right, height) of the filled bars of a colour, in the values of the axes."""
    root = ElementTree.fromstring(
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    )
    at = {}
    for text in root.iter(f"{SVG}text"):
        if re.fullmatch(r"\d(\.\d)?", text.text or ""):
            axis = "x" if "middle" in (text.get("style") or "") else "y"
            at.setdefault((axis, float(text.text)), float(text.get(axis)))
    x0, x1 = at["x", 0.0], at["x", 1.0]
    y0, y1 = at["y", 0.0], at["y", 1.0]
    found = []
    for path in root.iter(f"{SVG}path"):
        if f"fill: var(--{colour})" in (path.get("style") or "") and path.get("d").count("L") == 3:
            numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", path.get("d"))]
            xs, ys = numbers[::2], numbers[1::2]
            span = ((x - x0) / (x1 - x0) for x in (min(xs), max(xs)))
            found.append((*span, (max(ys) - min(ys)) / (y0 - y1)))
    return found


def test_the_rank_chart_has_a_bar_a_rank_and_chance_is_one():
    #  4 draws: 5 ranks; of 4 strings 3 beat all draws and 1 none, of the held-out one a rank
    evidence = StringRanks(wins=(4, 4, 0, 4), draws=4, held_out=(0, 1, 2, 3, 4))
    svg = strings_chart(evidence, tone="bad", describe=HOSTILE)
    drawn = [bar for bar in bars(svg, "bad") if bar[2] > 0.01][:2]
    # A share of 1/4 in a fifth of the axis is 5/4 of what chance has there; 3/4 is 15/4.
    wanted = [(0.0, 0.2, 1.25), (0.8, 1.0, 3.75)]
    for bar, expected in zip(drawn, wanted, strict=True):
        assert bar == pytest.approx(expected, abs=0.02)
    assert "held-out" in svg
    assert "<script" not in svg


def test_a_rank_chart_without_held_out_strings():
    svg = strings_chart(StringRanks(wins=(1, 0), draws=1, held_out=()), tone="good", describe="d")
    assert "held-out" not in svg
    assert [bar[:2] for bar in bars(svg, "good")][:2] == [
        pytest.approx((0.0, 0.5), abs=0.01),
        pytest.approx((0.5, 1.0), abs=0.01),
    ]


def test_uneven_bars_hold_what_chance_gives_them():
    # 65 ranks do not divide by ten; one string of each rank must still lie flat on 1.
    evidence = StringRanks(wins=tuple(range(65)), draws=64, held_out=())
    svg = strings_chart(evidence, tone="good", describe="d")
    heights = [height for _, _, height in bars(svg, "good")][:10]
    assert heights == pytest.approx([1.0] * 10, abs=0.01)
