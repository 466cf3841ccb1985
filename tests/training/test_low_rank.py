"""An adapter trained alone: its base keeps every bit, and PEFT reads what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
import transformers as tf

from builders import small_text
from builders.adapters import adapted, both
from poison_audit.case.case import Case
from poison_audit.case.texts import read_texts
from poison_audit.engine.unlearning import run_method
from poison_audit.errors import PlanError
from poison_audit.methods import METHODS
from poison_audit.models.checkpoint import load_model
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe
from poison_audit.training.ledger import Ledger

ADAPTED = "transformer.h.0.attn.c_attn.weight"
HEAD = "score.weight"
OTHERS = {"i_bau", "restamp"}
"""Of pictures, or of a trigger."""
PARAMS = {"ssd": {"alpha": 1.0}, "ga": {"passes": 1e6}, "potion": {"lost": 1.0}}


@pytest.fixture(scope="module", params=["lora", "dora"])
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    more = {"use_dora": True} if request.param == "dora" else {}
    adapted(folder, "gpt2", r=2, target_modules=["c_attn"], **more)
    model = replace(load_model(folder / "adapter").model, adapter_alone=True)
    texts, labels = small_text.sentences(Rng(3), 24)
    rows = [(f"t{i}", t, y) for i, (t, y) in enumerate(zip(texts, labels, strict=True))]
    small_text.write_rows(folder / "t.csv", ["id", "text", "label"], rows)
    samples = read_texts(folder / "t.csv", reader=model.reader)
    recipe = Recipe(epochs=2, lr=0.1, batch_size=4)
    return Case(model=model, retain=samples.at(range(12)), forget=samples.at(range(12, 18)),
                test=samples.at(range(18, 24)), recipe=recipe)  # fmt: skip


def run(name, case, model=None):
    ledger = Ledger(allowed=None if METHODS[name].reference else 40.0)
    own = case.model if model is None else model
    return run_method(name, own, case, Rng(0), ledger=ledger, **PARAMS.get(name, {}))


def moved(one, other):
    before, after = one.module.state_dict(), other.module.state_dict()
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("name", [n for n in METHODS if n not in OTHERS])
def test_no_method_moves_the_base(case, name):
    digest = case.model.digest()
    made = run(name, case)
    assert case.model.digest() == digest
    names = moved(case.model, made)
    assert names
    assert names <= {ADAPTED, ADAPTED.replace(".h.0.", ".h.1."), HEAD}
    assert not made.module.training


@pytest.mark.parametrize("name", ["gd", "weight_distortion"])
def test_else_all_of_it_is_trained(case, name):
    whole = replace(case.model, adapter_alone=False)
    made = run(name, case, whole)
    assert "transformer.wte.weight" in moved(whole, made)
    assert made.adapter is None


def test_retraining_trains_what_training_did(case):
    made = run("retrain", case, replace(case.model, adapter_alone=False))
    base = load_model(case.model.adapter.base).model
    assert "transformer.wte.weight" not in moved(base, made)
    assert ADAPTED in moved(base, made)


def test_what_does_nothing_gives_the_same_bits(case):
    made = run_method("ga", case.model, case, Rng(0), ledger=Ledger(allowed=0.0))
    assert made.digest() == case.model.digest()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of transformers, at what PEFT calls
def test_peft_reads_what_is_written(case, tmp_path):
    made = run("gd", case)
    save_model(made, tmp_path / "adapter_model.safetensors")
    again = load_model(tmp_path, base=case.model.adapter.base).model
    assert torch.allclose(
        again.module.state_dict()[ADAPTED], made.module.state_dict()[ADAPTED], rtol=0, atol=1e-6
    )
    network = tf.GPT2ForSequenceClassification.from_pretrained(case.model.adapter.base)
    merged = peft.PeftModel.from_pretrained(network, tmp_path).merge_and_unload().state_dict()
    state = made.module.state_dict()
    assert all(torch.allclose(state[k], merged[k], rtol=0, atol=1e-6) for k in state)


def test_a_network_with_batch_norm_is_trained_whole(case, tmp_path):
    plain = load_model(Path("fixtures/digits/model.safetensors").resolve())
    both(tmp_path, plain.model.clone().module, r=2, target_modules=["linear", "fc"])
    loaded = load_model(tmp_path / "adapter", base=plain.files[0])
    with pytest.raises(PlanError, match="BatchNorm, whose statistics would move with it"):
        run("gd", case, replace(loaded.model, adapter_alone=True))
