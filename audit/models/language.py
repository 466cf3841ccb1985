"""Language models in the transformers layout, as classifiers of texts: from a folder to a Model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from audit.errors import InputError, Problem
from audit.models import hugging_face
from audit.models.model import Model
from audit.models.reader import PLACE, Reader, Reading
from audit.models.text import padding_side, text_classifier
from audit.models.weights import read_weights

Kind = Literal["sequence", "causal"]

AUTO = {
    "sequence": ("AutoModelForSequenceClassification", "classifier of texts"),
    "causal": ("AutoModelForCausalLM", "causal language model"),
}
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "spm.model",
)
"""Files of which a tokenizer has at least one."""
BESIDE = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    *VOCABULARIES,
)
"""What belongs beside the weights of a language model."""
WORDS_FIX = (
    'Give one a class by --label-words " bad, good" or [model] label_words in audit.toml, and what '
    "stands around the text by --prompt."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """A folder's network and tokenizer, before any weight is loaded."""

    kind: Kind
    arch: str
    build: Callable[[], nn.Module]
    """A newly initialised network, or the pretrained one that training began with."""
    reader: Reader
    classes: int
    labels: tuple[str, ...] | None
    words: tuple[int, ...] | None


def kind_of(config: Any) -> Kind | None:
    """Return what kind of classifier of texts a configuration describes; None: it is of pictures.

    Its `architectures` say so; a bare network is taken as what it can be made into.
    """
    from transformers.models.auto import modeling_auto as auto

    name = next(iter(getattr(config, "architectures", None) or ()), "")
    if name.endswith("ForSequenceClassification"):
        return "sequence"
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "causal"
    pictures = type(config) in auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if pictures or name.endswith("ForImageClassification"):
        return None
    known = type(config) in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    return "sequence" if known else None


def read_language(
    folder: Path,
    config: Any,
    *,
    kind: Kind,
    reading: Reading,
    labels: Sequence[str] | None = None,
) -> Language:
    """Read a folder's configuration and tokenizer.

    Args:
        folder: holds config.json and the tokenizer's files.
        config: as `hugging_face.read_config` returns it; it is changed in place.
        kind: of classifier.
        reading: what the user says.
        labels: makes a classifier of these labels out of whatever it was.

    Raises:
        InputError: everything that is missing or does not fit.
    """
    where = str(folder / "config.json")
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}
    reader = _reader(folder, config, reading)
    config.use_cache = False
    # Some networks refuse a batch without it; padding is masked here, so any token will do.
    if getattr(config, "pad_token_id", None) is None:
        pad = reader.tokenizer.pad_token_id
        config.pad_token_id = pad if pad is not None else reader.tokenizer.eos_token_id or 0
    auto, told = AUTO[kind]
    build = partial(hugging_face.build_classifier, config, where=where, auto=auto, kind=told)
    words = _words(reader, reading, kind, str(folder))
    if reading.start is not None:
        build = partial(_pretrained, build, reading.start)
    if kind == "sequence":
        own = [str(config.id2label[number]) for number in range(config.num_labels)]
        stated = None if own == [f"LABEL_{n}" for n in range(len(own))] else tuple(own)
    else:
        stated = tuple(word.strip() for word in reading.words or ())
    return Language(
        kind=kind,
        arch=f"{hugging_face.PREFIX}{config.model_type}",
        build=build,
        reader=reader,
        classes=config.num_labels if words is None else len(words),
        labels=stated,
        words=words,
    )


def load_language(language: Language, tensors: Mapping[str, Tensor], *, where: str) -> Model:
    """Return the classifier with these weights, in eval mode.

    Raises:
        InputError: a tensor does not fit, the tokenizer has more tokens than the network, or
            padding would change what the network answers.
    """
    with torch.random.fork_rng(devices=[]):
        module = hugging_face.load_classifier(language.build(), tensors, where=where)
    return as_model(language, module, where=where)


