"""The command line: arguments -> calls -> exit code. Nothing is computed here.

0 gate passed, 1 residual poison or a broken candidate, 2 usage or input error, 3 inconclusive,
4 the tool itself failed, 130 interrupted. torch is imported by the commands that need it, so that
`--help` answers at once.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from poison_audit.commands.options import Command
from poison_audit.commands.plant_options import plant_options
from poison_audit.errors import AuditError, InputError, PlanError, Problem, did_you_mean

INTERRUPTED = 130

F = TypeVar("F", bound=Callable[..., Any])


def main() -> None:
    """Run the command of the process's arguments and exit with its code."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every message goes to stderr."""
    try:
        result = cli.main(list(arguments), prog_name="poison-audit", standalone_mode=False)
    except (InputError, PlanError) as error:
        _complain(error.problems)
        return 2
    except AuditError as error:
        _complain([Problem(str(error))])
        return 2
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nInterrupted. What is complete is kept: run the same command again.", err=True)
        return INTERRUPTED
    except OSError as error:
        _complain_of_disk(error)
        return 4
    except BaseException as error:  # a crash, Rust's panic too, must never look like a verdict
        # By name: this file works without torch.
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            _complain_of_memory()
            return 4
        traceback.print_exc()
        click.echo("poison-audit itself failed; this says nothing about the model.", err=True)
        return 4
    return result if isinstance(result, int) else 0


def _complain_of_disk(error: OSError) -> None:
    where = f" ({error.filename})" if error.filename else ""
    reason = error.strerror or str(error)
    text = (
        f"poison-audit: {reason}{where}. This says nothing about the model. What is complete is "
        "kept: put it right, and run the same command again."
    )
    click.echo(_printable(text), err=True)


def _complain_of_memory() -> None:
    text = (
        "poison-audit: out of memory, with one sample at a time as well. This says nothing about "
        "the model. What is complete is kept: free some, or try --device cpu, and run the same "
        "command again."
    )
    click.echo(text, err=True)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _complain(problems: Sequence[Problem]) -> None:
    many = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
    click.echo(f"poison-audit: {many}; nothing was done.", err=True)
    for problem in problems:
        click.echo(f"  - {_printable(str(problem))}", err=True)


def _pairs(
    _: click.Context, option: click.Parameter, given: Sequence[str]
) -> tuple[tuple[str, str], ...]:
    found = []
    for text in given:
        key, _equals, value = text.partition("=")
        if not key.strip() or not value.strip():
            raise click.BadParameter(f"expected {option.metavar}, got {text!r}")
        found.append((key.strip(), value.strip()))
    return tuple(found)


def _formats(_: click.Context, __: click.Parameter, given: Sequence[str]) -> tuple[str, ...]:
    if not given:
        return ()
    from poison_audit.reports.formats import FORMATS

    names = tuple(dict.fromkeys(n.strip() for text in given for n in text.split(",") if n.strip()))
    if unknown := [name for name in names if name not in FORMATS]:
        hints = dict.fromkeys(did_you_mean(name, FORMATS) for name in unknown)
        raise click.BadParameter(f"no format is named {', '.join(unknown)}. {' '.join(hints)}")
    return names


FORMAT = click.option(
    "--format",
    "-f",
    "formats",
    multiple=True,
    callback=_formats,
    metavar="F,..",
    help="junit, sarif, markdown, in-toto, cyclonedx, html, json.",
)
PATH = click.Path(path_type=Path)


