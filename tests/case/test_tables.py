import io
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from builders.tables import COLOUR, GRAY, assert_colour, png, problems, save
from poison_audit.case.labels import read_labels
from poison_audit.case.tables import check_labels, read_table
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples


def write_csv(folder, text, pictures=COLOUR):
    for i, array in enumerate(pictures):
        save(folder / f"{i}.png", array)
    path = folder / "t.csv"
    path.write_text(text, encoding="utf-8")
    return path


# --- csv -----------------------------------------------------------------------------------------


def test_links_and_pipes_are_not_followed_out_of_the_folder(tmp_path):
    outside = save(tmp_path / "outside.png", GRAY[0])
    here = tmp_path / "here"
    save(here / "inner" / "a.png", GRAY[0])
    (here / "b.png").symlink_to(here / "inner" / "a.png")  # stays inside
    (here / "c.png").symlink_to(outside)
    (here / "d.png").symlink_to("d.png")
    (here / "e").symlink_to(tmp_path)
    os.mkfifo(here / "f.png")
    rows = ["inner/a.png", "b.png", "c.png", "d.png", "e/outside.png", "f.png", "inner"]
    table = here / "t.csv"
    table.write_text("path,label\n" + "".join(f"{name},0\n" for name in rows), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_table(table)
    told = str(caught.value)
    assert "row 4: the path 'c.png' is a link that leaves the table's folder" in told
    assert "row 5: the path 'd.png'" in told
    assert "row 6: the path 'e/outside.png' is a link that leaves the table's folder" in told
    assert "row 7: the path 'f.png' is no file" in told
    assert "row 8: the path 'inner' is no file" in told
    assert "row 2" not in told
    assert "row 3" not in told


def test_a_bomb_is_not_inflated(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("x.npy", "w", force_zip64=True) as member:
            header = {"descr": "|u1", "fortran_order": False, "shape": (9, 8, 8)}
            np.lib.format.write_array_header_1_0(member, header)
            for _ in range(1100):
                member.write(bytes(1 << 20))
        archive.writestr("y.npy", b"")
    (tmp_path / "t.npz").write_bytes(packed.getvalue())
    assert len(packed.getvalue()) < 8 << 20
    with pytest.raises(InputError, match="would be 1 GiB once inflated"):
        read_table(tmp_path / "t.npz")


def test_csv_with_integers(tmp_path):
    path = write_csv(tmp_path, "path,label,id\n2.png,7,c\n0.png,1,a\n")
    samples = read_table(path)
    assert samples.ids == ("c", "a")
    assert samples.y.tolist() == [7, 1]
    assert samples.y.dtype == torch.int64
    assert samples.names is None
    assert_colour(samples, (2, 0))


def test_csv_without_ids_with_names_and_other_columns(tmp_path):
    text = "\ufefflabel,source,path\n dog ,x,0.png\n\ncat,y,1.png\ndog,z,2.png\n"
    samples = read_table(write_csv(tmp_path, text))
    assert samples.ids == ("0.png", "1.png", "2.png")
    assert samples.y.tolist() == [1, 0, 1]
    assert samples.names == ("cat", "dog")


def test_given_names_decide_the_order(tmp_path):
    path = write_csv(tmp_path, "path,label\n0.png,cat\n1.png,dog\n")
    samples = read_table(path, names=["dog", "frog", "cat"])
    assert samples.y.tolist() == [2, 0]
    assert samples.names == ("dog", "frog", "cat")
    (problem,) = problems(path, names=["dog", "cats"])
    assert problem == f"{path} row 2: unknown label 'cat'. Did you mean cats?"


def test_rows_are_counted_as_a_spreadsheet_counts(tmp_path):
    # Row 2 holds a line break inside quotes, row 3 is blank: the wrong label stands in row 4.
    path = write_csv(tmp_path, 'path,label,note\n0.png,1,"a\nb"\n\n1.png,-1,c\n')
    assert problems(path) == [f"{path} row 4: the label '-1' is not an integer from 0."]


def test_every_problem_of_a_table_at_once(tmp_path):
    text = (
        "path,label,id\n0.png,1,a\n9.png,2,b\n../0.png,3,c\n/etc/passwd,3,d\n1.png,4.5,e\n"
        "2.png,,f\nbad.png,-2,a\n,1,\n..\\0.png,1,g\nC:\\0.png,1,h\ntiny.png,1,i\n3.png,cat,j\n"
    )
    path = write_csv(tmp_path, text)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    save(tmp_path / "tiny.png", COLOUR[0, :2, :2])
    found = "\n".join(problems(path))
    for said in (
        "row 3: the picture cannot be read (No such file or directory)",
        "row 4: the path '../0.png' leaves the table's folder",
        "row 5: the path '/etc/passwd' leaves the table's folder",
        "row 6: the label '4.5' is not an integer from 0",
        "row 7: the label '' is not an integer from 0",
        f"row 8: the id 'a' appears 2 times (first in {path} row 2)",
        "row 8: the label '-2' is not an integer from 0",
        "row 8: the picture cannot be read (not a picture that Pillow knows)",
        "row 9: the path is empty",
        "row 9: the id is empty",
        "row 10: the path '../0.png' leaves the table's folder",
        "row 11: the path 'C:/0.png' leaves the table's folder",
        "row 12: the picture is 3x2x2, most pictures are 3x5x6. Resize it as training did.",
        "row 13: the label 'cat' is not an integer from 0",
    ):
        assert said in found
    assert len(found.splitlines()) == 14


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["the file is empty"]),
        ("\n\n", ["the file is empty"]),
        ("path,label\n", ["there is a header but no row"]),
        ("path,lable\n0.png,1\n", ["the column 'label' is missing. Did you mean lable?"]),
        ("path,path,label\n0.png,0.png,1\n", ["the column 'path' appears twice"]),
        ("path,label\n0.png\n0.png,1,2\n", ["row 2: 1 cells under 2", "row 3: 3 cells under 2"]),
        ('path,label\n"0.png,1\n', ["row 2: not CSV (unexpected end of data)"]),
    ],
)
def test_a_damaged_csv(tmp_path, text, said):
    found = problems(write_csv(tmp_path, text))
    assert len(found) == len(said)
    for problem, part in zip(found, said, strict=True):
        assert part in problem
        assert str(tmp_path) in problem


