"""A whole audit with `--device cuda` on a pretend device finds what it finds on the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.pretend_cuda import pretend_cuda
from builders.small_case import FLAGS
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.verdict.record import AuditRecord

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("float32", "plain_page")]


def test_check(case):
    given = [*FLAGS, "--methods", "gd,i_bau", "--budget", "0.2", "--reference", "clean.safetensors"]
    command = ["check", "model.safetensors", "--forget", "forget.csv", *given, "--reaudit", "-q"]
    code = invoke([*command, "--out", "cpu", "--device", "cpu"])
    assert code in (1, 3)
    with pretend_cuda():
        assert invoke([*command, "--out", "cuda", "--device", "cuda"]) == code
    expected, found = (
        from_json(AuditRecord, Path(out, "report.json").read_text("utf-8"))
        for out in ("cpu", "cuda")
    )
    assert found.environment["device"] == "pretend"
    assert expected.limits == found.limits
    for one, other in zip(expected.findings, found.findings, strict=True):
        assert (one.candidate, one.probe, one.way) == (other.candidate, other.probe, other.way)
        assert one.outcome == other.outcome
        assert (one.statistic is None) == (other.statistic is None)
        if one.statistic is not None:
            assert other.statistic == pytest.approx(one.statistic, rel=1e-4, abs=1e-5)
