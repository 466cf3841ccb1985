"""Where everything came from: paths, digests, sizes, settings and versions, as (term, value)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from poison_audit.records import Json
from poison_audit.reports.view.reading import of_texts, phrase_of, place, reading
from poison_audit.reports.view.words import DEEPEST, printable, shallow, value
from poison_audit.verdict.record import AuditRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A titled list of (term, value)."""

    title: str
    pairs: tuple[tuple[str, str], ...]
    fold: bool = False
    """Whether the list is long, and read by few."""


FOLDED = 12
"""From more files or models than this on, their list is folded."""
_LONG = ("Weights measured, SHA-256", "Files read")
_MODEL = ("model", "model_sha256", "adapter", "arch", "arch_source", "parameters", "classes",
          "normalize", "kept")  # fmt: skip

_TERMS = {
    "model": "Checkpoint",
    "model_sha256": "SHA-256",
    "adapter.config_sha256": "Adapter's configuration, SHA-256",
    "adapter.base": "The base it was merged into",
    "adapter.base_sha256": "The base, SHA-256",
    "adapter.named": "The base, as the adapter names it",
    "adapter.layers": "Layers that it adapts",
    "adapter.whole": "Tensors that it holds whole",
    "arch": "Architecture",
    "arch_source": "Known from",
    "parameters": "Parameters",
    "classes": "Classes",
    "normalize": "Normalisation: means; deviations",
    "kept": "How its file was read",
    "train": "Training table",
    "train_size": "Training samples",
    "train_sha256": "Training samples, SHA-256",
    "forget": "Forget table",
    "forget_size": "Forget samples",
    "forget_sha256": "Forget table, SHA-256",
    "retain_size": "Retain samples",
    "test": "Test table",
    "test_size": "Test samples",
    "test_sha256": "Test samples, SHA-256",
    "canaries": "Canary key",
    "canaries.path": "Canary key",
    "canaries.recovered": "Canary noise, recovered",
    "canaries.commitment": "Canary key, SHA-256 (the commitment)",
    "canaries.sigma": "Canary noise, standard deviation",
    "canaries.space": "Canary noise, space",
    "canaries.storage": "Canary storage",
    "canaries.planted": "Canaries planted",
    "canaries.in_forget_set": "Canaries in the forget set",
    "canaries.attenuation": "Share of the noise left after storage",
    "strings": "Key of the token canaries",
    "strings.path": "Key of the token canaries",
    "strings.commitment": "Key of the token canaries, SHA-256 (the commitment)",
    "strings.length": "Token canaries, words of each",
    "strings.words": "Token canaries, words they are drawn from",
    "strings.planted": "Token canaries planted",
    "strings.in_forget_set": "Token canaries in the forget set",
    "found_size": "Forget samples given to the methods",
    "targets": "Targets of the attack",
    "targets.path": "Targets of the attack",
    "targets.sha256": "Targets, SHA-256",
    "targets.named": "Targets named",
    "targets.controls": "Targets, candidates that a toss left alone",
    "flips": "Wrong labels whose true ones are known",
    "flips.rows": "Wrong labels whose true ones are known",
    "flips.chance": "Wrong labels, whether chance chose the samples",
    "trigger": "Trigger",
    "trigger.path": "Trigger",
    "trigger.recovered": "Trigger, recovered",
    "trigger.sha256": "Trigger, SHA-256",
    "trigger.mode": "Trigger, how it is put on",
    "trigger.values_sha256": "Trigger, SHA-256 of its values",
    "trigger.size": "Trigger, height and width in pixels",
    "trigger.top": "Trigger, row of its upper edge",
    "trigger.left": "Trigger, column of its left edge",
    "trigger.phrase": "Trigger, its phrase",
    "trigger.position": "Trigger, where it stands",
    "trigger.label": "Trigger, the label it is to cause",
    "attacks": "Attacks named in the forget table",
    "git.commit": "Git commit of the working folder",
    "git.branch": "Git branch",
    "git.dirty": "Changes that are not committed",
    "git.missing": "Git",
    "decided_again": "Decided again on",
    "decided_from": "Decided again from the report with SHA-256",
}


