"""Labels that are words: the model's own order counts, or the user's, and nobody's guess."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from builders.loading import loaded
from poison_audit.case.classes import wrong_names
from poison_audit.case.sources import Sources
from poison_audit.case.tables import read_table
from poison_audit.errors import InputError
from poison_audit.models.checkpoint import load_model
from poison_audit.models.image import image_classifier
from poison_audit.records import Recipe

transformers = pytest.importorskip("transformers")

# Neither sorted nor in the order in which the tables show them.
OWN = ("plane", "car", "bird")
TRAIN, TEST = ["bird", "car", "plane", "plane", "bird", "car"], ["car", "bird", "plane"]
NUMBERS = [2, 1, 0, 0, 2, 1]


def describe(folder, labels):
    config = json.loads((folder / "config.json").read_text())
    config["id2label"] = {str(number): name for number, name in enumerate(labels)}
    config["label2id"] = None
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A ViT that nobody trained, whose config.json names its outputs, and tables of words."""
    monkeypatch.chdir(tmp_path)
    sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=4, image_size=8, patch_size=4, num_labels=3
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "model")
    describe(tmp_path / "model", OWN)
    write(tmp_path, TRAIN, TEST)
    (tmp_path / "forget.csv").write_text("index,label\n0,bird\n")
    return tmp_path


def write(folder, train, test):
    x = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "train.npz", x=x[: len(train)], y=train)
    np.savez(folder / "test.npz", x=x[len(train) :], y=test)


def read(case, names=None, train="train.npz"):
    sources = Sources(
        model=case / "model", forget=case / "forget.csv", train=case / train,
        test=case / "test.npz", names=names, normalize="none",
    )  # fmt: skip
    return loaded(sources, Recipe(epochs=2)).case


def refused(case, names=None, train="train.npz"):
    with pytest.raises(InputError) as caught:
        read(case, names, train)
    return [str(problem) for problem in caught.value.problems]


def test_words_are_numbered_as_config_json_says(case):
    found = read(case)
    assert found.model.labels == OWN
    assert found.retain.y.tolist() == NUMBERS[1:]
    assert found.forget.y.tolist() == NUMBERS[:1]
    assert found.test.y.tolist() == [1, 2, 0]
    assert found.test.names == OWN
    # The same said by the user changes nothing.
    assert read(case, OWN).test.y.tolist() == [1, 2, 0]


@pytest.mark.parametrize("labels", [("LABEL_0", "LABEL_1", "LABEL_2"), ("crane", "kite", "crane")])
def test_where_nobody_says_the_order_it_is_asked_for(case, labels):
    # Placeholders name nothing; of ImageNet's names, `crane` stands for two classes.
    describe(case / "model", labels)
    said = refused(case)
    assert len(said) == 2
    assert said[0].startswith(
        f"{case}/train.npz: the labels are words (bird, car, plane), and neither the model nor "
        "--names says which of its outputs each is. Give them by --names A,B,.."
    )
    assert read(case, ("car", "bird", "plane")).test.y.tolist() == [0, 1, 2]


def test_numbers_need_no_names(case):
    describe(case / "model", ("LABEL_0", "LABEL_1", "LABEL_2"))
    write(case, NUMBERS, [1, 2, 0])
    (case / "forget.csv").write_text("index,label\n0,2\n")
    assert read(case).test.y.tolist() == [1, 2, 0]


def test_folders_are_in_the_order_that_training_gave_them(case):
    describe(case / "model", ("LABEL_0", "LABEL_1", "LABEL_2"))
    for place, name in enumerate(TRAIN):
        (case / "folders" / name).mkdir(parents=True, exist_ok=True)
        picture = np.full((8, 8, 3), place, np.uint8)
        Image.fromarray(picture).save(case / "folders" / name / f"{place}.png")
    found = read(case, train="folders")
    assert found.retain.names == ("bird", "car", "plane")
    assert found.test.y.tolist() == [1, 0, 2]


def test_names_that_contradict_the_model_are_shown_beside_its_own(case):
    (said,) = refused(case, ("bird", "car", "plane"))
    assert said == (
        "--names: says bird, car, plane, and the model's config.json says plane, car, bird: 'bird' "
        "is not the same output. Leave --names (or [data] names) out, or correct id2label in "
        "config.json."
    )


def test_a_folder_with_fewer_classes_than_outputs_is_not_counted_from_0(case):
    describe(case / "model", ("LABEL_0", "LABEL_1", "LABEL_2"))
    for name in ("bird", "plane"):
        (case / "folders" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(case / "folders" / name / "0.png")
    write(case, TRAIN, ["bird", "plane", "plane"])
    assert any("there are 2 labels (bird, plane), and the model has 3 outputs" in line
               for line in refused(case, train="folders"))  # fmt: skip


def test_a_table_of_one_class_is_not_the_table_that_is_meant(case):
    write(case, TRAIN, ["car"] * 3)
    assert refused(case) == [
        f"{case}/test.npz: all 3 samples have the label 1 ('car'). The model tells 3 classes "
        "apart: is it the right file or folder, and all of it?"
    ]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "b", "c"), None),  # a translation
        (("Plane", "CAR", "bird"), None),
        (("plane", "auto", "bird"), None),
        (("auto", "plane", "bird"), "'plane' is not the same output"),
        (("plane", "car"), "2 names (plane, car) for a model of 3 outputs"),
        ((*OWN, "cat"), "4 names (plane, car, bird, cat) for a model of 3 outputs"),
        (("a", "b", "a"), "names 'a' twice"),
    ],
)
def test_names_beside_the_models_own(names, said):
    module = nn.Linear(2, 3)
    model = image_classifier(module, build=lambda: module, arch="x", classes=3, labels=OWN)
    found = [problem.what for problem in wrong_names(names, model)]
    assert (found == []) if said is None else (len(found) == 1 and said in found[0])


def test_the_planter_and_the_trainer_still_choose_the_order_of_words(case):
    assert read_table(case / "train.npz").names == ("bird", "car", "plane")
    assert torch.equal(read_table(case / "train.npz").y, torch.tensor([0, 1, 2, 2, 0, 1]))


def test_what_is_no_number_of_an_output_is_refused(case):
    config = json.loads((case / "model/config.json").read_text())
    config["id2label"] = {"0": "a", "1": "b", "7": "c"}
    (case / "model/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="id2label does not give each class a name of its own"):
        load_model(case / "model")
