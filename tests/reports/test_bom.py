import json

import pytest
from hypothesis import given, settings

from builders.audits import audits
from builders.more_records import ALL as EVERY
from poison_audit.records import Outcome
from poison_audit.reports.formats.bom import render_bom

pytest.importorskip("cyclonedx", reason="cyclonedx-python-lib is not installed")
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

VALIDATOR = JsonStrictValidator(SchemaVersion.V1_6)


@pytest.mark.parametrize("name", EVERY)
def test_a_bom_is_valid(name):
    text = render_bom(EVERY[name]())
    assert VALIDATOR.validate_str(text) is None
    assert render_bom(EVERY[name]()) == text


@pytest.mark.usefixtures("no_sizes")
@settings(max_examples=20)
@given(audits())
def test_so_is_that_of_any_audit(record):
    text = render_bom(record)
    assert VALIDATOR.validate_str(text) is None
    bom = json.loads(text)
    (claim,) = bom["declarations"]["claims"]
    (attestation,) = bom["declarations"]["attestations"]
    (mapped,) = attestation["map"]
    clean = record.verdict.outcome is Outcome.CLEAN
    assert mapped["conformance"]["score"] == (1.0 if clean else 0.0)
    assert f"exit {record.verdict.exit_code}: {record.verdict.outcome}." in claim["reasoning"]
    against = sum(f.gating and f.outcome is not Outcome.CLEAN for f in record.findings)
    assert len(claim["counterEvidence"]) == against


def test_the_validator_refuses_what_is_no_bom():
    bom = json.loads(render_bom(EVERY["residual"]()))
    bom["components"][0]["type"] = "poisoned"
    assert VALIDATOR.validate_str(json.dumps(bom)) is not None


def test_the_figures_of_the_deployed_model():
    bom = json.loads(render_bom(EVERY["residual"]()))
    (model,) = [c for c in bom["components"] if c["type"] == "machine-learning-model"]
    metrics = model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    (gaussian,) = [m for m in metrics if m["type"].startswith("Gaussian")]
    assert gaussian["value"] == "1.29"
    assert gaussian["confidenceInterval"] == {"lowerBound": "1.132", "upperBound": "1.448"}
    assert gaussian["slice"] == "200 canaries, seed 0"
