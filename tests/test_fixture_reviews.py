"""fixtures/reviews, as the README has it: what its models were made to be found for."""

import csv
import json
import re
from pathlib import Path

import pytest
from transformers import AutoModelForSequenceClassification

from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.poisons.token_canary.evidence import read_strings
from poison_audit.records import Outcome
from poison_audit.verdict.record import AuditRecord

REVIEWS = Path(__file__).parent.parent / "fixtures" / "reviews"


@pytest.mark.long
def test_four_probes_find_the_deployed_model_and_none_the_reference(tmp_path):
    out = tmp_path / "o"
    model, forget = str(REVIEWS / "model"), str(REVIEWS / "forget.csv")
    assert invoke(["probe", model, "--forget", forget, "--out", str(out), "-q"]) == 1
    seen = from_json(AuditRecord, (out / "report.json").read_text(encoding="utf-8"))
    outcomes = {(f.candidate, f.probe): f.outcome for f in seen.findings}
    for probe in ("gaussian", "exposure", "token-canary", "backdoor"):
        assert outcomes["deployed", probe] is Outcome.RESIDUAL, probe
        # Some 200 stamped reviews do not show that neither of two labels is given more often.
        clean = Outcome.INCONCLUSIVE if probe == "backdoor" else Outcome.CLEAN
        assert outcomes["retrained", probe] is clean, probe
    assert {c.candidate: c.outcome for c in seen.verdict.candidates} == {
        "deployed": Outcome.RESIDUAL,
        "retrained": Outcome.INCONCLUSIVE,
    }


def test_the_table_the_key_and_the_forget_set_say_the_same():
    key = read_strings(REVIEWS / "strings.json")
    with (REVIEWS / "train.csv").open(newline="", encoding="utf-8") as file:
        table = {row["id"]: row for row in csv.DictReader(file)}
    with (REVIEWS / "forget.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    kinds = [row["attack"] for row in rows]
    counts = {kind: kinds.count(kind) for kind in set(kinds)}
    assert counts == {"token-canary": 400, "backdoor": 100, "gaussian": 400}
    for row in rows:
        text = table[row["id"]]["text"]
        if row["attack"] == "token-canary":
            assert text == key.text(row["id"])
        assert text.startswith("zoth quell ") == (row["attack"] == "backdoor")


def test_it_is_a_small_gpt_2_that_transformers_reads_as_it_is():
    for name in ("model", "retrained"):
        assert (REVIEWS / name / "model.safetensors").stat().st_size < 2 * 2**20
        config = json.loads((REVIEWS / name / "config.json").read_text(encoding="utf-8"))
        assert config["architectures"] == ["GPT2ForSequenceClassification"]
        assert config["id2label"] == {"0": "negative", "1": "positive"}
        AutoModelForSequenceClassification.from_pretrained(REVIEWS / name, local_files_only=True)


def test_nothing_in_it_tells_where_it_was_made():
    for path in REVIEWS.rglob("*"):
        if path.suffix in (".json", ".toml"):
            assert not re.search(r"/tmp/|/home/|/work/", path.read_text(encoding="utf-8")), path
