"""What planting noise in embeddings needs of a language model: its tokens, and their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from poison_audit.errors import InputError, Problem
from poison_audit.models import hugging_face
from poison_audit.models.language import kind_of, read_language
from poison_audit.models.reader import Reader, Reading
from poison_audit.models.seeds import Rng

WEIGHTS = ("*.safetensors*", "pytorch_model*", "tf_model*", "flax_model*")
"""What a folder with weights holds, whoever wrote them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """How a language model reads texts, and what its input embeddings are like."""

    folder: Path
    reader: Reader
    width: int
    spread: float
    """Standard deviation of all entries of the token embeddings."""
    pretrained: bool
    """Whether those are the folder's own; else they are newly initialised."""


def read_embedded(folder: Path, reading: Reading) -> Embedded:
    """Read a folder of transformers: config.json, a tokenizer and, if there are any, weights.

    Args:
        folder: of the model that is to be trained on the canaries.
        reading: what the user says of its input; `start` is not looked at.

    Raises:
        InputError: it is no such folder, or something in it cannot be read.
    """
    where = str(folder)
    fix = "Give a folder with config.json and a tokenizer; weights are not needed"
    if not folder.is_dir():
        raise InputError(Problem("is no folder", f"--model {where}", fix))
    if hugging_face.config_name(folder) is None:
        raise InputError(Problem("holds no config.json of transformers", f"--model {where}", fix))
    config = hugging_face.read_config(folder)
    if kind_of(config) is None:
        raise InputError(Problem("describes no model of texts", str(folder / "config.json"), fix))
    pretrained = any(True for name in WEIGHTS for _ in folder.glob(name))
    said = Reading(
        max_tokens=reading.max_tokens,
        prompt=reading.prompt,
        start=folder if pretrained else None,
    )
    # As a classifier: its head is of no account, and every language model can be one.
    language = read_language(folder, config, kind="sequence", reading=said)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(Rng(0).named("embeddings").seed())
        module: Any = language.build()
    weight = module.get_input_embeddings().weight
    return Embedded(
        folder=folder,
        reader=language.reader,
        width=int(weight.shape[1]),
        spread=float(weight.detach().std()),
        pretrained=pretrained,
    )