def test_a_csv_that_is_not_utf_8(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes("path,label\na.png,1\nä.png,2\n".encode("latin-1"))
    assert problems(path) == [f"{path}: not UTF-8 (byte 0xe4 in line 3). Save it as CSV UTF-8."]


def test_like_problems_are_listed_ten_times_and_counted(tmp_path):
    rows = "".join(f"no-{i}.png,1\n" for i in range(25))
    found = problems(write_csv(tmp_path, "path,label\n" + rows))
    assert len(found) == 11
    assert found[-1] == f"{tmp_path / 't.csv'}: 15 more rows have such a problem."


# --- pictures ------------------------------------------------------------------------------------


def test_gray_becomes_colour_but_colour_never_gray(tmp_path):
    path = write_csv(tmp_path, "path,label\n0.png,0\ng.png,1\n")
    save(tmp_path / "g.png", GRAY[0])
    for samples in (read_table(path), read_table(path, size=(3, 5, 6))):
        assert all(channel.tolist() == GRAY[0].tolist() for channel in samples.x[1])
    (problem,) = problems(path, size=(1, 5, 6))
    assert "row 2: the picture is 3x5x6, expected 1x5x6. It has colour" in problem


def test_gray_stays_gray(tmp_path):
    samples = read_table(write_csv(tmp_path, "path,label\n0.png,0\n1.png,0\n", GRAY))
    assert samples.x[:, 0].tolist() == GRAY[:2].tolist()


def test_size_is_required_where_it_is_given(tmp_path):
    path = write_csv(tmp_path, "path,label\n0.png,0\n")
    (problem,) = problems(path, size=(3, 32, 32))
    assert "row 2: the picture is 3x5x6, expected 3x32x32" in problem
    (problem,) = problems(path, size=(4, 5, 6))
    assert "row 2: the picture is 3x5x6, expected 4x5x6" in problem


def test_palettes_and_transparency_decode_to_their_colours(tmp_path):
    # Two colours, so that the palette is lossless.
    flat = np.where(GRAY[0, :, :, None] > 127, [200, 10, 30], [0, 90, 255]).astype(np.uint8)
    save(tmp_path / "p.png", flat, "P")
    Image.fromarray(flat).quantize(2).save(tmp_path / "pt.png", transparency=b"\x00\x80")
    alpha = np.concatenate([flat, GRAY[0, :, :, None]], axis=2)
    save(tmp_path / "a.png", alpha)
    text = "path,label\na.png,0\npt.png,0\n"
    samples = read_table(write_csv(tmp_path, text, []))
    for x in samples.x:
        assert x.permute(1, 2, 0).tolist() == flat.tolist()


def test_deep_and_truncated_and_huge_pictures_are_refused(tmp_path, monkeypatch):
    save(tmp_path / "deep.png", GRAY[0].astype(np.uint16) * 200)
    draws = np.random.default_rng(1)
    noise = draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (tmp_path / "cut.png").write_bytes(png(noise)[:2000])
    save(tmp_path / "fine.png", noise)
    save(
        tmp_path / "huge.png",
        draws.integers(0, 256, (64, 64, 3), dtype=np.uint8),
    )
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    text = "path,label\nfine.png,0\ndeep.png,0\ncut.png,0\nhuge.png,0\n"
    found = problems(write_csv(tmp_path, text, []))
    assert len(found) == 3
    assert "row 3: the picture cannot be read (its mode is I;16" in found[0]
    assert "row 5: the picture cannot be read (Image size (4096 pixels)" in found[1]
    assert "row 4: the picture cannot be read (" in found[2]


def test_a_small_file_that_claims_a_large_picture_is_not_decoded(tmp_path):
    packed = io.BytesIO()
    Image.new("1", (5000, 5000)).save(packed, "PNG")
    (tmp_path / "0.png").write_bytes(packed.getvalue())
    assert len(packed.getvalue()) < 1 << 14
    (problem,) = problems(write_csv(tmp_path, "path,label\n0.png,0\n", []))
    assert "row 2: the picture cannot be read (it is 5000x5000, above 16,777,216 pixels)" in problem


def test_a_tiff_whose_offsets_are_fractions(tmp_path):
    packed = io.BytesIO()
    Image.fromarray(COLOUR[0]).save(packed, "TIFF")
    content = bytearray(packed.getvalue())
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", content, entry) == (273,):  # where the strips begin
            struct.pack_into("<H", content, entry + 2, 11)  # as float32
    (tmp_path / "0.tiff").write_bytes(content)
    (problem,) = problems(write_csv(tmp_path, "path,label\n0.tiff,0\n", []))
    assert "row 2: the picture cannot be read (" in problem


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_is_numbered_as_torchvision_does(tmp_path):
    from torchvision.datasets import ImageFolder

    for i, name in enumerate(["dog/b.png", "cat/deep/a.png", "dog/a.png", "ant/z.png"]):
        save(tmp_path / name, COLOUR[i])
    (tmp_path / ".cache").mkdir()
    (tmp_path / "dog" / ".DS_Store").write_bytes(b"x")
    samples = read_table(tmp_path)
    assert samples.ids == ("ant/z.png", "cat/deep/a.png", "dog/a.png", "dog/b.png")
    assert samples.names == ("ant", "cat", "dog")
    # torchvision counts the hidden folder as class 0; here it is none.
    oracle = ImageFolder(str(tmp_path), allow_empty=True)
    assert samples.y.tolist() == [0, 1, 2, 2]
    assert dict(zip(samples.ids, samples.y.tolist(), strict=True)) == {
        path.removeprefix(f"{tmp_path}/"): label - oracle.class_to_idx["ant"]
        for path, label in oracle.samples
    }
    assert_colour(samples, (3, 1, 2, 0))


def test_labels_beyond_the_model():
    samples = Samples(
        ids=("a", "b", "c"), x=torch.zeros(3, 1, 2, 2), y=torch.tensor([0, 10, 9]), names=None
    )
    (problem,) = check_labels(samples, 10, "test.csv")
    assert str(problem) == (
        "test.csv: the sample 'b' has the label 10. The model has 10 classes: use 0..9."
    )
    assert check_labels(samples, 11, "test.csv") == []


def places(labels):
    return [str(i) for i in range(len(labels))]


@given(st.lists(st.integers(0, 2**31 - 1), min_size=1))
def test_integers_are_themselves(numbers):
    texts = [str(number) for number in numbers]
    labels = read_labels(texts, places(texts), where="t")
    assert list(labels.numbers) == numbers
    assert labels.names is None


@settings(max_examples=16)
@given(st.lists(st.from_regex(r"[a-z]+", fullmatch=True), min_size=1))
def test_names_are_numbered_in_order(texts):
    labels = read_labels(texts, places(texts), where="t")
    assert labels.names is not None
    assert [labels.names[number] for number in labels.numbers] == texts
    assert list(labels.names) == sorted(set(texts))


def test_numbers_that_are_names_elsewhere_are_refused():
    assert read_labels(["1", "0"], places("ab"), where="t", names=["0", "1"]).numbers == (1, 0)
    with pytest.raises(InputError, match="class 1 as a number, 0 as a name"):
        read_labels(["1", "0"], places("ab"), where="t", names=["1", "0"])
    # One word among them, and all of them known: the column holds names.
    assert read_labels(["7", "x"], places("ab"), where="t", names=["x", "7"]).numbers == (1, 0)


@pytest.mark.parametrize("label", [str(2**31), "9" * 5000, "1e-3", "0x1", "١", "1_0", "nan"])
def test_what_is_no_class_number(label):
    with pytest.raises(InputError, match="is not an integer from 0"):
        read_labels(["1", label], places("ab"), where="t")
