"""`audit` and `probe` in Python: objects in memory -> the files of one case -> the one audit.

Whatever is given becomes what the command line would be told (`held`, `asked`), and the same
functions run.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from poison_audit.commands.arguments import CheckSettings, check_settings
from poison_audit.commands.asked import as_argument, evidence_of, given_of
from poison_audit.commands.check import audited
from poison_audit.commands.held import Held
from poison_audit.commands.in_memory import factory_of
from poison_audit.commands.progress import is_live
from poison_audit.commands.result import AuditRecord, result
from poison_audit.commands.telling import Caller
from poison_audit.engine.own_method import own_methods
from poison_audit.engine.run import Progress
from poison_audit.errors import InputError, PlanError

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import DataLoader


class Rows(Protocol):
    """Samples that can be counted and asked for: torch's Dataset, Hugging Face's, lists."""

    def __len__(self) -> int:
        """Return how many there are."""

    def __getitem__(self, place: Any, /) -> Any:
        """Return one: (x, y), or a mapping."""


Network: TypeAlias = "nn.Module | str | Path"
"""A module, in any mode and on any device; or a checkpoint, as the command line takes it."""
Table: TypeAlias = "Rows | DataLoader[Any] | Mapping[str, Any] | str | Path"
"""Labelled samples: see `audit`."""
Forget: TypeAlias = "Sequence[int] | Sequence[str] | Sequence[bool] | Mapping[str, Any] | Any"
"""Which training samples are poison: see `audit`."""
Watcher: TypeAlias = Callable[[Progress], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One call, as the command line would have asked."""

    given: Mapping[str, Any]
    settings: CheckSettings
    held: Held
    caller: Caller


@contextmanager
def asking(
    name: str,
    model: Network,
    *,
    data: Mapping[str, Table | None],
    forget: Forget,
    evidence: Any = (),
    references: Sequence[Network] = (),
    candidates: Mapping[str, Network] | None = None,
    tokenizer: Any = None,
    factory: Callable[[], nn.Module] | str | None = None,
    out: str | Path | None = None,
    progress: Watcher | bool | None = None,
    said: Mapping[str, Any],
) -> Iterator[Asked]:
    """Give what the command line would have been told; what was in memory lies in files within.

    Args:
        name: the function that was called.
        data: tables by the name of their flag.
        said: everything else, by the name of its flag.

    Raises:
        InputError: everything that is wrong; also what the command line refuses as a plan.
    """
    with TemporaryDirectory(prefix="poison-audit-") as folder, ExitStack() as stack:
        root = Path(folder).resolve()
        held = Held(root / "inputs")
        told: dict[str, Any] = {key: held.table(v, key) for key, v in data.items() if v is not None}
        told["forget"] = held.forget(forget)
        told["model"] = held.model(model, "model", tokenizer)
        for key, each in evidence_of(evidence).items():
            told[key] = held.table(each, key)
        told["reference"] = [held.model(m, f"reference_{n}") for n, m in enumerate(references, 1)]
        others = {key: held.model(m, f"candidate_{key}") for key, m in (candidates or {}).items()}
        told["candidate"] = others
        if not isinstance(factory, str):
            factory = stack.enter_context(
                factory_of(model, factory, arch=said.get("arch"), shape=held.shape)
            )
        told |= {"factory": factory, "out": Path(out) if out is not None else root / "run"}
        show = is_live() if progress is None else progress is True
        call = progress if callable(progress) else None
        try:
            given = given_of({**told, **said, "quiet": not show})
            caller = Caller(command=f"poison_audit.{name}(..)", holds=root, call=call)
            for sentence in held.told if show else ():
                print(sentence)
            settings = check_settings(given)
            yield Asked(given=given, settings=settings, held=held, caller=caller)
        except (InputError, PlanError) as error:
            # Nobody named the temporary folder.
            known = {*told, *said}
            raise InputError(
                as_argument(each.without(f"{root}/"), known) for each in error.problems
            ) from error
        if out is not None and held.folder.exists():
            kept = Path(out) / held.folder.name
            if kept.exists():
                shutil.rmtree(kept)
            shutil.move(held.folder, kept)


