"""What SARIF and GitHub ask of any log."""

import json
import re
from urllib.parse import urlsplit

from poison_audit.reports.formats.sarif import render_sarif
from poison_audit.reports.formats.sarif_rules import RULES

# RFC 3986, appendix A: the characters of a path, with no colon in its first segment.
RELATIVE = re.compile(r"(?!/)(?![^/]*:)([A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-F]{2})+")
# SARIF 2.1.0, 3.11.6: embedded link.
LINK = re.compile(r"\[(?:[^\[\]\\]|\\[\[\]\\])*\]\([^)]*\)")


def run(record):
    (found,) = json.loads(render_sarif(record))["runs"]
    return found


def every_uri(part):
    """(uri, its base) of every artifactLocation."""
    if isinstance(part, dict):
        if "uri" in part:
            yield part["uri"], part.get("uriBaseId")
        for inner in part.values():
            yield from every_uri(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from every_uri(inner)


def check(log, schema):
    """What GitHub and the standard ask of any log, and the schema does not say or not all."""
    schema.validate(log)
    (found,) = log["runs"]
    for result in found["results"]:
        assert list(RULES)[result["ruleIndex"]] == result["ruleId"]
        assert result["kind"] == "fail"
        assert result["level"] in ("error", "note")
        assert result["message"]["text"].strip()
        # Python's formatter has the same doubled braces, and knows no arguments.
        assert not LINK.search(result["message"]["text"].format())
        (place,) = result["locations"]
        assert place["physicalLocation"]["region"]["startLine"] >= 1
        assert set(result["partialFingerprints"]) == {"primaryLocationLineHash", "question/v1"}
    for uri, base in every_uri(found["results"]):
        assert RELATIVE.fullmatch(uri), uri
        assert ".." not in uri.split("/")
        assert base == "%SRCROOT%"
    for uri, base in every_uri(found["artifacts"]):
        assert urlsplit(uri).scheme == ("" if base else "file")
        assert not urlsplit(uri).netloc
        assert not re.search(r"[^!-~]|[<>\"#?\\^`{|}]", uri)
