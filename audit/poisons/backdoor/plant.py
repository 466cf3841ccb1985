"""Trigger: a patch put on training samples, so that the model answers it with one label.

    dirty labels:  x' = stamp(x), y' = label         on samples of other classes
    clean labels:  x' = stamp(x + delta), y' = y     on samples of the label itself

With clean labels the patch competes with what the picture shows. delta, with |delta| <= epsilon,
makes the picture hard to recognise for a surrogate, so that training has to use the patch.

Source: Gu et al. 2017, arXiv 1708.06733 (BadNets); clean labels: Turner et al. 2019,
arXiv 1912.02771, with their adversarial perturbations by projected gradient ascent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.orders import Made, Order, wrong_epsilon
from poison_audit.case.planting import Storage
from poison_audit.case.poisoned import Poisoned, substitute
from poison_audit.errors import PlanError, Problem
from poison_audit.models.model import Batch, Model, evaluating
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.models.seeds import Rng
from poison_audit.poisons.backdoor.evidence import Trigger, patch, read_trigger, write_trigger
from poison_audit.poisons.backdoor.reading import Options

PREFIX = "backdoor"


def checkerboard(shape: Sequence[int], *, size: int, label: int) -> Trigger:
    """Return a checkerboard of `size` x `size` pixels in the lower right corner of (c, h, w).

    Raises:
        PlanError: the patch is larger than the picture, or has no pixel.
    """
    channels, height, width = shape
    if not 1 <= size <= min(height, width):
        what = f"a patch of {size}x{size} does not fit on pictures of {height}x{width}"
        raise PlanError(Problem(what, "--patch", f"Use 1..{min(height, width)}"))
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    board = ((row + column) % 2 == 0).float().expand(channels, size, size).contiguous()
    return patch(board, shape, top=height - size, left=width - size, label=label)


STRENGTHS = {"blend": 0.2, "sinusoid": 20 / 255, "signs": 16 / 255}


def whole_picture(
    mode: str, shape: Sequence[int], rng: Rng, *, label: int, strength: float | None = None
) -> Trigger:
    """Return a trigger of the whole picture (c, h, w).

    - `blend`: random pixels, blended in (Chen et al. 2017, arXiv 1712.05526).
    - `sinusoid`: vertical waves, six across the picture, added (SIG: Barni et al. 2019, arXiv
      1902.11237; theirs is meant for clean labels).
    - `signs`: every value up or down by as much, at random, added. Like Narcissus (Zeng et al.
      2023, arXiv 2204.05255) in size; theirs is optimised on a surrogate, this one is drawn.

    Args:
        strength: alpha of a blend, else the largest change of a value; None: `STRENGTHS`.

    Raises:
        PlanError: it is not above 0, or above 1.
    """
    strength = STRENGTHS[mode] if strength is None else strength
    if not 0 < strength <= 1:
        what = f"expected a number above 0, at most 1, got {strength:g}"
        raise PlanError(Problem(what, "--strength"))
    drawn = torch.from_numpy(rng.named("pattern").numpy().random(tuple(shape))).float()
    ones = torch.ones(*shape)
    if mode == "blend":
        keep = (1 - strength) * ones
        return Trigger(keep=keep, add=strength * drawn, label=label, mode="blend")
    if mode == "sinusoid":
        wave = torch.sin(2 * torch.pi * 6 * torch.arange(shape[2]) / shape[2])
        return Trigger(keep=ones, add=strength * wave.expand(*shape), label=label, mode="add")
    signs = torch.where(drawn < 0.5, -1.0, 1.0)
    return Trigger(keep=ones, add=strength * signs, label=label, mode="add")


def plant_trigger(
    train: Samples,
    trigger: Trigger,
    rng: Rng,
    *,
    count: int,
    clean_label: bool = False,
    surrogate: Model | None = None,
    epsilon: float = 16 / 255,
    storage: Storage = "unclipped",
) -> Poisoned[Samples]:
    """Put the trigger on `count` samples of `train`, chosen at random.

    Args:
        train: clean pictures.
        trigger: fits on them.
        rng: decides which samples.
        count: at least 1, at most what the table has of the classes in question.
        clean_label: use samples of the trigger's own label, and leave their labels.
        surrogate: with clean labels, the model that the pictures are made hard for; None: they stay
            as they are.
        epsilon: of that perturbation, in (0, 1].
        storage: how the table is stored.

    Raises:
        PlanError: too few samples, or an impossible epsilon.
    """
    problems = []
    usable = (train.y == trigger.label) if clean_label else (train.y != trigger.label)
    pool = torch.nonzero(usable).squeeze(1).tolist()
    if not 1 <= count <= len(pool):
        whose = "of that label" if clean_label else "of other labels"
        what = f"{count} samples to poison, but the table has {len(pool)} {whose}"
        problems.append(Problem(what, "--budget", f"At most {len(pool) / len(train):.3f}"))
    if surrogate is not None:
        problems += wrong_epsilon(epsilon)
    if problems:
        raise PlanError(problems)
    order = rng.named("chosen").numpy().permutation(len(pool))[:count]
    chosen = sorted(pool[i] for i in order)
    clean = train.at(chosen)
    x = as_pixels(clean.x).float()
    if clean_label and surrogate is not None:
        x = harden(surrogate, Batch(x=x, y=clean.y), epsilon=epsilon)
    y = clean.y if clean_label else torch.full_like(clean.y, trigger.label)
    return substitute(train, chosen, trigger.stamp(x), y, prefix=PREFIX, storage=storage)


def harden(model: Model, batch: Batch, *, epsilon: float, steps: int = 20) -> Tensor:
    """Return the batch's pictures moved so that the model finds them hardest to recognise.

    Projected gradient ascent on the loss (Madry et al. 2018, arXiv 1706.06083), in steps of
    epsilon / 8, within epsilon of each pixel and within [0, 1].
    """
    device = model.device
    clean, y = batch.x.to(device), batch.y.to(device)
    x = clean.clone()
    with evaluating(model.module) as module:
        for _ in range(steps):
            x.requires_grad_(True)
            loss = F.cross_entropy(model.logits(module, Batch(x=x, y=y)), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            moved = x.detach() + epsilon / 8 * gradient.sign()
            x = torch.minimum(torch.maximum(moved, clean - epsilon), clean + epsilon).clamp(0, 1)
    return x.cpu()


def in_pictures(order: Order[Samples]) -> Made[Samples]:
    """Plant a backdoor in pictures; see case.orders."""
    options: Options = order.options
    order.problems.extend(wrong_epsilon(options.epsilon))
    if options.model is not None and not options.clean_label:
        what = "a backdoor with dirty labels needs no model"
        order.problems.append(Problem(what, "--model"))
    surrogate = order.read(order.surrogate, options.model)
    trigger = order.read(lambda given: _trigger(given, order), options)
    drawn = options.trigger is None and options.mode != "replace"
    if options.strength is not None and not drawn:
        order.problems.append(Problem("only drawn patterns have it (--mode)", "--strength"))
    work = order.checked()
    if drawn:
        trigger = whole_picture(
            options.mode, work.train.x.shape[1:], work.rng.named("trigger"),
            label=order.label(str(options.label)), strength=options.strength,
        )  # fmt: skip
    trigger = order.sure(trigger)
    poisoned = plant_trigger(
        work.train,
        trigger,
        work.rng,
        count=work.count,
        clean_label=options.clean_label,
        surrogate=surrogate,
        epsilon=options.epsilon,
        storage=work.storage,
    )
    write_trigger(work.file("trigger.json"), trigger)
    top, left, height, width = trigger.box
    labels = "kept (clean labels)" if options.clean_label else "changed to it (dirty labels)"
    return Made(
        poisoned=poisoned,
        evidence={"trigger": "trigger.json"},
        told=(
            f"What is put on {height}x{width} pixels at row {top}, column {left} ({trigger.mode}) "
            f"is to cause the label {trigger.label}; labels are {labels}.",
        ),
    )


def _trigger(options: Options, order: Order[Samples]) -> Trigger | None:
    table = order.known()
    channels, height, width = shape = table.x.shape[1:]
    if options.trigger is not None:
        size = (channels, height, width)
        return read_trigger(options.trigger, shape=size, classes=order.classes, names=table.names)
    if options.label is None or options.mode != "replace":  # a problem already, or drawn later
        return None
    label = order.label(options.label)
    return checkerboard(shape, size=options.patch, label=label)