def audit(
    model: Network,
    *,
    train: Table,
    test: Table,
    forget: Forget,
    evidence: Mapping[str, Table] | Sequence[str | Path] = (),
    recipe: Mapping[str, Any] | None = None,
    methods: Sequence[str] | str | None = None,
    references: Sequence[Network] = (),
    candidates: Mapping[str, Network] | None = None,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
    arch: str | None = None,
    factory: Callable[[], nn.Module] | str | None = None,
    tokenizer: Any = None,
    names: Sequence[str] | None = None,
    max_tokens: int | None = None,
    label_words: Sequence[str] | None = None,
    prompt: str | None = None,
    start: str | Path | None = None,
    gate: str | None = None,
    alpha: float | None = None,
    tolerances: Mapping[str, float] | None = None,
    budget: float | Sequence[float] | None = None,
    seeds: int | None = None,
    tune: int | None = None,
    found: float | None = None,
    reaudit: bool = False,
    rehearse: bool = False,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    method_from: Sequence[str] = (),
    probe_from: Sequence[str] = (),
    expect_accuracy: float | str | None = None,
    expect_size: int | str | None = None,
    seed: int = 0,
    device: str | None = None,
    allow_pickle: bool = False,
    state_key: str | None = None,
    base: str | Path | None = None,
    trainable: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    progress: Watcher | bool | None = None,
) -> AuditRecord:
    """Unlearn a model by every method, probe what is left, and judge: `poison-audit check`.

    Example, of a CIFAR-10 network and a list of poisoned training samples:

        import poison_audit as pa

        record = pa.audit(
            model, train=train, test=test, forget=[3, 17, 256], normalize="cifar10",
            recipe={"epochs": 100, "lr": 0.1}, evidence=["canaries.json", "bases.npz"],
        )
        print(record.verdict.outcome, record.verdict.sentence)

    It is the command line's audit: the same files give an equal record. Nothing that is given is
    changed. A module is judged in eval mode.

    Args:
        model: a `torch.nn.Module` that maps pictures to logits, a transformers model, or the path
            of a checkpoint.
        train: what it was trained on, poison included. A map-style `Dataset` of (picture, label)
            or {"image" or "text", "label"}, a `TensorDataset`, arrays `(x, y)` or by name `{"x",
            "y", "id"}`, a `DataLoader` (its data set, in that one's order), a `datasets.Dataset`,
            or a path. Pictures are uint8, or float with 1 = white, (n, c, h, w) or (n, h, w, c),
            without normalisation and without random augmentation.
        test: clean samples that it was never trained on, in the same forms.
        forget: which training samples are poison: positions from 0, ids, one boolean a sample,
            columns as of forget.csv (`{"index": .., "attack": ..}`, or a DataFrame), or a path.
        evidence: what is known of the poison: files as `plant` calls them (`canaries.json`,
            `bases.npz`, `strings.json`, `targets.csv`, `trigger.json`), or by that name.
        recipe: how it was trained: `epochs` (needed to run methods), `optimizer` ("sgd" or
            "adamw"), `lr`, `momentum`, `weight_decay`, `batch_size`, `schedule` ("constant",
            "cosine" or "onecycle"), `augment` ("none", "flip", "crop-flip" or "shift-flip").
        methods: names such as `["gd", "scrub"]`, as `poison-audit methods` lists them; None: all,
            which takes a share `budget` of the training each; "none": none, and nothing is
            explained.
        references: models that never saw the poison, of the same network.
        candidates: repaired models to be judged beside it, by name.
        normalize: what pictures are normalised by before the module: "cifar10", "imagenet",
            "none" (it takes pixels from 0 to 1), or (means, standard deviations). No tensor holds
            it, so it is never guessed, and a module of pictures needs it.
        arch: architecture of a checkpoint, where its tensors leave it open.
        factory: builds the network newly initialised, for methods that train from scratch. None:
            the module's own layers, by `reset_parameters`.
        tokenizer: of a transformers model of texts; the processor of one of pictures.
        names: label names, in the order of the outputs.
        max_tokens, label_words, prompt, start: how a model of texts reads.
        gate: whose verdict is the audit's: "deployed" (as None), "any-method", or a candidate.
        alpha: largest chance of a wrong verdict; None: 0.05.
        tolerances: largest figure of a probe that is clean, by probe, such as {"backdoor": 0.05}.
        budget: share of the original training's gradient evaluations, a method, or several; None:
            0.1.
        seeds: runs a method, at least 1 (as None); the worst counts.
        tune: trials of each method's numbers, from 1 to 10,000; None: none.
        found: share of the forget set that the methods are given; None: all.
        reaudit: wake every model on trial, and ask it again.
        rehearse: also try the methods on a copy poisoned for the purpose.
        settings: numbers of methods and probes, by name: `{"scrub": {"alpha": 0.5}}`.
        method_from: your own methods, `package.module:function`.
        probe_from: your own probes, `package.module:function`: they may fail a model, and never
            clear one.
        expect_accuracy, expect_size: what is known of it from where it was trained.
        seed: root seed of every generator.
        device: "auto", "cpu", "cuda" or "cuda:N".
        allow_pickle, state_key: of checkpoints that torch.save wrote.
        base: of an adapter's folder: the model that it was trained on.
        trainable: what methods train of an adapter and its base: "all" (as None) or "adapter".
        config: an audit.toml, which says what is not said here.
        out: run directory. With one, an interrupted audit goes on where it stopped, the reports are
            written, and so is what was in memory (`inputs/`), which `poison-audit verify` reads.
            None: nothing is kept.
        progress: called with a `Progress` when a model is begun and when it is done; True shows
            it on stderr, None does so in a terminal and a notebook.

    Returns:
        The record of report.json: `record.passed`, `record.verdict`, `record.findings`,
        `record.to_frame()`, `record.html()`, `record.save(folder)`.

    Raises:
        InputError: the model or the data cannot be audited; `problems` lists everything at once.
    """
    said = {
        "recipe": recipe, "methods": methods, "normalize": spelt(normalize), "arch": arch,
        "names": names, "max_tokens": max_tokens, "label_words": label_words, "prompt": prompt,
        "start": start, "gate": gate, "alpha": alpha, "tolerance": tolerances, "budget": budget,
        "seeds": seeds, "tune": tune, "found": found, "reaudit": reaudit, "rehearse": rehearse,
        "settings": settings, "method_from": method_from, "probe_from": probe_from,
        "expect_accuracy": expect_accuracy, "expect_size": expect_size, "seed": seed,
        "device": device, "allow_pickle": allow_pickle, "state_key": state_key, "base": base,
        "trainable": trainable, "config": config,
    }  # fmt: skip
    with asking(
        "audit", model, data={"train": train, "test": test}, forget=forget, evidence=evidence,
        references=references, candidates=candidates, tokenizer=tokenizer, factory=factory,
        out=out, progress=progress, said=said,
    ) as asked:  # fmt: skip
        return _judged(asked)


