"""SCRUB: a student leaves its teacher on the forget samples and obeys it on the retain samples.

    max pass:   theta <- theta + eta_max * grad KL(forget)
    min pass:   theta <- theta - eta * grad [ gamma * CE(retain) + alpha * KL(retain) ]
    KL = T^2 * mean over samples of KL( softmax(teacher / T) || softmax(student / T) )

Each of the first epochs is a max pass and then a min pass, later ones are min passes only. The
teacher is the model as it was.

Source: Kurmanji, Triantafillou, Hayes and Triantafillou 2023, arXiv:2302.09880, and their
`train_distill`; gamma, alpha and T as in their large-scale notebook.

Departs from it: the max pass can have a rate of its own, by default a tenth of the recipe's; the
rates stay constant; the budget decides the number of epochs; the optimiser starts anew with each
pass, so that momentum never carries one into the other. In a max pass BatchNorm sees a batch of
retain samples beside the forget samples, and min passes update its statistics; the source has each
batch by itself. In eval mode, without dropout, the first max pass moves nothing: the student still
is the teacher, where KL has its minimum. The teacher's forward pass is charged, and so are the
retain samples beside. The preset `kurmanji` has their large-scale notebook's numbers; there forget
batches are of 512, and the rate falls to a tenth after the third epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from poison_audit.case.case import Case
from poison_audit.models.memory import in_parts
from poison_audit.models.model import Batch, Model
from poison_audit.models.seeds import Rng
from poison_audit.training.adapted import Optimizer, adapted
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import FORWARD, Ledger
from poison_audit.training.loop import descend
from poison_audit.training.losses import SampleLoss, cross_entropy
from poison_audit.training.modes import BatchNorm, check_batches, has_batch_norm


def scrub(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float | None = None,
    max_lr: float | None = None,
    max_epochs: int = 3,
    gamma: float = 0.99,
    alpha: float = 0.001,
    temperature: float = 4.0,
    batch_norm: BatchNorm = "joint",
    optimizer: Optimizer = "recipe",
    momentum: float | None = None,
    weight_decay: float | None = None,
    batch_size: int | None = None,
) -> Model:
    """Alternate max and min passes until the budget is spent.

    A whole min pass follows every max pass, and what is left of the budget goes to min steps. Where
    not even one epoch fits, its max pass is shortened in proportion.

    Args:
        lr: eta, above 0; by default a two-hundredth of the recipe's peak rate, the ratio of the
            authors' 5e-4 to a usual 0.1.
        max_lr: eta_max, above 0; by default a tenth of the recipe's peak rate.
        max_epochs: epochs that begin with a max pass, at least 0.
        gamma: weight of the retain loss, at least 0.
        alpha: weight of KL on retain, at least 0.
        temperature: T, above 0.
        batch_norm: what BatchNorm normalises by, as `descend` says. `joint`: a batch of retain
            samples stands beside each forget batch of a max pass, and its loss counts for nothing.
        optimizer: by default the recipe's.
        momentum: of SGD, in [0, 1]; by default the recipe's.
        weight_decay: at least 0; by default the recipe's.
        batch_size: at least 1; by default the recipe's.

    Raises:
        PlanError: BatchNorm is to normalise by a batch of one sample.
    """
    student = model.clone()
    recipe, settings = adapted(
        case.recipe, optimizer=optimizer, momentum=momentum, weight_decay=weight_decay,
        batch_size=batch_size,
    )  # fmt: skip
    sizes = [min(recipe.batch_size, len(part)) for part in (case.retain, case.forget)]
    check_batches(model.module, batch_norm, *sizes)
    leaving, obeying = _losses(model, ledger, gamma=gamma, alpha=alpha, temperature=temperature)

    def take(
        steps: int, batches: Iterator[Sequence[Batch]], loss: SampleLoss, rate: float, name: str
    ) -> None:
        descend(
            student,
            batches,
            lambda mean, *_beside: mean,
            losses=(loss, cross_entropy),
            steps=steps,
            lr=rate,
            ledger=ledger,
            rng=rng.named(name),
            batch_norm=batch_norm,
            **settings,
        )

    lr = recipe.lr / 200 if lr is None else lr
    max_lr = recipe.lr / 10 if max_lr is None else max_lr
    forget = shuffled(case.forget, recipe.batch_size, rng.named("forget"))
    retain = shuffled(case.retain, recipe.batch_size, rng.named("batches"), augment=recipe.augment)
    obey = ((batch,) for batch in retain)
    # Without BatchNorm, what stands beside a batch changes nothing.
    beside = batch_norm == "joint" and has_batch_norm(model.module)
    leave = zip(forget, retain, strict=False) if beside else ((batch,) for batch in forget)
    max_steps, max_cost = _one_pass(len(case.forget), recipe.batch_size)
    max_cost += beside * min(recipe.batch_size, len(case.retain))
    min_steps, min_cost = _one_pass(len(case.retain), recipe.batch_size)
    epoch = max_steps * max_cost + min_steps * min_cost
    epochs = min(max_epochs, max(1, ledger.steps(epoch)))
    max_steps = min(max_steps, ledger.steps(epoch / max_steps))
    for number in range(epochs):
        take(max_steps, leave, leaving, max_lr, f"max {number}")
        take(min(min_steps, ledger.steps(min_cost)), obey, obeying, lr, f"min {number}")
    take(ledger.steps(min_cost), obey, obeying, lr, "last")
    return student


def _losses(
    model: Model, ledger: Ledger, *, gamma: float, alpha: float, temperature: float
) -> tuple[SampleLoss, SampleLoss]:
    """Return what the max pass and the min pass descend on, of each sample."""
    teacher = model.clone()
    teacher.module.eval()

    def divergence(logits: Tensor, batch: Batch) -> Tensor:  # (n,)
        with torch.no_grad():
            told = in_parts(lambda part: teacher.logits(teacher.module, part), batch)
            target = F.softmax(told / temperature, dim=1)
        ledger.charge(FORWARD * len(batch))
        own = F.log_softmax(logits / temperature, dim=1)
        return F.kl_div(own, target, reduction="none").sum(1) * temperature**2

    def leaving(logits: Tensor, batch: Batch) -> Tensor:
        return -divergence(logits, batch)

    def obeying(logits: Tensor, batch: Batch) -> Tensor:
        return gamma * cross_entropy(logits, batch) + alpha * divergence(logits, batch)

    return leaving, obeying


def _one_pass(n: int, batch_size: int) -> tuple[int, float]:
    """Return the steps of a pass over `n` samples and the cost of each, the teacher's included."""
    size = min(batch_size, n)
    return math.ceil(n / size), size * (1 + FORWARD)
