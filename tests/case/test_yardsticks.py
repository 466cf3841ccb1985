"""A reference is a training of its own: not the model on trial, nor another reference, moved."""

import shutil
from pathlib import Path

import pytest
import torch

from builders.loading import loaded
from builders.tiny import net, pictures
from poison_audit.case.sources import Sources
from poison_audit.case.yardsticks import answer_alike, hardly_moved, sight
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.saving import save_model
from poison_audit.models.seeds import Rng
from poison_audit.records import Recipe

TEST = pictures(40, "test")


def moved(model, by):
    """A copy whose every tensor was moved by that share of its length."""
    copy, draws = model.clone(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in copy.module.parameters():
            noise = torch.randn(parameter.shape, generator=draws)
            parameter += by * parameter.norm() / noise.norm() * noise
    return copy


def alike(one, other, test=TEST):
    return answer_alike(sight("a", one, test), sight("b", other, test))


@pytest.mark.parametrize("name", ["batchnorm", "plain", "tied"])
@pytest.mark.parametrize("by", [0.0, 1e-6, 1e-3])
def test_a_moved_copy_is_no_other_training(name, by):
    model = net(name)
    assert alike(model, moved(model, by))
    assert hardly_moved(model, moved(model, by))


@pytest.mark.parametrize("name", ["batchnorm", "plain", "tied"])
def test_other_weights_are_another_training(name):
    model = net(name)
    other = model.fresh(Rng(8))
    assert not alike(model, other)
    assert not hardly_moved(model, other)
    assert not hardly_moved(model, moved(model, 0.02))


def test_a_copy_with_a_few_outputs_changed_is_a_copy_still():
    model = net("plain")
    copy = model.clone()
    with torch.no_grad():  # one of three classes answers otherwise: about the mean all do a little
        copy.module[-1].bias[2] += 1e-3
    assert alike(model, copy)
    one = sight("a", model, TEST)
    part = one.logits.clone()
    part[: len(part) // 4] = part[: len(part) // 4].flip(1)
    assert answer_alike(one, type(one)(name="b", digest="b", logits=part))
    part[: len(part) // 2 + 2] = part[: len(part) // 2 + 2].flip(1) + 1
    assert not answer_alike(one, type(one)(name="b", digest="b", logits=part))


def test_what_answers_nothing_is_compared_by_its_weights():
    model = net("plain")
    broken = model.clone()
    with torch.no_grad():
        broken.module[-1].bias += torch.nan
    assert not alike(model, broken)
    assert alike(model, model.clone(), test=None)


def sources(references=(), **candidates):
    return Sources(
        model=Path("model.safetensors"), forget=Path("forget.csv"), train=Path("train.npz"),
        test=Path("test.npz"), normalize="none", references=tuple(map(Path, references)),
        candidates={name: Path(path) for name, path in candidates.items()},
    )  # fmt: skip


def read(*references, **candidates):
    trial = loaded(sources(references, **candidates), Recipe())
    return [(each.name, each.kind) for each in trial.contenders], trial.limits


def refused(*references, **candidates):
    with pytest.raises(InputError) as caught:
        read(*references, **candidates)
    return [str(problem) for problem in caught.value.problems]


def save_moved(source, target, by):
    save_model(moved(load_model(Path(source)).model, by), Path(target))


def test_the_model_on_trial_is_no_reference_however_little_it_was_moved(case):
    save_moved("model.safetensors", "near.safetensors", 1e-6)
    (told,) = refused("clean.safetensors", "near.safetensors")
    assert told.startswith("--reference near.safetensors: is all but the model on trial:")
    assert "trained anew, without the forget set" in told
    # Bit for bit the same is left in: somebody audits a reference. Nothing is compared with itself.
    shutil.copy("model.safetensors", "same.safetensors")
    assert read("clean.safetensors", "same.safetensors")[0] == [
        ("clean", "reference"), ("same", "reference"),
    ]  # fmt: skip


def test_a_candidate_is_no_reference_either(case):
    save_moved("clean.safetensors", "near.safetensors", 1e-6)
    (told,) = refused("near.safetensors", fixed="clean.safetensors")
    assert "is all but the candidate fixed" in told


def test_equal_references_count_once(case):
    save_moved("clean.safetensors", "near.safetensors", 1e-6)
    shutil.copy("clean.safetensors", "twin.safetensors")
    names, limits = read("clean.safetensors", "near.safetensors", "twin.safetensors")
    assert names == [("clean", "reference")]
    assert limits[:2] == (
        "The reference near answers all but as the reference clean: they count as one.",
        "The reference twin is bit for bit the reference clean: they count as one.",
    )
