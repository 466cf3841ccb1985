import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest

from builders.more_records import ALL as EVERY
from builders.some_records import clean, inconclusive, residual
from poison_audit.atomic import from_json, to_json
from poison_audit.records import Outcome
from poison_audit.reports import formats
from poison_audit.reports.formats import schema
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord

SCHEMA = json.loads(Path(formats.__file__).with_name("report.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def plain(record):
    return json.loads(to_json(record))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["enum"] == [1, SCHEMA_VERSION]


def test_the_committed_schema_is_that_of_the_records():
    fresh = json.loads(schema.written(schema.schema()))
    again = "python -m poison_audit.reports.formats.schema > reports/formats/report.schema.json"
    assert fresh == SCHEMA, f"a record has changed; write the schema again: {again}"


@pytest.mark.parametrize("name", EVERY)
def test_records_validate_and_read_back(name):
    record = EVERY[name]()
    VALIDATOR.validate(plain(record))
    assert to_json(from_json(AuditRecord, to_json(record))) == to_json(record)


def classes(kind, seen):
    """Every dataclass that can occur in `kind`."""
    if dataclasses.is_dataclass(kind) and kind not in seen:
        seen.add(kind)
        for hint in typing.get_type_hints(kind).values():
            classes(hint, seen)
    for argument in typing.get_args(kind):
        classes(argument, seen)
    return seen


CLASSES = sorted(classes(AuditRecord, set()), key=lambda kind: kind.__name__)


def part(kind):
    return SCHEMA if kind is AuditRecord else SCHEMA["$defs"][kind.__name__]


def test_the_schema_describes_every_record_and_no_other():
    named = {kind.__name__ for kind in CLASSES} - {"AuditRecord"} | {"Outcome"}
    assert set(SCHEMA["$defs"]) == named


def allowed(schema):
    """The types that a piece of schema allows."""
    if "$ref" in schema:
        return {schema["$ref"].rpartition("/")[2]}
    if "anyOf" in schema:
        return set().union(*map(allowed, schema["anyOf"]))
    if "enum" in schema:
        return set(map(repr, schema["enum"]))
    if "const" in schema:
        return {repr(schema["const"])}
    if schema["type"] == "array":
        return {"array", *allowed(schema["items"])}
    return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])


def expected(hint):
    """The types that a field holds in JSON."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return set().union(*map(expected, args))
    if origin is typing.Literal:
        return set(map(repr, args))
    if origin is tuple:
        return {"array", *expected(args[0])}
    if origin is Mapping:
        return {"object"}
    if dataclasses.is_dataclass(hint) or hint is Outcome:
        return {hint.__name__}
    names = {str: "string", int: "integer", float: "number", bool: "boolean"}
    return {names.get(hint, "null")}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_schema_and_dataclass_have_the_same_fields(kind):
    schema, hints = part(kind), typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    assert list(schema["properties"]) == names
    assert schema["required"] == sorted(names)
    assert schema["additionalProperties"] is False
    for name in names:
        assert allowed(schema["properties"][name]) == expected(hints[name]), name


def test_outcomes_and_exit_codes():
    assert SCHEMA["$defs"]["Outcome"]["enum"] == [outcome.value for outcome in Outcome]
    assert SCHEMA["$defs"]["Verdict"]["properties"]["exit_code"]["enum"] == [0, 1, 3]


def changed(make, change):
    record = plain(make())
    change(record)
    return record


@pytest.mark.parametrize(
    "record",
    [
        # What could not be decided never passes, even if somebody writes it so.
        changed(inconclusive, lambda r: r["verdict"].update(exit_code=0)),
        changed(inconclusive, lambda r: r["findings"][0].update(outcome="CLEAN")),
        changed(clean, lambda r: r["verdict"].update(outcome="FAILED")),
        changed(clean, lambda r: r["verdict"].update(exit_code=1)),
        changed(residual, lambda r: r["verdict"].update(exit_code=3)),
        changed(residual, lambda r: r["findings"][0].update(interval=None)),
        changed(residual, lambda r: r["cells"][0]["measurements"][0].update(evidence=None)),
        changed(residual, lambda r: r["cells"][0]["measurements"][0].update(missing="twice")),
        changed(residual, lambda r: r["cells"][0].update(kind="judge")),
        changed(residual, lambda r: r["cells"][0].update(digest="AB")),
        changed(residual, lambda r: r.update(extra=1)),
        changed(residual, lambda r: r.update(schema_version=3)),
        changed(residual, lambda r: r["plan"]["policy"]["tolerances"].update(gaussian="0.25")),
        changed(residual, lambda r: r["recipe"].pop("lr")),
    ],
)
def test_what_is_not_a_record_is_refused(record):
    assert not VALIDATOR.is_valid(record)
