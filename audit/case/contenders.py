"""Checkpoints that were made elsewhere and are judged beside the deployed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from poison_audit.case.doubts import Doubt
from poison_audit.case.origin import refuse_reference, wrong_original
from poison_audit.case.sources import Sources
from poison_audit.case.yardsticks import Sight, answer_alike, hardly_moved, sight
from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models.checkpoint import Loaded, load_like
from poison_audit.models.header import header_of
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.records import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A checkpoint that was made elsewhere and is judged beside the deployed one."""

    name: str
    kind: Kind
    path: Path
    sha256: str
    """Of the file, as `models.weights` takes it."""
    digest: str
    """Of the model that was loaded from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contenders:
    """All of them, and what was left out."""

    every: tuple[Contender, ...] = ()
    told: tuple[str, ...] = ()
    """Which references are one and count once, in sentences."""
    doubts: tuple[Doubt, ...] = ()


def read_contenders(
    sources: Sources,
    loaded: Loaded | None,
    problems: Problems,
    *,
    test: Samples | None,
    train: Samples | None,
) -> Contenders:
    """Check that every reference and candidate can be read, adding to `problems`.

    A reference that is all but a model on trial is refused, and of references that are all but the
    same the first counts.

    Args:
        sources: where they lie.
        loaded: the deployed model.
        problems: added to.
        test: clean samples that the model can take, to tell copies by their answers; None: there
            are none.
        train: the training table, which no reference was trained on whole.
    """
    if loaded is None:
        return Contenders()
    model, told, doubts = loaded.model, list[str](), list[Doubt]()
    deployed = sight("the model on trial", model, test)
    contenders, on_trial, yardsticks = list[Contender](), [deployed], list[Sight]()
    for name, kind, path in _given(sources):
        with problems.collecting():
            other, sha256 = load_like(model, path, allow_pickle=sources.allow_pickle)
            seen = sight(name, other, test)
            if kind == "candidate":
                _refuse_copy(seen, deployed, sources, path)
                on_trial.append(replace(seen, name=f"the candidate {name}"))
                doubts += wrong_original(name, header_of(path), deployed.digest)
            else:
                if seen.digest != deployed.digest:
                    refuse_reference(header_of(path), train, str(path))
                _refuse_near(seen, other, model, on_trial, path)
                if same := next((one for one in yardsticks if answer_alike(one, seen)), None):
                    told.append(_counted_once(seen, same))
                    continue
                yardsticks.append(seen)
            contenders.append(
                Contender(name=name, kind=kind, path=path, sha256=sha256, digest=seen.digest)
            )
    contenders.sort(key=lambda each: each.kind != "reference")
    return Contenders(every=tuple(contenders), told=tuple(told), doubts=tuple(doubts))


def _given(sources: Sources) -> Iterator[tuple[str, Kind, Path]]:
    """Yield what is given: candidates first, which no reference may be a copy of."""
    names: set[str] = set()
    references: list[tuple[str, Kind, Path]] = []
    for path in sources.references:
        references.append((_unused(path.stem, names), "reference", path))
        names.add(references[-1][0])
    yield from ((name, "candidate", path) for name, path in sources.candidates.items())
    yield from references


def _refuse_copy(seen: Sight, deployed: Sight, sources: Sources, path: Path) -> None:
    if seen.digest == deployed.digest:
        what = f"is bit for bit the deployed model, {sources.model}: it was not unlearned"
        fix = "Give the checkpoint that was, or leave it out"
        raise InputError(Problem(what, f"--candidate {seen.name}={path}", fix))


def _refuse_near(
    seen: Sight, other: Model, model: Model, on_trial: list[Sight], path: Path
) -> None:
    """Refuse a reference that is all but a model on trial.

    One that is bit for bit the same is none of its yardsticks, as every probe sees to: somebody
    audits the reference.
    """
    near = next((o for o in on_trial if o.digest != seen.digest and answer_alike(o, seen)), None)
    if near is None and seen.digest != on_trial[0].digest and hardly_moved(other, model):
        near = on_trial[0]
    if near is not None:
        what = (
            f"is all but {near.name}: it answers as that does, or its weights hardly differ, and "
            "no training of its own ends so near"
        )
        fix = "Give a model that was trained anew, without the forget set, or leave it out."
        raise InputError(Problem(what, f"--reference {path}", fix))


def _counted_once(seen: Sight, same: Sight) -> str:
    how = "is bit for bit" if seen.digest == same.digest else "answers all but as"
    return f"The reference {seen.name} {how} the reference {same.name}: they count as one."


def load_contender(like: Model, contender: Contender, *, allow_pickle: bool = False) -> Model:
    """Load a contender again, to be measured; InputError: it is not what was read at first."""
    model, sha256 = load_like(like, contender.path, allow_pickle=allow_pickle)
    if (sha256, model.digest()) != (contender.sha256, contender.digest):
        what = "was another file when the audit began"
        raise InputError(Problem(what, str(contender.path), "Leave it alone, and audit again"))
    return model


def _unused(name: str, taken: set[str]) -> str:
    number = 2
    unique = name
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    return unique
