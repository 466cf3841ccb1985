"""Reports of schema version 1 are read for good.

`version_1.json` was written before poison_audit had its name: an audit of fixtures/digits, cut to
four models and 56 canaries, and decided again by the code of then. What is expected here is what
that code said of it.
"""

import json
from pathlib import Path

import pytest

from poison_audit.cli import invoke
from poison_audit.reports.formats import FORMATS

STORED = Path(__file__).with_name("version_1.json")


def without_later_fields(told, stored):
    """What is told, without the keys that the stored report does not have."""
    if isinstance(told, dict):
        return {key: without_later_fields(told[key], stored[key]) for key in stored}
    if isinstance(told, list):
        return [without_later_fields(*pair) for pair in zip(told, stored, strict=True)]
    return told


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_rendered_in_every_format(name, tmp_path):
    out = tmp_path / "out"
    assert invoke(["render", str(STORED), "--format", name, "-o", str(out)]) == 1
    if name == "json":
        told, stored = (json.loads(path.read_text("utf-8")) for path in (out, STORED))
        assert without_later_fields(told, stored) == stored
    assert out.stat().st_size > 500


def test_the_terminal_tells_its_verdict(capsys):
    assert invoke(["render", str(STORED)]) == 1
    (last,) = capsys.readouterr().out.splitlines()[-1:]
    assert last.startswith(
        "exit 1: RESIDUAL. The deployed model still carries the poison. The chance that planted "
        "noise beats fresh noise is 0.656 [0.567, 0.745]: surely above 0.5"
    )


def test_it_is_verified(capsys):
    assert invoke(["verify", str(STORED), "--no-files"]) == 3
    out = capsys.readouterr().out
    assert "DIFFERS" not in out
    assert "NOT CHECKED: findings, verdict: The report was decided by the rules of format 1" in out
    assert "NOT CHECKED: seal: The report has no digest over all of it" in out


def test_it_is_decided_again_by_the_rules_of_today_and_under_other_tolerances(tmp_path, capsys):
    # The chance is 0.656 [0.567, 0.745]: above 0.5, which made it RESIDUAL, and not above 0.57.
    assert invoke(["decide", str(STORED), "-o", str(tmp_path / "same")]) == 3
    before, after = (
        json.loads(path.read_text("utf-8")) for path in (STORED, tmp_path / "same" / "report.json")
    )
    # No model of that time was woken, or asked by a probe of the user's own.
    assert after["cells"] == [{**cell, "woken": [], "own": []} for cell in before["cells"]]
    assert (before["schema_version"], after["schema_version"]) == (1, 2)
    (chance,) = (
        f for f in after["findings"] if (f["candidate"], f["probe"]) == ("deployed", "exposure")
    )
    assert chance["outcome"] == "INCONCLUSIVE"
    assert "Some of the poison is surely left" in chance["reason"]
    assert invoke(["verify", str(tmp_path / "same"), "--no-files"]) == 0
    wide = ("gaussian=0.7", "exposure=0.8", "indiscriminate=0.05")
    tolerances = [word for one in wide for word in ("--tolerance", one)]
    assert invoke(["decide", str(STORED), *tolerances]) == 2  # nothing would fail at 0.8
    assert invoke(["decide", str(STORED), *tolerances, "--allow-tolerance"]) == 0
    (last,) = capsys.readouterr().out.splitlines()[-1:]
    assert last == (
        "exit 0: CLEAN. The deployed model shows no more poison than is tolerated. No effect "
        "beyond the tolerance was found. An effect of this size would be found 9 times in 10: "
        "gaussian 1.2, exposure 0.94. Judged by looser tolerances than usual: gaussian "
        "0.7 instead of 0.25, exposure 0.8 instead of 0.57, indiscriminate 0.05 instead of 0.01."
    )


def test_it_is_compared(capsys):
    assert invoke(["diff", str(STORED), str(STORED)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "exit 0: NO WORSE. No worse: RESIDUAL before, RESIDUAL after; the deployed models are bit "
        "for bit the same."
    )