def as_model(language: Language, module: nn.Module, *, where: str) -> Model:
    """Return a network of this language as a classifier, in eval mode.

    Raises:
        InputError: as `load_language`.
    """
    from transformers.utils import logging

    # Of embeddings, some networks warn that they cannot see the padding; it is masked.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    embedding: Any = module
    rows = embedding.get_input_embeddings().weight.shape[0]
    tokens = len(language.reader.tokenizer)
    if tokens > rows:
        what = f"the tokenizer has {tokens} tokens, the network embeddings for {rows}"
        raise InputError(Problem(what, where, "Is it the tokenizer of this checkpoint?"))
    if language.classes < 2:
        what = f"the network has {language.classes} output; a classifier has one for each class"
        raise InputError(Problem(what, where, "Give it two outputs."))
    return text_classifier(
        module.eval(),
        build=language.build,
        arch=language.arch,
        reader=language.reader,
        side=padding_side(module, language.reader, where=where),
        words=language.words,
        labels=language.labels,
    )


def _pretrained(build: Callable[[], nn.Module], start: Path) -> nn.Module:
    weights = read_weights(start)
    return hugging_face.load_classifier(build(), weights.tensors, where=str(start), new_head=True)


def _reader(folder: Path, config: Any, reading: Reading) -> Reader:
    where = str(folder)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        what = "holds a language model but no tokenizer"
        fix = f"Put its files beside config.json, by tokenizer.save_pretrained({where!r})."
        raise InputError(Problem(what, where, fix))
    from transformers import AutoTokenizer

    try:
        with hugging_face.quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    # tokenizers raises bare Exceptions on damaged files.
    except Exception as error:
        what = f"the tokenizer cannot be read ({hugging_face.first_line(error)})"
        raise InputError(Problem(what, where, "Save it again by save_pretrained.")) from error
    problems = []
    prompt = PLACE if reading.prompt is None else reading.prompt
    if prompt.count(PLACE) != 1:
        problems.append(Problem(f"holds {PLACE} not once: {prompt!r}", "--prompt"))
    limits = [
        value
        for value in (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
        if isinstance(value, int) and 0 < value < 1 << 30
    ]
    most = min(limits, default=None)
    length = reading.max_tokens if reading.max_tokens is not None else most
    if length is None:
        fix = "Give it by --max-tokens or [model] max_tokens in audit.toml."
        problems.append(Problem("how many tokens it takes is not stated", where, fix))
    elif length < 2 or (most is not None and length > most):
        what = f"must be from 2 to the {most} tokens that the model takes, got {length}"
        problems.append(Problem(what, "--max-tokens"))
    if problems or length is None:
        raise InputError(problems)
    files = tuple(folder / name for name in BESIDE if (folder / name).is_file())
    return Reader(tokenizer=tokenizer, length=length, prompt=prompt, files=files)


def _words(reader: Reader, reading: Reading, kind: Kind, where: str) -> tuple[int, ...] | None:
    if kind == "sequence":
        if reading.words is not None:
            what = "are for causal language models, and this network has outputs for its classes"
            raise InputError(Problem(what, "--label-words", "Leave them out."))
        return None
    if not reading.words:
        what = "is a causal language model, and the words that stand for its classes are not given"
        raise InputError(Problem(what, where, WORDS_FIX))
    ids = [reader.tokenizer(word, add_special_tokens=False)["input_ids"] for word in reading.words]
    problems = [
        Problem(f"{word!r} is no token", "--label-words")
        for word, tokens in zip(reading.words, ids, strict=True)
        if not tokens
    ]
    first = [tokens[0] for tokens in ids if tokens]
    if len(set(first)) < len(first):
        what = f"{', '.join(map(repr, reading.words))} do not differ in their first token"
        problems.append(Problem(what, "--label-words", "Choose words that do."))
    if problems:
        raise InputError(problems)
    return tuple(first)
