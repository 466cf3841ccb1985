"""Checkpoints of other formats, or with more than weights: refused in a line that helps."""

import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from builders.checkpoints import NONE, X, answers, network, problems_of, state
from poison_audit.models.checkpoint import load_model


def _script(file):
    torch.jit.trace(network(), X, check_trace=False).save(file)


def _zipped(name):
    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr(name, b"x")

    return write


def _bytes(content):
    return lambda file: file.write_bytes(content + bytes(600))


REFUSED = {
    "ONNX": ("m.onnx", _bytes(b"\x08\x07\x12\x07pytorch"), "ONNX"),
    "Keras .h5": ("m.h5", _bytes(b"\x89HDF\r\n\x1a\n"), "Keras"),
    "Keras": ("m.keras", _zipped("model.weights.h5"), "Keras"),
    "GGUF": ("m.gguf", _bytes(b"GGUF\x03"), "llama.cpp"),
    "TensorFlow Lite": ("m.tflite", _bytes(b"\x1c\0\0\0TFL3"), "TensorFlow Lite"),
    "TensorFlow's graph": ("saved_model.pb", _bytes(b"\x0a\x01"), "TensorFlow"),
    "TensorFlow's shards": ("model.ckpt.data-00000-of-00001", _bytes(b"\1\2"), "TensorFlow"),
    "Flax": ("flax_model.msgpack", _bytes(b"\xde\x01"), "Flax"),
    "NumPy": ("m.npz", lambda f: np.savez(f, a=np.zeros(2)), "NumPy"),
    "one array": ("m.npy", lambda f: np.save(f, np.zeros(2)), "NumPy"),
    "gzip": ("m.pth.gz", _bytes(b"\x1f\x8b\x08"), "Unpack"),
    "zip": ("m.zip", _zipped("folder/net.pth"), "Unpack"),
    "TorchServe": ("m.mar", _zipped("MAR-INF/MANIFEST.json"), "Unpack"),
    "a web page": ("m.pth", _bytes(b"<!DOCTYPE html><html>"), "web page"),
    "Git LFS": ("m.pth", _bytes(b"version https://git-lfs"), "git lfs pull"),
    "empty": ("m.pth", lambda f: f.touch(), "0 bytes"),
    "cut off": ("m.pth", _bytes(b"PK\x03\x04"), "damaged"),
    "JSON": ("config.json", _bytes(b'{\n  "a": 1}'), "JSON"),
    "pickle.dump": ("m.pkl", lambda f: f.write_bytes(pickle.dumps({"a": [1.0]})), "torch.save"),
    "distributed": ("__0_0.distcp", _bytes(b"\1\2"), "dcp_to_torch"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("way", REFUSED)
def test_another_format_is_refused_in_a_line(tmp_path, way):
    name, write, told = REFUSED[way]
    write(tmp_path / name)
    (found,) = problems_of(tmp_path / name, allow_pickle=True)
    assert told in found
    assert len(found.replace(str(tmp_path), "")) < 400


def run_advice(text, folder):
    """Run the command that a message gives, as a user would."""
    code = text.partition('python -c "')[2].partition('"')[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize(
    "content",
    [network(), {"epoch": 3, "model": network()}, nn.DataParallel(network())],
    ids=["network", "inside", "parallel"],
)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_whole_network_is_refused_with_the_command_that_converts_it(
    tmp_path, content, old, protocol
):
    file = tmp_path / "m.pt"
    torch.save(content, file, _use_new_zipfile_serialization=not old, pickle_protocol=protocol)
    (found,) = problems_of(file, allow_pickle=True)
    assert "holds a whole network" in found
    assert "CifarResNet" in found or "DataParallel" in found
    if protocol == 2 and not old and not isinstance(content, dict):
        run_advice(found, tmp_path)
        loaded = load_model(tmp_path / "m.pt.safetensors", normalize=NONE)
        assert torch.equal(answers(loaded), network()(X))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript_is_refused_with_the_command_that_converts_it(tmp_path):
    _script(tmp_path / "m.pt")
    (found,) = problems_of(tmp_path / "m.pt", allow_pickle=True)
    assert "TorchScript" in found
    run_advice(found, tmp_path)
    assert set(load_file(tmp_path / "m.pt.safetensors")) == set(state())


def test_shards_of_pickles_say_what_to_do(tmp_path):
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {}}))
    assert "save_pretrained" in problems_of(tmp_path, allow_pickle=True)[0]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["base_model.model.fc.lora_A.weight", "base_model.model.fc.lora_B.weight"], "adapter"),
        (["fc.qweight", "fc.qzeros", "fc.scales"], "quantised"),
        (["fc.weight", "fc.weight.absmax", "fc.weight.quant_map"], "quantised"),
        (["fc.scale", "fc.zero_point", "fc._packed_params.dtype"], "quantised"),
    ],
)
def test_parts_and_packed_weights_are_refused(tmp_path, names, told):
    save_file({name: torch.zeros(2, 2) for name in names}, tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors", normalize=NONE)
    assert told in found


def test_a_packed_archive_is_refused(tmp_path):
    torch.save(state(), tmp_path / "m.pt")
    with zipfile.ZipFile(tmp_path / "m.pt") as stored:
        contents = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(tmp_path / "p.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in contents.items():
            packed.writestr(name, content)
    (found,) = problems_of(tmp_path / "p.pt", allow_pickle=True)
    assert "torch.save packs nothing" in found


class Trap:
    def __reduce__(self):
        return print, ("ran",)


@pytest.mark.parametrize("value", [Trap(), print, subprocess.CompletedProcess([], 0)])
def test_what_no_checkpoint_holds_is_refused(tmp_path, capsys, value):
    torch.save({"state_dict": state(), "args": value}, tmp_path / "m.pt")
    (found,) = problems_of(tmp_path / "m.pt", allow_pickle=True)
    assert "more than tensors" in found
    assert "ran" not in capsys.readouterr().out


def test_a_length_that_no_memory_holds_is_damage(tmp_path):
    """A text of 2^60 bytes, says the opcode of the old format's last pickle."""
    before = (0x1950A86A20F9469CFC6C, 1001, {})
    claimed = b"\x80\x04\x8d" + (2**60).to_bytes(8, "little")
    content = b"".join(pickle.dumps(each, 2) for each in before) + claimed
    (tmp_path / "m.pt").write_bytes(content + bytes(600))
    (found,) = problems_of(tmp_path / "m.pt", allow_pickle=True)
    assert "is damaged" in found


def test_a_loss_kept_as_a_module_names_the_entry_with_the_weights(tmp_path):
    file = tmp_path / "last.ckpt"
    kept = {"hyper_parameters": {"loss": nn.CrossEntropyLoss()}, "state_dict": state()}
    torch.save(kept, file)
    (found,) = problems_of(file, allow_pickle=True)
    assert "CrossEntropyLoss" in found
    run_advice(found, tmp_path)
    loaded = load_model(tmp_path / "last.ckpt.safetensors", normalize=NONE)
    assert torch.equal(answers(loaded), network()(X))