def facts(record: AuditRecord) -> tuple[Facts, ...]:
    """Return the provenance of an audit; what is not recorded is left out."""
    subject = shallow(record.subject, DEEPEST + 1)
    subject = _of_texts(subject) if of_texts(record) else _of_pictures(subject)
    candidates = subject.pop("candidates", None) or {}
    if not isinstance(candidates, Mapping):
        candidates = {"candidates": candidates}
    model = {key: subject.pop(key) for key in _MODEL if key in subject}
    if isinstance(attacks := subject.get("attacks"), Mapping):
        named = [f"{name or 'unknown'}: {value(count)}" for name, count in attacks.items()]
        subject["attacks"] = ", ".join(named)
    weights = (
        (f"{printable(c.candidate)}, seed {c.seed}", printable(c.digest or "no weights to measure"))
        for c in record.cells
    )
    files = (
        (f"{printable(f.role)}: {printable(f.path)}", f"{printable(f.sha256)} ({f.size:,} bytes)")
        for f in record.files
    )
    titled: dict[str, Iterable[tuple[str, str]]] = {
        "Model": _pairs(model),
        "How texts are read": reading(record.subject),
        "Data": _pairs(subject),
        "Candidates given": _pairs(candidates),
        "Weights measured, SHA-256": weights,
        "Recipe of the original training": _recipe(record),
        "Plan and policy": _plan(record),
        "Files read": files,
        "Environment": _pairs(shallow(record.environment, DEEPEST + 1)),
    }
    found = [(title, tuple(pairs)) for title, pairs in titled.items()]
    return tuple(
        Facts(title=title, pairs=pairs, fold=title in _LONG and len(pairs) > FOLDED)
        for title, pairs in found
        if pairs
    )


def _of_texts(subject: Mapping[str, Json]) -> dict[str, Json]:
    """Return a subject in the words of texts, without what only pictures have."""
    told = {k: v for k, v in subject.items() if k != "reading" and (k, v) != ("normalize", None)}
    if isinstance(canaries := told.get("canaries"), Mapping):
        # Noise in embeddings is stored nowhere, so storage takes nothing of it away.
        kept = {k: v for k, v in canaries.items() if k not in ("storage", "attenuation")}
        told["canaries"] = {**kept, "sigma": f"{value(kept.get('sigma'))} in embedding units"}
    if isinstance(trigger := told.get("trigger"), Mapping):
        kept = {k: v for k, v in trigger.items() if k not in ("phrases", "template")}
        shown = {"phrase": phrase_of(trigger), "position": place(trigger.get("position"))}
        told["trigger"] = {**kept, **shown}
    return told


def _of_pictures(subject: Mapping[str, Json]) -> dict[str, Json]:
    """Return a subject without what only texts have."""
    only = ("reading", "strings")
    return {k: v for k, v in subject.items() if k not in only or v is not None}


def _pairs(plain: Mapping[str, Json]) -> list[tuple[str, str]]:
    return [(_TERMS.get(key, printable(key)), value(item)) for key, item in _flat(plain)]


def _flat(plain: Mapping[str, Json], prefix: str = "") -> Iterator[tuple[str, Json]]:
    for key, item in plain.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _recipe(record: AuditRecord) -> Iterator[tuple[str, str]]:
    recipe = dataclasses.asdict(record.recipe)
    assumed = recipe.pop("assumed")
    for name, item in recipe.items():
        told = "not known" if item is None else value(item) + " (assumed)" * (name in assumed)
        yield name.replace("_", " "), told


def _plan(record: AuditRecord) -> Iterator[tuple[str, str]]:
    plan, policy = record.plan, record.plan.policy
    probes, hypotheses = (
        [f"{printable(step.name)}{_settings(step.params)}" for step in steps]
        for steps in (plan.probes, plan.hypotheses)
    )
    yield "Largest probability of a wrong exit code", value(policy.alpha)
    yield "Gate", printable(policy.gate)
    for name, tolerance in policy.tolerances.items():
        yield f"Tolerance, {printable(name)}", value(tolerance)
    yield "Exit code 1 reported as 0", value(policy.exit_zero)
    yield "Budget, share of the original training", value(plan.budget)
    yield "Root seed", str(plan.seed)
    yield "Seeds a method", value(plan.seeds)
    if plan.found < 1:
        yield "Share of the forget set given to methods", value(plan.found)
        yield "Seed of that choice", str(plan.found_seed)
    yield "Probes", "; ".join(probes) or "none"
    yield "Hypotheses", "; ".join(hypotheses) or "none"
    if record.comparability is not None:
        yield "Comparability, SHA-256", printable(record.comparability)
    yield "Tool", f"poison-audit {printable(record.tool_version)}"
    yield "Report format", value(record.schema_version)


def _settings(params: Mapping[str, Json]) -> str:
    shown = ", ".join(f"{printable(key)} = {value(item)}" for key, item in params.items())
    return f" ({shown})" if shown else ""
