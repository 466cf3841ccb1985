"""fixtures/digits, as the README has it: the verdicts that its models were made to have."""

import csv
import json
from pathlib import Path

import jsonschema
import pytest

from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.methods import UNLEARNING
from poison_audit.records import Outcome
from poison_audit.verdict.record import AuditRecord

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "fixtures" / "digits"


def audit(tmp_path: Path, *arguments: str, forget: Path = DIGITS / "forget.csv") -> int:
    command, model, *rest = arguments
    return invoke(
        [command, str(DIGITS / model), "--forget", str(forget), "--out", str(tmp_path / "o"), *rest]
    )


def record(tmp_path: Path) -> AuditRecord:
    return from_json(AuditRecord, (tmp_path / "o" / "report.json").read_text(encoding="utf-8"))


@pytest.mark.long
def test_the_deployed_model_is_found_and_the_references_are_clean(tmp_path):
    assert audit(tmp_path, "check", "model.safetensors") == 1
    seen = record(tmp_path)
    outcomes = {c.candidate: c.outcome for c in seen.verdict.candidates}
    # No trigger is known here, and restamp needs one.
    run = [name for name in UNLEARNING if name != "restamp"]
    assert list(outcomes) == ["deployed", *run, "retrained_a", "retrained_b"]
    assert outcomes["deployed"] is Outcome.RESIDUAL
    assert outcomes["retrained_a"] is outcomes["retrained_b"] is Outcome.CLEAN
    (gaussian,) = [f for f in seen.findings if f.candidate == "deployed" and f.probe == "gaussian"]
    assert gaussian.z > 5
    assert gaussian.outcome is Outcome.RESIDUAL
    schema = json.loads((ROOT / "reports/formats/report.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(
        json.loads((tmp_path / "o" / "report.json").read_text(encoding="utf-8")), schema
    )


@pytest.mark.slow
def test_exit_zero_is_one_value_in_all_places_and_the_verdict_stays(tmp_path, capsys):
    code = 0
    assert audit(tmp_path, "probe", "model.safetensors", "--exit-zero") == code
    seen = record(tmp_path)
    assert seen.verdict.outcome is Outcome.RESIDUAL
    assert seen.verdict.exit_code == code
    assert capsys.readouterr().out.rstrip().splitlines()[-1].startswith(f"exit {code}: RESIDUAL")
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert f"exit code {code}" in page


@pytest.mark.slow
def test_ten_canaries_do_not_decide_and_the_report_says_how_many_would(tmp_path):
    few = tmp_path / "forget.csv"
    with (DIGITS / "forget.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[:11]
    few.write_text("\n".join(",".join(row) for row in rows) + "\n", encoding="utf-8")
    assert audit(tmp_path, "probe", "model.safetensors", forget=few) == 3
    seen = record(tmp_path)
    assert "10 canaries are too few: with about 217 a clean" in seen.verdict.sentence
    assert any("390 planted canaries are not in the forget set" in limit for limit in seen.limits)


def test_the_fixture_stays_small():
    size = sum(path.stat().st_size for path in DIGITS.iterdir())
    assert size < 4 * 2**20