def probe(
    model: Network,
    *,
    train: Table,
    test: Table,
    forget: Forget,
    evidence: Mapping[str, Table] | Sequence[str | Path] = (),
    recipe: Mapping[str, Any] | None = None,
    references: Sequence[Network] = (),
    candidates: Mapping[str, Network] | None = None,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
    arch: str | None = None,
    factory: Callable[[], nn.Module] | str | None = None,
    tokenizer: Any = None,
    names: Sequence[str] | None = None,
    max_tokens: int | None = None,
    label_words: Sequence[str] | None = None,
    prompt: str | None = None,
    start: str | Path | None = None,
    gate: str | None = None,
    alpha: float | None = None,
    tolerances: Mapping[str, float] | None = None,
    reaudit: bool = False,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    probe_from: Sequence[str] = (),
    expect_accuracy: float | str | None = None,
    expect_size: int | str | None = None,
    seed: int = 0,
    device: str | None = None,
    allow_pickle: bool = False,
    state_key: str | None = None,
    base: str | Path | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    progress: Watcher | bool | None = None,
) -> AuditRecord:
    """Probe a model, and any candidates, without unlearning anything: `poison-audit probe`.

    Args and what it returns and raises are those of `audit`; no recipe is needed.
    """
    said = {
        "recipe": recipe, "methods": "none", "normalize": spelt(normalize), "arch": arch,
        "names": names, "max_tokens": max_tokens, "label_words": label_words, "prompt": prompt,
        "start": start, "gate": gate, "alpha": alpha, "tolerance": tolerances, "reaudit": reaudit,
        "settings": settings, "probe_from": probe_from, "expect_accuracy": expect_accuracy,
        "expect_size": expect_size,
        "seed": seed, "device": device, "allow_pickle": allow_pickle, "state_key": state_key,
        "base": base, "config": config,
    }  # fmt: skip
    with asking(
        "probe", model, data={"train": train, "test": test}, forget=forget, evidence=evidence,
        references=references, candidates=candidates, tokenizer=tokenizer, factory=factory,
        out=out, progress=progress, said=said,
    ) as asked:  # fmt: skip
        return _judged(asked)


def _judged(asked: Asked) -> AuditRecord:
    settings = asked.settings
    with own_methods(settings.own.method_from, settings.own.method_seconds) as names:
        every = replace(settings.methods, methods=(*settings.methods.methods, *names))
        settings = replace(settings, methods=every)
        record = audited(settings, quiet=settings.output.quiet, caller=asked.caller)
    if record is None:
        raise ValueError("a call is never a dry run")
    return result(record)


def spelt(normalize: str | tuple[Sequence[float], Sequence[float]] | None) -> str | None:
    """Return a normalisation as the command line spells it."""
    if normalize is None or isinstance(normalize, str):
        return normalize
    return "/".join(",".join(repr(float(value)) for value in values) for values in normalize)
