"""Tables of texts: what is read, and every way in which a table cannot be."""

from __future__ import annotations

import csv

import pyarrow as pa
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import normalizers

from builders.small_text import LENGTH, tokenizer, word_pieces
from poison_audit.case.texts import holds_pictures, holds_texts, read_texts
from poison_audit.errors import InputError
from poison_audit.models.reader import Reader

BPE = Reader(tokenizer=tokenizer(), length=LENGTH)
LONG = "kafen so bad " * 20


def write(tmp_path, content, name="t.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def store(tmp_path, columns, name="t.parquet"):
    parquet.write_table(pa.table(columns), tmp_path / name)
    return tmp_path / name


def refused(path, reader=BPE, **more):
    with pytest.raises(InputError) as caught:
        read_texts(path, reader=reader, **more)
    return [str(problem).replace(f"{path}", "T") for problem in caught.value.problems]


# What is read


def test_a_csv(tmp_path):
    path = write(tmp_path, f'id,text,label,more\na,"so, bad",1,x\nb,  kafen ,0,y\nc,{LONG},1,z\n')
    samples = read_texts(path, reader=BPE)
    assert samples.ids == ("a", "b", "c")
    assert samples.texts == ("so, bad", "kafen", LONG.strip())
    assert samples.y.tolist() == [1, 0, 1]
    assert samples.names is None
    assert samples.cut.tolist() == [False, False, True]
    assert samples.x[1, : samples.mask[1].sum()].tolist() == tokenizer()("kafen")["input_ids"]
    assert samples.x.shape == samples.mask.shape == (3, LENGTH)


def test_a_parquet_reads_as_the_same_csv(tmp_path):
    rows = {"text": ["so bad", "kafen\nleran", "a film"], "label": [1, 0, 1], "id": ["x", "y", "z"]}
    theirs = read_texts(store(tmp_path, rows), reader=BPE)
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([list(rows), *zip(*rows.values(), strict=True)])
    assert theirs.digest() == read_texts(tmp_path / "t.csv", reader=BPE).digest()


def test_without_ids_rows_are_numbered(tmp_path):
    path = write(tmp_path, "text,label\na,0\n\nb,1\n")
    assert read_texts(path, reader=BPE).ids == ("0", "1")
    path = store(tmp_path, {"text": ["a", "b"], "label": [0, 1]})
    assert read_texts(path, reader=BPE).ids == ("0", "1")


def test_label_names(tmp_path):
    path = write(tmp_path, "text,label\na,pos\nb,neg\nc,pos\n")
    samples = read_texts(path, reader=BPE)
    assert (samples.names, samples.y.tolist()) == (("neg", "pos"), [1, 0, 1])
    samples = read_texts(path, reader=BPE, names=("pos", "neutral", "neg"))
    assert (samples.names, samples.y.tolist()) == (("pos", "neutral", "neg"), [0, 2, 0])
    path = write(tmp_path, "text,label\na,1\nb,0\n")
    samples = read_texts(path, reader=BPE, names=("neg", "pos"))
    assert (samples.names, samples.y.tolist()) == (("neg", "pos"), [1, 0])


def test_a_byte_order_mark_and_other_scripts(tmp_path):
    path = write(tmp_path, "\ufefftext,label\nдобрый 좋다 \U0001f600,0\n{text},1\n")
    samples = read_texts(path, reader=BPE)
    assert samples.texts == ("добрый 좋다 \U0001f600", "{text}")
    words = tokenizer()
    assert words.decode(samples.x[0][samples.mask[0] > 0]) == samples.texts[0]


# Which tables hold texts


@pytest.mark.parametrize(
    ("header", "texts", "pictures"),
    [
        ("text,label", True, False),
        (" text , label ", True, False),
        ("\ufefftext,label", True, False),
        ("id,text,label,source", True, False),
        ("path,label", False, True),
        ("path,text,label", False, False),  # the model decides
        ("Text,label", True, False),
        ("review,label", True, False),
        ("premise,hypothesis,label", True, False),
        ("hypothesis,label", False, False),
        ("words,label", False, False),
        ("", False, False),
    ],
)
def test_a_header_tells(tmp_path, header, texts, pictures):
    path = write(tmp_path, f"{header}\na,b\n")
    assert (holds_texts(path), holds_pictures(path)) == (texts, pictures)
    names = [name.strip("\ufeff ") for name in header.split(",") if name]
    path = store(tmp_path, {name: ["x"] for name in names} or {"none": [1]})
    assert (holds_texts(path), holds_pictures(path)) == (texts, pictures)


def test_what_cannot_be_read_holds_no_texts(tmp_path):
    for name, content in (("a.csv", b"\xff\xfe\x00t"), ("b.parquet", b"PAR1"), ("c.txt", b"text"),
                          ("d.csv", b'"' + b"x" * 200_000)):  # fmt: skip
        path = write(tmp_path, content, name)
        assert not holds_texts(path)
        assert not holds_pictures(path)
    assert not holds_texts(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    assert not holds_texts(tmp_path / "folder.csv")
    assert holds_pictures(tmp_path / "folder.csv")
    assert holds_pictures(tmp_path / "e.npz")


# What is wrong with a table


def test_everything_is_said_at_once(tmp_path):
    path = write(tmp_path, "id,text,label\na,so,pos\na,,neg\n,bad,neither\n")
    assert refused(path, names=("neg", "pos")) == [
        "T row 4: the id is empty.",
        "T row 3: the id 'a' appears 2 times (first in T row 2).",
        "T row 3: the text is empty.",
        "T row 4: unknown label 'neither'. Known: neg, pos.",
    ]


def test_many_empty_texts_are_counted(tmp_path):
    path = write(tmp_path, "text,label\nso,0\n" + '"  ",1\n' * 30)
    said = refused(path)
    assert len(said) == 11
    assert said[0] == "T row 3: the text is empty."
    assert said[-1] == "T: 20 more rows have such a problem."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "T: the file is empty."),
        (b"text,label\n", "T: there is a header but no row."),
        (b"text,label\ncaf\xe9,1\n", "T: not UTF-8 (byte 0xe9 in line 2). Save it as CSV UTF-8."),
        (b"words,label\nso,1\n", "T: the column 'text' is missing. Known: label, words."),
        (b"text\nso\n", "T: the column 'label' is missing. Known: text."),
        (b"text,label\nso, bad,1\n", "T row 2: 3 cells under 2 columns. Quote cells that hold com"),
        (b'text,label\n"so,1\n', "T row 2: not CSV (unexpected end of data)."),
        (b"text,label\nso,\n", "T row 2: the label is empty."),
        (b"text,label\nso,1.5\n", "T row 2: the label '1.5' is not an integer from 0."),
    ],
)
def test_a_csv_that_cannot_be_read(tmp_path, content, said):
    assert refused(write(tmp_path, content))[0].startswith(said)


