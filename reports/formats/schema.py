"""report.schema.json, made from the records: types, ranges and the descriptions of their fields.

    python -m poison_audit.reports.formats.schema > reports/formats/report.schema.json

It describes what is written: every field is there, also one that a reader may do without. What
holds between fields is said here, since no field alone can.
"""

from __future__ import annotations

import json
import re
from typing import Any

from poison_audit.atomic import reader
from poison_audit.verdict.record import SCHEMA_VERSION, AuditRecord

_NONE, _SOME = {"type": "null"}, {"not": {"type": "null"}}
_RULES = {
    "Measurement": {"oneOf": [
        {"properties": {"evidence": _SOME, "missing": _NONE}},
        {"properties": {"evidence": _NONE, "missing": _SOME}},
    ]},
    "Finding": {"oneOf": [
        {"properties": {"statistic": _SOME, "interval": _SOME}},
        {"properties": {
            "statistic": _NONE, "interval": _NONE, "outcome": {"not": {"const": "CLEAN"}},
        }},
    ]},
    "Tuning": {"properties": {"attempts": {"minItems": 1}, "chosen": {"minimum": 0}}},
    "Verdict": {"oneOf": [
        {"properties": {"outcome": {"enum": outcomes}, "exit_code": {"enum": codes}}}
        for outcomes, codes in (
            (["CLEAN", "ACCEPTED"], [0]),
            (["RESIDUAL", "ASLEEP", "ACTIVATED", "BROKEN"], [0, 1]),
            (["INCONCLUSIVE", "NOT_MEASURED", "FAILED", "INFO"], [3]),
        )
    ]},
}  # fmt: skip
"""By record: what its `__post_init__` asks, and which exit code an outcome has."""


def schema() -> dict[str, Any]:
    """Return the JSON schema of report.json."""
    parts = _plain(reader(AuditRecord, described=True).json_schema(mode="serialization")["$defs"])
    for name, rule in _RULES.items():
        parts[name] |= {"allOf": [rule]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:poison-audit:report:{SCHEMA_VERSION}",
        "title": "report.json of poison-audit",
        **parts.pop("AuditRecord"),
        "$defs": parts,
    }


def _plain(made: Any, names: bool = True) -> Any:
    """Return a schema without pydantic's titles and defaults, its descriptions in JSON's words.

    Args:
        made: the schema, or what it holds by name (`names`): there a key is nobody's keyword.
        names: whether its keys are names.
    """
    if isinstance(made, list):
        return [_plain(item, names=False) for item in made]
    if not isinstance(made, dict):
        return made
    told = {}
    for key, value in made.items():
        if not names and key in ("title", "default"):
            continue
        if not names and key == "description":
            value = re.sub(r"\bNone\b", "null", " ".join(value.split("\n")))
        told[key] = sorted(value) if key == "required" else _plain(value, key == "properties")
    return told


def written(made: Any, deep: int = 0) -> str:
    """Return a schema as it is committed: what fits on a line stands on one."""
    short, pad = json.dumps(made, ensure_ascii=False), "\n" + " " * deep
    if (deep and len(short) + deep <= 150) or not isinstance(made, dict | list):
        return short
    if isinstance(made, list):
        return f"[{','.join(f'{pad} {written(item, deep + 1)}' for item in made)}{pad}]"
    items = (f"{pad} {json.dumps(key)}: {written(item, deep + 1)}" for key, item in made.items())
    return f"{{{','.join(items)}{pad}}}"


if __name__ == "__main__":
    print(written(schema()))
