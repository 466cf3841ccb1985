"""Training steps shared by two processes: the steps of one, up to rounding."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.small_case import FLAGS
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.errors import PlanError
from poison_audit.models.model import Model, blocks_of
from poison_audit.models.samples import Samples
from poison_audit.models.seeds import Rng
from poison_audit.training import sharding
from poison_audit.training.batches import shuffled
from poison_audit.training.ledger import Ledger
from poison_audit.training.loop import descend
from poison_audit.verdict.record import AuditRecord

RNG = Rng(6)
WORLD = 2
ROOT = Path(__file__).parent


class Tiny(nn.Module):
    """A network like a language model's: a table, a list of layers, a head, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x.mean(1))


def tiny() -> Model:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Tiny()

    def loss(module, batch):
        # The table is asked outside of the network's forward, as the adapter of texts does it.
        return F.cross_entropy(module(module.table(batch.x)), batch.y, reduction="none")

    return Model(
        module=module, logits=lambda module, batch: module(module.table(batch.x)), loss=loss,
        blocks=blocks_of(module), build=Tiny, arch="", classes=3,
    )  # fmt: skip


def texts(name: str, n: int) -> Samples:
    draws = RNG.named(name).torch()
    return Samples(
        ids=tuple(map(str, range(n))), x=torch.randint(30, (n, 5), generator=draws),
        y=torch.randint(3, (n,), generator=draws), mask=torch.ones(n, 5, dtype=torch.int64),
    )  # fmt: skip


CASES = {
    "momentum": dict(momentum=0.9, weight_decay=0.01, schedule="onecycle"),
    "adamw": dict(optimizer="adamw", weight_decay=0.1),
    "frozen": dict(parameters=["layers.2.0.weight", "head.weight", "head.bias"], momentum=0.5),
    "an odd batch": dict(size=5),
    "fewer samples than processes": dict(size=1),
    "two batches a step": dict(size=6, second=True),
    "noise": dict(noise=0.5, steps=1),
}


def trained(case: str) -> dict[str, torch.Tensor]:
    settings = dict(CASES[case])
    size, steps = settings.pop("size", 8), settings.pop("steps", 7)
    model, ledger = tiny(), Ledger()
    retain = shuffled(texts("retain", 20), size, RNG.named("retain"))
    batches, objective = ((batch,) for batch in retain), lambda mean: mean
    if settings.pop("second", False):
        forget = shuffled(texts("forget", 6), size, RNG.named("forget"))
        batches = zip(retain, forget, strict=False)
        objective = lambda one, other: 0.9 * one - 0.1 * other  # noqa: E731
    descend(model, batches, objective, steps=steps, lr=0.05, ledger=ledger, rng=RNG, **settings)
    losses = torch.stack(ledger.losses)
    return {**model.module.state_dict(), "losses": losses, "spent": torch.tensor(ledger.spent)}


def worker(out: str) -> None:
    with sharding.crew(torch.device("cpu")) as rank:
        assert (sharding.processes(), sharding.rank()) == (WORLD, rank)
        found = {case: trained(case) for case in CASES}
    torch.save(found, f"{out}/{rank}.pt")


def torchrun(*command: str, cwd: Path) -> subprocess.CompletedProcess:
    # Alone on its machine, it looks for a port itself and keeps it.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORLD)]
    paths = os.pathsep.join([str(ROOT), str(ROOT.parent)])
    return subprocess.run(
        [sys.executable, *launch, *command], cwd=cwd, capture_output=True, text=True, check=False,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": paths},
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("shared")
    code = f"import test_sharding; test_sharding.worker({str(out)!r})"
    (out / "run.py").write_text(code, encoding="utf-8")
    done = torchrun("run.py", cwd=out)
    assert done.returncode == 0, done.stderr
    return [torch.load(out / f"{number}.pt") for number in range(WORLD)]


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case != "noise"])
def test_two_processes_make_the_steps_of_one(found, case):
    alone = trained(case)
    for process in found:
        assert set(process[case]) == set(alone)
        for name, value in alone.items():
            torch.testing.assert_close(process[case][name], value, rtol=1e-5, atol=1e-6)
    start = tiny().module.state_dict()
    if case == "frozen":
        for name in set(start) - set(CASES[case]["parameters"]):
            assert torch.equal(found[0][case][name], start[name])


