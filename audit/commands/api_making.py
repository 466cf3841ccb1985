"""`unlearn`, `repair` and `plant` in Python: what makes models and tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from poison_audit.case.csvfile import read_csv
from poison_audit.case.tables import read_table
from poison_audit.case.texts import read_text_table
from poison_audit.commands import plant as planting
from poison_audit.commands.api import Forget, Network, Rows, Table, Watcher, asking, spelt
from poison_audit.commands.asked import given_of
from poison_audit.commands.config import read_config
from poison_audit.commands.fields import fields_of
from poison_audit.commands.held import Held
from poison_audit.commands.in_memory import put_back
from poison_audit.commands.plant_options import OWN_OPTIONS, PlantSettings
from poison_audit.commands.repair import repaired
from poison_audit.commands.result import AuditRecord, result
from poison_audit.commands.settings import EVIDENCE
from poison_audit.commands.unlearn import unlearned
from poison_audit.errors import InputError, PlanError
from poison_audit.models.header import ANEW_KEY, METHOD_KEY, OF_KEY

if TYPE_CHECKING:
    from torch import nn


def unlearn(
    model: Network,
    *,
    method: str,
    train: Table,
    test: Table,
    forget: Forget,
    recipe: Mapping[str, Any],
    evidence: Mapping[str, Table] | Sequence[str | Path] = (),
    budget: float | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
    arch: str | None = None,
    factory: Callable[[], nn.Module] | str | None = None,
    tokenizer: Any = None,
    names: Sequence[str] | None = None,
    max_tokens: int | None = None,
    label_words: Sequence[str] | None = None,
    prompt: str | None = None,
    start: str | Path | None = None,
    method_from: Sequence[str] = (),
    seed: int = 0,
    device: str | None = None,
    allow_pickle: bool = False,
    state_key: str | None = None,
    base: str | Path | None = None,
    trainable: str | None = None,
    config: str | Path | None = None,
) -> nn.Module:
    """Unlearn the forget set by one method: `poison-audit unlearn`. Nothing is judged.

    Judge the result beside the model that it was made of:
    `probe(model, candidates={"fixed": result}, gate="fixed", ...)`.

    Args:
        model: stays as it is; this and the other arguments are those of `audit`.
        method: one of `poison-audit methods`.
        budget: share of the original training's gradient evaluations.
        settings: the method's numbers: `{"scrub": {"alpha": 0.5}}`.

    Returns:
        A module like `model`, in eval mode, on its device; of a path, the network itself, which
        takes pictures that are normalised already.

    Raises:
        InputError: the model or the data cannot be taken; `problems` lists everything at once.
        AuditError: the method diverged.
    """
    said = {
        "methods": method, "recipe": recipe, "budget": budget, "settings": settings,
        "normalize": spelt(normalize), "arch": arch, "names": names, "max_tokens": max_tokens,
        "label_words": label_words, "prompt": prompt, "start": start, "method_from": method_from,
        "seed": seed, "device": device, "allow_pickle": allow_pickle, "state_key": state_key,
        "base": base, "trainable": trainable, "config": config,
    }  # fmt: skip
    with asking(
        "unlearn", model, data={"train": train, "test": test}, forget=forget, evidence=evidence,
        tokenizer=tokenizer, factory=factory, progress=False, said=said,
    ) as asked:  # fmt: skip
        made = unlearned(asked.settings, lambda model: None)
        header = {METHOD_KEY: made.step, OF_KEY: ",".join(made.made_of)}
        return put_back(made.model, model, {**header, ANEW_KEY: "yes"} if made.anew else header)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What a search for a repair came to."""

    model: nn.Module | None
    """The repaired model, as `unlearn` returns one; None: no repair passed, or none was needed."""
    record: AuditRecord
    """The audit of the repair, or of the best that was tried; where none was needed, of MODEL."""
    sentence: str
    """What was found."""

    @property
    def passed(self) -> bool:
        """Whether there is a repaired model that passed."""
        return self.model is not None and self.record.passed


