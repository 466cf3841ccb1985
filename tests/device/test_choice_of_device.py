"""Which device is meant: names that audits do not run on, a card a process, a share of a GPU."""

from __future__ import annotations

import io
import os
import types

import pytest
import torch
import torch.distributed as dist

from builders.device_cases import PICTURES, both
from builders.pretend_cuda import pretend_cuda
from poison_audit.commands.inputs import device_named
from poison_audit.commands.train_partial import fingerprint
from poison_audit.engine import cluster
from poison_audit.engine.caveats import caveats
from poison_audit.engine.plan import make_plan
from poison_audit.errors import InputError
from poison_audit.models.seeds import Rng
from poison_audit.training.kernels import reproducible
from poison_audit.training.scoring import exact
from poison_audit.training.sharding import crew
from poison_audit.verdict.policy import standard_policy

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("float32")]


@pytest.mark.parametrize("name", ["meta", "mps", "xla:0"])
def test_a_device_without_figures_is_refused_in_words(name):
    with pytest.raises(InputError, match=f"audits do not run on {name}"):
        device_named(name)


def test_a_device_that_is_not_there_is_refused_in_words():
    for name in ("cuda:0", "gpu"):
        with pytest.raises(InputError, match="no such device"):
            device_named(name)
    assert device_named("auto") == torch.device("cpu")
    with pretend_cuda():
        assert device_named("auto") == torch.device("cuda")


@pytest.fixture
def joined(monkeypatch):
    """Two processes that torchrun started on a machine; what they set up."""
    told: dict[str, object] = {}
    names = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in names.items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setattr(dist, "init_process_group", lambda kind: told.update(kind=kind))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "get_rank", lambda: 1)
    return told


def test_processes_share_the_device_that_is_named(joined):
    with pretend_cuda(), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch.cuda, "set_device", lambda card: joined.update(card=card))
        with crew(torch.device("cpu")):
            assert joined == {"kind": "gloo"}
        with pytest.raises(InputError, match="2 processes on this machine need a card each"):
            crew(torch.device("cuda")).__enter__()
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with crew(torch.device("cuda")):
            assert joined == {"kind": "nccl", "card": 1}
        with pytest.raises(InputError, match="names one card, and 2 processes"):
            crew(torch.device("cuda:0")).__enter__()
        monkeypatch.setitem(os.environ, "LOCAL_WORLD_SIZE", "1")
        with crew(torch.device("cuda:0")):
            assert joined["card"] == 0


def nodes(*gpus):
    every = [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": n}} for n in gpus]
    gone = {"Alive": False, "Resources": {"GPU": 8.0}}
    return types.SimpleNamespace(nodes=lambda: [*every, gone])


def test_a_share_of_gpus_that_no_machine_has_is_refused():
    cluster._check_share(nodes(1.0, 2.0), 2.0)
    cluster._check_share(nodes(), 0.0)
    with pytest.raises(InputError, match="no machine of the cluster has more than 2"):
        cluster._check_share(nodes(1.0, 2.0), 3.0)


def test_work_that_was_on_cuda_is_read_where_there_is_none(monkeypatch):
    pytest.importorskip("ray")
    model, plain = torch.nn.Linear(2, 2), torch.ones(3)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    marks = (lambda s: "cuda:0" if s.data_ptr() in own else None, lambda s, where: None)
    torch.serialization.register_package(1, *marks)
    try:
        data = cluster.packed({"model": model, "plain": plain, "ask": lambda x: model(x)})
    finally:
        torch.serialization._package_registry.pop(0)
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(io.BytesIO(data), weights_only=False)
    back = cluster.unpacked(data, "cpu")
    assert torch.equal(back["ask"](torch.ones(2)), model(torch.ones(2)))
    sent: list[str] = []
    monkeypatch.setattr(torch.UntypedStorage, "to", lambda s, device: sent.append(device) or s)
    cluster.unpacked(data, "cuda")
    assert sent == ["cuda", "cuda"]  # weight and bias


def test_what_scores_inside_of_a_descent_leaves_its_order_fixed(device_pictures):
    module = device_pictures.cpu.case.model.module
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32
    with reproducible():
        with exact(module):
            assert torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32
    assert before == (torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32)


def test_a_partial_training_of_another_precision_is_not_gone_on_from(monkeypatch):
    job = types.SimpleNamespace(
        subject=types.SimpleNamespace(texts=None, normalize=None), recipe=PICTURES,
        device=torch.device("cpu"), model=types.SimpleNamespace(arch="x"), rng=Rng(0),
        data=types.SimpleNamespace(digest=lambda: "d"),
    )  # fmt: skip
    told = []
    for kind in ("float32", "bfloat16"):
        monkeypatch.setattr(
            "poison_audit.commands.train_partial.fast_precision", lambda device, kind=kind: kind
        )
        told.append(fingerprint(job, weights="w"))
    assert told[0] != told[1]


@pytest.mark.parametrize("kind", ["pictures", "texts"])
def test_how_far_the_same_steps_end_apart_is_measured_and_said(kind, request):
    case = request.getfixturevalue(f"device_{kind}")
    plan = make_plan(policy=standard_policy(), methods=("none",))
    with pretend_cuda() as device:
        # In order, the same steps end in the same bits, and nothing is said of them.
        assert not [told for told in caveats(plan, case.cuda.trial, []) if "made twice" in told]
        device.scatters = True
        told = [told for told in caveats(plan, case.cuda.trial, []) if "order" in told]
    # Of these pictures no kernel is unordered; of texts the table of embeddings' is counted as one.
    assert len(told) == (kind == "texts")
    assert all("up to" in sentence for sentence in told)


def test_nothing_is_measured_twice_on_a_cpu(device_texts):
    _, _, device = both(device_texts, lambda loaded: None)
    assert not device.made
    plan = make_plan(policy=standard_policy(), methods=("none",))
    assert not [told for told in caveats(plan, device_texts.cpu.trial, []) if "order" in told]
