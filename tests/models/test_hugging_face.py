"""The transformers layout: config.json, names of older versions, normalisation beside it."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from poison_audit.errors import InputError
from poison_audit.models import hugging_face
from poison_audit.models.checkpoint import load_like, load_model, peek
from poison_audit.models.model import Batch
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng

transformers = pytest.importorskip("transformers")

HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = Batch(X, torch.tensor([0, 1]))


@pytest.fixture(scope="module")
def network():
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return transformers.ViTForImageClassification(config).eval()


@pytest.fixture(scope="module")
def saved(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    network.save_pretrained(folder)
    preprocessor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def test_a_folder_loads_and_gives_the_same_logits(folder, network):
    loaded = load_model(folder)
    assert (loaded.arch_source, loaded.model.arch) == ("config", "transformers:vit")
    assert (loaded.model.classes, loaded.channels) == (3, 3)
    assert loaded.model.normalize == HALF
    with torch.no_grad():
        expected = network((X - 0.5) / 0.25).logits
        assert torch.equal(loaded.model.logits(loaded.model.module, BATCH), expected)


def test_clones_and_fresh_ones_return_logits_too(folder):
    model = load_model(folder).model
    state = torch.random.get_rng_state()
    fresh = model.fresh(Rng(0))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert fresh.digest() == model.fresh(Rng(0)).digest() != model.digest()
    for other in (model.clone(), fresh):
        assert other.logits(other.module, BATCH).shape == (2, 3)


def test_a_gradient_reaches_the_pixels(folder):
    model = load_model(folder).model
    x = X.clone().requires_grad_()
    model.loss(model.module, Batch(x, BATCH.y)).sum().backward()
    assert x.grad.abs().sum() > 0


def test_a_saved_model_needs_its_config_beside_it(folder, tmp_path):
    model = load_model(folder).model
    file = tmp_path / "kept.safetensors"
    save_model(model, file)
    with pytest.raises(InputError, match=r"needs its config\.json, but there is none"):
        load_model(file)
    shutil.copy(folder / "config.json", tmp_path)
    again = load_model(file)
    assert again.arch_source == "header"
    assert again.model.digest() == model.digest()
    assert load_like(model, file)[0].digest() == model.digest()


def test_load_like_leaves_the_given_model_alone(folder):
    model = load_model(folder).model
    before = model.digest()
    tensors = load_file(folder / "model.safetensors")
    save_file({name: t + 1 for name, t in tensors.items()}, folder / "model.safetensors")
    other, _ = load_like(model, folder)
    assert model.digest() == before != other.digest()
    assert other.logits(other.module, BATCH).shape == (2, 3)


def test_half_precision_is_read_into_float32(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "bfloat16"}))
    tensors = load_file(folder / "model.safetensors")
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_file(halves, folder / "model.safetensors")
    module = load_model(folder).model.module
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}
    assert torch.equal(module.classifier.bias, halves["classifier.bias"].float())


def test_everything_that_does_not_fit_is_listed(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.bias"]
    tensors["classifier.weight"] = torch.zeros(4, 8)
    tensors["other"] = torch.zeros(1)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError) as caught:
        load_model(folder)
    text = str(caught.value)
    assert "1 tensors are missing: classifier.bias" in text
    assert "1 tensors have no place: other" in text
    assert "classifier.weight ((4, 8), not (3, 8))" in text


def test_packed_integers_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] = tensors["classifier.weight"].to(torch.int8)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"packed integers for weights: classifier\.weight"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "no-such-kind"}, "transformers cannot read it"),
        ({"model_type": "gpt2"}, "no image classifier"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised network"),
    ],
)
def test_configurations_that_cannot_be_audited(folder, change, reason):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=reason):
        load_model(folder)


def test_code_beside_a_configuration_is_not_run(folder):
    trace = folder / "ran"
    (folder / "evil.py").write_text(
        f"open({str(trace)!r}, 'w')\nclass Config: pass\nclass Net: pass"
    )
    config = json.loads((folder / "config.json").read_text())
    remote = {"AutoConfig": "evil.Config", "AutoModelForImageClassification": "evil.Net"}
    for kind in ("vit", "no-such-kind"):
        changed = {**config, "model_type": kind, "auto_map": remote}
        (folder / "config.json").write_text(json.dumps(changed))
        if kind == "vit":
            load_model(folder)
        else:
            with pytest.raises(InputError, match=r"config\.json"):
                load_model(folder)
        assert not trace.exists()


def test_another_librarys_config_is_left_aside(folder):
    (folder / "config.json").write_text('{"architecture": "resnet18", "num_classes": 10}')
    with pytest.raises(InputError, match="fit no architecture"):
        load_model(folder)


def test_a_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: cannot be read as JSON"):
        load_model(folder)


def test_peek(folder):
    assert peek(folder) == {
        "arch": ["transformers:vit"],
        "classes": 3,
        "channels": 3,
        "normalize": "0.5,0.5,0.5/0.25,0.25,0.25",
    }


def test_loading_says_nothing(folder, capfd):
    load_model(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "many"},
        {"hidden_size": -8},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"num_hidden_layers": None},
        {"hidden_act": "no-such"},
        {"hidden_act": 3},
        {"id2label": "x"},
        {"dtype": "no-such"},
        {"quantization_config": []},
        {"attn_implementation": "no-such"},
        {"image_size": [1, 2, 3, 4]},
        {"patch_size": 0},
        {"num_channels": []},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_values_that_transformers_does_not_expect_are_no_crash(folder, change):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError) as caught:
        load_model(folder)
    assert all(str(folder) in problem.where for problem in caught.value.problems)


def test_messages_are_short_and_on_one_line():
    long = ValueError("Validation error for field 'n':\n    TypeError: expected int\n" + "x" * 999)
    assert hugging_face.in_short(long).startswith("Validation error for field 'n': TypeError: ex")
    assert len(hugging_face.in_short(long)) == 200
    assert hugging_face.in_short(AssertionError()) == "AssertionError"
