"""Folders of pictures, one a label or with their metadata beside them."""

import pytest

from builders.tables import COLOUR, assert_colour, problems, save
from poison_audit.case.listings.folders import SUFFIXES
from poison_audit.case.tables import read_table


def test_an_empty_label_folder_keeps_its_number(tmp_path):
    save(tmp_path / "c" / "1.png", COLOUR[0])
    (tmp_path / "a").mkdir()
    assert read_table(tmp_path).y.tolist() == [1]


def test_given_names_number_the_folders(tmp_path):
    save(tmp_path / "dog" / "1.png", COLOUR[0])
    assert read_table(tmp_path, names=["frog", "dog"]).y.tolist() == [1]


def test_folders_named_by_numbers_are_numbered_as_torchvision_does(tmp_path):
    from torchvision.datasets import ImageFolder

    for name in map(str, range(12)):
        save(tmp_path / name / "1.png", COLOUR[0])
    samples = read_table(tmp_path)
    # As text 10 sorts before 2: 2 is class 4.
    assert samples.names == ("0", "1", "10", "11", *map(str, range(2, 10)))
    oracle = ImageFolder(str(tmp_path))
    assert samples.y.tolist() == [label for _, label in oracle.samples] == list(range(12))
    assert {name: place for place, name in enumerate(samples.names)} == oracle.class_to_idx
    # The same order by --names changes nothing; another is the user's own.
    again = read_table(tmp_path, names=samples.names)
    assert again.y.tolist() == samples.y.tolist()
    names = [str(i) for i in range(12)]
    assert read_table(tmp_path, names=names).y.tolist() == [0, 1, 10, 11, *range(2, 10)]


def test_folders_of_other_names_than_the_classes(tmp_path):
    for name in ("n01", "n02"):
        save(tmp_path / name / "1.png", COLOUR[0])
    (said,) = problems(tmp_path, names=["tench", "goldfish"])
    assert "none of its labels (n01, n02) is a class's name (tench, goldfish)" in said
    assert "--names A,B,.. in the order of the model's outputs" in said


def test_positions_count_as_torchvision_does(tmp_path):
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert SUFFIXES == IMG_EXTENSIONS
    names = (
        *(
            "apple/2.png",
            "apple-juice/1.png",
            "apple pie/0.png",
            "apple.d/0.png",
            "apple(red)/0.png",
        ),
        *("apple/sub/0.png", "apple/sub-b/0.png", "apple/sub/deep/9.png", "apple/Z.png"),
        *("apple/a.PNG", "apple/10.png", "Zebra/1.png", "apple+/x.png", "apple/.hidden.png"),
        *("apple/.cache/0.png", "äpfel/0.png", "apple/sub&/0.Png"),
    )
    for name in names:
        save(tmp_path / name, COLOUR[0])
    for name in ("apple/Thumbs.db", "apple/.DS_Store", "Zebra/desktop.ini", "apple/sub/._0.txt"):
        (tmp_path / name).write_bytes(b"x")
    oracle = [path.removeprefix(f"{tmp_path}/") for path, _ in ImageFolder(str(tmp_path)).samples]
    samples = read_table(tmp_path)
    assert sorted(oracle) == sorted(names)
    assert list(samples.ids) == oracle != sorted(oracle)
    assert samples.y.tolist() == [label for _, label in ImageFolder(str(tmp_path)).samples]
    # A system's note about a picture is none.
    (tmp_path / "apple/._2.png").write_bytes(b"x")
    assert list(read_table(tmp_path).ids) == oracle


@pytest.mark.parametrize(
    ("folders", "fix"),
    [
        (("train", "val"), "--train {data}/train and --test {data}/val"),
        (("Train", "validation", "raw"), "--train {data}/Train and --test {data}/validation"),
        (("train",), "--train {data}/train"),
        (("test",), "--test {data}/test"),
        (("testing", "training", "valid"), "--train {data}/training and --test {data}/testing"),
    ],
)
def test_a_folder_of_tables_is_none(tmp_path, folders, fix):
    for name in folders:
        save(tmp_path / name / "cat" / "1.png", COLOUR[0])
    (said,) = problems(tmp_path)
    assert ": whole tables, not labels" in said
    assert said.endswith(f"Give {fix.format(data=tmp_path)}.")


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car", "train", "tram"):
        save(tmp_path / name / "1.png", COLOUR[0])
    assert read_table(tmp_path).names == ("car", "train", "tram")


def test_wrong_folders(tmp_path):
    assert problems(tmp_path) == [f"{tmp_path}: the folder holds no picture."]
    save(tmp_path / "a" / "1.png", COLOUR[0])
    save(tmp_path / "2.png", COLOUR[0])
    (tmp_path / "a" / "notes.txt").write_text("hello")
    found = "\n".join(problems(tmp_path))
    assert "2.png: the file lies in no label's folder" in found
    assert "a/notes.txt: the picture cannot be read" in found


def test_metadata_is_the_label_source(tmp_path):
    save(tmp_path / "1.png", COLOUR[0])
    save(tmp_path / "cat" / "2.png", COLOUR[1])
    (tmp_path / "metadata.csv").write_text("file_name,label\ncat/2.png,cat\n1.png,ant\n")
    samples = read_table(tmp_path)
    assert samples.ids == ("cat/2.png", "1.png")
    assert samples.y.tolist() == [1, 0]
    assert samples.names == ("ant", "cat")
    assert_colour(samples, (1, 0))


def test_metadata_must_agree_with_the_folders(tmp_path):
    for name in ("cat/1.png", "dog/1.png", "dog/2.png", "dog/3.png"):
        save(tmp_path / name, COLOUR[0])
    path = tmp_path / "metadata.csv"
    path.write_text("file_name,label\ncat/1.png,0\ndog/1.png,1\ndog/2.png,0\n")
    assert problems(tmp_path) == [
        f"{path} row 4: the label is '0', but the file lies in 'dog'.",
        f"{tmp_path}/dog/3.png: the file is not listed in metadata.csv. List or remove it.",
    ]


# --- all -----------------------------------------------------------------------------------------


def test_what_is_no_table(tmp_path):
    path = tmp_path / "t.csv"
    assert "no such file or folder. A table is a .csv" in problems(path)[0]
    path = tmp_path / "t.xlsx"
    path.write_bytes(b"")
    assert "this is no table of samples" in problems(path)[0]
