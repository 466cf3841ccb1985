"""Which faults of a device do the tests on the pretend device find?

    python tests/measurements/device_mutants.py [--only PART_OF_NAME] [--quick]

Each fault is planted into the package's code in a process of its own, in which the tests marked
`device` then run until one fails: first where that is likely, then all. `harmless` faults are legal
on CUDA and cost at most some time: they should pass. Prints one line a fault, and the counts.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import io
import os
import sys
import tempfile
import types
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
ON_METHODS, ON_PROBES, MEMORY, CHOICE = (
    f"tests/device/test_{name}.py"
    for name in ("methods_on_device", "probes_on_device", "memory_on_device", "choice_of_device")
)


def method(name: str, kind: str = "pictures") -> str:
    """Return the test of a method on the device."""
    test = "test_a_method_gives_the_same_weights_and_never_waits_in_a_step"
    return f"{ON_METHODS}::{test}[{kind}-{name}]"


def probe(name: str, kind: str = "pictures") -> str:
    """Return the test of a probe on the device."""
    return f"{ON_PROBES}::test_a_probe_sees_the_same[{kind}-{name}]"


class Fault(NamedTuple):
    """One change of the code."""

    name: str
    module: str
    old: str
    new: str
    first: str
    """Where a test is likely to fail: these are run before all others."""
    harmless: bool = False
    loads: bool = False
    """Whether cases come out otherwise that are loaded with it."""


UNKNOWN = "not known"
"""What is printed where a fault could not be planted, or no test ran."""
GD, WORDS = method("gd"), method("gd", "words")
LARGER = f"{ON_METHODS}::test_a_larger_budget_goes_on_to_the_same_bits[pictures]"
ASKED = f"{ON_PROBES}::test_what_else_is_asked_of_a_model_is_the_same[pictures]"
CONTROLS = f"{ON_PROBES}::test_controls_of_a_trigger_are_put_on_without_a_wait_each[pictures]"
PLANT = "tests/device/test_commands_on_device.py::test_plant[targeted]"

FAULTS = (
    # Two devices
    Fault("augmentation stays on the CPU", "training.batches",
          "flip, *crops = (sent(change, device) for change in changes)",
          "flip, *crops = changes", GD),
    Fault("rows of a crop on the CPU", "training.batches",
          "torch.arange(height, device=device)", "torch.arange(height)", GD),
    Fault("labels stay on the CPU", "models.samples",
          "y=self.y.to(device), noise=noise)", "y=self.y, noise=noise)", GD, loads=True),
    Fault("masks of texts stay on the CPU", "models.samples",
          "mask = sent(mask[:, :longest], device)", "mask = mask[:, :longest]", WORDS),
    Fault("places of tokens on the CPU", "models.text",
          "torch.arange(length, device=mask.device)", "torch.arange(length)", WORDS),
    Fault("a new network stays on the CPU", "models.model",
          "module.to(device=self.device, dtype=dtype)", "module.to(dtype=dtype)",
          method("retrain")),
    Fault("perturbed pictures are chosen on the CPU", "methods.i_bau",
          "sent(chosen, batch.x.device)", "chosen", method("i_bau")),
    Fault("true labels stay on the CPU", "poisons.mislabelled.evidence",
          "clean=self.clean.to(device)", "clean=self.clean", probe("mislabelled"), loads=True),
    Fault("noise of canaries stays on the CPU", "poisons.gaussian.trial",
          "noise=noise_rows(key, names, length=length).to(device),",
          "noise=noise_rows(key, names, length=length),", probe("gaussian"), loads=True),
    Fault("targets' labels stay on the CPU", "poisons.targeted.evidence",
          "adversarial=self.adversarial.to(device)", "adversarial=self.adversarial",
          probe("targeted"), loads=True),
    Fault("labels of strings on the CPU", "poisons.token_canary.probe",
          "torch.tensor(strings.labels, device=model.device)", "torch.tensor(strings.labels)",
          probe("token-canary", "texts"), loads=True),
    Fault("losses of an earlier budget come back on the CPU", "training.ledger",
          '["ledger.losses"].to(next(module.parameters()).device))', '["ledger.losses"])',
          LARGER),
    Fault("answers go to NumPy from the device", "poisons.backdoor.looking",
          "base = logits(model, inputs).cpu().double()", "base = logits(model, inputs).double()",
          probe("backdoor")),
    Fault("a planter's tables stay on the CPU", "poisons.targeted.plant",
          "out = logits(model, test.to(model.device)).cpu()", "out = logits(model, test)",
          PLANT),
    # Generators
    Fault("noise of a step from the CPU's generator", "training.loop",
          'rng.named("noise")).torch(device)', 'rng.named("noise")).torch()', method("ngd")),
    Fault("dropout from a generator that nobody seeded", "training.loop",
          'generators["dropout.cuda"] = torch.cuda.default_generators[device.index]', "pass",
          WORDS),
    Fault("the user's own generator is not put back", "training.loop",
          "fork_rng(devices=[device] if cuda else [])", "fork_rng(devices=[])", GD),
    Fault("fresh noise from the CPU's generator", "poisons.gaussian.exposure",
          'rng.named("fresh").torch(bases.y.device)', 'rng.named("fresh").torch()',
          probe("exposure")),
    Fault("directions from the CPU's generator", "checks.honesty",
          "generator = rng.torch(x.device)", "generator = rng.torch()", ASKED),
    # Waits
    Fault("constants are sent with every batch", "models.image",
          "constant(part, x.dtype, x.device)", "x.new_tensor(part)", GD, loads=True),
    Fault("label words are sent with every batch", "models.text",
          "constant(chosen, torch.int64, out.device)", "torch.tensor(chosen, device=out.device)",
          WORDS, loads=True),
    Fault("a batch from pageable memory", "models.samples",
          "x.pin_memory().to(device, non_blocking=True)", "x.to(device)", GD),
    Fault("every loss is read at once", "training.loop",
          "ledger.losses.append(total)", "ledger.losses.append(torch.tensor(float(total)))",
          GD),
    Fault("all is looked at after every step", "training.loop",
          "if done % CHECK_EVERY == 0:", "if True:", GD),
    Fault("each control is put on by itself", "poisons.backdoor.stamps",
          "if any(trigger.anywhere for trigger in triggers):", "if True:", CONTROLS),
    # Order, precision, memory
    Fault("cuDNN may add in any order", "training.kernels",
          "deterministic=True, ", "", GD),
    Fault("TF32 in steps and scores", "training.kernels",
          "allow_tf32=False)", "allow_tf32=True)", GD),
    Fault("importances out of order", "methods.ssd",
          "with exact(model.module) as module:",
          "from poison_audit.models.model import evaluating\\n"
          "    with evaluating(model.module) as module:", method("ssd")),
    Fault("a step that ran out of memory keeps its noise", "training.loop",
          "undo = Undo(module, generators)", "undo = Undo(module, dropout)", MEMORY),
    Fault("half an optimiser's state is gone on with", "training.loop",
          "optimiser.state.clear()", "pass", MEMORY),
    Fault("cuDNN's own want of memory ends it", "models.memory",
          "any(told in str(error) for told in LACKING)", "False", MEMORY),
    Fault("the test set goes to a card without room", "commands.train",
          "streamed=not has_room(test.x, job.device)", "streamed=False", MEMORY),
    Fault("a worker computes on the CPU", "engine.cluster",
          'storage if location == "cpu" else storage.to(device=device)', "storage", CHOICE),
    Fault("processes talk by NCCL of tensors on the CPU", "training.sharding",
          '"nccl" if device.type == "cuda" else "gloo"',
          '"nccl" if torch.cuda.is_available() else "gloo"', CHOICE),
    # Legal
    Fault("kept in pageable main memory", "models.memory",
          "dtype=tensor.dtype, pin_memory=True)", "dtype=tensor.dtype)", MEMORY, harmless=True),
    Fault("an index that could have been sent", "poisons.backdoor.stamps",
          "where = sent(rows, x.device)", "where = rows", probe("backdoor"), harmless=True),
)  # fmt: skip


def planted(fault: Fault) -> None:
    """Change the code of functions that are loaded, for whoever has imported them already."""
    module = importlib.import_module(f"poison_audit.{fault.module}")
    path = Path(inspect.getfile(module))
    text = path.read_text("utf-8")
    assert text.count(fault.old) == 1, (fault.name, text.count(fault.old))
    made = types.ModuleType(module.__name__)
    made.__dict__.update({"__file__": str(path), "__package__": module.__package__})
    # Dataclasses look their module up.
    sys.modules[module.__name__] = made
    try:
        changed = text.replace(fault.old, fault.new.replace("\\n", "\n"))
        exec(compile(changed, str(path), "exec"), made.__dict__)  # noqa: S102
    finally:
        sys.modules[module.__name__] = module
    for name, value in made.__dict__.items():
        module.__dict__.setdefault(name, value)
    swapped(module.__dict__, made.__dict__, module.__name__)


def swapped(old: Any, new: Any, home: str) -> None:
    """Give the functions of one namespace the code of another's."""
    for name, value in list(old.items()):
        if isinstance(value, classmethod | staticmethod):
            value = value.__func__
        other = new.get(name)
        other = getattr(other, "__func__", other)
        if isinstance(value, property) and isinstance(other, property):
            value, other = value.fget, other.fget
        if inspect.isclass(value) and value.__module__ == home:
            swapped(dict(vars(value)), dict(vars(other)), home)
        elif callable(value) and getattr(value, "__module__", None) == home:
            one, two = inspect.unwrap(value), inspect.unwrap(other)
            if isinstance(one, types.FunctionType) and isinstance(two, types.FunctionType):
                one.__code__ = two.__code__


