"""Recipes by name, for `--recipe NAME`: what single `--recipe KEY=VALUE` change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from poison_audit.commands.fields import PAIR, Kind, RefusedError

PRESETS: dict[str, dict[str, str]] = {
    # Of batches of 512, on a `cifar-speed`: what Jordan 2024 (arXiv:2404.00498) and Page 2018 train
    # CIFAR-10 with, as far as torch's optimiser has it.
    "fast": {
        "epochs": "10", "optimizer": "sgd", "lr": "0.4", "momentum": "0.9", "nesterov": "true",
        "weight_decay": "5e-4", "batch_size": "512", "schedule": "onecycle",
        "augment": "shift-flip", "label_smoothing": "0.2", "ema": "0.99",
    },
    # Of Pawelczyk et al. 2025 (arXiv:2406.17216), who train a ResNet-18 for 100 epochs; what they
    # leave open is usual.
    "paper": {
        "epochs": "100", "optimizer": "sgd", "lr": "0.1", "momentum": "0.9", "nesterov": "false",
        "weight_decay": "5e-4", "batch_size": "128", "schedule": "onecycle",
        "augment": "crop-flip", "label_smoothing": "0", "ema": "0",
    },
}  # fmt: skip


def _read(text: str) -> tuple[str, str]:
    if "=" in text:
        pair: tuple[str, str] = PAIR.read(text)
        return pair
    if text not in PRESETS:
        raise RefusedError(f"expected KEY=VALUE, {' or '.join(PRESETS)}, got {text!r:.60}")
    return text, ""


PRESET = Kind(expected="KEY=VALUE", metavar="KEY=VALUE", holds=lambda value: True, read=_read)
"""A setting of the recipe, or the name of a whole one."""


def spelt_out(flags: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the settings of the recipes that are named, and then the single ones.

    >>> dict(spelt_out([("epochs", "3"), ("paper", "")]))["epochs"]
    '3'
    """
    for name, text in flags:
        if not text:
            yield from PRESETS[name].items()
    yield from ((key, text) for key, text in flags if text)