def test_names_that_config_json_does_not_know(tmp_path):
    path = write(tmp_path, "text,label\nso,negatif\nbad,positive\n")
    assert refused(path, names=("NEGATIVE", "positive"), sort=False) == [
        "T row 2: unknown label 'negatif'. Known: NEGATIVE, positive."
    ]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"text": ["a"]}, "T: the column 'label' is missing. Known: text."),
        ({"other": ["a"], "label": [1]}, "T: the column 'text' is missing. Known: label, other."),
        ({"text": pa.array([], pa.string()), "label": pa.array([], pa.int64())},
         "T: the table has no row."),
        ({"text": [b"a"], "label": [1]},
         "T: the column 'text' holds no strings, but bytes. Store it as strings."),
        ({"text": [3], "label": [1]}, "T: the column 'text' holds no strings, but int."),
        ({"text": ["a", None], "label": [1, 0]}, "T index 1: the text is empty."),
        ({"text": ["a"], "label": pa.array([None], pa.int64())}, "T index 0: the label"),
        ({"text": ["a"], "label": [0.5]}, "T index 0: the label '0.5' is not an integer from 0."),
    ],
)  # fmt: skip
def test_a_parquet_that_cannot_be_read(tmp_path, columns, said):
    assert refused(store(tmp_path, columns))[0].startswith(said)