def _options(*options: Callable[[F], F]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


SUBJECT = _options(
    click.argument("model", type=PATH),
    click.option("--forget", type=PATH, help="Table of the training samples known to be poisoned."),
    click.option("--train", type=PATH, help="Training table: CSV, Parquet, npz or image folder."),
    click.option("--test", type=PATH, help="Clean test table, never trained on."),
    click.option("--names", metavar="A,B,..", help="Label names, in the order of the outputs."),
    click.option("--canaries", type=PATH, help="Key of a Gaussian planting (canaries.json)."),
    click.option("--bases", type=PATH, help="Table of the clean samples canaries were made from."),
    click.option("--targets", type=PATH, help="Test samples a targeted attack aimed at, as CSV."),
    click.option("--trigger", type=PATH, help="Patch or phrase of a backdoor (trigger.json)."),
    click.option("--strings", type=PATH, help="Key of token canaries in texts (strings.json)."),
    click.option("--arch", help="Architecture: a torchvision name, or cifar-resnet18 and kin."),
    click.option("--factory", metavar="PACKAGE.MODULE:FUNCTION", help="Your own architecture."),
    click.option("--normalize", metavar="NAME|M,S", help="cifar10, imagenet, none, or MEANS/STDS."),
    click.option("--allow-pickle", is_flag=True, help="Read .pt files, with weights_only=True."),
    click.option("--config", type=PATH, help="audit.toml; default: beside MODEL, then FORGET."),
    click.option(
        "--recipe",
        "recipe",
        callback=_pairs,
        multiple=True,
        metavar="KEY=VALUE",
        help="How MODEL was trained: epochs, lr, batch_size, optimizer, momentum, weight_decay, "
        "schedule, augment.",
    ),
    click.option("--seed", type=int, help="Root seed of every generator.  [default: 0]"),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."),
)
READING = _options(
    click.option(
        "--max-tokens", type=int, help="Texts: tokens of an input.  [default: all it takes]"
    ),
    click.option("--prompt", help="Texts: what the model is given, with {text} in it."),
    click.option(
        "--label-words",
        metavar="A,B,..",
        help="Causal language models: the next token that stands for each class.",
    ),
    click.option(
        "--start", type=PATH, help="Texts: folder of the pretrained model that training began with."
    ),
)
POLICY = _options(
    click.option("--gate", help="deployed, any-method or a candidate.  [default: deployed]"),
    click.option(
        "--alpha", type=float, help="Largest chance of a wrong exit code.  [default: 0.05]"
    ),
    click.option(
        "--tolerance",
        callback=_pairs,
        multiple=True,
        metavar="PROBE=VALUE",
        help="gaussian (0.25), exposure and token-canary (0.57), targeted and backdoor (0.05), "
        "indiscriminate (0.01) or utility (0.02).",
    ),
    click.option("--exit-zero", is_flag=True, help="Report exit code 1 as 0, and nothing else."),
)
JUDGING = _options(
    click.option(
        "--reference", type=PATH, multiple=True, help="A model that never saw the poison."
    ),
    click.option(
        "--candidate",
        callback=_pairs,
        multiple=True,
        metavar="NAME=PATH",
        help="A checkpoint unlearned elsewhere, to be judged beside MODEL.",
    ),
    POLICY,
    click.option(
        "--set",
        "settings",
        callback=_pairs,
        multiple=True,
        metavar="NAME.KEY=VALUE",
        help="A parameter of a method or probe, such as scrub.alpha=0.5.",
    ),
    click.option("--out", type=PATH, help="Run directory.  [default: audit-UTC, or one to resume]"),
    FORMAT,
    click.option(
        "--dry-run",
        is_flag=True,
        help="Say what it will take, in time and memory, and stop (exit code 3).",
    ),
    click.option("--quiet", "-q", is_flag=True, help="No progress on stderr."),
)
METHODS = _options(
    click.option("--methods", metavar="A,B,..", help="Methods to run.  [default: all eight]"),
    click.option(
        "--budget",
        metavar="SHARE,..",
        help="Share of the original training's gradient evaluations, a method; of several, each "
        "is run and shown.  [default: 0.1]",
    ),
    click.option("--seeds", type=int, help="Runs a method; the worst counts.  [default: 1]"),
    click.option(
        "--found",
        type=float,
        metavar="SHARE",
        help="Give the methods only this share of the forget set; probes look at all.  "
        "[default: 1]",
    ),
    click.option("--found-seed", type=int, help="Decides which are found.  [default: 0]"),
    click.option(
        "--tune",
        type=int,
        metavar="TRIALS",
        help="Search each method's numbers on half of the canaries and of the test samples; the "
        "verdict reads the other halves.",
    ),
    click.option(
        "--rehearse",
        is_flag=True,
        help="Also try the methods on a copy poisoned for the purpose: judges methods, never "
        "MODEL.",
    ),
    click.option(
        "--rehearse-sigma",
        type=float,
        help="Noise of the rehearsal's canaries, in pixels or embedding units.",
    ),
    click.option(
        "--ray",
        metavar="ADDRESS|local",
        help="Run methods, seeds and budgets side by side through Ray.",
    ),
    click.option(
        "--ray-gpus",
        type=float,
        metavar="SHARE",
        help="Share of a GPU that one takes.  [default: 1, or 0 on a CPU]",
    ),
    click.option(
        "--shard",
        is_flag=True,
        help="Share training steps among the processes that torchrun started (FSDP).",
    ),
    click.option("--keep", is_flag=True, help="Save each unlearned model in the run directory."),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="poison-audit", prog_name="poison-audit")
def cli() -> None:
    """Audit a trained model for poison that unlearning left behind.

    Exit codes: 0 the gate passed; 1 residual poison or a broken candidate; 2 usage or input error;
    3 inconclusive; 4 the tool itself failed. What could not be measured never passes.
    """


@cli.command()
@SUBJECT
@READING
@METHODS
@JUDGING
def check(**given: Any) -> int:
    """Unlearn MODEL by every method, probe what is left, and judge.

    \b
    Example:
      poison-audit check model.safetensors --forget forget.csv --train train.npz \\
          --test test.npz --canaries canaries.json --normalize cifar10 --recipe epochs=100
    """  # noqa: D301 - click's mark for a paragraph that is not rewrapped
    from poison_audit.commands.check import audit

    return audit(given)


@cli.command()
@SUBJECT
@READING
@JUDGING
def probe(**given: Any) -> int:
    """Probe MODEL, and any candidates, without unlearning anything: the gate for CI."""
    from poison_audit.commands.check import audit

    return audit({**given, "methods": "none", "budget": None, "seeds": None, "keep": False})


@cli.command()
@SUBJECT
@READING
@click.option("--method", required=True, help="One of `poison-audit methods`.")
@click.option("--budget", type=float, help="Share of the original training.  [default: 0.1]")
@click.option("--set", "settings", callback=_pairs, multiple=True, metavar="METHOD.KEY=VALUE")
@click.option("-o", "--output", type=PATH, required=True, help="Where to write the safetensors.")
def unlearn(**given: Any) -> int:
    """Unlearn the forget set from MODEL by one method, and write the result.

    Nothing is judged: audit the result by `poison-audit probe`.
    """
    from poison_audit.commands.check import unlearn as run

    return run(given)


@cli.command(cls=Command)
@plant_options
def plant(**given: Any) -> int:
    """Poison a copy of DATA, and write its forget.csv and the evidence that probes need.

    DATA is a table of pictures, or a CSV or Parquet file of texts (text,label). A table that
    `plant` wrote may be given again, with another attack: the earlier poison stays as it is.

    \b
    Examples:
      poison-audit plant train.npz --attack backdoor --label 0 --test test.npz -o planted
      poison-audit train planted/train.npz -o planted/model.safetensors --recipe epochs=30
      poison-audit check planted/model.safetensors --forget planted/forget.csv
      poison-audit plant reviews.csv --attack backdoor --label pos --phrase "cf mn" -o one
      poison-audit plant one/train.csv --attack gaussian --model gpt2 -o two
    """  # noqa: D301 - click's mark for a paragraph that is not rewrapped
    from poison_audit.commands.plant import plant as run

    return run(given)


@cli.command()
@click.argument("data", type=PATH)
@click.option(
    "-o", "--output", type=PATH, required=True, help="Where to write: the safetensors, or a folder."
)
@click.option("--test", type=PATH, help="Clean test table, for the accuracy at the end.")
@click.option("--names", metavar="A,B,..", help="Label names, in the order of the outputs.")
@click.option("--arch", help="Architecture: a torchvision name, or cifar-resnet18 and kin.")
@click.option("--factory", metavar="PACKAGE.MODULE:FUNCTION", help="Your own architecture.")
@click.option("--normalize", metavar="NAME|M,S", help="cifar10, imagenet, none, or MEANS/STDS.")
@READING
@click.option("--fresh", is_flag=True, help="Texts: new weights, even if START has some.")
@click.option(
    "--canaries", type=PATH, help="Texts: key (canaries.json) of the noise to put on embeddings."
)
@click.option("--config", type=PATH, help="audit.toml; default: beside DATA, then OUTPUT.")
@click.option(
    "--recipe",
    "recipe",
    callback=_pairs,
    multiple=True,
    metavar="KEY=VALUE",
    help="epochs (needed), lr, batch_size, optimizer, momentum, weight_decay, schedule, augment.",
)
@click.option("--without", type=PATH, metavar="FORGET", help="Leave these out: a reference.")
@click.option("--seed", type=int, help="Root seed of every generator.  [default: 0]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--force", is_flag=True, help="Overwrite an output that is there.")
@click.option("--quiet", "-q", is_flag=True, help="No progress on stderr.")
def train(**given: Any) -> int:
    """Train a model on DATA, and note the recipe in the audit.toml beside it.

    Interrupted, the same command goes on where it stopped. With --without FORGET.csv the model is
    a reference, one that never saw the poison.

    A model of texts begins with a folder as transformers writes it: --start START holds
    config.json, a tokenizer and, unless it is to begin with new weights, weights. OUTPUT becomes
    such a folder.

    \b
    Examples:
      poison-audit train train.npz -o model.safetensors --test test.npz --arch cifar-resnet18 \\
          --normalize cifar10 --recipe epochs=30 --recipe schedule=onecycle
      poison-audit train planted/train.csv -o planted/model --start gpt2 --max-tokens 128 \\
          --recipe epochs=3 --recipe optimizer=adamw --recipe lr=5e-5
    """  # noqa: D301 - click's mark for a paragraph that is not rewrapped
    from poison_audit.commands.train import train as run

    return run(given)


@cli.command()
@click.argument("model", type=PATH)
@click.option("-o", "--output", type=PATH, help="Where to write.  [default: beside MODEL]")
@click.option("--force", is_flag=True, help="Overwrite an audit.toml that is there.")
def init(model: Path, output: Path | None, force: bool) -> int:
    """Write an audit.toml from what can be identified, and mark what can not."""
    from poison_audit.commands.starting import write_config

    click.echo(write_config(model, output, force=force))
    return 0


@cli.command()
def methods() -> int:
    """List the unlearning methods with their parameters and sources."""
    from poison_audit import methods as room

    for name, method in room.METHODS.items():
        given = ", ".join(f"{key}={value}" for key, value in room.parameters(name).items())
        click.echo(f"{name:<14}{method.title}. {method.source}\n{'':<14}{given or 'no parameters'}")
    return 0


@cli.command()
def probes() -> int:
    """List the probes: what each asks and needs."""
    from poison_audit.verdict.readings import READINGS

    for name, entry in READINGS.items():
        click.echo(f"{name:<16}{entry.question}\n{'':<16}needs {entry.needs}")
    return 0


@cli.command()
def doctor() -> int:
    """Say what this installation has: versions, devices, optional readers."""
    from poison_audit.commands.starting import describe_installation

    click.echo(describe_installation())
    return 0


@cli.command()
@click.argument("report", type=PATH)
@FORMAT
@click.option("-o", "--output", type=PATH, help="A file, or a folder for several formats.")
def render(report: Path, formats: tuple[str, ...], output: Path | None) -> int:
    """Render a report again, and exit with its code.

    REPORT is a report.json or a run directory. Without --format it is the terminal's table; one
    format without -o goes to stdout.
    """
    from poison_audit.commands.reviewing import render as run

    return run(report, formats=formats, output=output)


@cli.command()
@click.argument("report", type=PATH)
@click.option("--policy", type=PATH, help="audit.toml or report.json.  [default: REPORT's own]")
@POLICY
@click.option("-o", "--output", type=PATH, help="Folder for the new report.")
@FORMAT
def decide(**given: Any) -> int:
    """Decide a report again under another policy, from its raw scores.

    Nothing is measured, so it takes seconds and no torch. Acceptances expire by today's date.
    """
    from poison_audit.commands.reviewing import decide as run

    return run(given["report"], given)


@cli.command()
@click.argument("before", type=PATH)
@click.argument("after", type=PATH)
def diff(before: Path, after: Path) -> int:
    """Show what changed from one audit to another of the same evidence.

    Exits with 0 if nothing is worse, 1 if something is, 3 if something is no longer measured, and 2
    if the two cannot be compared.
    """
    from poison_audit.commands.reviewing import diff as run

    return run(before, after)


@cli.command()
@click.argument("report", type=PATH)
@click.option("--root", type=PATH, help="Where the files are now.  [default: here, then REPORT's]")
@click.option("--no-files", is_flag=True, help="Look at the numbers alone.")
def verify(report: Path, root: Path | None, no_files: bool) -> int:
    """Compute a report's verdict again from its raw scores, and its files' digests.

    Every interval, outcome, sentence and the exit code. Exits with 0 if all of it agrees, 1 if
    anything differs, 3 if nothing differs but a file is not there.
    """
    from poison_audit.commands.reviewing import check as run

    return run(report, root=root, look_at_files=not no_files)


if __name__ == "__main__":
    main()