def repair(
    model: Network,
    *,
    train: Table,
    test: Table,
    forget: Forget,
    recipe: Mapping[str, Any],
    evidence: Mapping[str, Table] | Sequence[str | Path] = (),
    references: Sequence[Network] = (),
    budget: float | None = None,
    alpha: float | None = None,
    tolerances: Mapping[str, float] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    normalize: str | tuple[Sequence[float], Sequence[float]] | None = None,
    arch: str | None = None,
    factory: Callable[[], nn.Module] | str | None = None,
    tokenizer: Any = None,
    names: Sequence[str] | None = None,
    max_tokens: int | None = None,
    label_words: Sequence[str] | None = None,
    prompt: str | None = None,
    start: str | Path | None = None,
    seed: int = 0,
    device: str | None = None,
    allow_pickle: bool = False,
    state_key: str | None = None,
    base: str | Path | None = None,
    trainable: str | None = None,
    config: str | Path | None = None,
    out: str | Path | None = None,
    progress: Watcher | bool | None = None,
) -> Repaired:
    """Look for a repair, from cheap to dear, and return the first that passes its audit.

    Args:
        model: stays as it is; this and the other arguments are those of `audit`.
        budget: share of the original training's gradient evaluations, of all that is tried.

    Raises:
        InputError: the model or the data cannot be audited; `problems` lists everything at once.
    """
    said = {
        "methods": "none", "recipe": recipe, "alpha": alpha, "tolerance": tolerances,
        "settings": settings, "normalize": spelt(normalize), "arch": arch, "names": names,
        "max_tokens": max_tokens, "label_words": label_words, "prompt": prompt, "start": start,
        "seed": seed, "device": device, "allow_pickle": allow_pickle, "state_key": state_key,
        "base": base, "trainable": trainable, "config": config,
    }  # fmt: skip
    with asking(
        "repair", model, data={"train": train, "test": test}, forget=forget, evidence=evidence,
        references=references, tokenizer=tokenizer, factory=factory, out=out, progress=progress,
        said=said,
    ) as asked:  # fmt: skip
        found = repaired(asked.settings, budget=budget, caller=asked.caller)
        fixed, tried = None, found.tried
        if tried is not None and tried.model is not None:
            header = {METHOD_KEY: tried.name, OF_KEY: ",".join(found.made_of)}
            fixed = put_back(tried.model, model, header)
        told = found.told.replace(f"{asked.caller.holds}/", "")
        return Repaired(model=fixed, record=result(found.record), sentence=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """A poisoned copy of a table, and the evidence that audits need of it."""

    train: Rows
    """To train on: of pictures a TensorDataset (n, c, h, w) with labels, of texts a list of
    (text, label)."""
    forget: Mapping[str, Sequence[str]]
    """The columns of its forget.csv, as `audit` takes them."""
    evidence: Mapping[str, Path]
    """Files by name, as `audit` takes them."""
    folder: Path
    """Where everything lies: `train.npz` or `train.csv`, forget.csv, audit.toml, the evidence."""
    sentence: str
    """What was planted."""

    @property
    def table(self) -> Path:
        """The poisoned table's file, as `audit` takes it: with the ids that `forget` names."""
        return next(p for name in ("train.npz", "train.csv") if (p := self.folder / name).exists())


def plant(
    data: Table,
    *,
    attack: str,
    out: str | Path,
    test: Table | None = None,
    count: int | None = None,
    budget: float | None = None,
    seed: int = 0,
    names: Sequence[str] | None = None,
    storage: str | None = None,
    force: bool = False,
    **options: Any,
) -> Planted:
    """Poison a copy of a clean table, and write the evidence: `poison-audit plant`.

    Args:
        data: the clean table, in the forms of `audit`.
        attack: gaussian, targeted, backdoor, token-canary, mislabelled or indiscriminate.
        out: folder for the key and everything else. Keep it: there is no other copy of the key.
        test: clean samples, of which targets are chosen.
        count: samples to poison.
        budget: the same as a share of `data`.
        seed: root seed.
        names: label names, in the order of the outputs.
        storage: of pictures, "unclipped" or "uint8".
        force: whether to write into a folder that is not empty.
        options: the attack's own, by the name of their flag, such as `sigma=0.2` or `label=0`.

    Raises:
        InputError: it cannot be planted; `problems` lists everything at once.
        TypeError: no attack has an option of this name.
    """
    if unknown := sorted(set(options) - set(OWN_OPTIONS)):
        raise TypeError(f"no attack has the option {unknown[0]!r}: {', '.join(OWN_OPTIONS)}")
    with _folder_for(data) as held:
        said = {
            **options, "data": held.table(data, "data"), "attack": attack, "output": Path(out),
            "test": None if test is None else held.table(test, "test"), "count": count,
            "budget": budget, "seed": seed, "names": names, "storage": storage, "force": force,
        }  # fmt: skip
        text = StringIO()
        try:
            declared = {**fields_of(PlantSettings), **OWN_OPTIONS}
            with redirect_stdout(text):
                planting.plant(given_of(said, declared))
        except (InputError, PlanError) as error:
            raise InputError(each.without(f"{held.folder}/") for each in error.problems) from error
    return _planted(Path(out), text.getvalue())


@contextmanager
def _folder_for(data: Table) -> Iterator[Held]:
    with TemporaryDirectory(prefix="poison-audit-") as folder:
        yield Held(Path(folder).resolve())


def _planted(folder: Path, told: str) -> Planted:
    forget = read_csv(folder / "forget.csv", needed=())
    values = read_config(folder / "audit.toml").values
    evidence = {name: values[key] for name, field in EVIDENCE.items()
                if (key := (field.table, field.key)) in values}  # fmt: skip
    train: Any
    if (folder / "train.npz").exists():
        from torch.utils.data import TensorDataset

        table = read_table(folder / "train.npz")
        train = TensorDataset(table.x, table.y)
    else:
        texts = read_text_table(folder / "train.csv")
        train = list(zip(texts.texts, texts.y, strict=True))
    columns = {name: tuple(row.get(name, "") for row in forget.rows) for name in forget.columns}
    return Planted(
        train=train, forget=columns, evidence=evidence, folder=folder,
        sentence=told.splitlines()[0] if told else "",
    )  # fmt: skip
