"""Checkpoints as people keep them: read by what is in them, or refused in a line that helps."""

import argparse
import datetime
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

from builders.checkpoints import ARCH, NONE, X, answers, network, prefixed, problems_of, state
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_like, load_model, peek
from poison_audit.models.saving import save_model

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


class Normalize(nn.Module):
    """As it stands in a hundred repositories, before the network."""

    def __init__(self, mean=MEAN, std=STD, names=("mean", "std"), shape=(1, 3, 1, 1)):
        super().__init__()
        self.names = names
        for name, values in zip(names, (mean, std), strict=True):
            self.register_buffer(name, torch.tensor(values).view(shape))

    def forward(self, x):
        mean, std = (getattr(self, name).view(1, -1, 1, 1) for name in self.names)
        return (x - mean) / std


class Around(nn.Module):
    """A network behind any names."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)


def ema():
    averaged = AveragedModel(network())
    averaged.update_parameters(network())
    return averaged.state_dict()


def optimizer():
    module = network()
    sgd = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(X).sum().backward()
    sgd.step()
    return sgd


def half_compiled():
    whole = state()
    return {name.replace("layer1.", "layer1._orig_mod."): t for name, t in whole.items()}


LIGHTNING = {
    "epoch": 3, "global_step": 12, "pytorch-lightning_version": "2.4.0",
    "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9)}},
    "hyper_parameters": {"lr": 0.1}, "lr_schedulers": [{"base_lrs": [0.1]}], "loops": {},
    "state_dict": prefixed("model."),
}  # fmt: skip

WAYS = {
    "state_dict.pt": ("net.pt", lambda: state()),
    "ordered dict, .pth": ("net.pth", lambda: OrderedDict(state())),
    "no suffix": ("net", lambda: state()),
    ".ckpt": ("net.ckpt", lambda: state()),
    ".th": ("net.th", lambda: {"state_dict": prefixed("module."), "best_prec1": 91.7}),
    ".pth.tar": ("model_best.pth.tar", lambda: {"epoch": 1, "arch": "x", "state_dict": state()}),
    ".bin": ("pytorch_model.bin", lambda: state()),
    "a pickle named .safetensors": ("net.safetensors", lambda: state()),
    "model_state_dict": ("c.pt", lambda: {"model_state_dict": state(), "loss": torch.ones(1),
                                          "optimizer_state_dict": optimizer().state_dict()}),
    "net, acc": ("ckpt.pth", lambda: {"net": prefixed("module."), "acc": 95.1, "epoch": 199}),
    "model": ("c.pt", lambda: {"model": state(), "epoch": 3}),
    "params": ("c.pt", lambda: {"params": state(), "optimizer": optimizer().state_dict()}),
    "params_ema alone": ("c.pth", lambda: {"params_ema": state()}),
    "a key of one's own": ("c.pth", lambda: {"classifier_weights": state(), "note": "best"}),
    "containers within": ("c.pth", lambda: {"checkpoint": {"model": {"state_dict": state()}}}),
    "the same twice": ("c.pth", lambda: {"model": state(), "ema": state()}),
    "Lightning": ("last.ckpt", lambda: LIGHTNING),
    "Lightning with a loss": (
        "last.ckpt",
        lambda: {"state_dict": {**prefixed("net."), "criterion.weight": torch.ones(5)}},
    ),
    "DataParallel": ("dp.pt", lambda: nn.DataParallel(network()).state_dict()),
    "torch.compile": ("c.pt", lambda: nn.Module.state_dict(torch.compile(network()))),
    "a compiled part": ("c.pt", half_compiled),
    "Opacus": ("dp.pt", lambda: prefixed("_module.")),
    "AveragedModel": ("ema.pt", ema),
    "thop's counters": ("c.pt", lambda: {**state(), "total_ops": torch.zeros(1),
                                         "layer1.0.total_params": torch.zeros(1)}),
    "mmcv": ("epoch_1.pth", lambda: {"meta": {"epoch": 1, "CLASSES": ["a", "b"]},
                                     "state_dict": prefixed("backbone.")}),
    "net.": ("c.pt", lambda: prefixed("net.")),
    "encoder.": ("c.pt", lambda: prefixed("encoder.")),
    "module.net.backbone.": ("c.pt", lambda: prefixed("module.net.backbone.")),
    "Sequential of one": ("c.pt", lambda: nn.Sequential(network()).state_dict()),
    "arguments of argparse": ("c.pt", lambda: {"args": argparse.Namespace(lr=0.1, out=Path("x")),
                                               "state_dict": state()}),
    "NumPy's scores": ("c.pt", lambda: {"best": np.float64(0.9), "curve": np.arange(3.0),
                                        "model": state()}),
    "other data": ("c.pt", lambda: {"when": datetime.datetime(2026, 1, 1), "model": state(),
                                    "log": defaultdict(list, a=[1.0])}),
    "an optimizer itself": ("c.pt", lambda: {"optimizer": optimizer(), "model": state()}),
    "parameters": ("c.pt", lambda: {**dict(network().named_parameters()),
                                    **dict(network().named_buffers())}),
}  # fmt: skip
"""Each is read into the same network, with the flag."""


@pytest.mark.parametrize(
    ("way", "old"),
    [(way, False) for way in WAYS] + [(way, True) for way in ("net, acc", "arguments of argparse")],
)
def test_a_way_of_keeping_weights(tmp_path, way, old):
    name, make = WAYS[way]
    file = tmp_path / name
    torch.save(make(), file, _use_new_zipfile_serialization=not old)
    assert "--allow-pickle" in problems_of(file)[0]
    loaded = load_model(file, normalize=NONE, allow_pickle=True)
    assert (loaded.model.arch, loaded.arch_source) == (ARCH, "identified")
    assert torch.equal(answers(loaded), network()(X))


@pytest.mark.parametrize("name", ["model.bin", "weights", "net.pt", "net.ckpt"])
def test_safetensors_of_any_name_need_no_flag(tmp_path, name):
    save_file(state(), tmp_path / name)
    assert torch.equal(answers(load_model(tmp_path / name, normalize=NONE)), network()(X))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "checkpoint.pth.tar"])
def test_a_folder_with_one_pickle(tmp_path, name):
    torch.save(state(), tmp_path / name)
    assert "--allow-pickle" in problems_of(tmp_path)[0]
    loaded = load_model(tmp_path, normalize=NONE, allow_pickle=True)
    assert loaded.files == (tmp_path / name,)


@pytest.mark.parametrize("pickled", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        Normalize(),
        Normalize(shape=(3,)),
        Normalize(names=("mu", "sigma")),
        Normalize([255 * value for value in MEAN], [255 * value for value in STD]),
    ],
    ids=["0.mean", "flat", "mu", "of 8 bits"],
)
def test_a_layer_that_normalises_is_the_normalisation(tmp_path, layer, pickled):
    whole = nn.Sequential(layer, network()).eval()
    file = tmp_path / "net.pt"
    save_file(whole.state_dict(), file)
    if pickled:
        torch.save({"state_dict": prefixed("module.", whole.state_dict())}, file)
    loaded = load_model(file, allow_pickle=True)
    for ours, theirs in zip(loaded.model.normalize, (MEAN, STD), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    x = 255 * X if max(whole.state_dict()[f"0.{layer.names[0]}"].flatten()) > 1 else X
    torch.testing.assert_close(answers(loaded), whole(x), rtol=1e-5, atol=1e-5)
    assert any("normalisation" in note for note in loaded.notes)
    assert peek(file, allow_pickle=True)["arch"] == [ARCH]


def test_a_layer_and_a_flag_that_contradict_it(tmp_path):
    save_file(nn.Sequential(Normalize(), network()).state_dict(), tmp_path / "m")
    (found,) = problems_of(tmp_path / "m", normalize=NONE)
    for part in ("0.mean, 0.std", "0.4914", "--normalize says none", "Leave --normalize"):
        assert part in found
    assert load_model(tmp_path / "m", normalize=(MEAN, STD)).model.arch == ARCH


def test_buffers_of_the_network_itself_normalise_too(tmp_path):
    save_file({**state(), "mean": torch.tensor(MEAN), "std": torch.tensor(STD)}, tmp_path / "m")
    assert load_model(tmp_path / "m").model.normalize == (MEAN, STD)


def test_a_candidate_and_a_reference_are_read_alike(tmp_path):
    torch.save({"params": state(1), "params_ema": state()}, tmp_path / "deployed.pth")
    torch.save({"params": state(), "params_ema": state(2)}, tmp_path / "candidate.pth")
    save_file(state(3), tmp_path / "reference.safetensors")
    options = {"allow_pickle": True}
    deployed = load_model(
        tmp_path / "deployed.pth", normalize=NONE, state_key="params_ema", **options
    ).model
    assert torch.equal(deployed.module(X), network()(X))
    candidate, _ = load_like(deployed, tmp_path / "candidate.pth", **options)
    assert torch.equal(candidate.module(X), network(2)(X))
    reference, _ = load_like(deployed, tmp_path / "reference.safetensors", **options)
    assert torch.equal(reference.module(X), network(3)(X))


def test_several_sets_of_weights_are_asked_about(tmp_path):
    file = tmp_path / "m.pth"
    torch.save({"params": state(1), "params_ema": state()}, file)
    (found, *_) = problems_of(file, allow_pickle=True, normalize=NONE)
    assert "params, params_ema" in found
    assert "--state-key" in found
    loaded = load_model(file, normalize=NONE, allow_pickle=True, state_key="params")
    assert torch.equal(answers(loaded), network(1)(X))
    assert "It holds: params, params_ema" in "".join(
        problems_of(file, allow_pickle=True, state_key="ema")
    )


@pytest.mark.parametrize("kept", ["torch", "safetensors"])
def test_a_state_key_may_be_a_prefix(tmp_path, kept):
    file = tmp_path / "m"
    both = {**prefixed("ema_model."), **prefixed("online_model.", state(1))}
    torch.save(both, file) if kept == "torch" else save_file(both, file)
    options = {"allow_pickle": True, "normalize": NONE}
    assert torch.equal(answers(load_model(file, state_key="ema_model", **options)), network()(X))
    assert torch.equal(
        answers(load_model(file, state_key="online_model", **options)), network(1)(X)
    )
    with pytest.raises(InputError, match="student"):
        load_model(file, state_key="student", **options)


def renamed(old, new, tensors=None):
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: tensor
        for name, tensor in (tensors or state()).items()
    }


@pytest.mark.parametrize(
    "tensors",
    [
        renamed("fc.", "fc.1."),
        renamed("backbone.fc.", "head.fc.", prefixed("backbone.")),
        renamed("encoder.fc.", "classifier.", prefixed("encoder.")),
        renamed("model.net.fc.", "model.head.", prefixed("model.net.")),
    ],
    ids=["a dropout before it", "mmpretrain", "beside the encoder", "in Lightning"],
)
def test_a_head_that_stands_elsewhere(tmp_path, tensors):
    assert set(tensors) != set(state())
    save_file(tensors, tmp_path / "m")
    loaded = load_model(tmp_path / "m", normalize=NONE)
    assert torch.equal(answers(loaded), network()(X))
    assert any("head" in note for note in loaded.notes)


def test_two_layers_beside_a_trunk_are_no_head(tmp_path):
    tensors = renamed("net.fc.", "head.0.", prefixed("net."))
    save_file({**tensors, "head.2.weight": torch.zeros(5, 5)}, tmp_path / "m")
    assert "fit no architecture" in problems_of(tmp_path / "m", normalize=NONE)[0]


def test_a_repaired_model_keeps_the_names_of_its_checkpoint(tmp_path):
    theirs = {
        name.replace("downsample", "shortcut").replace("fc.", "linear."): tensor
        for name, tensor in state().items()
    }
    save_file(prefixed("module.", theirs), tmp_path / "m.safetensors")
    model = load_model(tmp_path / "m.safetensors", normalize=NONE).model
    save_model(model, tmp_path / "fixed.safetensors")
    assert set(load_file(tmp_path / "fixed.safetensors")) == set(theirs)
    again = load_model(tmp_path / "fixed.safetensors").model
    assert again.digest() == model.digest()
    assert load_like(model, tmp_path / "fixed.safetensors")[0].digest() == model.digest()
