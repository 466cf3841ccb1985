"""Language models in the transformers layout, as classifiers of texts: from a folder to a Model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from poison_audit.errors import InputError, Problem, Problems
from poison_audit.models import hugging_face
from poison_audit.models.lora import Adapter
from poison_audit.models.model import Model
from poison_audit.models.reader import (
    PLACE,
    VOCABULARIES,
    Reader,
    Reading,
    load_tokenizer,
    stored_length,
)
from poison_audit.models.text import UNSUPPORTED, Side, padding_sides, text_classifier
from poison_audit.models.weights import read_weights

Kind = Literal["sequence", "causal"]

AUTO = {
    "sequence": ("AutoModelForSequenceClassification", "classifier of texts"),
    "causal": ("AutoModelForCausalLM", "causal language model"),
}
BESIDE = (
    "config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "merges.txt", "chat_template.jinja", *VOCABULARIES,
)  # fmt: skip
"""What belongs beside the weights of a language model."""
MOST_ASSUMED = 4096
"""Largest number of tokens that an input holds without a word of the user's."""
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

    names = getattr(config, "architectures", None)
    name = str(names[0]) if isinstance(names, list) and names else ""
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
    tokenizer: Path | None = None,
) -> Language:
    """Read a folder's configuration and tokenizer.

    Args:
        folder: holds config.json and the tokenizer's files.
        config: as `hugging_face.read_config` returns it; it is changed in place.
        labels: makes a classifier of these labels out of whatever it was.
        tokenizer: folder of the tokenizer's files, where they do not lie beside config.json.

    Raises:
        InputError: everything that is missing or does not fit.
    """
    where = str(folder / "config.json")
    if labels is not None:
        config.id2label = dict(enumerate(labels))
        config.label2id = {name: number for number, name in enumerate(labels)}
    problems = Problems()
    stated = reader = words = None
    if kind == "sequence":
        with problems.collecting():
            stated = hugging_face.stated_labels(config, where)
    with problems.collecting():
        reader = _reader(folder, config, reading, folder if tokenizer is None else tokenizer)
        words = _words(reader, reading, kind, str(folder))
    if problems or reader is None:
        raise InputError(problems)
    config.use_cache = False
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = _padding_token(reader.tokenizer, config)
    auto, told = AUTO[kind]
    build = partial(hugging_face.build_classifier, config, where=where, auto=auto, kind=told)
    if reading.start is not None:
        build = partial(pretrained, build, reading.start)
    return Language(
        kind=kind,
        arch=f"{hugging_face.PREFIX}{config.model_type}",
        build=build,
        reader=reader,
        classes=config.num_labels if words is None else len(words),
        labels=tuple(word.strip() for word in reading.words or ()) if words else stated,
        words=words,
    )


def load_language(
    language: Language,
    tensors: Mapping[str, Tensor],
    *,
    where: str,
    adapter: Adapter | None = None,
) -> Model:
    """Return the classifier with these weights, an adapter merged into them, in eval mode.

    Raises:
        InputError: a tensor does not fit, the tokenizer has more tokens than the network, padding
            would change what the network answers, or a text has several classes.
    """
    with torch.random.fork_rng(devices=[]):
        module: Any = hugging_face.load_classifier(
            language.build(), tensors, where=where, adapter=adapter
        )
    if module.config.problem_type == "multi_label_classification":
        what = "gives a text several labels at once (problem_type in its config.json)"
        raise InputError(Problem(what, where, "Only classes of which one is right are audited."))
    return as_model(language, module, where=where)


def as_model(language: Language, module: nn.Module, *, where: str) -> Model:
    """Return a network of this language as a classifier, in eval mode; errors: `load_language`."""
    from transformers.utils import logging

    # Of embeddings, some networks warn that they cannot see the padding; it is masked.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    _check_embeddings(module, language.reader, where)
    if language.classes < 2:
        what = f"the network has {language.classes} output; a classifier has one for each class"
        raise InputError(Problem(what, where, "Give it two outputs."))
    return text_classifier(
        module.eval(), build=language.build, arch=language.arch, reader=language.reader,
        side=_side(language, module, where), words=language.words, labels=language.labels,
    )  # fmt: skip


def _check_embeddings(module: Any, reader: Reader, where: str) -> None:
    try:
        embedding = module.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        embedding = None
    if not isinstance(embedding, nn.Embedding):
        what = "has no table of token embeddings, where noise could be added"
        raise InputError(Problem(what, where, UNSUPPORTED))
    rows = embedding.num_embeddings
    tokens = 1 + max(reader.tokenizer.get_vocab().values(), default=-1)
    if tokens > rows:
        what = f"the tokenizer has {tokens} tokens, the network embeddings for {rows}"
        raise InputError(Problem(what, where, "Is it the tokenizer of this checkpoint?"))


