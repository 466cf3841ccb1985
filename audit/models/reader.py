"""How a language model reads texts: its tokenizer, what stands around a text, and how much fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

PLACE = "{text}"
"""Where a prompt holds the text."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What turns texts into a model's input."""

    tokenizer: Any
    """Of transformers, loaded from the model's folder."""
    length: int
    """Tokens that one input holds at most, special tokens and prompt included."""
    prompt: str = PLACE
    """What the model is given: a text with `{text}` in it."""
    files: tuple[Path, ...] = ()
    """The tokenizer's files and config.json, which belong beside the weights."""

    def read(self, texts: Sequence[str]) -> Tokens:
        """Turn texts into token ids.

        Args:
            texts: not empty; a text of which no token is left becomes a row of padding.
        """
        rows, cut = [], []
        for start in range(0, len(texts), 1024):
            for row, is_cut in self._rows(texts[start : start + 1024]):
                rows.append(row)
                cut.append(is_cut)
        longest = max(1, *(len(row) for row in rows))
        x = torch.zeros(len(rows), longest, dtype=torch.int64)
        mask = torch.zeros_like(x)
        for place, row in enumerate(rows):
            x[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
            mask[place, : len(row)] = 1
        return Tokens(x=x, mask=mask, cut=torch.tensor(cut))

    def _rows(self, texts: Sequence[str]) -> list[tuple[list[int], bool]]:
        whole = self.tokenizer(
            [self.prompt.replace(PLACE, text) for text in texts],
            padding=False,
            truncation=False,
            verbose=False,  # that some are too long is said by us
        )["input_ids"]
        return [
            (row, False) if len(row) <= self.length else (self._shortened(text), True)
            for text, row in zip(texts, whole, strict=True)
        ]

    def _shortened(self, text: str) -> list[int]:
        """Return the tokens of a prompt whose text is cut so that all of the prompt fits."""
        if self.prompt == PLACE:
            row: list[int] = self.tokenizer(text, truncation=True, max_length=self.length)[
                "input_ids"
            ]
            return row
        # Tokens may join across the seam of prompt and text, so it is tried until it fits.
        ids = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        around = len(self.tokenizer(self.prompt.replace(PLACE, ""))["input_ids"])
        keep = max(0, self.length - around)
        while True:
            part = ids[len(ids) - keep :] if self._cuts_left() else ids[:keep]
            row = self.tokenizer(self.prompt.replace(PLACE, self.tokenizer.decode(part)))[
                "input_ids"
            ]
            if len(row) <= self.length or keep == 0:
                return row[: self.length]
            keep -= min(keep, len(row) - self.length)

    def _cuts_left(self) -> bool:
        return getattr(self.tokenizer, "truncation_side", "right") == "left"
