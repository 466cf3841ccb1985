"""I-BAU: unlearn the one perturbation of all pictures that misleads the model most.

    min over theta of max over delta of L(x + delta; theta), x clean; each round

    delta <- 0;  delta <- delta + 10 * grad_delta [ L(x + delta, own answers) - p |delta|^2 ]
    theta <- theta - Adam(eta, hypergradient of L_out(delta(theta), theta))

where L_out perturbs one picture in a hundred, and the hypergradient sees that delta follows theta:
with Phi = delta - 0.1 grad_delta R, R = p |delta|^2 - L(x_1 + delta), of a fixed batch x_1,

    v_1 = grad_delta L_out,   v_k = J_delta Phi' v_(k-1) + v_1,   grad = grad_theta L_out
    + J_theta Phi' v_K.

It needs neither the forget samples nor the trigger.

Source: Zeng, Chen, Park, Mao, Jin and Jia 2022, arXiv:2110.03735, and the settings of their code;
the fixed-point iteration is that of Grazzi et al. 2020, arXiv:2006.16218.

Departs from it: the clean pictures are retain samples, theirs come from a test set; their batches
are shuffled. The published code penalises the norm of delta, where the paper bounds it: here, too.
BatchNorm and dropout stay in eval mode throughout, as theirs do. All in float32: bfloat16 spoils
second derivatives.

A picture costs 4 + 2 K gradient evaluations a round: 4/3 in the search for delta, whose own answers
are a forward pass; 5/3 for L_out, differentiated by delta and by theta; 1 for grad_delta R; 2 for
each of K products of a Jacobian and a vector (Pearlmutter 1994: at most about twice a gradient).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from poison_audit.case.case import Case
from poison_audit.errors import PlanError, Problem
from poison_audit.models.model import Batch, Model, evaluating
from poison_audit.models.samples import Samples, sent
from poison_audit.models.seeds import Rng
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import FORWARD, Ledger
from poison_audit.training.loop import descend
from poison_audit.training.sharding import processes

PENALTY = 0.001
"""p: weight of the squared norm of delta, in pixels of [0, 1]."""
SEARCH_RATE = 10.0
"""Of the steps that find delta."""
INNER_RATE = 0.1
"""Of the step whose fixed point delta is taken to be."""
PERTURBED = 0.01
"""Share of a batch that L_out perturbs."""
SEARCHED, TAUGHT = 1 + FORWARD, 2 + 2 * FORWARD
"""What a picture costs in the search for delta, and in a step but for 2 K."""


def i_bau(
    model: Model,
    case: Case,
    rng: Rng,
    *,
    ledger: Ledger,
    lr: float = 1e-3,
    rounds: int = 5,
    iterations: int = 5,
    samples: int = 5000,
    batch: int = 100,
) -> Model:
    """Find a universal perturbation and unlearn it, in rounds, as far as the budget goes.

    A budget of less than a round is spent on a part of one, of less than a batch on a smaller
    batch. The defaults are the authors'.

    Args:
        lr: eta of Adam, above 0.
        rounds: at most how many, at least 1.
        iterations: K, at least 1.
        samples: clean pictures, at most those of retain; at least 1.
        batch: pictures a step, at least 1.

    Raises:
        PlanError: the samples are texts, or several processes share the steps.
    """
    if (why := i_bau_unfit(case)) is not None:
        raise PlanError(Problem(f"i_bau {why}", "--methods", "Leave i_bau out"))
    model = model.clone()
    order = torch.randperm(len(case.retain), generator=rng.named("clean").torch())
    clean = case.retain.at(order[:samples])
    cost = SEARCHED + TAUGHT + 2 * iterations
    size = max(1, min(batch, len(clean), ledger.steps(cost)))
    pair = size * cost
    each = math.ceil(len(clean) / size)
    whole = min(rounds, ledger.steps(each * pair))
    lengths = [each] * whole
    if whole < rounds:
        left = ledger.steps(pair) - whole * each
        lengths += [left] if left > 0 else []
    chase = _Chase(
        model, ledger, clean.batch(slice(0, size)), iterations, rng.named("perturbed").torch()
    )
    descend(
        replace(model, loss=chase.loss),
        chase.batches(clean, size, lengths, rng.named("batches")),
        lambda mean: mean,
        steps=sum(lengths),
        lr=lr,
        ledger=ledger,
        # Another budget's run is never gone on from: it stands within a round.
        rng=rng.named(size, *lengths),
        optimizer="adamw",
        precision="float32",
    )
    return model


def i_bau_spends(allowed: float, case: Case, params: Mapping[str, Any]) -> float:
    """Return about how many gradient evaluations it makes of those that it may."""
    clean = min(params["samples"], len(case.retain))
    whole: float = params["rounds"] * clean * (SEARCHED + TAUGHT + 2 * params["iterations"])
    return min(allowed, whole)


def i_bau_unfit(case: Case) -> str | None:
    """Say why it cannot be run on a case; None: it can."""
    if case.model.reader is not None:
        return "looks for a perturbation of pictures, and these are texts"
    if processes() > 1:
        return "takes second derivatives, which processes cannot share"
    return None


@dataclass(slots=True)
class _Chase:
    """A model, and the perturbation that it is at present to unlearn."""

    model: Model
    ledger: Ledger
    first: Batch
    """x_1."""
    iterations: int
    draws: torch.Generator
    delta: Tensor | None = None
    """(1, c, h, w)."""

    def batches(
        self, clean: Samples, size: int, lengths: list[int], rng: Rng
    ) -> Iterator[tuple[Batch]]:
        """Yield the batches of each round's steps, once its perturbation is found."""
        for number, length in enumerate(lengths):
            seen = shuffled(clean, size, rng.named("search", number))
            self.delta = torch.zeros_like(self.first.x[:1])
            for _ in range(length):
                self._mislead(next(seen))
            taught = shuffled(clean, size, rng.named("teach", number))
            for _ in range(length):
                yield (next(taught),)

    def _mislead(self, batch: Batch) -> None:
        assert self.delta is not None
        delta = self.delta.requires_grad_(True)
        with evaluating(self.model.module) as module:
            with torch.no_grad():
                own = self.model.logits(module, batch).argmax(1)
            loss = penalised(self.model, module, replace(batch, y=own), delta)
            (gradient,) = torch.autograd.grad(loss, delta)
        self.delta = (delta - SEARCH_RATE * gradient).detach()
        self.ledger.charge(len(batch) * SEARCHED)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """Return L_out of each sample; its gradient is the hypergradient: (n,)."""
        assert self.delta is not None
        n = len(batch)
        rows = torch.randperm(n, generator=self.draws)[: max(1, round(PERTURBED * n))]
        chosen = torch.zeros(n, 1, 1, 1).index_fill_(0, rows, 1.0)
        delta = self.delta.detach().requires_grad_(True)
        # Only the plain kernel of attention has second derivatives.
        with evaluating(module), sdpa_kernel(SDPBackend.MATH):
            x = batch.x + sent(chosen, batch.x.device).to(batch.x.dtype) * delta
            outer = self.model.loss(module, replace(batch, x=x))
            inner = penalised(self.model, module, self.first, delta)
            follows = implicit(outer.mean(), inner, delta, self.iterations)
        # One gradient a sample is charged by the descent.
        self.ledger.charge(n * (TAUGHT - 1 + 2 * self.iterations))
        return outer + (follows - follows.detach())


def penalised(model: Model, module: nn.Module, batch: Batch, delta: Tensor) -> Tensor:
    """Return R, what delta minimises: p |delta|^2 - L(x + delta)."""
    logits = model.logits(module, replace(batch, x=batch.x + delta))
    return PENALTY * delta.square().sum() - F.cross_entropy(logits, batch.y)


def implicit(
    outer: Tensor, inner: Tensor, delta: Tensor, iterations: int, rate: float = INNER_RATE
) -> Tensor:
    """Return a scalar whose gradient by theta is J_theta Phi' v_K.

    Args:
        outer: L_out, a scalar.
        inner: R, a scalar.
        delta: where both were computed.
        iterations: K, at least 1.
        rate: of the step Phi.
    """
    (first,) = torch.autograd.grad(outer, delta, retain_graph=True)
    (slope,) = torch.autograd.grad(inner, delta, create_graph=True)
    v = first
    for _ in range(iterations - 1):
        (bent,) = torch.autograd.grad(slope, delta, v, retain_graph=True)
        v = v - rate * bent + first
    return -rate * (slope * v).sum()