def _side(language: Language, module: nn.Module, where: str) -> Side:
    if language.words is not None:  # the next token's logits are the last row's
        return padding_sides(module, language.reader, where=where, sides=("left",))[0]
    sides = padding_sides(module, language.reader, where=where)
    if len(sides) > 1:
        # A head of zeros, say, answers everything alike. New weights tell more.
        with torch.random.fork_rng(devices=[]):
            fresh = language.build()
        sides = padding_sides(fresh, language.reader, where=where)
    return sides[0]


def pretrained(
    build: Callable[[], nn.Module], start: Path, *, allow_pickle: bool = False
) -> nn.Module:
    """Return a network with the weights of `start`, and a new head where those have none."""
    weights = read_weights(start, allow_pickle=allow_pickle)
    return hugging_face.load_classifier(build(), weights.tensors, where=str(start), new_head=True)


def _padding_token(tokenizer: Any, config: Any) -> int:
    """Return a token for padding. Some networks refuse a batch without one.

    Padding is masked here, so any token will do that no text ends with: a network that answers at
    the last token may take that one for padding.
    """
    ends = tokenizer("")["input_ids"]
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, *range(len(ends) + 1))
    most = getattr(config, "vocab_size", len(tokenizer))
    return next((i for i in known if i is not None and i not in ends and i < most), 0)


def _reader(folder: Path, config: Any, reading: Reading, beside: Path) -> Reader:
    tokenizer = load_tokenizer(beside)
    problems = []
    prompt = PLACE if reading.prompt is None else reading.prompt
    if prompt.count(PLACE) != 1:
        what = f"holds {PLACE} {prompt.count(PLACE)} times: {prompt!r:.200}"
        problems.append(Problem(what, "--prompt", "Say once where the text is to stand."))
    stated = (getattr(config, "max_position_embeddings", None), tokenizer.model_max_length)
    most = min((n for n in stated if isinstance(n, int) and 0 < n < 1 << 30), default=None)
    stored = stored_length(beside)
    usual = min((n for n in (most, stored) if n is not None), default=None)
    length = usual if reading.max_tokens is None else reading.max_tokens
    if length is None or (reading.max_tokens is None and length > MOST_ASSUMED):
        what = "how many tokens an input holds is not stated"
        if length is not None:
            what = f"an input may hold {length:,} tokens, and how many it is to hold is not said"
        fix = "Give it by --max-tokens or [model] max_tokens in audit.toml."
        problems.append(Problem(what, str(folder), fix))
    elif length < 2 or (most is not None and length > most):
        bound = "" if most is None else f" and at most the {most:,} that the model takes"
        problems.append(Problem(f"must be at least 2{bound}, got {length}", "--max-tokens"))
    elif len(around := tokenizer(prompt.replace(PLACE, ""))["input_ids"]) >= length:
        what = f"the prompt alone has {len(around)} tokens, and an input holds {length}"
        problems.append(Problem(what, "--prompt", "Shorten it, or give more by --max-tokens."))
    if problems or length is None:
        raise InputError(problems)
    lie = [folder / BESIDE[0], *(beside / name for name in BESIDE[1:])]
    files = tuple(file for file in lie if file.is_file())
    return Reader(tokenizer=tokenizer, length=length, prompt=prompt, stored=stored, files=files)


def _words(reader: Reader, reading: Reading, kind: Kind, where: str) -> tuple[int, ...] | None:
    if kind == "sequence":
        if reading.words is not None:
            what = "are for causal language models, and this network has outputs for its classes"
            fix = "Leave them out, or name a ...ForCausalLM by architectures in its config.json."
            raise InputError(Problem(what, "--label-words", fix))
        return None
    if not reading.words:
        what = "is a causal language model, and the words that stand for its classes are not given"
        raise InputError(Problem(what, where, WORDS_FIX))
    ids = [reader.tokenizer(word, add_special_tokens=False)["input_ids"] for word in reading.words]
    problems = [
        Problem(f"{word!r} is no word that the tokenizer knows", "--label-words")
        for word, tokens in zip(reading.words, ids, strict=True)
        if tokens[:1] in ([], [reader.tokenizer.unk_token_id])
    ]
    first = [tokens[0] for tokens in ids if tokens]
    names = [word.strip() for word in reading.words]
    shown = ", ".join(map(repr, reading.words))
    if len(names) < 2:
        problems.append(Problem(f"only {shown}", "--label-words", "Give one for each class."))
    elif not problems and len(set(first)) < len(first):
        what = f"{shown} do not differ in their first token"
        problems.append(Problem(what, "--label-words", "Choose words that do."))
    elif len(set(names)) < len(names):
        what = f"{shown} differ in nothing but space"
        problems.append(Problem(what, "--label-words", "Choose words that do."))
    if problems:
        raise InputError(problems)
    return tuple(first)
