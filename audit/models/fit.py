"""Does a model take samples like these, and answer them with one logit a class?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from poison_audit.models.model import Batch, Model


class UnfitError(Exception):
    """A network raised something about what it was given; its cause is what it raised."""


@contextmanager
def unfit() -> Iterator[None]:
    """Raise UnfitError for whatever a network raises, which is its author's code.

    Raises:
        torch.OutOfMemoryError, MemoryError: of memory the samples are innocent.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise UnfitError from error


def refusal(model: Model, batch: Batch) -> tuple[str, str] | None:
    """Return what is wrong with a first sample and what to do; None: the model answers it.

    The code of a network is its author's, and on pictures of another size it may raise anything.

    Args:
        model: in eval mode or not; it is in eval mode afterwards.
        batch: one sample, on the model's device.

    Raises:
        torch.OutOfMemoryError, MemoryError: of memory the sample is innocent.
    """
    shape = tuple(batch.x.shape[1:])
    try:
        with torch.no_grad(), unfit():
            out: Any = model.logits(model.module.eval(), batch)
    except UnfitError as error:
        what = f"the model does not accept samples of shape {shape} ({said(error.__cause__)})"
        return what, f"Give {_wanted(model, shape)}"
    if not isinstance(out, Tensor):
        what = f"the model answers with {type(out).__name__}, not with one tensor of logits"
        return what, "Name a --factory whose network's forward returns the logits alone."
    if out.shape != (1, model.classes):
        what = f"the model answers samples of shape {shape} with {tuple(out.shape)[1:]} logits"
        return what, f"Expected {model.classes}, one a class"
    return None


def said(error: BaseException | None) -> str:
    """Return the first line of what somebody's code raised, which may have no message."""
    line = next(iter(str(error).splitlines()), "")[:300].removesuffix(".")
    return line if line and isinstance(error, RuntimeError) else f"{type(error).__name__}: {line}"


def _wanted(model: Model, shape: tuple[int, ...]) -> str:
    size = None if model.reader is not None else stated_size(model.module)
    if size is None or size == shape[1:]:
        return f"samples of the shape that {model.arch} was trained on"
    return f"pictures of {size[0]}x{size[1]}, as training did: {model.arch} takes this size alone"


def takes_any_size(model: Model, batch: Batch) -> bool:
    """Say whether a network of pictures answers smaller ones as well, as one that pools does.

    Args:
        model: of pictures.
        batch: one sample that it answers, on its device.
    """
    height, width = batch.x.shape[2:]
    smaller = Batch(x=batch.x[..., : height - height // 4, : width - width // 4], y=batch.y)
    return refusal(model, smaller) is None


def stated_size(module: nn.Module) -> tuple[int, int] | None:
    """Return the height and width that a network says it takes, as transformers spell it.

    torchvision's and timm's networks of one size say it as well.
    """
    for holder in (getattr(module, "config", None), module, getattr(module, "patch_embed", None)):
        for name in ("image_size", "img_size"):
            value: Any = getattr(holder, name, None)
            sides = [value, value] if isinstance(value, int) else value
            if isinstance(sides, list | tuple) and [type(side) for side in sides] == [int, int]:
                return sides[0], sides[1]
    return None
