"""How a language model reads texts: its tokenizer, what stands around a text, and how much fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from poison_audit.errors import InputError, Problem
from poison_audit.models import hugging_face
from poison_audit.models.weights import json_beside

PLACE = "{text}"
"""Where a prompt holds the text."""
VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "spm.model",
)  # fmt: skip
"""Files of which a tokenizer has at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a user says of how a language model reads and answers; None: what its folder says."""

    max_tokens: int | None = None
    """Tokens that one input holds at most."""
    prompt: str | None = None
    """What the model is given, with `{text}` in it."""
    words: tuple[str, ...] | None = None
    """Of a causal language model: the word that stands for each class, as its next token."""
    start: Path | None = None
    """Folder of the pretrained model that training began with; None: it began with new weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Texts as token ids, each row beginning with its first token whatever the tokenizer's side."""

    x: Tensor
    """Token ids, int64, (n, longest); 0 beyond a text's end."""
    mask: Tensor
    """1 where a token is real, int64, (n, longest)."""
    cut: Tensor
    """Whether each text was too long, and lost its end (or start: the tokenizer's own side): bool,
    (n,)."""
    types: Tensor | None = None
    """Which text of a pair each token is of, int64, (n, longest); None: they do not differ."""


class _Row(NamedTuple):
    ids: list[int]
    types: list[int] | None
    cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What turns texts into a model's input."""

    tokenizer: Any
    """Of transformers, loaded from the model's folder."""
    length: int
    """Tokens that one input holds at most, special tokens and prompt included."""
    prompt: str = PLACE
    """What the model is given: a text with `{text}` in it."""
    stored: int | None = None
    """Tokens that the tokenizer's own files cut an input to; None: they do not say."""
    files: tuple[Path, ...] = ()
    """The tokenizer's files and config.json, which belong beside the weights."""

    def read(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> Tokens:
        """Turn texts into token ids.

        Args:
            texts: a text of which no token is left becomes what the prompt is without it, or a row
                of padding.
            pairs: the second text of each, where a model reads two; it has no prompt then.
        """
        steps = range(0, len(texts), 1024)
        read = [
            self._rows(texts[at : at + 1024], None if pairs is None else pairs[at : at + 1024])
            for at in steps
        ]
        rows = [row for some in read for row in some]
        longest = max((len(row.ids) for row in rows), default=1) or 1
        x = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask, types = torch.zeros_like(x), torch.zeros_like(x)
        for place, row in enumerate(rows):
            x[place, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.int64)
            mask[place, : len(row.ids)] = 1
            if row.types is not None:
                types[place, : len(row.ids)] = torch.tensor(row.types, dtype=torch.int64)
        cut = torch.tensor([row.cut for row in rows], dtype=torch.bool)
        return Tokens(x=x, mask=mask, cut=cut, types=types if bool(types.any()) else None)

    def _rows(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[_Row]:
        """Return the tokens of each text, and whether it was too long."""
        read = self.tokenizer(
            [self.prompt.replace(PLACE, text) for text in texts],
            None if pairs is None else list(pairs),
            padding=False,
            truncation=True,
            max_length=self.length,
            return_overflowing_tokens=True,
        )
        # What a row has too much comes as more rows of the same text, after the first.
        rows: dict[int, list[int]] = {}
        types: dict[int, list[int]] = {}
        cut = set()
        of = read["overflow_to_sample_mapping"]
        for number, (ids, place) in enumerate(zip(read["input_ids"], of, strict=True)):
            if place in rows:
                cut.add(place)
                continue
            rows[place] = ids
            if pairs is not None and "token_type_ids" in read:
                types[place] = read["token_type_ids"][number]
        if self.prompt != PLACE:
            rows |= {place: self._shortened(texts[place]) for place in cut}
        return [_Row(rows[at], types.get(at), at in cut) for at in range(len(texts))]

    def _shortened(self, text: str) -> list[int]:
        """Return the tokens of the whole prompt, around as much of a text as fits."""
        begin = self.prompt.index(PLACE)
        # Tokens may be others once the text is shorter, so it is tried until it fits.
        while True:
            read = self.tokenizer(
                self.prompt.replace(PLACE, text), return_offsets_mapping=True, verbose=False
            )
            row: list[int] = read["input_ids"]
            spans = [
                (first - begin, last - begin)
                for first, last in read["offset_mapping"]
                if first < begin + len(text) and last > begin
            ]
            over = min(len(row) - self.length, len(spans))
            if over <= 0:
                return row[: self.length]
            # Some tokens are a part of one character, which goes as a whole.
            left = self.tokenizer.truncation_side == "left"
            part = text[spans[over - 1][1] :] if left else text[: max(0, spans[-over][0])]
            text = part.strip()


MOST_ADDED = 4 << 20
"""Letters of all added tokens together, and bytes of a file of them: the largest have one MiB."""


def stored_length(folder: Path) -> int | None:
    """Return how many tokens the files of a folder's tokenizer cut an input to; None: no word.

    `tokenizer.json` keeps what the last call was asked for, which was training's; transformers
    repeats it in `tokenizer_config.json`, as `max_length`.
    """
    stated = [json_beside(folder / "tokenizer.json").get("truncation")]
    stated.append(json_beside(folder / "tokenizer_config.json"))
    lengths = [said.get("max_length") for said in stated if isinstance(said, dict)]
    return min((n for n in lengths if type(n) is int and n > 0), default=None)


def load_tokenizer(folder: Path) -> Any:
    """Read a folder's tokenizer; no network is touched, and code beside it is never run.

    Raises:
        InputError: there is none, it cannot be read, or it does not say where its tokens stand.
    """
    where = str(folder)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        what = "holds a language model but no tokenizer"
        fix = f"Put its files beside config.json, by tokenizer.save_pretrained({where!r})."
        raise InputError(Problem(what, where, fix))
    _check_size(folder)
    from transformers import AutoTokenizer

    try:
        with hugging_face.quiet():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            # Some damage shows in use only.
            tokenizer("a"), tokenizer("a", truncation=True, max_length=8)
            tokenizer.get_vocab(), tokenizer.all_special_ids
    # Most damaged files make tokenizers raise Exception itself, of no class of its own; others
    # make transformers raise whatever its code meets in them: TypeError, AttributeError, KeyError.
    except BaseException as error:
        # A panic of its Rust code is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        what = f"the tokenizer cannot be read ({hugging_face.in_short(error)})"
        raise InputError(Problem(what, where, "Save it again by save_pretrained.")) from error
    if not tokenizer.is_fast:
        what = f"{type(tokenizer).__name__} does not say where in a text its tokens stand"
        fix = "Save it as a tokenizer.json, by PreTrainedTokenizerFast."
        raise InputError(Problem(what, where, fix))
    return tokenizer


def _check_size(folder: Path) -> None:
    """Refuse added tokens that would fill the memory: each letter of them takes some 90 bytes."""
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        file = folder / name
        if file.is_file() and file.stat().st_size > MOST_ADDED:
            what = f"is larger than {MOST_ADDED >> 20} MiB, as no such file is"
            raise InputError(Problem(what, str(file), "Is the file damaged?"))
    file = folder / "tokenizer.json"
    try:
        added = json_beside(file).get("added_tokens")
    except InputError:  # what is wrong with it is said where it is read
        return
    letters = sum(
        len(str(each.get("content")))
        for each in (added if isinstance(added, list) else [])
        if isinstance(each, dict)
    )
    if letters > MOST_ADDED:
        what = f"its added tokens have {letters:,} letters, more than any tokenizer's"
        raise InputError(Problem(what, str(file), "Is the file damaged?"))
