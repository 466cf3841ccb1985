"""Loading and saving whole models: real small files, every refusal by name."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from builders.checkpoints import ARCH, NONE, X, a_model, network, problems_of
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_like, load_model, peek
from poison_audit.models.image import NORMALIZE
from poison_audit.models.model import Batch
from poison_audit.models.reader import Reading
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.models.strict import load_strict


@pytest.fixture
def plain(tmp_path):
    file = tmp_path / "net.safetensors"
    save_file(network().state_dict(), file)
    return file


def test_a_plain_file_is_identified_and_gives_the_same_logits(plain):
    loaded = load_model(plain, normalize=NONE)
    assert (loaded.arch_source, loaded.model.arch) == ("identified", ARCH)
    assert (loaded.model.classes, loaded.channels) == (5, 3)
    assert loaded.files == (plain,)
    assert not loaded.model.module.training
    out = loaded.model.logits(loaded.model.module, Batch(X, torch.zeros(3, dtype=torch.int64)))
    assert torch.equal(out, network()(X))


def test_saving_and_loading_keep_every_bit(tmp_path):
    model = a_model(network())
    file = tmp_path / "saved.safetensors"
    save_model(model, file, extra={"poison_audit.method": "gd"})
    loaded = load_model(file)
    assert loaded.model.digest() == model.digest()
    assert loaded.arch_source == "header"
    assert loaded.model.normalize == NORMALIZE["cifar10"]
    assert loaded.metadata == {
        "format": "pt",
        "poison_audit.arch": ARCH,
        "poison_audit.method": "gd",
        "poison_audit.normalize": json.dumps(NORMALIZE["cifar10"]),
    }
    # safetensors' own reader agrees.
    for name, tensor in load_file(file).items():
        assert torch.equal(tensor, model.module.state_dict()[name]), name


def test_equal_models_give_equal_bytes(tmp_path):
    extra = {f"key{i}": str(i) for i in range(6)}
    for name in "abc":
        save_model(a_model(network()), tmp_path / name, extra=extra)
    assert len({(tmp_path / name).read_bytes() for name in "abc"}) == 1


def test_saving_leaves_nothing_else_behind(tmp_path):
    save_model(a_model(network()), tmp_path / "m.safetensors")
    save_model(a_model(network(1)), tmp_path / "m.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["m.safetensors"]
    assert load_model(tmp_path / "m.safetensors").model.digest() == a_model(network(1)).digest()


def test_extra_keys_cannot_change_what_the_model_says(tmp_path):
    save_model(a_model(network()), tmp_path / "m", extra={"poison_audit.arch": "resnet18"})
    with safe_open(tmp_path / "m", "pt") as file:
        assert file.metadata()["poison_audit.arch"] == ARCH


def test_loading_leaves_the_global_generator_alone(plain):
    state = torch.random.get_rng_state()
    load_model(plain, normalize=NONE)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_fresh_builds_the_same_architecture(plain):
    model = load_model(plain, normalize=NONE).model
    fresh = model.fresh(Rng(0))
    shapes = [(name, t.shape) for name, t in network().state_dict().items()]
    assert [(name, t.shape) for name, t in fresh.module.state_dict().items()] == shapes
    assert fresh.digest() != model.digest()


def test_kuangliu_names_load(tmp_path):
    state = network().state_dict()
    theirs = {
        name.replace("downsample", "shortcut").replace("fc.", "linear."): tensor
        for name, tensor in state.items()
    }
    save_file(
        {f"module.{name}": tensor for name, tensor in theirs.items()}, tmp_path / "m.safetensors"
    )
    loaded = load_model(tmp_path / "m.safetensors", normalize=NONE)
    assert loaded.model.digest() == a_model(network()).digest()
    assert "'module.'" in loaded.notes[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_are_read_into_float32(tmp_path, dtype):
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in network().state_dict().items()
    }
    save_file(state, tmp_path / "m.safetensors")
    module = load_model(tmp_path / "m.safetensors", normalize=NONE).model.module
    for name, tensor in module.state_dict().items():
        expected = state[name].float() if tensor.is_floating_point() else state[name]
        assert torch.equal(tensor, expected), name


def test_counts_of_batches_may_be_absent(tmp_path):
    state = network().state_dict()
    bare = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    save_file(bare, tmp_path / "m.safetensors")
    assert torch.equal(
        load_model(tmp_path / "m.safetensors", normalize=NONE).model.module(X), network()(X)
    )


def test_everything_that_does_not_fit_is_listed_at_once(plain):
    state = network().state_dict()
    del state["fc.bias"], state["bn1.weight"]
    state["z.extra"], state["a.extra"] = torch.zeros(1), torch.zeros(1)
    state["conv1.weight"] = torch.zeros(4, 3, 5, 5)
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"].to(torch.int8)
    save_file(state, plain)
    found = problems_of(plain, arch=ARCH)
    assert len(found) == 5
    text = "\n".join(found)
    for reason in (
        "the normalisation is not stated",
        "2 tensors are missing: bn1.weight, fc.bias",
        "2 tensors have no place: a.extra, z.extra",
        "1 tensors have another shape: conv1.weight ((4, 3, 5, 5), not (4, 3, 3, 3))",
        "1 tensors are of another type: layer1.0.conv1.weight (int8)",
    ):
        assert reason in text


def test_a_long_list_is_cut(plain):
    save_file(nn.Linear(2, 2).state_dict(), plain)
    (missing, *_) = problems_of(plain, arch="resnet18", normalize=NONE)
    # 122 tensors, of which 20 are counts of batches.
    assert "102 tensors are missing" in missing
    assert "and 82 more" in missing


def test_a_refused_load_leaves_the_network_alone():
    module = network()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    other = network(1).state_dict()
    del other["fc.bias"]
    with pytest.raises(InputError, match=r"fc\.bias"):
        load_strict(module, other, where="m")
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_of_two_networks_under_two_prefixes_it_is_asked_which():
    # As Lightning keeps a network and its moving average.
    held = {
        f"{name}.{key}": tensor
        for seed, name in enumerate(("model", "ema_model"))
        for key, tensor in network(seed).state_dict().items()
    }
    with pytest.raises(InputError, match="holds 2 networks: ema_model, model") as caught:
        load_strict(network(3), held, where="m")
    (problem,) = caught.value.problems
    assert "--state-key" in problem.fix


def test_no_match_says_what_was_found(tmp_path):
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors", normalize=NONE)
    assert "bias (2,), weight (2, 3)" in found
    assert "--factory" in found


def test_an_ambiguous_match_lists_them(plain, monkeypatch):
    monkeypatch.setattr("poison_audit.models.network.identify", lambda _: ["one", "two"])
    (found,) = problems_of(plain, normalize=NONE)
    assert "one, two" in found
    assert "--arch" in found


def test_a_misspelt_architecture(plain):
    (found,) = problems_of(plain, arch="resnet81", normalize=NONE)
    assert "--arch: unknown architecture 'resnet81'. Did you mean resnet18?" in found


def test_the_flag_wins_over_the_header(tmp_path):
    save_model(a_model(network()), tmp_path / "m.safetensors")
    loaded = load_model(tmp_path / "m.safetensors", arch=ARCH, normalize=((0.5,), (0.5,)))
    assert loaded.arch_source == "flag"
    assert loaded.model.normalize == ((0.5,), (0.5,))


def test_a_header_of_an_unknown_architecture(tmp_path):
    save_model(a_model(network(), arch="restnet18"), tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors")
    assert "m.safetensors: unknown architecture 'restnet18'. Did you mean resnet18?" in found


def test_a_malformed_header_and_a_misfit_are_told_at_once(plain):
    metadata = {"poison_audit.normalize": "[]", "poison_audit.arch": "resnet81"}
    save_file(network().state_dict(), plain, metadata=metadata)
    found = problems_of(plain)
    assert ["normalize" in found[0], "resnet81" in found[1]] == [True, True]


@pytest.mark.parametrize("normalize", [((0.5, 0.5), (0.2, 0.2)), ((0.1,) * 4, (0.2,) * 4)])
def test_a_normalisation_for_other_channels(plain, normalize):
    (found,) = problems_of(plain, normalize=normalize)
    assert "the network 3" in found


def test_one_output_is_no_classifier(tmp_path):
    save_file(network(classes=1).state_dict(), tmp_path / "m.safetensors")
    (found,) = problems_of(tmp_path / "m.safetensors", normalize=NONE)
    assert "1 output" in found


# Tied tensors


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(5, 5, bias=False)
        self.head = nn.Linear(5, 5, bias=False)
        self.head.weight = self.embed.weight


def test_tied_tensors_are_written_once_and_read_back(tmp_path):
    model = a_model(Tied())
    save_model(model, tmp_path / "m")
    assert list(load_file(tmp_path / "m")) == ["embed.weight"]
    for names in (["embed.weight"], ["head.weight"], ["embed.weight", "head.weight"]):
        other = Tied()
        load_strict(other, {name: torch.eye(5) for name in names}, where="m")
        assert torch.equal(other.head.weight, torch.eye(5))
        assert other.head.weight is other.embed.weight


def test_tied_tensors_that_differ_are_refused():
    with pytest.raises(InputError, match=r"tied but differ: embed\.weight and head\.weight"):
        load_strict(
            Tied(), {"embed.weight": torch.eye(5), "head.weight": torch.ones(5, 5)}, where="m"
        )


def test_a_missing_tie_is_missing_once_none_is_there():
    with pytest.raises(InputError, match=r"2 tensors are missing: embed\.weight, head\.weight"):
        load_strict(Tied(), {}, where="m")


def test_equal_tensors_that_are_not_tied_are_both_written(tmp_path):
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    module[1].load_state_dict(module[0].state_dict())
    save_model(a_model(module), tmp_path / "m")
    assert set(load_file(tmp_path / "m")) == {"0.weight", "1.weight"}


# Others of the same architecture


def test_load_like_reads_another_checkpoint(tmp_path):
    model, other = a_model(network()), a_model(network(1))
    before = model.digest()
    save_model(other, tmp_path / "m.safetensors")
    loaded, sha256 = load_like(model, tmp_path / "m.safetensors")
    assert loaded.digest() == other.digest()
    assert model.digest() == before
    assert sha256 == load_model(tmp_path / "m.safetensors").sha256


def test_load_like_refuses_another_normalisation(tmp_path):
    save_model(a_model(network(1), normalize=NONE), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="normalisation none, the audited model with cifar10"):
        load_like(a_model(network()), tmp_path / "m.safetensors")


def test_load_like_refuses_another_shape(tmp_path):
    save_model(a_model(network(classes=6)), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"fc\.weight \(\(6, 8\), not \(5, 8\)\)"):
        load_like(a_model(network()), tmp_path / "m.safetensors")


# Looking without loading


def test_peek_at_a_plain_file(plain):
    assert peek(plain) == {"arch": [ARCH], "classes": 5, "channels": 3, "normalize": None}


def test_peek_at_a_saved_file(tmp_path):
    save_model(a_model(network()), tmp_path / "m.safetensors")
    assert peek(tmp_path / "m.safetensors")["normalize"] == "cifar10"


def test_peek_at_the_unknown(tmp_path):
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "m.safetensors")
    nothing = {"arch": [], "classes": None, "channels": None, "normalize": None}
    assert peek(tmp_path / "m.safetensors") == nothing


def test_what_is_said_of_texts_is_refused_where_the_model_takes_pictures(tmp_path):
    """It was silently ignored."""
    save_model(a_model(network()), tmp_path / "m.safetensors")
    said = Reading(max_tokens=8, prompt="{text}", words=("a", "b"), start=tmp_path)
    told = problems_of(tmp_path / "m.safetensors", reading=said)
    what = "is for models that read texts, and this one takes pictures. Leave it out"
    for line, flag in zip(told, ("max-tokens", "prompt", "label-words", "start"), strict=True):
        assert line.startswith(f"--{flag}: {what}")
