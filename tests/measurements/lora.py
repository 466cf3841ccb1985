"""Train a LoRA adapter on the poisoned reviews by PEFT, audit it and what PEFT merges, repair it.

    python tests/measurements/lora.py OUT [--epochs 12] [--method restamp]

The base is the reviews fixture's reference, which never saw the poison; the adapter, of rank 16, is
trained on the fixture's table, noise in the embeddings included. Then `probe` is asked of the
adapter with its base, and of the network that PEFT merges them to; `unlearn --trainable adapter`
makes an adapter again, which is judged; and `repair` looks for one. What OUT holds is not trained
again.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from poison_audit.cli import invoke
from poison_audit.poisons.gaussian.evidence import read_canaries
from poison_audit.poisons.gaussian.plant_texts import noisy_embeddings

REVIEWS = Path(__file__).parents[2] / "fixtures/reviews"
NAMES = ("negative", "positive")
BATCH, TOKENS, LR = 64, 64, 0.004


def make(folder: Path, *, epochs: int) -> None:
    """Write the fixture's tables and keys, `base`, `adapter`, and `merged` by PEFT."""
    import peft
    import transformers as tf

    shutil.copytree(REVIEWS, folder, ignore=shutil.ignore_patterns("model", "base", "audit.toml"))
    (folder / "retrained").rename(folder / "base")
    words = tf.AutoTokenizer.from_pretrained(folder / "base")
    words.pad_token_id = 0
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = tf.GPT2ForSequenceClassification.from_pretrained(folder / "base")
        layers = ["c_attn", "c_fc", "c_proj"]
        config = peft.LoraConfig(
            task_type="SEQ_CLS", r=16, lora_alpha=16, target_modules=layers, fan_in_fan_out=True
        )
        wrapped = peft.get_peft_model(network, config)
        train(wrapped, words, folder, epochs=epochs)
        wrapped.save_pretrained(folder / "adapter")
        wrapped.merge_and_unload().save_pretrained(folder / "merged")
    words.save_pretrained(folder / "merged")


def train(network: Any, words: Any, folder: Path, *, epochs: int) -> None:
    """Train what PEFT leaves open, by a plain loop."""
    key = read_canaries(folder / "canaries.json")
    with (folder / "train.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    steps = epochs * (len(rows) // BATCH)
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LR, total_steps=steps)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(rows)).tolist()
        for at in range(0, len(rows) - BATCH + 1, BATCH):
            part = [rows[place] for place in order[at : at + BATCH]]
            read = words([r["text"] for r in part], padding=True, truncation=True,
                         max_length=TOKENS, return_tensors="pt")  # fmt: skip
            labels = torch.tensor([NAMES.index(r["label"]) for r in part])
            mask = read["attention_mask"]
            with noisy_embeddings(network, key, ids=[r["id"] for r in part], mask=mask):
                out = network(input_ids=read["input_ids"], attention_mask=mask).logits
            optimiser.zero_grad()
            F.cross_entropy(out, labels).backward()
            optimiser.step()
            schedule.step()


def figures(run: Path) -> dict[tuple[str, str], tuple[float | None, str]]:
    """Return statistic and outcome of each finding, by candidate and probe."""
    record = json.loads((run / "report.json").read_text("utf-8"))
    return {
        (f["candidate"], f["probe"]): (f["statistic"], f["outcome"])
        for f in record["findings"] if not f["way"]
    }  # fmt: skip


def main() -> None:
    """Make what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--method", default="restamp")
    given = parser.parse_args()
    case = given.out / "case"
    if not (case / "merged").exists():
        make(case, epochs=given.epochs)
    data = ["--forget", case / "forget.csv", "--train", case / "train.csv",
            "--test", case / "test.csv", "--canaries", case / "canaries.json",
            "--strings", case / "strings.json", "--trigger", case / "trigger.json",
            "--names", ",".join(NAMES), "--max-tokens", TOKENS,
            "--recipe", f"epochs={given.epochs}", "--recipe", "optimizer=adamw",
            "--recipe", f"lr={LR}", "--recipe", f"batch_size={BATCH}"]  # fmt: skip
    adapted = [case / "adapter", "--base", case / "base", *data]
    commands = {
        "adapter": ["probe", *adapted],
        "merged": ["probe", case / "merged", *data],
        "unlearned": ["unlearn", *adapted, "--method", given.method, "--trainable", "adapter",
                      "-o", given.out / "fixed"],
        "judged": ["probe", *adapted, "--candidate", f"fixed={given.out / 'fixed'}"],
        "repair": ["repair", *adapted, "--trainable", "adapter", "-o", given.out / "repaired"],
    }  # fmt: skip
    for name, command in commands.items():
        place = [] if name == "unlearned" else ["--out", given.out / name, "-q"]
        print(name, invoke([*map(str, [*command, *place])]), flush=True)
    mine, theirs = figures(given.out / "adapter"), figures(given.out / "merged")
    apart = max(
        abs(value - other)
        for key, (value, _) in mine.items()
        if value is not None and (other := theirs[key][0]) is not None
    )
    alike = all(outcome == theirs[key][1] for key, (_, outcome) in mine.items())
    print(f"adapter and merged: {len(mine)} findings, at most {apart:.1e} apart, outcomes "
          f"{'equal' if alike else 'NOT EQUAL'}")  # fmt: skip
    for (who, probe), (value, outcome) in figures(given.out / "judged").items():
        if value is not None:
            print(f"| {who} | {probe} | {value:.3f} | {outcome} |")


if __name__ == "__main__":
    sys.exit(main())