def test_a_damaged_parquet_and_other_files(tmp_path):
    assert refused(write(tmp_path, b"PAR1", "t.parquet"))[0].startswith("T: not a readable Parquet")
    fix = "A table of texts is a .csv, .tsv, .jsonl or .parquet with text,label."
    assert refused(write(tmp_path, b"x", "t.json")) == [f"T: this is no table of texts. {fix}"]
    assert refused(tmp_path / "none.json") == [f"T: no such file. {fix}"]
    assert refused(tmp_path / "none.csv")[0].startswith("T: cannot be read (No such file")
    (tmp_path / "d").mkdir()
    assert refused(tmp_path / "d") == [f"T: this is no table of texts. {fix}"]


def test_texts_of_which_no_token_is_left(tmp_path):
    words = word_pieces()
    # As BERT's own, which takes control characters off.
    words.backend_tokenizer.normalizer = normalizers.BertNormalizer(clean_text=True)
    path = write(tmp_path, "text,label\nso,0\n\x07\x08,1\n\x01,0\n")
    what = "the tokenizer makes no token of the text, or none that fits."
    for prompt in ("{text}", "so {text} bad"):
        reader = Reader(tokenizer=words, length=LENGTH, prompt=prompt)
        assert refused(path, reader) == [f"T row 3: {what}", f"T row 4: {what}"]
    # Where the prompt leaves no room, nothing of any text is left.
    reader = Reader(tokenizer=words, length=4, prompt="so {text} bad")
    assert refused(path, reader) == [f"T row {row}: {what}" for row in (2, 3, 4)]


def test_a_text_of_as_many_tokens_as_none_is_kept(tmp_path):
    # The space after the prompt is a token, and becomes a part of the text's.
    reader = Reader(tokenizer=tokenizer(), length=9, prompt="so {text}")
    assert reader.read(["", "bad"]).mask.sum(1).tolist() == [2, 2]
    path = write(tmp_path, "text,label\nbad,1\n")
    assert len(read_texts(path, reader=reader)) == 1


cells = st.text(max_size=12) | st.sampled_from(["text", "label", "0", "1", "so bad", "\x00", '"'])


@settings(max_examples=50)
@given(content=st.binary(max_size=60) | cells.map(str.encode))
@example(content=b"text,label\n\x00,0\n")
@example(content=b"text,label\r\nso\rbad,0\r")
def test_no_file_is_a_crash(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    for name in ("fuzz.csv", "fuzz.parquet"):
        path = folder / name
        path.write_bytes(content)
        assert holds_texts(path) in (True, False)
        assert holds_pictures(path) in (True, False)
        try:
            assert len(read_texts(path, reader=BPE)) > 0
        except InputError as error:
            problems = error.problems
            assert all(problem.what and str(path) in problem.where for problem in problems)


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(cells, st.integers(0, 3)), min_size=1, max_size=6))
def test_what_a_csv_holds_is_what_is_read(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "label"), *rows])
    assert holds_texts(path)
    expected = [text.strip() for text, _ in rows]
    if all(expected):
        samples = read_texts(path, reader=BPE)
        assert list(samples.texts) == expected
        assert samples.y.tolist() == [label for _, label in rows]
        assert torch.equal(samples.x, BPE.read(expected).x)
    else:
        empty = [
            f"T row {n + 2}: the text is empty." for n, text in enumerate(expected) if not text
        ]
        assert refused(path) == empty
