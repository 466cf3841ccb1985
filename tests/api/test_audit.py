"""`import poison_audit as pa`: the command line's audit, of what lies in memory."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import poison_audit as pa
from builders.small_case import FLAGS
from poison_audit.atomic import from_json
from poison_audit.cli import invoke
from poison_audit.models.checkpoint import load_model
from poison_audit.verdict.record import AuditRecord

RECIPE = {"epochs": 5, "batch_size": 20, "lr": 0.1}
EVIDENCE = {"canaries": "canaries.json", "bases": "bases.npz"}
pytestmark = pytest.mark.usefixtures("no_sizes", "plain_page")


def table(path):
    with np.load(path) as file:
        return {name: file[name] for name in ("x", "y", "id")}


@pytest.fixture
def network(case):
    """The deployed model as somebody holds it: a plain module, in training mode."""
    model = load_model(case / "model.safetensors", normalize=((0.0,), (1.0,)))
    return model.model.module.train()


def same_but_for_places(record, other):
    """Say which parts of two records differ: not paths, the command, the clock, and the seal."""
    mine, theirs = (json.loads(json.dumps(_plain(each))) for each in (record, other))
    return [key for key in mine if mine[key] != theirs[key]]


def _plain(record):
    told = {each.name: getattr(record, each.name) for each in fields(AuditRecord)}
    for name in ("environment", "places", "seal"):
        told.pop(name)
    told["subject"] = {
        key: {k: v for k, v in value.items() if k != "path"} if isinstance(value, dict) else value
        for key, value in told["subject"].items()
        if key not in ("model", "train", "test", "forget")
    }
    told["files"] = [[each.role, each.size] for each in told["files"]]
    cells = [replace(each, probe_seconds=0, cost=None) for each in told["cells"]]
    return {key: repr(value) for key, value in {**told, "cells": cells}.items()}


def test_the_record_is_the_command_lines(case, network):
    """A module and arrays in memory, and the same as files: every figure, bit for bit."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    seen = []
    record = pa.audit(
        network, train=table("train.npz"), test=table("test.npz"), forget="forget.csv",
        evidence=EVIDENCE, recipe=RECIPE, normalize="none", methods=["gd"], out="mine",
        progress=seen.append,
    )  # fmt: skip
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in before.items()}, "plain.safetensors")
    assert invoke(["check", "plain.safetensors", "--forget", "forget.csv", *FLAGS, "-q",
                   "--methods", "gd", "--out", "theirs"]) == record.verdict.exit_code  # fmt: skip
    theirs = from_json(AuditRecord, (case / "theirs/report.json").read_text("utf-8"))
    assert same_but_for_places(record, theirs) == []
    assert [c.digest for c in record.cells] == [c.digest for c in theirs.cells]
    assert record.comparability == theirs.comparability
    # The caller's module is as it was; and what was in memory lies beside the report.
    assert network.training
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())
    assert record.subject["model"] == "inputs/model.safetensors"
    assert invoke(["verify", "mine"]) == 0
    assert [one.job.candidate for one in seen if one.cell] == ["deployed", "gd"]
    assert pa.read("mine") == record
    assert record.passed is (record.verdict.exit_code == 0)
    with pytest.raises(FrozenInstanceError):
        record.verdict.exit_code = 0
    assert "poison-audit" in record.html()
    assert record._repr_html_().startswith("<iframe srcdoc=")
    assert (record.save("kept", ["junit"]) / "report.junit.xml").exists()
    with pytest.raises(pa.InputError, match=r"no format is named jnuit. Did you mean junit"):
        record.save("kept", ["jnuit"])


class Plain(Dataset):
    """Somebody's own map-style data set, with pictures of floats as ToTensor makes them."""

    def __init__(self, x, y, *, wild=False):
        self.x, self.y, self.wild = x, y, wild

    def __len__(self):
        return len(self.y)

    def __getitem__(self, place):
        x = torch.from_numpy(self.x[place])
        return (x + torch.rand(1) * 0.01 if self.wild else x), int(self.y[place])


def test_every_form_of_data_is_the_same_table(case, tmp_path):
    from poison_audit.commands.held import Held

    told = table("train.npz")
    x, y = told["x"], told["y"]
    plain = Plain(x, y)
    loader = DataLoader(plain, batch_size=8, shuffle=True)
    forms = [
        (x, y), {"x": x, "y": y}, {"image": torch.from_numpy(x), "label": y.tolist()}, plain,
        TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), loader,
        [{"image": torch.from_numpy(a), "label": b} for a, b in zip(x, y, strict=True)],
    ]  # fmt: skip
    for number, form in enumerate(forms):
        held = Held(tmp_path / str(number))
        with np.load(held.table(form, "train")) as file:
            assert np.array_equal(file["x"], x)
            assert np.array_equal(file["y"], y)
        assert held.shape == x.shape[1:]
        assert bool(held.told) == (form is loader)
    assert "shuffles" in held.told[0] if held.told else True
    texts = Held(tmp_path / "texts").table([("a, b", 0), ('say "c"', 1)], "train")
    assert texts.read_text("utf-8") == 'text,label\n"a, b",0\n"say ""c""",1\n'


def test_data_that_are_no_samples_are_refused_in_words(case, tmp_path):
    from poison_audit.commands.held import Held

    told, held = table("train.npz"), Held(tmp_path)
    for wrong, words in (
        (Plain(told["x"], told["y"], wild=True), "it augments"),
        ((torch.zeros(4, 9, dtype=torch.int64), torch.zeros(4)), "tokens, perhaps"),
        (iter([1]), "map-style"),
        ({"a": [1]}, "Call them x and y"),
        ([{"ids": 3}, {"ids": 4}], "no sample and label"),
        ([], "no sample"),
    ):
        with pytest.raises(pa.InputError, match=words):
            held.table(wrong, "train")


