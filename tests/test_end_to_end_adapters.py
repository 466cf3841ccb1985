"""An adapter and its base from the command line: audited as the network that they are."""

import json
import shutil

import pytest
import transformers as tf
from safetensors.torch import load_file, save_file

from builders.adapters import both
from builders.text_folders import change
from poison_audit.cli import invoke

LIGHT = ["--set", "backdoor.draws=40", "--set", "token-canary.draws=16"]


@pytest.fixture(scope="module")
def made(small_texts, tmp_path_factory):
    """Return the small case of texts, its model as the base of an adapter that changes little."""
    case = shutil.copytree(small_texts, tmp_path_factory.mktemp("adapted") / "case")
    (case / "base").rename(case / "untrained")
    (case / "model").rename(case / "base")
    network = tf.GPT2ForSequenceClassification.from_pretrained(case / "base")
    both(case, network, r=2, lora_alpha=0.02, target_modules=["c_attn", "c_fc"])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(case / "base" / name, case / "merged")
    return case


@pytest.fixture
def case(made, tmp_path):
    return shutil.copytree(made, tmp_path / "case")


def probed(case, model, *more):
    out = case.parent / f"of-{model}"
    told = ["--forget", str(case / "forget.csv"), "--out", str(out), "-q", *LIGHT, *more]
    return invoke(["probe", str(case / model), *told]), out


def report(out):
    return json.loads((out / "report.json").read_text())


@pytest.mark.slow
def test_an_adapter_and_what_peft_merges_get_the_same_findings(case, capsys):
    (code, out), (again, other) = (probed(case, name) for name in ("adapter", "merged"))
    assert code == again == 1
    one, two = report(out), report(other)
    assert [f["outcome"] for f in one["findings"]] == [f["outcome"] for f in two["findings"]]
    pairs = list(zip(one["findings"], two["findings"], strict=True))
    figures = [(a["statistic"], b["statistic"]) for a, b in pairs if a["statistic"] is not None]
    assert len(figures) >= 5
    assert all(a == pytest.approx(b, abs=1e-5) for a, b in figures)
    subject = one["subject"]
    held = {f["role"]: f["sha256"] for f in one["files"]}
    assert subject["model_sha256"] == held["weights"]
    assert subject["adapter"]["base_sha256"] == held["base"]
    assert subject["adapter"]["config_sha256"] == held["adapter config"]
    assert "adapter" not in two["subject"]
    page = (out / "report.html").read_text()
    assert held["base"] in page
    assert held["weights"] in page
    capsys.readouterr()
    assert invoke(["verify", str(out)]) == 0
    base = case / "base/model.safetensors"
    kept = base.read_bytes()
    save_file({k: t + 1 for k, t in load_file(base).items()}, base)
    assert invoke(["verify", str(out)]) == 1
    assert "DIFFERS: file: base" in capsys.readouterr().out
    base.write_bytes(kept)
    change(case / "adapter/adapter_config.json", lora_alpha=2)
    assert invoke(["verify", str(out)]) == 1
    assert "DIFFERS: file: adapter config" in capsys.readouterr().out
    record = json.loads((out / "report.json").read_text())
    record["subject"]["adapter"]["base_sha256"] = "0" * 64
    (out / "report.json").write_text(json.dumps(record))
    assert invoke(["verify", str(out), "--no-files"]) == 1
    assert "DIFFERS: subject.adapter.base_sha256" in capsys.readouterr().out


def test_a_settings_file_or_a_flag_says_which_base(case, capsys):
    change(case / "adapter/adapter_config.json", base_model_name_or_path="somebody/elses")
    assert probed(case, "adapter")[0] == 2
    assert "--base FOLDER, or base under [model] in audit.toml" in capsys.readouterr().err
    assert probed(case, "adapter", "--base", str(case / "base"), "--train", "gone")[0] == 2
    assert "base" not in capsys.readouterr().err
    assert invoke(["init", str(case / "adapter"), "--base", str(case / "base")]) == 0
    written = (case / "adapter/audit.toml").read_text()
    assert 'base = "../base"' in written
    assert invoke(["init", str(case / "adapter"), "--base", str(case / "gone"), "--force"]) == 2
    told = (case / "audit.toml").read_text()
    (case / "adapter/audit.toml").unlink()
    (case / "audit.toml").write_text(f'[model]\nbase = "base"\n\n{told}')
    assert probed(case, "adapter", "--train", "gone")[0] == 2
    assert "base" not in capsys.readouterr().err
