"""Ways of keeping a table of pictures: each holds the same pictures, or is refused in words."""

from __future__ import annotations

import gzip
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from builders.tables import COLOUR, GRAY, assert_colour, png, save
from poison_audit.case.tables import read_table
from poison_audit.errors import InputError

Y = (0, 1, 2, 1)
NAMES = ("ant", "bee", "cat")
HWC = COLOUR
CHW = np.ascontiguousarray(COLOUR.transpose(0, 3, 1, 2))


PNGS = ("0.png", "1.png", "2.png", "3.png")


def files(folder, names=PNGS):
    for name, array in zip(names, COLOUR, strict=True):
        save(folder / name, array)
    return names


def listed(name, header, row, encode=str.encode):
    def write(folder):
        names = files(folder)
        body = "".join(
            row.format(path=n, label=y, name=NAMES[y]) for n, y in zip(names, Y, strict=True)
        )
        (folder / name).write_bytes(encode(header + body))
        return folder / name

    return write


def archive(**arrays):
    def write(folder):
        np.savez(folder / "t.npz", **arrays)
        return folder / "t.npz"

    return write


def saved_by_torch(found):
    def write(folder):
        torch.save(found, folder / "t.pt")
        return folder / "t.pt"

    return write


def pickled(found, protocol=None):
    def write(folder):
        (folder / "t.pkl").write_bytes(pickle.dumps(found, protocol))
        return folder / "t.pkl"

    return write


def features(**names):
    """The metadata by which `datasets` says what its columns are."""
    told = {name: {"names": list(each), "_type": "ClassLabel"} for name, each in names.items()}
    info = {"info": {"features": told | {"image": {"_type": "Image"}}}}
    return {b"huggingface": json.dumps(info).encode()}


def arrow(image="image", label="label", rows=slice(None), names=NAMES):
    cells = [{"bytes": png(array), "path": None} for array in COLOUR[rows]]
    table = pa.table({image: cells, label: list(Y[rows])})
    return table.replace_schema_metadata(features(**{label: names}) if names else None)


def parquet(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def hub(*shards, folder="data"):
    def write(at):
        for name, rows in shards:
            parquet(at / folder / name, arrow("img", "label", rows))
        return at

    return write


def stream(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


LONE = "data-00000-of-00001.arrow"


def on_disk(folder, parts=("data-00000-of-00002.arrow", "data-00001-of-00002.arrow")):
    for name, rows in zip(parts, (slice(0, 3), slice(3, None)), strict=True):
        stream(folder / name, arrow(rows=rows))
    state = {"_data_files": [{"filename": name} for name in parts], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def dictionary(folder):
    on_disk(folder / "train")
    stream(folder / "test" / LONE, arrow(rows=slice(0, 1)))
    (folder / "test" / "state.json").write_text(
        '{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}'
    )
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    return folder


def metadata(name, content, names=("b/3.png", "a/0.png", "a/1.png", "2.png")):
    def write(folder):
        order = sorted(range(4), key=lambda i: "3012".index(str(i)))
        del order
        for at, array in zip(names, COLOUR, strict=True):
            save(folder / at, array)
        lines = [
            content.format(path=at, name=NAMES[y], label=y) for at, y in zip(names, Y, strict=True)
        ]
        head = "file_name,label\n" if name.endswith("csv") else ""
        (folder / name).write_text(head + "".join(lines))
        return folder

    return write


def image_folder(folder):
    # In the order of ImageFolder: ant, bee, bee, cat.
    for name, i in (("ant/0.png", 0), ("bee/1.png", 1), ("bee/3.png", 3), ("cat/2.png", 2)):
        save(folder / name, COLOUR[i])
    return folder


def cifar(folder, protocol=2):
    """As cifar-10-batches-py is: a row is all red, all green, all blue."""
    flat = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)
    for number in range(3):
        rows = slice(2 * number, 2 * number + 2)
        name = f"data_batch_{number + 1}" if number < 2 else "test_batch"
        batch = {"data": flat[rows].reshape(2, -1), "labels": [number, 2 - number]}
        batch |= {"batch_label": name, "filenames": ["a.png", "b.png"]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol))
    meta = {"label_names": list(NAMES), "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    (folder / "readme.html").write_text("x")
    return flat


def packed(text):
    return gzip.compress(text.encode())


ALL = slice(None)
MIXED = ("3.png", "0.png", "1.png", "2.png")
TENSORS = (torch.tensor(CHW), torch.tensor(Y))
COMMAS, SEMICOLONS = "{path},{label}\n", "{path};{label}\n"
WAYS = {
    "t.csv": listed("t.csv", "path,label\n", COMMAS),
    "semicolons": listed("t.csv", "path;label\n", SEMICOLONS),
    "t.tsv": listed("t.tsv", "path\tlabel\n", "{path}\t{label}\n"),
    "t.csv.gz": listed("t.csv.gz", "path,label\n", COMMAS, packed),
    "t.jsonl": listed("t.jsonl", "", '{{"path": "{path}", "label": {label}}}\n'),
    "pandas' floats": listed("t.csv", ",filename,label\n", "0,{path},{label}.0\n"),
    "other names": listed("t.csv", "image,class\n", "{path},{name}\n"),
    "Windows": listed("t.csv", "path,label\n", ".\\{path},{label}\n"),
    "x, y": archive(x=HWC, y=Y),
    "X, Y": archive(X=CHW, Y=np.array(Y)),
    "keras": archive(x_train=HWC, y_train=np.array(Y)[:, None], x_test=HWC[:1], y_test=[[0]]),
    "medmnist": archive(train_images=HWC, train_labels=np.array(Y)[:, None], val_images=HWC[:1],
                        val_labels=[[1]], test_images=HWC[:1], test_labels=[[0]]),
    "images, labels": archive(images=HWC, labels=np.array(Y, dtype=float)),
    "data, targets": archive(data=CHW, targets=np.eye(3)[list(Y)]),
    "pair.pt": saved_by_torch((torch.tensor(CHW), torch.tensor(Y))),
    "dict.pt": saved_by_torch({"images": torch.tensor(CHW), "labels": torch.tensor(Y)}),
    "list.pt": saved_by_torch({"data": torch.tensor(HWC), "targets": list(Y)}),
    "TensorDataset": saved_by_torch(torch.utils.data.TensorDataset(*TENSORS)),
    "dict.pkl": pickled({"x": HWC, "y": np.array(Y)}),
    "pair.pkl": pickled((HWC, list(Y)), 2),
    "hub": hub(
        ("train-00000-of-00002.parquet", slice(0, 1)),
        ("train-00001-of-00002.parquet", slice(1, 4)),
        ("test-00000-of-00001.parquet", slice(0, 1)),
    ),
    "hub, older": hub(("train-00000-of-00001-a1b2c3.parquet", ALL)),
    "hub of a configuration": hub(
        ("train-00000-of-00001.parquet", ALL), folder="plain_text"
    ),
    "plain parts": hub(
        ("train.parquet", ALL), ("validation.parquet", slice(0, 1)), folder="."
    ),
    "save_to_disk": on_disk,
    "DatasetDict": dictionary,
    "ImageFolder": image_folder,
    "metadata.csv": metadata("metadata.csv", "{path},{name}\n", MIXED),
    "metadata.jsonl": metadata("metadata.jsonl", '{{"file_name": "{path}", "label": "{name}"}}\n'),
    "images/": metadata(
        "metadata.csv", "{path},{name}\n", tuple(f"images/{i}.png" for i in range(4))
    ),
}  # fmt: skip


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
