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


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_rendered_in_every_format(name, tmp_path):
    out = tmp_path / "out"
    assert invoke(["render", str(STORED), "--format", name, "-o", str(out)]) == 1
    if name == "json":  # what later versions added is empty
        told, stored = (json.loads(path.read_text("utf-8")) for path in (out, STORED))
        assert {key: told[key] for key in stored} == stored
        assert not any(value for key, value in told.items() if key not in stored)
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
    first, lacking, last = capsys.readouterr().out.splitlines()
    assert first == "14 of 15 checks agree."
    assert lacking.startswith("NOT CHECKED: seal: The report has no digest over all of it")
    assert last.startswith("exit 3: ")


def test_it_is_decided_again_alike_and_under_other_tolerances(tmp_path, capsys):
    assert invoke(["decide", str(STORED), "-o", str(tmp_path / "same")]) == 1
    before, after = (
        json.loads(path.read_text("utf-8")) for path in (STORED, tmp_path / "same" / "report.json")
    )
    for part in ("findings", "verdict", "cells", "comparability"):
        assert after[part] == before[part]
    wide = ("gaussian=0.7", "exposure=0.8", "indiscriminate=0.05")
    tolerances = [word for one in wide for word in ("--tolerance", one)]
    assert invoke(["decide", str(STORED), *tolerances]) == 2  # nothing would fail at 0.8
    assert invoke(["decide", str(STORED), *tolerances, "--allow-tolerance"]) == 0
    (last,) = capsys.readouterr().out.splitlines()[-1:]
    assert last == (
        "exit 0: CLEAN. The deployed model shows no residual poison (alpha 0.05). Detected nothing "
        "beyond tolerance: gaussian within 0.7 (0.57 would have been found), exposure within 0.8 "
        "(0.76 would have been found). Judged by looser tolerances than usual: gaussian 0.7 "
        "instead of 0.25, exposure 0.8 instead of 0.57, indiscriminate 0.05 instead of 0.01."
    )


def test_it_is_compared(capsys):
    assert invoke(["diff", str(STORED), str(STORED)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "exit 0: NO WORSE. No worse: RESIDUAL before, RESIDUAL after; the deployed models are bit "
        "for bit the same."
    )
