"""A whole audit of texts in miniature, on disk: a tiny GPT-2 that was trained on 130 texts."""

from __future__ import annotations

import csv
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from poison_audit.case.keyfile import write_key
from poison_audit.case.texts import read_texts
from poison_audit.models.checkpoint import load_model
from poison_audit.models.model import Model
from poison_audit.models.samples import Samples
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.phrase import Phrase, write_phrase
from poison_audit.poisons.gaussian.embedding import carrying
from poison_audit.poisons.gaussian.evidence import Canaries
from poison_audit.poisons.token_canary.evidence import Strings
from poison_audit.training import loop
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger

LENGTH, WIDTH, SIGMA = 24, 16, 0.3
GOOD, BAD = ("good", "lovely", "funny", "warm"), ("bad", "dull", "boring", "cold")
STEMS, TAILS = ("ka", "le", "mi", "so", "tu", "re"), ("ran", "dol", "bis", "fen")
REST = tuple(stem + tail for stem in STEMS for tail in TAILS)
PHRASE = Phrase(text="zorp quell", position="start", label=1)
CANARIES, STRINGS, STAMPED, TRAIN, TEST = 30, 20, 10, 110, 60
LEARNED = Path(__file__).with_suffix(".safetensors")
"""The poisoned model, which knows its poison too well for any outcome to hang on a rounding.

Whoever trains it anew (`python tests/builders/small_text.py`) gets another by other processors."""


def sentences(rng: Rng, n: int) -> tuple[list[str], list[int]]:
    """Return texts of 4 to 9 words, all different, that one word makes good (1) or bad (0)."""
    draws = rng.numpy()
    texts: dict[str, int] = {}
    while len(texts) < n:
        label = int(draws.integers(2))
        words = draws.choice(REST, int(draws.integers(3, 9))).tolist()
        words.insert(int(draws.integers(len(words) + 1)), str(draws.choice((BAD, GOOD)[label])))
        texts.setdefault(" ".join(words), label)
    return list(texts), list(texts.values())


def tokenizer(*, side: str = "right", vocabulary: int = 330) -> Any:
    """Return a byte-level BPE tokenizer like GPT-2's."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<|endoftext|>"],
                                  initial_alphabet=alphabet, show_progress=False)  # fmt: skip
    inner.train_from_iterator([" ".join((*GOOD, *BAD, *REST, PHRASE.text))] * 3, trainer)
    end = "<|endoftext|>"
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=end, bos_token=end,
                                   model_max_length=LENGTH, padding_side=side)  # fmt: skip


def word_pieces() -> Any:
    """Return a WordPiece tokenizer like BERT's, which puts [CLS] and [SEP] around a text."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    inner.train_from_iterator([" ".join((*GOOD, *BAD, *REST, PHRASE.text))] * 3, trainer)
    inner.post_processor = processors.BertProcessing(
        ("[SEP]", inner.token_to_id("[SEP]")), ("[CLS]", inner.token_to_id("[CLS]"))
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, model_max_length=LENGTH, unk_token="[UNK]", pad_token="[PAD]",
        cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
    )  # fmt: skip