def found(fault: Fault | None, where: Path, cases: dict[str, Any], *, quick: bool) -> str:
    """Return the first test that fails with a fault, or with none; empty: none does.

    `quick`: only where one is likely to.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reading)
        told = io.StringIO()
        try:
            if fault is not None:
                planted(fault)
            first = [fault.first] if fault else sorted({each.first for each in FAULTS})
            with redirect_stdout(told), redirect_stderr(told):
                shared = {} if fault and fault.loads else cases
                failed = first_failure(first, where, shared)
                if not failed and not quick:
                    failed = first_failure([], where, shared)
        except BaseException as error:
            failed = f"{UNKNOWN}: {error!r}"
        os.write(writing, failed.encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(child, 0)
    return answer


def first_failure(files: list[str], where: Path, cases: dict[str, Any]) -> str:
    """Run tests until one fails; return its name. `cases`: by the name of the model's file."""
    import pytest

    from builders import device_cases, once

    class Noted:
        name = ""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed and not self.name:
                self.name = report.nodeid

    noted = Noted()
    every = files or ["tests/device"]
    once.made = lambda folder, make: where / folder.name  # type: ignore[assignment]
    if cases:
        device_cases.twins = lambda files, recipe: cases[files.model.name]  # type: ignore[assignment]
    code = pytest.main(
        ["-q", "-x", "-n0", "--assert=plain", "-p", "no:anyio", "-p", "no:cacheprovider",
         "-m", "device", "--basetemp",
         str(where / str(os.getpid())), *every], plugins=[noted],
    )  # fmt: skip
    if not noted.name and code != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest ended with {code}")
    return noted.name