def test_a_forget_set_is_positions_ids_a_mask_or_columns(tmp_path):
    from poison_audit.commands.held import Held

    def written(given):
        return Held(tmp_path).forget(given).read_text("utf-8")

    assert written([3, 1]) == written(np.array([3, 1])) == written(torch.tensor([3, 1]))
    assert written({3, 1}) == "index\n1\n3\n"
    assert written(["a", "b"]) == "id\na\nb\n"
    assert json.loads(written(np.array([True, False]))) == [True, False]
    assert written({"index": [2], "attack": ["backdoor"]}) == "index,attack\n2,backdoor\n"
    with pytest.raises(pa.InputError, match=r"forget: holds float"):
        written([1.5])


def test_everything_that_is_wrong_is_said_at_once_and_nothing_exits(case, network):
    with pytest.raises(pa.InputError) as refused:
        pa.audit(
            network, train=table("train.npz"), test=table("test.npz"), forget=[0, 0, 999],
            methods=["srcub"], alpha=2,
        )  # fmt: skip
    told = str(refused.value)
    for words in ("srcub", "normalisation", "999", "same sample as in row 2"):
        assert words in told, told
    # A call has no flags: what is wrong is named as it was given.
    assert "alpha: must lie between 0 and 0.5, got 2" in told
    assert "normalize=" in told
    assert "--" not in told
    assert "inputs/forget.csv" in told
    assert "/tmp" not in told
    with pytest.raises(pa.InputError, match=r"lr: expected|recipe lr"):
        pa.probe(network, train="train.npz", test="test.npz", forget="forget.csv",
                 normalize="none", recipe={"lr": -1})  # fmt: skip
    with pytest.raises(pa.InputError, match=r"cannot tell what canary.json is.*Did you mean"):
        pa.probe(network, train="train.npz", test="test.npz", forget="forget.csv",
                 evidence=["canary.json"])  # fmt: skip
    with pytest.raises(pa.InputError, match="the model has no adapter"):
        pa.unlearn(network, method="gd", train="train.npz", test="test.npz", forget="forget.csv",
                   normalize="none", recipe=RECIPE, trainable="adapter")  # fmt: skip


class Mine(nn.Module):
    """The tensors of a network that is known, and another function of them."""

    def __init__(self, known):
        super().__init__()
        for name, part in known.named_children():
            self.add_module(name, part)
        self.forwarded = type(known).forward

    def forward(self, x):
        return 2 * self.forwarded(self, x)


class Scaled(nn.Module):
    """A parameter that no layer of torch's initialises."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.line = nn.Linear(64, 3)

    def forward(self, x):
        return self.scale * self.line(x.flatten(1))


def test_a_network_is_known_by_what_it_answers(network):
    """Names and shapes of tensors are no proof: a module that computes otherwise stays itself."""
    from poison_audit.commands.in_memory import factory_of
    from poison_audit.models.factory import import_factory

    with factory_of(network, None, arch=None, shape=(1, 8, 8)) as name:
        assert name is None
    own = Mine(network)
    own._stages = network._stages
    with factory_of(own, None, arch=None, shape=(8, 8, 1)) as name:
        assert name == f"{__name__}:Mine"
        fresh = import_factory(name)()
        assert type(fresh) is Mine
        assert not torch.equal(fresh.conv1.weight, own.conv1.weight)
        assert torch.equal(own.conv1.weight, network.conv1.weight)
    with pytest.raises(pa.InputError, match="cannot be imported"):
        import_factory(f"{__name__}_gone:Mine")  # none is named beyond its audit
    with (
        factory_of(Scaled(), None, arch=None, shape=None) as name,
        pytest.raises(pa.InputError, match=r"nobody says how scale are initialised|Give factory="),
    ):
        import_factory(name)()


def test_a_repaired_module_says_that_it_is_one(case, network):
    """Somebody who audits it alone is told that nobody compared its accuracy."""
    given = {"train": "train.npz", "test": table("test.npz"), "normalize": "none",
             "forget": "forget.csv", "evidence": EVIDENCE}  # fmt: skip
    made = pa.unlearn(network, method="gd", recipe=RECIPE, **given)
    assert type(made) is type(network)
    assert not made.training
    assert not torch.equal(made.conv1.weight, network.conv1.weight)
    alone = pa.probe(made, **given)
    assert "was made by gd from another model" in " ".join(d.sentence for d in alone.doubts)
    assert not alone.passed


def test_plant_gives_what_audit_takes(case, tmp_path):
    planted = pa.plant(
        table("test.npz"), attack="gaussian", out=tmp_path / "planted", count=9, sigma=0.3
    )
    assert sorted(planted.evidence) == ["bases", "canaries"]
    assert len(planted.forget["id"]) == 9
    assert len(planted.train) == 60
    x, _ = planted.train[0]
    assert x.shape == (1, 8, 8)
    assert planted.table == tmp_path / "planted" / "train.npz"
    assert "9 of 60 training samples" in planted.sentence
    with pytest.raises(pa.InputError, match="is not empty"):
        pa.plant(table("test.npz"), attack="gaussian", out=tmp_path / "planted")
    with pytest.raises(TypeError, match="no attack has the option 'sgima'"):
        pa.plant(table("test.npz"), attack="gaussian", out=tmp_path / "other", sgima=1)