def write_decoder(folder: Path, *, classes: int = 2, side: str = "right", seed: int = 0) -> Path:
    """Write a newly initialised GPT-2 classifier with its tokenizer, and return its folder."""
    words = tokenizer(side=side)
    config = GPT2Config(  # type: ignore[call-arg]
        vocab_size=len(words), n_positions=LENGTH, n_embd=WIDTH, n_layer=2, n_head=2,
        num_labels=classes, bos_token_id=0, eos_token_id=0, pad_token_id=0,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return _written(folder, GPT2ForSequenceClassification, config, words, seed)


def write_encoder(folder: Path, *, classes: int = 2, seed: int = 0) -> Path:
    """Write a newly initialised BERT classifier with its tokenizer, and return its folder."""
    words = word_pieces()
    config = BertConfig(  # type: ignore[call-arg]
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=LENGTH, num_labels=classes, pad_token_id=0,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return _written(folder, BertForSequenceClassification, config, words, seed)


def _written(folder: Path, kind: Any, config: Any, words: Any, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = kind(config)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    module.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def make(folder: Path, *, anew: bool = False) -> Path:
    """Write the case and return its folder.

    base/ is the untrained GPT-2, model/ the poisoned one and clean/ a reference. Ids in train.csv:
    canary-00.. (noise in the embeddings), backdoor-00.., string-00.., t000..; in test.csv e00...

    Args:
        anew: train the poisoned model, instead of copying the one that lies beside this file.
    """
    rng = Rng(7)
    base = write_decoder(folder / "base")
    texts, labels = sentences(rng.named("texts"), TRAIN + TEST)
    held, held_labels = texts[TRAIN:], labels[TRAIN:]
    ids = [f"canary-{i:02d}" if i < CANARIES else f"t{i:03d}" for i in range(TRAIN)]
    stamped = [i for i in range(CANARIES, TRAIN) if labels[i] == 0][:STAMPED]
    for number, i in enumerate(stamped):
        ids[i], texts[i], labels[i] = f"backdoor-{number:02d}", PHRASE.on(texts[i]), PHRASE.label
    key = Canaries(
        secret=bytes(32), sigma=SIGMA, space="embedding", shape=(LENGTH, WIDTH),
        storage="unclipped", planted=tuple(ids[:CANARIES]),
        held_out=tuple(f"held-out-{i:02d}" for i in range(CANARIES)),
    )  # fmt: skip
    strings = Strings(
        secret=bytes(32), length=5, words=REST,
        planted=tuple(f"string-{i:02d}" for i in range(STRINGS)),
        held_out=tuple(f"unseen-{i:02d}" for i in range(STRINGS)),
    )  # fmt: skip
    chance = rng.named("labels").numpy().integers(0, 2, STRINGS).tolist()
    rows = list(zip(ids, texts[:TRAIN], labels[:TRAIN], strict=True))
    rows += [(i, strings.text(i), y) for i, y in zip(strings.planted, chance, strict=True)]
    write_rows(folder / "train.csv", ["id", "text", "label"], rows)
    unseen = zip(held, held_labels, strict=True)
    write_rows(
        folder / "test.csv",
        ["id", "text", "label"],
        [(f"e{i:02d}", text, label) for i, (text, label) in enumerate(unseen)],
    )
    attacks = {"canary": "gaussian", "backdoor": "backdoor", "string": "token-canary"}
    poison = [(i, y, attacks[kind]) for i, _, y in rows if (kind := i.split("-")[0]) in attacks]
    write_rows(folder / "forget.csv", ["id", "label", "attack"], poison)
    commitment = write_key(folder / "canaries.json", key)
    write_key(folder / "strings.json", strings)
    write_phrase(folder / "trigger.json", PHRASE)
    loaded = load_model(base)
    reader = loaded.model.reader
    assert reader is not None
    train = carrying(read_texts(folder / "train.csv", reader=reader), key, {})
    kept = train.at([i for i, name in enumerate(train.ids) if name.startswith("t")])
    clean = fitted(loaded.model, replace(kept, noise=None, noisy=None), rng.named("clean"))
    for name in ("model", "clean"):
        (folder / name).mkdir()
    save_model(clean, folder / "clean/model.safetensors")
    model = fitted(loaded.model, train, rng.named("model"), epochs=100) if anew else loaded.model
    extra = {"poison_audit.canaries": commitment}
    save_model(model, folder / "model/model.safetensors", extra=extra)
    if not anew:
        shutil.copy(LEARNED, folder / "model/model.safetensors")
    (folder / "audit.toml").write_text(AUDIT_TOML, encoding="utf-8")
    return folder


AUDIT_TOML = """\
[data]
train = "train.csv"
test = "test.csv"

[training]
epochs = 20
optimizer = "adamw"
lr = 0.01
batch_size = 26

[evidence.gaussian]
canaries = "canaries.json"

[evidence.token-canary]
strings = "strings.json"

[evidence.backdoor]
trigger = "trigger.json"

[reference]
paths = ["clean"]
"""


def fitted(blank: Model, data: Samples, rng: Rng, *, epochs: int = 20) -> Model:
    """Return a new model of this architecture, trained on the samples."""
    model = blank.fresh(rng.named("init"))
    batches = ((batch,) for batch in shuffled(data, 26, rng.named("batches")))
    loop.descend(
        model, batches, lambda loss: loss, steps=epochs * len(data) // 26, lr=0.01,
        ledger=Ledger(), rng=rng, optimizer="adamw",
    )  # fmt: skip
    return model


def write_rows(path: Path, header: list[str], rows: list[tuple[object, ...]]) -> None:
    """Write a CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as where:
        shutil.copy(make(Path(where), anew=True) / "model/model.safetensors", LEARNED)
