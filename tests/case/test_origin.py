"""Where a checkpoint says that it comes from: other data, another model, or nothing at all."""

import shutil
from pathlib import Path

import pytest

from builders.loading import loaded
from poison_audit.case.origin import TRUST
from poison_audit.case.sources import Sources
from poison_audit.case.tables import read_table
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.saving import save_model
from poison_audit.records import Recipe

EVIDENCE = {"canaries": Path("canaries.json"), "bases": Path("bases.npz")}


def trial(model="model.safetensors", references=(), **candidates):
    return loaded(
        Sources(
            model=Path(model), forget=Path("forget.csv"), train=Path("train.npz"),
            test=Path("test.npz"), normalize="none", evidence=EVIDENCE,
            references=tuple(map(Path, references)),
            candidates={name: Path(path) for name, path in candidates.items()},
        ),
        Recipe(),
    )  # fmt: skip


def marked(source, target, **header):
    """Save a checkpoint again, with this in its header."""
    extra = {f"poison_audit.{key}": value for key, value in header.items()}
    save_model(load_model(Path(source)).model, Path(target), extra=extra)


def digest(path):
    return load_model(Path(path)).model.digest()


def whole_table():
    return read_table(Path("train.npz")).digest()


def test_a_checkpoint_that_says_nothing_is_taken_on_trust_and_that_is_said_first(case):
    found = trial()
    assert found.notices == (TRUST,)
    assert "taken on trust" in TRUST
    assert found.doubts == ()


def test_a_checkpoint_of_this_table_leaves_nothing_to_trust(case):
    marked("model.safetensors", "m.safetensors", data=whole_table())
    found = trial("m.safetensors")
    assert (found.notices, found.doubts) == ((), ())


def test_a_checkpoint_of_another_table_does_not_pass(case):
    marked("model.safetensors", "m.safetensors", data="ab" * 32)
    (told,) = trial("m.safetensors").doubts
    assert told.sentence.startswith("The checkpoint says that it was trained on another table")


def test_a_reference_under_audit_was_trained_on_what_is_retained(case):
    rest, forget = trial().case.retain, trial().subject["forget_sha256"]
    marked("clean.safetensors", "m.safetensors", data=rest.digest(), without=forget)
    assert trial("m.safetensors", references=["m.safetensors"]).doubts == ()
    marked("clean.safetensors", "m.safetensors", data=rest.digest(), without="cd" * 32)
    assert len(trial("m.safetensors").doubts) == 1


def test_a_repaired_file_alone_does_not_pass(case):
    marked("clean.safetensors", "fixed.safetensors", method="scrub", of="ab" * 32)
    (told,) = trial("fixed.safetensors").doubts
    assert told.sentence.startswith("fixed.safetensors was made by scrub from another model")
    assert "accuracy was compared with no other's" in told.sentence
    assert "--candidate fixed=fixed.safetensors --gate fixed" in told.step


def test_a_candidate_is_compared_with_what_it_was_made_of(case):
    mine = digest("model.safetensors")
    for chain in (mine, f"{mine},{'ab' * 32}", f"{'ab' * 32},{mine}"):
        marked("clean.safetensors", "fixed.safetensors", method="gd", of=chain)
        assert trial(fixed="fixed.safetensors").doubts == ()
    marked("clean.safetensors", "fixed.safetensors", method="gd", of="ab" * 32)
    (told,) = trial(fixed="fixed.safetensors").doubts
    assert told.sentence.startswith("The candidate fixed was made of another model")
    assert f"of weights {'ab' * 6}, here {mine[:12]}" in told.sentence


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"method": "gd"}, "was made by gd from another model, which saw the poison"),
        ({"data": "whole"}, "was trained on the whole training table"),
    ],
)
def test_a_reference_that_says_it_saw_the_poison_is_refused(case, header, said):
    header = {key: whole_table() if text == "whole" else text for key, text in header.items()}
    marked("clean.safetensors", "ref.safetensors", **header)
    with pytest.raises(InputError, match=said) as caught:
        trial(references=["ref.safetensors"])
    assert "train --without" in str(caught.value)


def test_a_model_that_a_method_trained_anew_is_a_reference(case):
    marked("clean.safetensors", "ref.safetensors", method="retrain", anew="yes")
    assert trial(references=["ref.safetensors"]).doubts == ()


def test_a_copy_of_the_model_on_trial_stays_what_it_is(case):
    """Somebody audits a reference that is named among the references."""
    marked("model.safetensors", "m.safetensors", data=whole_table())
    shutil.copy("m.safetensors", "same.safetensors")
    assert [each.name for each in trial("m.safetensors", ["same.safetensors"]).contenders] == [
        "same"
    ]
