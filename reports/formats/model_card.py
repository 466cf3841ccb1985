"""The audit's part of a model card for the Hugging Face Hub: a metadata block, then Markdown.

The block's `model-index` has the figures of the model that was judged, each with its outcome in its
name: the Hub shows name and value, and a figure alone would say neither whether it is tolerated nor
how sure it is. What was not measured has no figure there; the text names it, and the limits. Of the
gate `any-method` the card is that of the deployed model.

Nothing is said of licence, language or data, which whoever owns the card adds.

Source: github.com/huggingface/hub-docs, modelcard.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath

from poison_audit.records import Json
from poison_audit.reports.formats.markdown import render_markdown
from poison_audit.reports.view.machine import figures, judged
from poison_audit.reports.view.reading import of_texts
from poison_audit.reports.view.words import about, printable, value
from poison_audit.verdict.record import AuditRecord

_LONGEST = 300
_TOOL = "https://github.com/poison-audit/poison-audit"


def render_model_card(record: AuditRecord) -> str:
    """Return the card as Markdown with a metadata block."""
    results = [each for each in (_poison(record), _accuracy(record)) if each["metrics"]]
    data: dict[str, Json] = {"tags": ["poison-audit"]}
    if results:
        data["model-index"] = [{"name": _name(record), "results": results}]
    block = "\n".join(_yaml(data))
    return f"---\n{block}\n---\n\n{render_markdown(record)}"


def _whose(record: AuditRecord) -> str:
    """Return the candidate that the card is of."""
    gate = record.verdict.gate
    known = {each.candidate: each.kind for each in record.verdict.candidates}
    deployed = (name for name, kind in known.items() if kind == "deployed")
    return gate if gate in known else next(deployed, gate)


def _name(record: AuditRecord) -> str:
    whose, given = _whose(record), record.subject.get("candidates")
    kinds = {each.candidate: each.kind for each in record.verdict.candidates}
    own = given.get(whose) if isinstance(given, Mapping) else None
    path = own.get("path") if isinstance(own, Mapping) else record.subject.get("model")
    name = PurePath(str(path or "model")).name or "model"
    made = kinds.get(whose) == "method"  # which is in no file
    return _text(f"{name} after {whose}" if made else name)


def _poison(record: AuditRecord) -> dict[str, Json]:
    forget = f"the forget set {value(record.subject.get('forget'))}"
    metrics: list[Json] = []
    for each in judged(record):
        found, words = each.finding, about(each.finding.probe)
        if found.candidate != _whose(record) or each.standing == "aside":
            continue
        if found.statistic is not None:
            kind = "/".join(part for part in ("poison-audit", found.probe, found.way) if part)
            told = f"{words.title}, {words.unit}: {found.outcome.value}. {figures(found)}"
            metrics.append(
                {
                    "type": _text(kind),
                    "value": found.statistic,
                    "name": _text(f"{told}, seed {found.seed}"),
                }
            )
    return _result(record, "forget-set", forget, metrics)


def _accuracy(record: AuditRecord) -> dict[str, Json]:
    sanity, test = record.sanity, f"the test samples {value(record.subject.get('test'))}"
    # It was taken of the deployed model as it was loaded.
    own = _whose(record) in (c.candidate for c in record.verdict.candidates if c.kind == "deployed")
    metrics: list[Json] = []
    if own and sanity.total and sanity.accuracy is not None:
        told = f"Accuracy, {sanity.correct:,} of {sanity.total:,}"
        metrics.append({"type": "accuracy", "value": sanity.accuracy, "name": told})
    return _result(record, "test-set", test, metrics)


def _result(record: AuditRecord, kind: str, name: str, metrics: list[Json]) -> dict[str, Json]:
    task = "text-classification" if of_texts(record) else "image-classification"
    return {
        "task": {"type": task},
        "dataset": {"type": kind, "name": _text(name)},
        "metrics": metrics,
        "source": {"name": f"poison-audit {_text(record.tool_version)}", "url": _TOOL},
    }


def _text(text: str) -> str:
    return printable(text)[:_LONGEST]


def _yaml(data: Json) -> Iterator[str]:
    """Yield plain values as lines of YAML, in blocks; a string is JSON, which YAML reads."""
    if isinstance(data, Mapping) and data:
        for key, item in data.items():
            first, *rest = _yaml(item)
            if isinstance(item, Mapping | list) and item:
                yield f"{key}:"
                yield from (f"  {line}" for line in (first, *rest))
            else:
                yield f"{key}: {first}"
    elif isinstance(data, list) and data:
        for item in data:
            first, *rest = _yaml(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        told = json.dumps(data, ensure_ascii=False, allow_nan=False)
        # YAML takes 1e-05 for a word, and 1.0e-05 for a number.
        yield re.sub(r"^(-?\d+)e", r"\1.0e", told)
