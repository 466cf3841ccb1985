"""What single commands can be told: how they run, what they read again, what they write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from poison_audit.commands.fields import (
    NUMBER,
    PAIR,
    PATH,
    SWITCH,
    TEXT,
    Kind,
    RefusedError,
    bounded,
    choice,
    fields_of,
    parts_of,
    said,
)
from poison_audit.commands.presets import PRESET, PRESETS
from poison_audit.commands.settings import DEVICE, EVIDENCE, LABELS, PLAN, SEED, TRAINING, Pairs
from poison_audit.errors import did_you_mean

CI = {
    "github": ("github.yml", ".github/workflows/poison-audit.yml"),
    "gitlab": ("gitlab.yml", ".gitlab-ci.yml"),
    "docker": ("Dockerfile", "Dockerfile"),
}
"""The template of each, and where its file is looked for."""


def _formats(text: str) -> tuple[str, ...]:
    from poison_audit.reports.formats import FORMATS  # not for everybody who asks for --help

    names = parts_of(text)
    if unknown := [name for name in names if name not in FORMATS]:
        hints = dict.fromkeys(did_you_mean(name, FORMATS) for name in unknown)
        raise RefusedError(f"no format is named {', '.join(unknown)}. {' '.join(hints)}")
    return names


PLAIN = Kind(
    expected="names", metavar="TEXT", holds=bool, read=lambda text: (TEXT.parse(text),),
    joined=True,
)  # fmt: skip
FORMATS = said(
    Kind(expected="names of formats", metavar="F,..", holds=bool, read=_formats, joined=True),
    "junit, sarif, in-toto, model-card, markdown, cyclonedx, html, json.", flag="--format",
    short="-f", several=True, default=(),
)  # fmt: skip
QUIET = said(SWITCH, "No progress on stderr.", short="-q", default=False)
REPORT = said(PATH, "report.json, or a run directory.", flag="")
MADE = said(PATH, "Where to write: the safetensors, or a folder.", short="-o", needed=True)
"""Fields of several commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Parameters."""

    settings: Pairs = said(
        PAIR, "A parameter of a method or probe, such as scrub.alpha=0.5.", flag="--set",
        group="methods", metavar="NAME.KEY=VALUE", several=True, default=(),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """How the methods are run, and what else is done with them."""

    rehearse: bool = said(
        SWITCH, "Also try the methods on a copy poisoned for the purpose: judges methods, never "
        "MODEL.", group="methods", default=False,
    )  # fmt: skip
    rehearse_sigma: float | None = said(
        NUMBER, "Noise of the rehearsal's canaries, in pixels or embedding units.",
        group="methods",
    )  # fmt: skip
    harm: bool = said(
        SWITCH, "Also try the methods on a reference: what they cost a clean model.",
        group="methods", default=False,
    )  # fmt: skip
    ray: str | None = said(
        TEXT, "Run methods, seeds and budgets side by side through Ray.", group="methods",
        metavar="ADDRESS|local",
    )  # fmt: skip
    ray_gpus: float | None = said(
        NUMBER, "Share of a GPU that one takes.", group="methods", metavar="SHARE",
        told="1, or 0 on a CPU",
    )  # fmt: skip
    shard: bool = said(
        SWITCH, "Share training steps among the processes that torchrun started (FSDP).",
        group="methods", default=False,
    )  # fmt: skip
    keep: bool = said(
        SWITCH, "Save each unlearned model in the run directory.", group="methods", default=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMethods:
    """Methods of the user's own: said on the command line alone, since they are run."""

    method_from: tuple[str, ...] = said(
        PLAIN, "Your own method, or one that is installed, by its name; runs beside --methods.",
        group="methods", metavar="PACKAGE.MODULE:FUNCTION", several=True, default=(),
    )  # fmt: skip
    method_seconds: float = said(
        bounded(above=0), "What a run of it may take.", group="methods", metavar="SECONDS",
        default=3600.0, told="3600",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProbes:
    """Probes of the user's own: said on the command line alone, since they are run."""

    probe_from: tuple[str, ...] = said(
        PLAIN, "Your own probe, or one that is installed, by its name; it may fail a model, never "
        "clear one.", group="evidence", metavar="PACKAGE.MODULE:FUNCTION", several=True,
        default=(),
    )  # fmt: skip
    probe_seconds: float = said(
        bounded(above=0), "What it may take with one model.", group="evidence", metavar="SECONDS",
        default=600.0, told="600",
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What becomes of the result."""

    out: Path | None = said(PATH, "Run directory.", told="audit-UTC, or one to resume")
    formats: tuple[str, ...] = FORMATS
    dry_run: bool = said(
        SWITCH, "Say what it will take, in time and memory, and stop (exit code 3).",
        default=False,
    )  # fmt: skip
    json: bool = said(
        SWITCH, "Print the verdict as one JSON object, and nothing else on stdout.", default=False
    )
    quiet: bool = QUIET


REPORTED = {k: field for k, field in fields_of(Output).items() if k not in ("dry_run", "json")}
"""Of a command that always does what it is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlearning:
    """What `unlearn` does."""

    method: str = said(TEXT, "One of `poison-audit methods`.", group="methods", needed=True)
    budget: float | None = said(
        NUMBER, "Share of the original training's gradient evaluations.", at="plan.budget",
        group="methods", metavar="SHARE", told=f"{PLAN.budget}",
    )  # fmt: skip
    output: Path = MADE


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairing:
    """What `repair` does."""

    budget: float | None = said(
        NUMBER, "Share of the original training's gradient evaluations, of all that is tried.",
        group="methods", metavar="SHARE", told="0.02",
    )  # fmt: skip
    output: Path = MADE


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A report that is decided again."""

    report: Path = REPORT
    policy: Path | None = said(
        PATH, "audit.toml or report.json.", group="policy", told="REPORT's own"
    )
    output: Path | None = said(PATH, "Folder for the new report.", short="-o")
    formats: tuple[str, ...] = FORMATS


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What `train` does."""

    data: Path = said(PATH, "The training table.", flag="")
    output: Path = MADE
    test: Path | None = said(
        PATH, "Clean test table, for the accuracy at the end.", at="data.test", group="data"
    )
    names: tuple[str, ...] | None = LABELS
    without: Path | None = said(
        PATH, "Leave these out: a reference.", group="data", metavar="FORGET"
    )
    recipe: Pairs = said(
        PRESET, f"epochs (needed), {', '.join(key for key in TRAINING if key != 'epochs')}; or "
        f"{' or '.join(PRESETS)}, over which the others win.",
        group="data", metavar="KEY=VALUE", several=True, default=(),
    )  # fmt: skip
    config: Path | None = said(PATH, "audit.toml.", group="data", told="beside DATA, then OUTPUT")
    fresh: bool = said(
        SWITCH, "Texts: new weights, even if START has some.", group="model", default=False
    )
    canaries: Path | None = said(
        PATH, "Texts: key (canaries.json) of the noise to put on embeddings.", group="evidence",
        at=f"{EVIDENCE['canaries'].table}.canaries",
    )  # fmt: skip
    seed: int = SEED
    device: str = DEVICE
    force: bool = said(SWITCH, "Overwrite an output that is there.", default=False)
    quiet: bool = QUIET


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """What `init` does."""

    model: Path | None = said(PATH, "The checkpoint.", flag="", optional=True)
    output: Path | None = said(PATH, "Where to write.", short="-o", told="beside MODEL")
    allow_pickle: bool = said(
        SWITCH, "Read what torch.save wrote, with weights_only=True.", default=False
    )
    state_key: str | None = said(
        TEXT, "Entry of a pickle, or prefix of the names, that holds the network.", metavar="KEY"
    )
    base: Path | None = said(PATH, "Of an adapter (LoRA): the model that it was trained on.")
    ci: str | None = said(
        choice(*CI),
        f"Write a job for CI, or an image: {', '.join(at for _, at in CI.values())}.",
        metavar="|".join(CI),
    )
    force: bool = said(SWITCH, "Overwrite a file that is there.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Investigating:
    """What `investigate` looks at."""

    forget: Path = said(
        PATH, "Table of the training samples known to be poisoned.", group="data", needed=True
    )
    train: Path = said(
        PATH, "Training table: CSV, Parquet, npz or image folder.", group="data", needed=True
    )
    test: Path | None = said(
        PATH, "Test table: forget samples that are near copies of it show targets.", group="data"
    )
    bases: Path | None = said(PATH, "Clean samples that forget samples were made of.", group="data")
    names: tuple[str, ...] | None = LABELS
    out: Path | None = said(PATH, "Folder for what was found.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What `render` does."""

    report: Path = REPORT
    formats: tuple[str, ...] = FORMATS
    output: Path | None = said(PATH, "A file, or a folder for several formats.", short="-o")
    log: str | None = said(
        choice("mlflow"), "Also log it, where MLFLOW_TRACKING_URI says.", metavar="mlflow"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Looking:
    """What `history` looks through."""

    folder: Path = said(PATH, "A folder of run directories.", flag="")
    output: Path | None = said(PATH, "Where to write the page (HTML).", short="-o")


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """What `diff` compares."""

    before: Path = said(PATH, "The earlier report.", flag="")
    after: Path = said(PATH, "The later report.", flag="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifying:
    """What `verify` does."""

    reports: tuple[Path, ...] = said(
        PATH, "report.json, or a run directory; or several.", flag="", metavar="REPORT",
        several=True, default=(),
    )  # fmt: skip
    root: Path | None = said(PATH, "Where the files are now.", told="here, then REPORT's")
    no_files: bool = said(SWITCH, "Look at the numbers alone.", default=False)
    key: Path | None = said(
        PATH, "Public key (Ed25519, PEM) that must have signed REPORT by `attest`."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attesting:
    """What `attest` signs, and with what."""

    report: Path = REPORT
    key: Path = said(PATH, "Private key that signs: Ed25519, PEM, not encrypted.", needed=True)
