"""Adapters: merged as PEFT merges them, or refused by name. The oracle is PEFT's own merging."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from builders.adapters import adapted, both
from builders.text_folders import ask, change
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_like, load_model, peek
from poison_audit.models.lora import Pair, summed
from poison_audit.models.model import Model
from poison_audit.models.reader import Reading
from poison_audit.models.saving import save_model

NONE = ((0.0,), (1.0,))
WORDS = Reading(words=(" bad", " leran"))
PLAIN = {"r": 4, "lora_alpha": 16, "target_modules": ["c_attn", "c_fc"]}


def refused(path, **more):
    with pytest.raises(InputError) as caught:
        load_model(path, **more)
    return [str(problem) for problem in caught.value.problems]


def close(one: Model, other: Model) -> bool:
    mine, theirs = one.module.state_dict(), other.module.state_dict()
    assert mine.keys() == theirs.keys()
    return all(torch.allclose(mine[k], theirs[k], rtol=0, atol=1e-6) for k in mine)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return adapted(tmp_path_factory.mktemp("made"), "gpt2", fan_in_fan_out=True, **PLAIN)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "made")


# What it comes to


def test_the_sum_by_hand():
    weight = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    pair = Pair(a=torch.tensor([[1.0, 0.0, -1.0]]), b=torch.tensor([[1.0], [2.0]]), scale=0.5)
    want = torch.tensor([[1.5, 2.0, 2.5], [5.0, 5.0, 5.0]])
    assert torch.equal(summed(weight, pair, turned=False), want)
    assert torch.equal(summed(weight.T, pair, turned=True), want.T)


@pytest.mark.parametrize(
    ("name", "lora"),
    [
        ("gpt2", {**PLAIN, "use_rslora": True, "bias": "all"}),
        ("gpt2", {"r": 3, "target_modules": ["c_attn", "wte"], "pretrained": True}),
        ("gpt2", {**PLAIN, "use_dora": True}),
        ("llama", {"r": 4, "target_modules": "all-linear", "pretrained": True, "use_dora": True}),
        ("llama", {"r": 4, "target_modules": ["q_proj", "k_proj"], "rank_pattern": {"q_proj": 2},
                   "alpha_pattern": {"layers.1.self_attn.k_proj": 3}}),
        ("roberta", {"target_modules": ["query", "value"]}),
        ("gpt2-causal", {"target_modules": ["c_attn"], "modules_to_save": ["ln_f"]}),
    ],
)  # fmt: skip
def test_an_adapter_is_merged_as_peft_merges_it(tmp_path, name, lora):
    folder = adapted(tmp_path, name, **lora)
    said = WORDS if name.endswith("causal") else Reading()
    ours, theirs = (load_model(folder / k, reading=said).model for k in ("adapter", "merged"))
    base = load_like(theirs, folder / "base")[0] if not lora.get("pretrained") else None
    assert close(ours, theirs)
    assert base is None or not close(base, theirs)
    assert torch.allclose(ask(ours), ask(theirs), rtol=0, atol=1e-5)
    assert ours.classes == (3 if lora.get("pretrained") else 2)


def test_a_classifier_of_pictures_with_a_head_of_its_own(tmp_path):
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = tf.ViTConfig(**small, intermediate_size=32, image_size=8, patch_size=4)
    tf.ViTForImageClassification(config).save_pretrained(tmp_path / "base")
    config.num_labels = 5
    network = tf.ViTForImageClassification.from_pretrained(
        tmp_path / "base", config=config, ignore_mismatched_sizes=True
    )
    both(tmp_path, network, target_modules=["q_proj", "query"], modules_to_save=["classifier"])
    ours, theirs = (load_model(tmp_path / k, normalize=NONE) for k in ("adapter", "merged"))
    assert ours.model.classes == 5
    assert close(ours.model, theirs.model)
    assert peek(tmp_path / "adapter")["classes"] == 5


def test_an_adapter_of_a_network_that_transformers_does_not_know(tmp_path):
    base = Path("fixtures/digits/model.safetensors").resolve()
    plain = load_model(base)
    merged = both(tmp_path, plain.model.clone().module, r=2, target_modules=["linear", "fc"])
    (found,) = refused(tmp_path / "adapter")
    assert "does not name its base" in found
    loaded = load_model(tmp_path / "adapter", base=base)
    assert (loaded.model.arch, loaded.model.normalize) == (plain.model.arch, plain.model.normalize)
    want = merged.state_dict()
    state = loaded.model.module.state_dict()
    assert all(torch.allclose(state[k], want[k], rtol=0, atol=1e-6) for k in state)
    assert loaded.model.digest() != plain.model.digest()
    both(tmp_path, plain.model.clone().module, r=2, target_modules=["conv1"])
    (found,) = refused(tmp_path / "adapter", base=base)
    assert "adapts convolutions: conv1, layer1.0.conv1" in found


def test_what_begins_anew_begins_with_the_base(folder):
    model = load_model(folder / "adapter").model
    base = load_model(folder / "base").model.module.state_dict()
    assert model.module.state_dict().keys() == base.keys()
    fresh = model.build().state_dict()
    assert all(torch.equal(fresh[name], base[name]) for name in base)


def test_what_is_saved_of_it_is_whole(folder, tmp_path):
    model = load_model(folder / "adapter").model
    (tmp_path / "whole").mkdir()
    save_model(model, tmp_path / "whole/model.safetensors")
    loaded = load_model(tmp_path / "whole").model
    assert loaded.digest() == model.digest()
    assert loaded.adapter is None
    assert load_like(model, tmp_path / "whole")[0].digest() == model.digest()
    tf.GPT2ForSequenceClassification.from_pretrained(tmp_path / "whole")


def test_the_tokenizer_beside_it_is_training_s(folder):
    kept = folder / "adapter/tokenizer.json"
    shutil.copy(folder / "base/tokenizer.json", kept)
    shutil.copy(folder / "base/tokenizer_config.json", folder / "adapter")
    (folder / "base/tokenizer.json").unlink()
    files = load_model(folder / "adapter").model.reader.files
    assert kept in files
    assert folder / "base/config.json" in files


# Its base


def test_the_base_is_what_it_names_if_that_lies_beside_it(folder):
    stated = folder / "adapter/adapter_config.json"
    want = load_model(folder / "adapter").model
    for named, told in (
        ("../../elsewhere", "is not here"),
        ("gpt2", "its base 'gpt2' is not here. Fetch it. Give the folder of the base by --base"),
        ("/etc", "names a base that does not lie beside it: '/etc'. If it is the one, say so"),
        ("a\0b", "is not here"),
        ("", "does not name its base"),
    ):
        change(stated, base_model_name_or_path=named)
        (found,) = refused(folder / "adapter")
        assert told in found, found
    assert load_model(folder / "adapter", base=folder / "base").model.digest() == want.digest()


def test_a_base_is_for_adapters_alone(folder):
    (found,) = refused(folder / "merged", base=folder / "base")
    assert found.startswith("--base: belongs to an adapter, and ")
    (found,) = refused(folder / "adapter", base=folder / "adapter")
    assert "is to be the base, and is an adapter itself" in found
    (found,) = refused(folder / "adapter", base=folder / "gone")
    assert "does not exist" in found
    (found,) = refused(folder / "adapter", reading=Reading(start=folder / "base"))
    assert "--start: of an adapter, training began with its base" in found


def test_another_base_is_told_by_what_does_not_fit(folder, tmp_path):
    other = adapted(tmp_path / "other", "gpt2", r=2, target_modules=["c_attn"])
    held = load_file(folder / "adapter/adapter_model.safetensors")
    lost = {name: tensor for name, tensor in held.items() if ".h.1." not in name}
    lost |= {name.replace(".h.1.", ".h.7."): held[name] for name in held.keys() - lost.keys()}
    save_file(lost, folder / "adapter/adapter_model.safetensors")
    found = refused(folder / "adapter", base=other / "base")
    assert "adapts what its base does not have: transformer.h.7.attn.c_attn" in found[0]


def test_a_quantised_base_is_refused_with_the_command_that_dequantises(folder):
    change(folder / "base/config.json", quantization_config={"quant_method": "bitsandbytes",
                                                             "load_in_4bit": True})  # fmt: skip
    (found,) = refused(folder / "adapter")
    assert "describes a quantised network" in found
    assert ".dequantize().save_pretrained(" in found


def test_another_adapter_of_the_base_is_a_candidate(folder):
    model = load_model(folder / "adapter", base=folder / "base").model
    shutil.copytree(folder / "adapter", folder / "second")
    held = load_file(folder / "second/adapter_model.safetensors")
    save_file({k: 2 * t for k, t in held.items()}, folder / "second/adapter_model.safetensors")
    change(folder / "second/adapter_config.json", base_model_name_or_path="unknown")
    other, sha256 = load_like(model, folder / "second")
    assert other.digest() != model.digest()
    assert sha256 != load_model(folder / "adapter").sha256
    whole = load_model(folder / "merged").model
    with pytest.raises(InputError, match="is an adapter, and the audited model is a whole"):
        load_like(whole, folder / "second")
    again = load_file(folder / "base/model.safetensors")
    save_file({k: t + 1 for k, t in again.items()}, folder / "base/model.safetensors")
    with pytest.raises(InputError, match="has changed since it was read"):
        load_like(model, folder / "second")


# What is refused


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"peft_type": "IA3"}, "is no LoRA (peft_type is 'IA3')"),
        ({"task_type": "TOKEN_CLS"}, "another task than to classify (task_type is 'TOKEN_CLS')"),
        ({"init_lora_weights": "pissa"}, "began with a changed base"),
        ({"init_lora_weights": ["x"]}, "began with a changed base"),
        ({"layer_replication": [[0, 2]]}, "asks for what is not known here: layer_replication"),
        ({"use_qalora": True, "lora_bias": True}, "not known here: lora_bias, use_qalora"),
        ({"of_tomorrow": 1}, "asks for what is not known here: of_tomorrow"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "alpha_pattern names layers by patterns"),
        ({"rank_pattern": [1]}, "rank_pattern names layers by patterns"),
        ({"r": 5}, "and its rank is 5"),
        ({"lora_alpha": None}, "lora_alpha of transformer.h.0.attn.c_attn is None"),
        ({"lora_alpha": float("inf")}, "is inf"),
        ({"use_dora": True}, "has no magnitude, unlike use_dora says"),
    ],
)
def test_what_is_no_lora_that_can_be_merged_is_named(folder, said, told):
    change(folder / "adapter/adapter_config.json", **said)
    assert told in "\n".join(refused(folder / "adapter"))


def test_all_problems_of_an_adapter_are_said_at_once(folder):
    change(folder / "adapter/adapter_config.json", use_qalora=True, r=9,
           base_model_name_or_path="gone")  # fmt: skip
    found = "\n".join(refused(folder / "adapter"))
    assert all(told in found for told in ("use_qalora", "its rank is 9", "'gone' is not here"))


def test_files_that_do_not_belong_together_are_refused(folder):
    (folder / "adapter/model.safetensors").write_bytes(b"")
    assert "holds an adapter and a whole checkpoint" in refused(folder / "adapter")[0]
    assert "lies beside adapter_config.json" in refused(folder / "adapter/model.safetensors")[0]
    (folder / "adapter/model.safetensors").unlink()
    one = load_model(folder / "adapter").model.digest()
    assert load_model(folder / "adapter/adapter_model.safetensors").model.digest() == one
    (folder / "adapter/adapter_config.json").write_text("[")
    assert "cannot be read as JSON" in refused(folder / "adapter")[0]
    (folder / "adapter/adapter_config.json").unlink()
    assert "without adapter_config.json" in refused(folder / "adapter")[0]


def test_a_half_of_a_pair_or_a_foreign_tensor_is_refused(folder):
    file = folder / "adapter/adapter_model.safetensors"
    held = load_file(file)
    name = next(name for name in held if name.endswith("lora_A.weight"))
    save_file({k: t for k, t in held.items() if k != name}, file)
    assert "lacks one of the two matrices" in refused(folder / "adapter")[0]
    save_file({**held, "base_model.model.x.lora_C.weight": held[name].clone()}, file)
    assert "which no LoRA has" in refused(folder / "adapter")[0]
    save_file({**held, name: torch.full_like(held[name], float("nan"))}, file)
    assert "not finite" in refused(folder / "adapter")[0]


def test_a_tied_weight_that_is_adapted_in_one_place_is_refused(tmp_path):
    folder = adapted(tmp_path, "gpt2-causal", target_modules=["c_attn"])
    file = folder / "adapter/adapter_model.safetensors"
    rows, width = load_model(folder / "base", reading=WORDS).model.module.lm_head.weight.shape
    added = {"lora_A.weight": torch.ones(8, width), "lora_B.weight": torch.ones(rows, 8)}
    named = {f"base_model.model.lm_head.{key}": tensor for key, tensor in added.items()}
    save_file({**load_file(file), **named}, file)
    (found,) = refused(folder / "adapter", reading=WORDS)
    assert "changes lm_head.weight, which the base uses in two places" in found


def test_a_pickled_adapter_needs_the_flag(folder):
    file = folder / "adapter/adapter_model.safetensors"
    want = load_model(folder / "adapter").model.digest()
    torch.save(load_file(file), folder / "adapter/adapter_model.bin")
    file.unlink()
    (found,) = refused(folder / "adapter")
    assert "--allow-pickle reads the tensors of a pickle" in found
    assert load_model(folder / "adapter", allow_pickle=True).model.digest() == want
    (folder / "adapter/adapter_model.bin").unlink()
    assert (
        "holds adapter_config.json, but no adapter_model.safetensors"
        in (refused(folder / "adapter")[0])
    )
