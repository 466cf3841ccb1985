"""A case of texts from its files: what is put together, and everything that is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from builders import text_case
from builders.small_text import write_rows
from builders.text_case import KEY, PLANTED, load, refused, rewrite
from poison_audit.cli import invoke
from poison_audit.models.checkpoint import load_model
from poison_audit.models.header import DATA_KEY
from poison_audit.models.reader import Reading


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return text_case.make(tmp_path_factory.mktemp("case"))


@pytest.fixture
def case(made, tmp_path, monkeypatch):
    folder = shutil.copytree(made, tmp_path / "case")
    monkeypatch.chdir(folder)
    return folder


# What is put together


def test_a_case_of_texts(case):
    trial = load(case)
    found = trial.case
    assert (len(found.retain), len(found.forget), len(found.test)) == (13, 7, 10)
    assert found.model.device.type == "cpu"
    assert found.attacks == ("gaussian",) * 6 + ("",)
    assert found.evidence["gaussian"].names == PLANTED
    bases = found.evidence["gaussian"].bases
    assert bases.texts == found.forget.texts[:6]
    longest = int(bases.mask.sum(1).max())
    assert bases.x.shape == (6, longest)
    # The noise of the canaries and of the controls, as far as the longest canary goes.
    assert found.evidence["gaussian"].noise.dtype == torch.float32
    canaries = found.evidence["gaussian"]
    for drawn, names in ((canaries.noise, PLANTED), (canaries.held_out_noise, KEY.held_out)):
        assert np.array_equal(drawn, KEY.noise(names)[:, :longest].astype(np.float32))


def test_methods_see_the_noise_and_probes_the_clean_bases(case):
    found = load(case).case
    noise = found.forget.batch().noise
    for row, name in enumerate(PLANTED):
        n = int(found.forget.mask[row].sum())
        assert np.array_equal(noise[row, :n], KEY.noise([name])[0, :n].astype(np.float32))
    assert not noise[6].any()  # t0 is no canary
    assert found.retain.batch().noise is None
    assert found.evidence["gaussian"].bases.batch().noise is None


def test_a_canary_that_is_not_to_be_forgotten_keeps_its_noise(case):
    text = (case / "forget.csv").read_text().replace("c0,", "t1,", 1).splitlines()
    (case / "forget.csv").write_text("\n".join(["id,attack", *(
        f"{line.split(',')[0]},{'gaussian' if line[0] == 'c' else ''}" for line in text[1:]
    )]) + "\n")  # fmt: skip
    trial = load(case)
    row = trial.case.retain.ids.index("c0")
    batch = trial.case.retain.batch(torch.tensor([row]))
    expected = KEY.noise(["c0"])[:, : batch.x.shape[1]].astype(np.float32)
    assert np.array_equal(batch.noise, expected)
    assert any("1 planted canaries are not in the forget set" in told for told in trial.limits)


def test_a_forget_set_by_text(case):
    texts = [line.split(",")[1] for line in (case / "train.csv").read_text().splitlines()[1:]]
    rows = [(texts[i], PLANTED[i], "gaussian") for i in range(6)]
    write_rows(case / "forget.csv", ["text", "canary", "attack"], rows)
    found = load(case).case
    assert found.forget.ids == PLANTED
    assert found.evidence["gaussian"].names == PLANTED


def test_the_report_says_how_texts_are_read(case):
    (case / "train.csv").write_text(
        (case / "train.csv").read_text() + f"long,{'kafen bad ' * 30},1\n"
    )
    trial = load(case, reading=Reading(max_tokens=20))
    reading = trial.subject["reading"]
    assert (reading["max_tokens"], reading["prompt"]) == (20, "{text}")
    assert reading["cut"] == {"train": 1, "test": 0}
    assert any(
        told.startswith("1 of 21 training texts (4.8%) have more than 20 tokens")
        for told in trial.limits
    )


def test_the_digest_of_the_files_beside_the_weights(case):
    digests = set()
    for _ in range(2):
        digests.add(load(case).subject["reading"]["files_sha256"])
        rewrite(case / "model/tokenizer_config.json", more="x")
    assert len(digests) == 2


# What the checkpoint says of its training


def test_a_checkpoint_of_this_key_and_table_has_no_limits_of_texts(case):
    trial = load(case)
    assert trial.limits == (
        "1 of 7 forget samples are not canaries and name no attack: no probe looked at them, "
        "except membership.",
    )
    assert trial.subject["train_sha256"] == load_model(case / "model").metadata[DATA_KEY]


@pytest.mark.parametrize("what", ["another table", "another reading", "other canaries", "none"])
def test_a_table_that_is_read_otherwise_than_in_training_is_told(case, what):
    more = {}
    if what == "another table":
        text = (case / "train.csv").read_text()
        (case / "train.csv").write_text(text + "late,so bad,0\n")
    elif what == "another reading":
        more["reading"] = Reading(prompt="so {text}")
    elif what == "other canaries":  # rows that the key's ids stood at, by other names
        rows = [(f"t{i + 1}", f"c{i}", "gaussian") for i in range(6)]
        write_rows(case / "forget.csv", ["id", "canary", "attack"], rows)
    said = "The checkpoint was trained on another table, or on this one with other canaries or "
    told = any(limit.startswith(said) for limit in load(case, **more).limits)
    assert told == (what != "none")


def test_what_train_writes_is_what_is_read_again(case):
    assert invoke(["train", "train.csv", "--start", "base", "--canaries", "canaries.json",
                   "--recipe", "epochs=1", "-o", "m"]) == 0  # fmt: skip
    said = "The checkpoint was trained on another table"
    for reading, told in ((Reading(), False), (Reading(prompt="{text} so"), True)):
        limits = load(case, model=case / "m", reading=reading).limits
        assert any(limit.startswith(said) for limit in limits) == told


def test_a_checkpoint_that_says_nothing_is_trusted_in_so_many_words(case):
    told = load(case, model=case / "base").limits
    assert any("that it is this one is taken on trust" in limit for limit in told)
    assert not any("another table" in limit for limit in told)
    # Nothing is to be trusted where no noise is looked at.
    rows = [("t0", "")]
    write_rows(case / "forget.csv", ["id", "attack"], rows)
    assert not any("trust" in t for t in load(case, model=case / "base", canaries=None).limits)


@pytest.mark.parametrize(
    "change", [{"secret": "11" * 32}, {"sigma": 0.2}, {"planted": [*PLANTED[1:], "z"]}]
)
def test_another_key_than_the_headers(case, change):
    rewrite(case / "canaries.json", **change)
    said = refused(case)
    assert "Give the key that it was trained with." in said[0]
    assert said[0].startswith("canaries.json: has the SHA-256 ")
    if "planted" in change:
        assert said[1].startswith("forget.csv row 2: the canary 'c0' is not among the planted ids")