@pytest.mark.slow
def test_noise_is_of_the_stated_size_and_each_process_draws_its_own(found):
    quiet = {"noise": dict(CASES["noise"], noise=0.0)}["noise"]
    CASES["quiet"] = quiet
    try:
        plain = trained("quiet")
    finally:
        del CASES["quiet"]
    first, second = (process["noise"] for process in found)
    drawn = []
    for name, parameter in tiny().module.named_parameters():
        assert torch.equal(first[name], second[name])  # the whole, once it is gathered
        noise = (plain[name] - first[name]) / (0.05 * 0.5)
        drawn.append(noise.flatten())
        half = len(parameter) // 2
        if half > 2:
            assert not torch.equal(noise[:half], noise[half : 2 * half])
    every = torch.cat(drawn)
    # Mean and variance of so many standard normal draws, to four standard errors.
    n = len(every)
    assert abs(every.mean()) < 4 / n**0.5
    assert abs(every.var() - 1) < 4 * (2 / n) ** 0.5


def test_batch_statistics_are_refused():
    with pytest.raises(PlanError, match="BatchNorm"):
        sharding.check_shardable(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    sharding.check_shardable(tiny().module)


def test_alone_nothing_is_shared(tmp_path):
    assert (sharding.processes(), sharding.rank()) == (1, 0)
    module = nn.Linear(2, 2)
    with sharding.sharded(module) as (working, through):
        assert working is module
        assert through(lambda given: given.weight.sum()) == module.weight.sum()


def test_shard_needs_torchrun(case, capsys):
    command = ["check", "model.safetensors", "--forget", "forget.csv", *FLAGS, "--out", "o"]
    assert invoke([*command, "--shard"]) == 2
    assert "torchrun --nproc-per-node 2 --no-python poison-audit" in capsys.readouterr().err
    assert invoke([*command, "--shard", "--ray", "local"]) == 2
    assert not Path("o").exists()


CODE = "import sys; from poison_audit.cli import invoke; sys.exit(invoke(sys.argv[1:]))"


@pytest.mark.long
def test_a_whole_audit_through_torchrun_and_again(small_texts, tmp_path):
    (tmp_path / "run.py").write_text(CODE, encoding="utf-8")
    command = ["check", str(small_texts / "model"), "--forget", str(small_texts / "forget.csv"),
               "--methods", "gd,ssd", "--set", "backdoor.draws=40",
               "--set", "token-canary.draws=4", "--set", "exposure.draws=32",
               "--set", "gd.lr=0.001"]  # fmt: skip

    def shared() -> str:
        done = torchrun("run.py", *command, "--out", "shared", "--shard", cwd=tmp_path)
        assert done.returncode == 1, done.stderr  # torchrun's own, for any code but 0
        return done.stdout + done.stderr

    def record(folder: str) -> AuditRecord:
        text = (tmp_path / folder / "report.json").read_text(encoding="utf-8")
        return from_json(AuditRecord, text)

    told = shared()
    assert invoke([*command, "--out", str(tmp_path / "alone"), "-q"]) == 1
    assert told.count("exit 1: RESIDUAL") == 1  # of two processes one speaks
    both = record("shared"), record("alone")
    assert any("shared among 2 processes" in limit for limit in both[0].limits)
    for one, other in zip(both[0].cells, both[1].cells, strict=True):
        assert one.candidate == other.candidate
        assert one.error is None
        if one.cost:
            assert (one.cost.gradients, one.cost.steps) == (other.cost.gradients, other.cost.steps)
    plain = [(f.candidate, f.probe, f.outcome) for f in both[0].findings]
    assert plain == [(f.candidate, f.probe, f.outcome) for f in both[1].findings]
    cells = tmp_path / "shared/cells"
    before = {path.name: path.stat().st_mtime_ns for path in cells.iterdir()}
    assert "kept from an earlier run" in shared()
    assert {path.name: path.stat().st_mtime_ns for path in cells.iterdir()} == before
