"""Ways of keeping a table of pictures: each holds the same pictures, or is refused in words."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from builders.kept_tables import (
    NAMES,
    WAYS,
    Y,
    archive,
    arrow,
    cifar,
    features,
    files,
    hub,
    metadata,
    parquet,
    pickled,
    saved_by_torch,
)
from builders.tables import COLOUR, GRAY, assert_colour, png, save
from poison_audit.case.tables import read_table
from poison_audit.errors import InputError


@pytest.mark.parametrize("way", WAYS)
def test_a_way_of_keeping_a_table(tmp_path, way):
    path = WAYS[way](tmp_path)
    samples = read_table(path, allow_pickle=True)
    order = (0, 1, 3, 2) if way == "ImageFolder" else (0, 1, 2, 3)
    assert samples.y.tolist() == [Y[i] for i in order]
    assert_colour(samples, order)


def said(path, **options):
    with pytest.raises(InputError) as caught:
        read_table(path, **options)
    found = [str(problem) for problem in caught.value.problems]
    assert len(found) <= 3
    return "\n".join(found)


@pytest.mark.parametrize("way", ["pair.pt", "TensorDataset", "dict.pkl"])
def test_pickles_want_the_flag(tmp_path, way):
    found = said(WAYS[way](tmp_path))
    assert "is a pickle, which can run code when it is read. --allow-pickle reads arrays" in found
    assert "Or: Save it by numpy.savez(FILE, x=pictures, y=labels)" in found


@pytest.mark.parametrize("held", [{}, {"tensors": 3}, {"tensors": None}])
def test_a_data_set_without_its_tensors_is_damaged(tmp_path, held):
    damaged = torch.utils.data.TensorDataset.__new__(torch.utils.data.TensorDataset)
    damaged.__dict__.update(held)
    torch.save(damaged, tmp_path / "t.pt")
    assert "is damaged, or holds more than tensors" in said(tmp_path / "t.pt", allow_pickle=True)


def test_class_labels_have_the_names_of_their_data_set(tmp_path):
    parquet(tmp_path / "t.parquet", arrow("img", "fine_label", names=("z", "y", "x", "w")))
    samples = read_table(tmp_path / "t.parquet")
    # Not in the order of the alphabet, but in that of the numbers; w is a class that nobody has.
    assert (samples.names, samples.y.tolist()) == (("z", "y", "x", "w"), list(Y))
    # A model that has the same names in another order has other numbers for them.
    assert read_table(tmp_path / "t.parquet", names=("w", "x", "y", "z")).y.tolist() == [3, 2, 1, 2]
    parquet(
        tmp_path / "t.parquet",
        pa.table(
            {"image": [{"bytes": png(COLOUR[0]), "path": "a"}], "label": [-1]}
        ).replace_schema_metadata(features(label=NAMES)),
    )
    assert "index 0: the label is empty" in said(tmp_path / "t.parquet")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_of_data_sets_stand_as_their_exif_says(tmp_path, orientation):
    tag = Image.Exif()
    tag[0x0112] = orientation
    (tmp_path / "sub").mkdir()
    Image.fromarray(COLOUR[0]).save(tmp_path / "sub" / "a.png", exif=tag)
    cell = {"bytes": (tmp_path / "sub" / "a.png").read_bytes(), "path": None}
    parquet(tmp_path / "t.parquet", pa.table({"image": [cell], "label": [0]}))
    # EXIF 2.3, table of tag 274: where row 0 and column 0 of what is stored belong.
    a = COLOUR[0]
    turned = {1: a, 2: a[:, ::-1], 3: a[::-1, ::-1], 4: a[::-1], 5: a.transpose(1, 0, 2),
              6: a[::-1].transpose(1, 0, 2), 7: a[::-1, ::-1].transpose(1, 0, 2),
              8: a[:, ::-1].transpose(1, 0, 2)}[orientation]  # fmt: skip
    x = read_table(tmp_path / "t.parquet").x[0].permute(1, 2, 0)
    assert x.tolist() == turned.tolist()
    # torchvision's ImageFolder turns nothing.
    (tmp_path / "t.parquet").unlink()
    assert read_table(tmp_path).x[0].permute(1, 2, 0).tolist() == a.tolist()


def test_each_part_is_read_for_what_it_is(tmp_path):
    for way in ("hub", "DatasetDict", "keras", "medmnist", "plain parts"):
        folder = tmp_path / way.replace(" ", "")
        folder.mkdir()
        samples = read_table(WAYS[way](folder), part="test")
        assert samples.y.tolist() == [0]
        assert samples.x[0, :, 0, 0].tolist() == COLOUR[0, 0, 0].tolist()


def test_parts_that_are_not_there(tmp_path):
    path = hub(("test-00000-of-00001.parquet", slice(None)))(tmp_path / "a")
    assert "holds test alone, and is to be the train table" in said(path)
    path = hub(("a.parquet", slice(None)), ("b.parquet", slice(None)))(tmp_path / "b")
    assert "holds a, b: which of them is the train table?" in said(path)
    path = hub(("train-00001-of-00003.parquet", slice(None)))(tmp_path / "c")
    assert "holds files 1 of 3 of a table. Fetch all of them" in said(path)
    lone = path / "data" / "train-00001-of-00003.parquet"
    assert said(lone).endswith(f"is one of 3 files of a table. Give their folder: {lone.parent}.")
    for name in ("x", "y"):
        hub(("train.parquet", slice(None)), folder=name)(tmp_path / "d")
    assert "holds Parquet files in several folders (x, y). Give the one" in said(tmp_path / "d")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("{", "not JSON"),
        ("[]", "names no data file"),
        ('{"_data_files": [{"filename": "../../etc/passwd"}]}', "which is no file of it"),
        ('{"_data_files": [{}]}', "cannot be read (No such file"),
        ('{"_data_files": [{"filename": "state.json"}]}', "not a readable Arrow file"),
    ],
)
def test_a_damaged_state(tmp_path, state, expected):
    (tmp_path / "state.json").write_text(state)
    assert expected in said(tmp_path)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_cifar_is_counted_as_torchvision_counts(tmp_path, protocol):
    flat = cifar(tmp_path, protocol)
    samples = read_table(tmp_path, allow_pickle=True)
    assert samples.x.tolist() == flat[:4].tolist()
    assert (samples.y.tolist(), samples.names) == ([0, 2, 1, 1], NAMES)
    assert samples.ids == ("0", "1", "2", "3")
    for path, options in ((tmp_path, {"part": "test"}), (tmp_path / "test_batch", {})):
        samples = read_table(path, allow_pickle=True, **options)
        assert samples.x.tolist() == flat[4:].tolist()
        assert samples.y.tolist() == [2, 0]
    assert "--allow-pickle reads arrays and plain values alone" in said(tmp_path)
    assert "expected 3x16x16" in said(tmp_path, allow_pickle=True, size=(3, 16, 16))


def test_cifar_100_has_fine_labels(tmp_path):
    x = np.zeros((2, 3072), np.uint8)
    for name, labels in (("train", [1, 0]), ("test", [0, 1])):
        batch = {"data": x, "fine_labels": labels, "coarse_labels": [0, 0]}
        (tmp_path / name).write_bytes(pickle.dumps(batch))
    meta = {"fine_label_names": ["ant", "bee"], "coarse_label_names": ["insect"]}
    (tmp_path / "meta").write_bytes(pickle.dumps(meta))
    assert read_table(tmp_path, allow_pickle=True).y.tolist() == [1, 0]
    assert read_table(tmp_path, part="test", allow_pickle=True).names == ("ant", "bee")


def test_no_batch_of_cifar(tmp_path):
    cifar(tmp_path)
    for content in ({"data": 1}, [], {"data": np.zeros((1, 5), np.uint8), "labels": [0]}):
        (tmp_path / "data_batch_2").write_bytes(pickle.dumps(content))
        assert "is no batch of CIFAR" in said(tmp_path, allow_pickle=True)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps(print))
    assert "it names builtins.print" in said(tmp_path, allow_pickle=True)


def test_what_a_pickle_should_hold(tmp_path):
    path = pickled(3)(tmp_path)
    assert "expected pictures and labels, got int" in said(path, allow_pickle=True)
    path = pickled({"x": [[1]], "y": [1]})(tmp_path)
    assert "x is a list, expected an array or a tensor" in said(path, allow_pickle=True)
    path = saved_by_torch(torch.nn.Linear(2, 2))(tmp_path)
    assert "is damaged, or holds more than tensors" in said(path, allow_pickle=True)


def test_positions_in_a_folder_with_metadata(tmp_path):
    write = metadata("metadata.csv", "{path},{name}\n", tuple(f"{i}.png" for i in range(4)))
    assert read_table(write(tmp_path / "a")).doubted_order == ""
    write = metadata("metadata.csv", "{path},{name}\n", ("3.png", "0.png", "1.png", "2.png"))
    assert "may count the rows of metadata.csv, or its files" in (
        read_table(write(tmp_path / "b")).doubted_order
    )


def test_wrong_metadata(tmp_path):
    write = metadata("metadata.jsonl", '{{"file_name": "{path}", "text": "{name}"}}\n')
    assert said(write(tmp_path)).endswith(
        "the column 'label' is missing. Add the labels to it, or take metadata.jsonl away so that "
        "folders are the labels."
    )
    (tmp_path / "metadata.csv").write_text("file_name,label\n")
    assert "holds metadata.csv and metadata.jsonl: which of them has the labels?" in said(tmp_path)


def test_gray_files_fill_the_channels_of_the_model(tmp_path):
    from torchvision.datasets import ImageFolder

    for i, array in enumerate(GRAY):
        save(tmp_path / "a" / f"{i}.png", array)
    oracle = [np.asarray(picture) for picture, _ in ImageFolder(str(tmp_path))]
    samples = read_table(tmp_path, channels=3)
    assert samples.x.permute(0, 2, 3, 1).tolist() == [each.tolist() for each in oracle]
    assert read_table(tmp_path, channels=1).x.shape == (4, 1, 5, 6)
    assert read_table(archive(x=GRAY, y=Y)(tmp_path), channels=3).x.shape == (4, 3, 5, 6)


def test_modes_of_pictures_as_image_folder_converts_them(tmp_path):
    from torchvision.datasets import ImageFolder

    rgba = np.concatenate([COLOUR[0], GRAY[0][:, :, None]], axis=2)
    modes = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
    for mode in modes:
        picture = Image.fromarray(rgba).convert("RGB" if mode in ("CMYK", "YCbCr", "P") else "RGBA")
        kind = "tiff" if mode in ("CMYK", "YCbCr") else "png"
        (tmp_path / "a").mkdir(exist_ok=True)
        picture.convert(mode).save(tmp_path / "a" / f"{mode}.{kind}")
    oracle = [np.asarray(picture) for picture, _ in ImageFolder(str(tmp_path))]
    samples = read_table(tmp_path, channels=3)
    assert samples.x.permute(0, 2, 3, 1).tolist() == [each.tolist() for each in oracle]


def test_absolute_paths_inside_the_folder(tmp_path):
    names = files(tmp_path / "pictures")
    rows = "".join(f"{tmp_path}/pictures/{name},{y}\n" for name, y in zip(names, Y, strict=True))
    (tmp_path / "t.csv").write_text("path,label\n" + rows)
    samples = read_table(tmp_path / "t.csv")
    assert samples.ids == samples.paths == tuple(f"pictures/{name}" for name in names)
    assert_colour(samples)
    (tmp_path / "t.csv").write_text(f"path,label\n{tmp_path}/../{tmp_path.name}/pictures/0.png,0\n")
    assert "leaves the table's folder" in said(tmp_path / "t.csv")


def test_a_hidden_folder_of_pictures_is_a_class_of_image_folder(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in (".ipynb_checkpoints/0-checkpoint.png", "ant/0.png", "bee/0.png"):
        save(tmp_path / name, COLOUR[0])
    samples, oracle = read_table(tmp_path), ImageFolder(str(tmp_path))
    assert samples.y.tolist() == [label for _, label in oracle.samples] == [0, 1, 2]
    assert list(samples.names) == oracle.classes


def test_links_to_folders_of_pictures(tmp_path):
    from torchvision.datasets import ImageFolder

    here, outside = tmp_path / "here", tmp_path / "outside"
    for name in ("all/1.png", "all/0.png"):
        save(here / "cat" / name, COLOUR[0])
    (here / "dog").symlink_to("cat", target_is_directory=True)
    oracle = [path.removeprefix(f"{here}/") for path, _ in ImageFolder(str(here)).samples]
    assert list(read_table(here).ids) == oracle
    # torchvision would go round until the system stops it.
    (here / "cat" / "round").symlink_to(here / "cat", target_is_directory=True)
    assert list(read_table(here).ids) == oracle
    save(outside / "0.png", COLOUR[0])
    (here / "eel").symlink_to(outside, target_is_directory=True)
    assert "eel/0.png' is a link that leaves the table's folder" in said(here)
