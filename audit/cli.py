"""The command line: arguments -> calls -> exit code. Nothing is computed here.

0 gate passed, 1 residual poison or a broken candidate, 2 usage or input error, 3 inconclusive,
4 the tool itself failed, 130 interrupted. torch is imported by the commands that need it, once the
flags by themselves are right: `--help` and a wrong flag are answered at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

import click

from poison_audit.commands import own_settings as own
from poison_audit.commands import settings
from poison_audit.commands.arguments import decide_settings, train_settings
from poison_audit.commands.failing import complain, complain_of_disk, failed, of_a_name, of_memory
from poison_audit.commands.fields import fields_of, settled
from poison_audit.commands.options import Command, options
from poison_audit.commands.plant_options import OWN_OPTIONS, PlantSettings
from poison_audit.commands.signals import end_tidily
from poison_audit.commands.streams import forgive
from poison_audit.commands.usage import checked_settings
from poison_audit.errors import AuditError, InputError, PlanError, Problem

INTERRUPTED = 130
COMPLETE = "_POISON_AUDIT_COMPLETE"
"""Set by a shell that asks how a line might go on."""
NEEDED = {
    "torch": "torch", "torchvision": "torchvision", "transformers": "transformers",
    "safetensors": "safetensors", "PIL": "pillow", "cryptography": "cryptography",
}  # fmt: skip
"""What some commands need and others do not: by what is imported, what is installed."""


def main() -> None:
    """Run the command of the process's arguments and exit with its code."""
    forgive()
    end_tidily()
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every message goes to stderr."""
    completing = COMPLETE in os.environ
    try:
        result = cli.main(list(arguments), prog_name="poison-audit", standalone_mode=False)
    except (InputError, PlanError) as error:
        complain(error.problems)
        return 2
    except ModuleNotFoundError as error:
        if (package := NEEDED.get((error.name or "").partition(".")[0])) is None:
            return failed(error)
        fix = f"Install it by pip install {package}; `poison-audit doctor` says what there is"
        complain([Problem(f"{package} is not installed, and this needs it", fix=fix)])
        return 2
    except AuditError as error:
        complain([Problem(str(error))])
        return 2
    except click.exceptions.Exit as done:
        return done.exit_code
    except SystemExit as done:
        # With it click answers a shell that completes a line; else it is somebody's way out.
        return int(done.code or 0) if completing else failed(done)
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nInterrupted. What is complete is kept: run the same command again.", err=True)
        return INTERRUPTED
    except BaseException as error:  # a crash, Rust's panic too, must never look like a verdict
        if (named := of_a_name(error)) is not None:
            complain([named])
            return 2
        if isinstance(error, OSError) and not of_memory(error):
            complain_of_disk(error)
            return 4
        return failed(error)
    return result if isinstance(result, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="poison-audit", prog_name="poison-audit")
def cli() -> None:
    """Audit a trained model for poison that unlearning left behind.

    Exit codes: 0 the gate passed; 1 residual poison or a broken candidate; 2 usage or input error;
    3 inconclusive; 4 the tool itself failed. What could not be measured never passes.
    """


SUBJECT = (
    settings.Architecture, settings.Texts, settings.Subject, settings.Trained, settings.EVIDENCE
)  # fmt: skip

REFERENCES = {"reference": fields_of(settings.Judged)["reference"]}
JUDGED_BY = {k: field for k, field in fields_of(settings.Deciding).items() if k != "gate"}


@cli.command(cls=Command)
@options(*SUBJECT, settings.Expecting, settings.Judged, settings.Deciding, settings.Methods,
         own.Numbers, own.Running, own.OwnMethods, own.OwnProbes, own.Output)  # fmt: skip
def check(**given: Any) -> int:
    """Unlearn MODEL by every method, probe what is left, and judge.

    \b
    Example:
      poison-audit check model.safetensors --forget forget.csv --train train.npz \\
          --test test.npz --canaries canaries.json --normalize cifar10 --recipe epochs=100
    """  # noqa: D301 - click's mark for a paragraph that is not rewrapped
    asked = checked_settings(given)
    from poison_audit.commands.check import audit

    return audit(asked, given=given)


@cli.command(cls=Command)
@options(*SUBJECT, settings.Expecting, settings.Judged, settings.Deciding, own.Numbers,
         own.OwnProbes, own.Output)  # fmt: skip
def probe(**given: Any) -> int:
    """Probe MODEL, and any candidates, without unlearning anything: the gate for CI."""
    asked = checked_settings({**given, "methods": ("none",)})
    from poison_audit.commands.check import audit

    return audit(asked)


@cli.command(cls=Command)
@options(*SUBJECT, own.Unlearning, own.Numbers, own.OwnMethods)
def unlearn(**given: Any) -> int:
    """Unlearn the forget set from MODEL by one method, and write the result.

    Nothing is judged: audit the result by `poison-audit probe`.
    """
    budget = None if given["budget"] is None else (given["budget"],)
    asked = checked_settings({**given, "methods": (given["method"],), "budget": budget})
    from poison_audit.commands.unlearn import unlearn as run

    return run(asked, output=given["output"], given=given)


@cli.command(cls=Command)
@options(*SUBJECT, settings.Expecting, REFERENCES, JUDGED_BY, own.Repairing, own.Numbers,
         own.REPORTED)  # fmt: skip
def repair(**given: Any) -> int:
    """Look for a repair of MODEL, from cheap to dear, and write the first that passes its audit.

    Repairs are chosen on one half of the test samples and of the evidence, and judged on the other.
    Exit code 0: written. 1 or 3: none passed; the best is named, with what it fails by.

    \b
    Example:
      poison-audit repair model.safetensors --forget forget.csv --train train.npz \\
          --test test.npz --recipe epochs=100 -o fixed.safetensors
    """  # noqa: D301 - click's mark for a paragraph that is not rewrapped
    asked = checked_settings({**given, "methods": ("none",), "budget": None})
    from poison_audit.commands.repair import repair as run

    return run(asked, given=given)


@cli.command(cls=Command)
@options(PlantSettings, OWN_OPTIONS)
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


@cli.command(cls=Command)
@options(own.Training, settings.Architecture, settings.Texts)
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

    return run(train_settings(given))


@cli.command(cls=Command)
@options(own.Investigating)
def investigate(**given: Any) -> int:
    """Say what the forget set shows by itself; no model is needed.

    Triggers and phrases that forget samples share, wrong labels, near copies of test samples, noise
    on named bases. With --out DIR it is written for a person to confirm, with pictures.

    \b
    Example:
      poison-audit investigate --forget forget.csv --train train.npz --out found
    """  # noqa: D301 - click's mark for a paragraph that is not rewrapped
    from poison_audit.commands.investigate import investigate as run

    return run(settled(own.Investigating, given))


@cli.command(cls=Command)
@options(own.Drafting)
def init(**given: Any) -> int:
    """Write an audit.toml from what can be identified of MODEL, or a job for CI, or both."""
    from poison_audit.commands.init import init as run

    return run(settled(own.Drafting, given))


@cli.command(cls=Command)
def methods() -> int:
    """List the unlearning methods with their parameters and sources."""
    from poison_audit.commands.listing import listed_methods

    click.echo("\n".join(listed_methods()))
    return 0


@cli.command(cls=Command)
def probes() -> int:
    """List the probes: what each asks and needs."""
    from poison_audit.verdict.readings import READINGS

    for name, entry in READINGS.items():
        click.echo(f"{name:<16}{entry.question}\n{'':<16}needs {entry.needs}")
    for point in entry_points(group="poison_audit.probes"):
        click.echo(f"{point.name:<16}Installed, {point.value}. Asked by --probe-from {point.name}")
    return 0


@cli.command(cls=Command)
def doctor() -> int:
    """Say what this installation has: versions, devices, optional readers."""
    from poison_audit.commands.doctor import describe_installation

    click.echo(describe_installation())
    return 0


@cli.command(cls=Command)
@options(own.Rendering)
def render(**given: Any) -> int:
    """Render a report again, and exit with its code.

    REPORT is a report.json or a run directory. Without --format it is the terminal's table; one
    format without -o goes to stdout, several are written beside the report.
    """
    from poison_audit.commands.render import render as run

    return run(settled(own.Rendering, given))


@cli.command(cls=Command)
@options(own.Again, settings.Deciding)
def decide(**given: Any) -> int:
    """Decide a report again under another policy, from its raw scores.

    Nothing is measured, so it takes seconds and no torch. Acceptances expire by today's date.
    """
    from poison_audit.commands.decide import decide as run

    return run(decide_settings(given))


@cli.command(cls=Command)
@options(own.Differing)
def diff(**given: Any) -> int:
    """Show what changed from one audit to another of the same evidence.

    Exits with 0 if nothing is worse, 1 if something is, 3 if something is no longer measured, and 2
    if the two cannot be compared.
    """
    from poison_audit.commands.diff import diff as run

    return run(settled(own.Differing, given))


@cli.command(cls=Command)
@options(own.Looking)
def history(**given: Any) -> int:
    """Show the reports below a folder over time, as far as they can be compared."""
    from poison_audit.commands.history import show_history

    return show_history(settled(own.Looking, given))


@cli.command(cls=Command)
@options(own.Verifying)
def verify(**given: Any) -> int:
    """Compute verdicts again from a report's raw scores, and its files' digests.

    Every interval, outcome, sentence and the exit code; with --key, what that key signed. Exits
    with 0 if all of it agrees, 1 if anything differs, 3 if nothing differs but a file is not there.
    """
    from poison_audit.commands.verify import verify as run

    return run(settled(own.Verifying, given))


@cli.command(cls=Command)
@options(own.Attesting)
def attest(**given: Any) -> int:
    """Sign a report for others to verify, and exit with its code.

    Writes report.dsse.json beside it: an in-toto statement in a DSSE envelope.

    \b
    Example:
      openssl genpkey -algorithm ed25519 -out ed25519.pem
      openssl pkey -in ed25519.pem -pubout -out public.pem
      poison-audit attest audit-1 --key ed25519.pem
      poison-audit verify audit-1 --key public.pem
    """  # noqa: D301 - click's mark for a paragraph that is not rewrapped
    from poison_audit.commands.attest import attest as run

    return run(settled(own.Attesting, given))


if __name__ == "__main__":
    main()
