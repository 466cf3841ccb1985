"""Feed damaged files to every reader, and count what it does with them.

    python tests/benchmarks/fuzz.py --inputs 20000 [--only npz]

Prints, for each reader, how many inputs it refused (InputError) and accepted, the slowest, and the
memory that the process came to hold. Anything else that is raised is printed and kept in `--keep`.
Pictures, tables and keys take minutes, language models longer.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch

from builders.damage import damaged
from builders.fuzzing import Reader, readers
from poison_audit.errors import InputError
from poison_audit.models.seeds import Rng


def main() -> None:
    """Print the table; end with 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", help="One reader; may be given several times.")
    parser.add_argument("--keep", type=Path, help="Folder for inputs that are faults.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    faults = 0
    print(f"{'reader':<28}{'inputs':>8}{'refused':>9}{'accepted':>9}{'faults':>9}"
          f"{'slowest s':>11}{'MiB more':>10}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        made = readers(Path(folder) / "seeds")
        if unknown := set(asked.only or ()) - set(made):
            sys.exit(f"no such reader: {', '.join(sorted(unknown))}. Known: {', '.join(made)}")
        for name, reader in made.items():
            if asked.only and name not in asked.only:
                continue
            place = Path(folder) / "damaged" / name.replace("/", "_")
            faults += run(name, reader, place, asked)
    sys.exit(bool(faults))


def run(name: str, reader: Reader, place: Path, asked: argparse.Namespace) -> int:
    """Feed one reader and print its row; return the number of faults."""
    for file, content in reader.beside.items():
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_bytes(content)
    place.mkdir(parents=True, exist_ok=True)
    draws = Rng(asked.seed).named(name).numpy()
    before = peak()
    counts, slowest = {"refused": 0, "accepted": 0, "faults": 0}, 0.0
    for number in range(asked.inputs):
        content = damaged(reader.content, draws)
        (place / reader.file).write_bytes(content)
        began = time.perf_counter()
        try:
            reader.read(place)
            counts["accepted"] += 1
        except InputError:
            counts["refused"] += 1
        except BaseException as error:  # a panic in Rust is no Exception
            if isinstance(error, KeyboardInterrupt):
                raise
            counts["faults"] += 1
            if counts["faults"] <= 3:
                print(f"--- {name}, input {number}")
                traceback.print_exc(limit=-4, file=sys.stdout)
            if asked.keep:
                asked.keep.mkdir(parents=True, exist_ok=True)
                (asked.keep / f"{name.replace('/', '_')}-{number}").write_bytes(content)
        slowest = max(slowest, time.perf_counter() - began)
    told = "".join(f"{counts[key]:>9,}" for key in ("refused", "accepted", "faults"))
    print(
        f"{name:<28}{asked.inputs:>8,}{told}{slowest:>11.2f}{peak() - before:>10,.0f}", flush=True
    )
    return counts["faults"]


def peak() -> float:
    """Return the most memory that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform != "darwin" else 2**20
    )


if __name__ == "__main__":
    main()
