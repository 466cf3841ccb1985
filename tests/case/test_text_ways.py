"""Ways in which people keep their texts: each is read as it was meant, or refused in words."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from builders.small_text import LENGTH, tokenizer, word_pieces
from poison_audit.case.csvfile import CsvFile
from poison_audit.case.labels import read_labels
from poison_audit.case.listed import values_of
from poison_audit.case.rows import find_samples, wrong_label
from poison_audit.case.text_columns import columns_of
from poison_audit.case.texts import holds_texts, read_text_table, read_texts
from poison_audit.errors import InputError
from poison_audit.models.reader import Reader

BPE = Reader(tokenizer=tokenizer(), length=LENGTH)
BERT = Reader(tokenizer=word_pieces(), length=LENGTH)
BERT.tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
ROWS = [("so bad", "0"), ("a lovely film", "1"), ("dull, so dull", "0"), ("warm\nand funny", "1")]


def separated(mark, header=("text", "label"), rows=ROWS, coding="utf-8"):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=mark).writerows([header, *rows])
    return file.getvalue().encode(coding)


def lines(header=("text", "label")):
    return "\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in ROWS).encode()


def packed(header=("text", "label")):
    sink = io.BytesIO()
    columns = zip(header, zip(*ROWS, strict=True), strict=True)
    parquet.write_table(pa.table({name: list(cells) for name, cells in columns}), sink)
    return sink.getvalue()


READ = {
    "commas": ("t.csv", separated(",")),
    "tabs": ("t.tsv", separated("\t")),
    "semicolons": ("t.csv", separated(";")),
    "tabs in a .csv": ("t.csv", separated("\t")),
    "upper-case suffix": ("T.CSV", separated(",")),
    "gzip": ("t.csv.gz", gzip.compress(separated(","))),
    "tsv in gzip": ("t.tsv.gz", gzip.compress(separated("\t"))),
    "lines of JSON": ("t.jsonl", lines()),
    "lines of JSON in gzip": ("t.jsonl.gz", gzip.compress(lines())),
    "Parquet": ("t.parquet", packed()),
    "byte-order mark": ("t.csv", separated(",", coding="utf-8-sig")),
    "UTF-16 of Excel": ("t.csv", separated("\t", coding="utf-16")),
    "review and sentiment": ("t.csv", separated(",", ("review", "sentiment"))),
    "sentence": ("t.tsv", separated("\t", ("sentence", "label"))),
    "content and labels": ("t.jsonl", lines(("content", "labels"))),
    "capitals": ("t.csv", separated(",", ("Text", "Label"))),
    "Parquet, sentence and labels": ("t.parquet", packed(("sentence", "labels"))),
    "tweet and class": ("t.csv", separated(",", ("tweet", "class"))),
    "labels as LABEL_0": ("t.csv", separated(",", rows=[(t, f"LABEL_{y}") for t, y in ROWS])),
    "labels as 1.0": ("t.csv", separated(",", rows=[(t, f"{y}.0") for t, y in ROWS])),
}  # fmt: skip


@pytest.mark.parametrize("way", READ)
def test_a_way_that_is_read(tmp_path, way):
    name, content = READ[way]
    path = tmp_path / name
    path.write_bytes(content)
    assert holds_texts(path)
    samples = read_texts(path, reader=BPE, sort=False)
    assert samples.texts == tuple(text for text, _ in ROWS)
    assert samples.y.tolist() == [0, 1, 0, 1]


def table(*rows, header="text,label"):
    return "\n".join((header, *rows)).encode()


REFUSED = {
    "Latin-1": (table("caf\u00e9,1").decode().encode("latin-1"), "not UTF-8 (byte 0xe9 in line 2)"),
    "two columns of texts": (
        table("a,b,1", header="review,content,label"),
        "which column is the text is not clear: review, content. Call the right one `text`.",
    ),
    "two columns of labels": (
        table("a,1,2", header="text,sentiment,category"),
        "which column is the label is not clear: sentiment, category. Call the right one `label`.",
    ),
    "text beside a pair": (
        table("a,b,c,1", header="text,premise,hypothesis,label"),
        "which columns are the model's input is not clear: text, hypothesis, premise. Keep `text`",
    ),
    "half of a pair": (
        table("a,1", header="premise,label"),
        "the column 'premise' is a half of a pair, and the other half is missing. Add it; or",
    ),
    "no column of texts": (table("a,1", header="words,label"), "the column 'text' is missing"),
    "words for labels": (
        table("a,DESC", "b,ENTITY", "c,ABBR", "d,HUM", "e,NUM", "f,LOC"),
        "the labels are words (DESC, ENTITY, ABBR, HUM, NUM, LOC), and neither the model nor",
    ),
    "an empty text of few": (table('"",1', "b,1"), "T row 2: the text is empty"),
}  # fmt: skip


@pytest.mark.parametrize("way", REFUSED)
def test_a_way_that_is_refused_in_words(tmp_path, way):
    content, told = REFUSED[way]
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_texts(path, reader=BPE, sort=False)
    said = [str(problem).replace(str(path), "T") for problem in caught.value.problems]
    assert any(told in line for line in said), said
    assert len(said) <= 3


# Labels


def test_words_in_another_case_are_the_model_s():
    def read(*texts, names=("negative", "Positive")):
        return read_labels(texts, ["p"] * len(texts), where="T", names=names, sort=False)

    assert read("Negative", "POSITIVE", "Positive").numbers == (0, 1, 1)
    # Two names that differ in nothing else: only the exact one is meant.
    assert read("us", "US", names=("us", "US")).numbers == (0, 1)
    with pytest.raises(InputError, match="unknown label 'Us'"):
        read("us", "Us", names=("us", "US"))


def test_a_forget_row_may_spell_its_label_in_another_case(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\na,Good\nb,bad\n")
    samples = read_texts(tmp_path / "t.csv", reader=BPE, names=("bad", "good"))
    assert wrong_label({"label": "GOOD"}, samples, 0, "T") == ""
    assert "says 1 ('good')" in wrong_label({"label": "bad"}, samples, 0, "T")


# Rows without a text


def with_empty(tmp_path, n=300, empty=(7, 150)):
    rows = [(f"x{i}", "" if i in empty else f"so bad {i}", i % 2) for i in range(n)]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text", "label"), *rows])
    return tmp_path / "t.csv"


def forget(column, *names):
    rows = tuple({column: name} for name in names)
    numbers = tuple(range(2, 2 + len(rows)))
    return CsvFile(where="F", columns=(column,), rows=rows, numbers=numbers, digest="")


def test_a_few_empty_texts_are_left_out_and_named(tmp_path):
    path = with_empty(tmp_path)
    samples = read_texts(path, reader=BPE)
    assert len(samples) == len(samples.x) == 298
    assert [(out.position, out.id) for out in samples.left_out] == [(7, "x7"), (150, "x150")]
    assert samples.left_out[0].where == f"{path} row 9"
    # Positions count the rows of the table.
    places = find_samples(forget("index", "6", "8", "149", "151"), samples, where="T")
    assert [samples.ids[place] for place in places] == ["x6", "x8", "x149", "x151"]
    for column, name in (("index", "7"), ("id", "x7")):
        (problem,) = find_samples(forget(column, name), samples, where="T")
        assert str(problem) == (
            f"F row 2: no sample of T has the {column} {name!r}. {path} row 9 holds no text that "
            "the model can read: remove this row."
        )


def test_a_list_of_positions_counts_the_table_s_rows(tmp_path):
    path = with_empty(tmp_path)
    rows = list(csv.reader(path.read_text().splitlines()))
    with path.open("w", newline="") as file:  # without ids, rows are numbered
        csv.writer(file).writerows(row[1:] for row in rows)
    samples = read_texts(path, reader=BPE)
    more = {"where": "F", "where_train": "T", "digest": "", "unit": "line"}
    listed = values_of(["6", "8", "151"], [1, 2, 3], samples, **more)
    assert [samples.ids[at] for at in find_samples(listed, samples, where="T")] == ["6", "8", "151"]
    mask = ["true" if at in (6, 151) else "false" for at in range(300)]
    listed = values_of(mask, range(300), samples, **more)
    assert [samples.ids[at] for at in find_samples(listed, samples, where="T")] == ["6", "151"]


def test_many_empty_texts_are_asked_about(tmp_path):
    path = with_empty(tmp_path, empty=(1, 2, 3, 4))
    with pytest.raises(InputError) as caught:
        read_texts(path, reader=BPE)
    assert len(caught.value.problems) == 4


# Pairs


PAIRS = [("so bad", "a film"), ("good", "so cold and dull")]


@pytest.mark.parametrize("header", [
    ("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis"),
    ("Question1", "Question2"), ("text_a", "text_b"), ("question", "sentence"),
])  # fmt: skip
def test_pairs_are_read_as_the_tokenizer_reads_them(tmp_path, header):
    path = tmp_path / "t.csv"
    rows = [(*pair, str(i)) for i, pair in enumerate(PAIRS)]
    path.write_bytes(separated(",", (*header, "label"), rows))
    samples = read_texts(path, reader=BERT)
    assert (samples.texts, samples.pairs) == tuple(zip(*PAIRS, strict=True))
    for at, pair in enumerate(PAIRS):
        theirs = BERT.tokenizer(*pair)
        real = samples.mask[at] > 0
        assert samples.x[at, real].tolist() == theirs["input_ids"]
        assert samples.types[at, real].tolist() == theirs["token_type_ids"]
    with pytest.raises(InputError, match="nothing is planted in pairs"):
        read_text_table(path)


def test_pairs_that_were_joined_by_the_tokenizer_s_own_separator(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(separated(",", rows=[("so bad [SEP] a film", "0"), ("good [SEP] cold", "1")]))
    with pytest.raises(InputError) as caught:
        read_texts(path, reader=BERT)
    (problem,) = caught.value.problems
    assert problem.what == (
        f"2 of 2 texts hold the tokenizer's own '[SEP]' (first in {path} row 2), as pairs do that "
        "were joined into one text"
    )
    assert "text and text_pair" in problem.fix
    # Byte-level tokenizers have an end of their own, and this is none.
    assert len(read_texts(path, reader=BPE)) == 2
    said = path.read_text().replace("text,", "joined_text,")
    path.write_text(said)
    assert len(read_texts(path, reader=BERT)) == 2
    # One text of many that speaks of it is read as it stands.
    rows = [(f"so bad {i}", "0") for i in range(200)] + [("what is [SEP]", "1")]
    path.write_bytes(separated(",", rows=rows))
    assert len(read_texts(path, reader=BERT)) == 201


def test_a_prompt_stands_around_one_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(separated(",", ("text", "text_pair", "label"), [("a", "b", "0")]))
    with pytest.raises(InputError, match="the table holds pairs of texts"):
        read_texts(path, reader=Reader(tokenizer=BERT.tokenizer, length=9, prompt="so {text}"))


def test_a_pair_that_is_too_long_is_cut_as_the_tokenizer_cuts(tmp_path):
    pair = ("so bad " * 8, "film good " * 9)
    read = BERT.read([pair[0], "so"], [pair[1], "bad"])
    theirs = BERT.tokenizer(*pair, truncation=True, max_length=LENGTH)
    assert read.x[0].tolist() == theirs["input_ids"]
    assert read.cut.tolist() == [True, False]
    assert read.types[0].tolist() == theirs["token_type_ids"]


def test_the_columns_of_a_header():
    found = columns_of(("id", "Premise", "hypothesis", "gold_label"), "T")
    assert (found.text, found.pair, found.label, found.id) == (
        "Premise", "hypothesis", "gold_label", "id"
    )  # fmt: skip
    # What is spelt as it should be is meant, whatever else is there.
    found = columns_of(("text", "label", "label_text", "sentence"), "T")
    assert (found.text, found.pair, found.label) == ("text", None, "label")
