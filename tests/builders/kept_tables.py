"""Tables as people keep them: the same four pictures, in any usual file."""

from __future__ import annotations

import gzip
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from builders.tables import COLOUR, png, save

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