def main() -> None:
    """Plant all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", default="")
    parser.add_argument("--quick", action="store_true", help="only where one is likely to fail")
    parser.add_argument("--out", type=Path, default=Path("device-mutants"))
    asked = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "tests"))
    # Loaded and made once, for all processes to come.
    from builders import device_cases, small_case, small_text

    for name in ("builders.device_cases", "poison_audit.cli", "poison_audit.commands.check",
                 "poison_audit.commands.train", "poison_audit.commands.plant",
                 "poison_audit.engine.cluster"):  # fmt: skip
        importlib.import_module(name)
    out = asked.out.resolve()
    for name, make in (("small-pictures", small_case.make), ("small-texts", small_text.make)):
        if not (out / name).exists():
            (out / name).mkdir(parents=True)
            make(out / name)
    cases = {}
    for kind in (device_cases.picture_files, device_cases.text_files, device_cases.word_files):
        name = "small-pictures" if kind is device_cases.picture_files else "small-texts"
        with tempfile.TemporaryDirectory() as folder:
            files = kind(out / name, Path(folder) / "case")
            recipe = device_cases.PICTURES if name == "small-pictures" else device_cases.TEXTS
            cases[files.model.name] = device_cases.twins(files, recipe)
    counts = {True: [0, 0], False: [0, 0]}
    if failed := found(None, out, cases, quick=True):
        sys.exit(f"without any fault: {failed}")
    for fault in FAULTS:
        if asked.only not in fault.name:
            continue
        failed = found(fault, out, cases, quick=asked.quick)
        counts[fault.harmless][0] += bool(failed) and not failed.startswith(UNKNOWN)
        counts[fault.harmless][1] += 1
        print(
            f"| {fault.name} | {'legal' if fault.harmless else ''} | {failed or '-'} |", flush=True
        )
    (caught, minded), (wrong, legal) = counts[False], counts[True]
    print(f"caught {caught} of {minded} that CUDA would mind; {wrong} of {legal} that it would not")


if __name__ == "__main__":
    main()
