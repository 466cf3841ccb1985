"""Texts to tokens: what is read, what is cut, and tokenizers that cannot be used."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders.small_text import LENGTH, tokenizer, word_pieces
from poison_audit.errors import InputError
from poison_audit.models import hugging_face
from poison_audit.models.reader import Reader, load_tokenizer

BPE, PIECES = tokenizer(), word_pieces()
LONG = " ".join(["kafen", "so", "bad", "leran", "midol"] * 8)
GRIN = "\U0001f600"  # four tokens


def reader(words=BPE, *, side="right", **more):
    words.truncation_side = side
    return Reader(tokenizer=words, **{"length": LENGTH, **more})


def rows(tokens):
    """Return the real tokens of each row, after a look at what stands behind them."""
    assert tokens.x.dtype == tokens.mask.dtype == torch.int64
    found = []
    for x, mask in zip(tokens.x.tolist(), tokens.mask.tolist(), strict=True):
        n = sum(mask)
        assert mask == [1] * n + [0] * (len(mask) - n)
        assert not any(x[n:])
        found.append(x[:n])
    assert tokens.x.shape[1] == max(1, *map(len, found))
    return found


@pytest.mark.parametrize("words", [BPE, PIECES], ids=["bpe", "pieces"])
def test_each_text_is_read_as_its_tokenizer_reads_it_alone(words):
    texts = ["so bad", "kafen", "a film that nobody saw", "good"]
    read = reader(words).read(texts)
    assert rows(read) == [words(text)["input_ids"] for text in texts]
    assert read.cut.tolist() == [False] * 4


def test_a_padding_side_and_padding_of_the_tokenizer_are_not_looked_at():
    words = tokenizer(side="left")
    words.backend_tokenizer.enable_padding(length=40)
    words.backend_tokenizer.enable_truncation(2)
    assert rows(reader(words).read(["so bad film", "good"])) == [
        BPE("so bad film")["input_ids"], BPE("good")["input_ids"],
    ]  # fmt: skip


def test_many_texts_keep_their_order():
    texts = [f"so {n}" for n in range(2500)]
    texts[1100] = LONG
    read = reader().read(texts)
    found = rows(read)
    assert read.cut.nonzero().flatten().tolist() == [1100]
    for n in (0, 1023, 1024, 2047, 2048, 2499):
        assert found[n] == BPE(texts[n])["input_ids"]


def test_no_text_and_no_token():
    assert reader().read([]).x.shape == (0, 1)
    assert reader().read([]).cut.dtype == torch.bool
    read = reader().read(["", "so"])
    assert rows(read) == [[], BPE("so")["input_ids"]]
    assert reader().read([""]).x.shape == (1, 1)
    assert rows(reader(PIECES).read([""])) == [PIECES.convert_tokens_to_ids(["[CLS]", "[SEP]"])]


# What is too long


@pytest.mark.parametrize("length", [2, 3, 10])
def test_a_long_text_loses_its_end_or_its_start(length):
    ids = BPE(LONG)["input_ids"]
    for side, kept in (("right", ids[:length]), ("left", ids[-length:])):
        read = reader(side=side, length=length).read(["so", LONG])
        assert rows(read) == [BPE("so")["input_ids"], kept]
        assert read.cut.tolist() == [False, True]


def test_special_tokens_stay():
    first, *inside, last = PIECES(LONG)["input_ids"]
    for side, kept in (("right", inside[:4]), ("left", inside[-4:])):
        read = reader(PIECES, side=side, length=6).read([LONG])
        assert rows(read) == [[first, *kept, last]]
    assert rows(reader(PIECES, length=2).read([LONG])) == [[first, last]]


def test_a_text_that_just_fits_is_whole():
    n = len(BPE(LONG)["input_ids"])
    for more, cut in ((0, False), (-1, True)):
        read = reader(length=n + more).read([LONG])
        assert (read.cut.tolist(), len(rows(read)[0])) == ([cut], n + more)


# What stands around a text


PROMPT = "so {text} bad"


def test_a_prompt_holds_the_text_as_it_is():
    read = reader(prompt=PROMPT).read(["kafen", "{text} leran"])
    assert rows(read) == [BPE("so kafen bad")["input_ids"], BPE("so {text} leran bad")["input_ids"]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_prompt_stays_whole(side):
    # Every word is one token here, its space included.
    words = LONG.split()
    kept = words[: LENGTH - 2] if side == "right" else words[-(LENGTH - 2) :]
    read = reader(side=side, prompt=PROMPT).read([LONG, "kafen"])
    assert read.cut.tolist() == [True, False]
    assert BPE.tokenize(f"so {' '.join(kept)} bad") == BPE.convert_ids_to_tokens(rows(read)[0])
    assert len(rows(read)[0]) == LENGTH


def test_a_prompt_without_room_is_cut_itself():
    read = reader(prompt="so bad {text} so bad", length=3).read([LONG])
    assert rows(read) == [BPE("so bad  so bad")["input_ids"][:3]]


def test_no_character_is_halved():
    read = reader(prompt="so {text} bad").read([GRIN * 9])
    assert BPE.decode(rows(read)[0]) == f"so {GRIN * 5} bad"  # 20 of the 21 tokens that are left


texts = st.text(max_size=60) | st.lists(
    st.sampled_from(["kafen", "bad", "don't", GRIN, "ẞé", "{text}", "\u200b", " ", "x" * 30]),
    max_size=40,
).map(" ".join)


@settings(max_examples=50)
@given(text=texts, side=st.sampled_from(["right", "left"]), length=st.integers(8, 30))
@example(text=GRIN * 20, side="left", length=8)
@example(text="\u0301" * 30, side="right", length=9)
@example(text=" " * 60, side="left", length=8)
def test_as_much_of_a_text_as_fits(text, side, length):
    text = " ".join(text.split())
    for words in (BPE, PIECES):
        whole = words(PROMPT.replace("{text}", text))["input_ids"]
        read = reader(words, side=side, prompt=PROMPT, length=length).read([text])
        (row,) = rows(read)
        assert read.cut.tolist() == [len(whole) > length]
        if len(whole) <= length:
            assert row == whole
            continue
        assert len(row) <= length
        head, tail = words("so")["input_ids"][:2], words("so bad")["input_ids"][1:]
        if words is BPE:
            said = BPE.decode(row, clean_up_tokenization_spaces=False)
            assert said.startswith("so ")
            assert said.endswith(" bad")
            kept = said[3:-4]
            assert text.startswith(kept) if side == "right" else text.endswith(kept)
            # A character has at most four tokens, and one more at each seam.
            assert len(row) > length - 7
        else:
            assert row[: len(head)] == head
            assert row[-1] == tail[-1]


# Tokenizers


@pytest.fixture
def folder(tmp_path):
    hugging_face.offline()
    BPE.save_pretrained(tmp_path)
    return tmp_path


def change(folder, **more):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def test_a_folder_without_a_tokenizer(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: holds a language model but no tokenizer. Put its files beside config.json, "
        f"by tokenizer.save_pretrained('{tmp_path}')."
    )


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b""),
        ("tokenizer.json", b"not JSON"),
        ("tokenizer.json", b"\xff\xfe\x00"),
        ("tokenizer.json", b"[]"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b'{"version": "1.0", "model": {"type": "BPE", "vocab": 3}}'),
        ("tokenizer.json", DEEP.encode()),
        ("tokenizer.json", b'"' + b"x" * 20_000_000),
        ("tokenizer_config.json", b""),
        ("tokenizer_config.json", b"[1]"),
        ("tokenizer_config.json", b'{"model_max_length": "many"}'),
        ("tokenizer_config.json", b'{"eos_token": {"content": 3}}'),
        ("tokenizer_config.json", DEEP.encode()),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[:12]!r}",
)
def test_a_damaged_tokenizer_is_an_error_of_the_folder(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_tokenizer(folder)
    (problem,) = caught.value.problems
    assert problem.where == str(folder)
    assert problem.what.startswith("the tokenizer cannot be read (")
    assert problem.fix == "Save it again by save_pretrained."
    assert len(str(problem)) < 500


class PanicException(BaseException):
    """As pyo3 raises it where Rust code panics: no Exception."""


@pytest.mark.parametrize("error", [PanicException("range end index"), ValueError("a value")])
def test_a_panic_in_the_tokenizer_is_an_error_of_the_folder(folder, monkeypatch, error):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", raising(error))
    with pytest.raises(InputError, match=str(error)):
        load_tokenizer(folder)


def test_an_interrupt_while_the_tokenizer_is_read_is_none_of_the_folder(folder, monkeypatch):
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        load_tokenizer(folder)


def test_tokens_that_would_fill_the_memory_are_refused(folder):
    file = folder / "tokenizer.json"
    whole = file.read_text("utf-8")
    tree = json.loads(whole)
    tree["added_tokens"].append({"id": 999, "content": "x" * 5_000_000, "special": True})
    file.write_text(json.dumps(tree), encoding="utf-8")
    with pytest.raises(InputError, match=r"added tokens have 5,000,\d+ letters"):
        load_tokenizer(folder)
    file.write_text(whole, encoding="utf-8")
    (folder / "added_tokens.json").write_text(json.dumps({"x" * 5_000_000: 999}), encoding="utf-8")
    with pytest.raises(InputError, match="is larger than 4 MiB"):
        load_tokenizer(folder)


def raising(error):
    def read(*_args, **_settings):
        raise error

    return read


def test_code_beside_a_tokenizer_is_not_run(folder):
    trace = folder / "ran"
    code = f"open({str(trace)!r}, 'w')\nclass Evil: pass\nclass EvilFast: pass\n"
    for name in ("evil.py", "tokenization_evil.py", "__init__.py"):
        (folder / name).write_text(code)
    remote = {"AutoTokenizer": ["evil.Evil", "evil.EvilFast"]}
    for more in (
        {"auto_map": remote},
        {"auto_map": remote, "tokenizer_class": "Evil"},
        {"auto_map": {"AutoTokenizer": "evil--evil.Evil"}, "tokenizer_class": "EvilFast"},
        {"chat_template": "{{ cycler.__init__.__globals__.os.system('touch ' ~ x) }}"},
    ):
        change(folder, **more)
        with contextlib.suppress(InputError):
            load_tokenizer(folder)
    assert not trace.exists()


def test_a_tokenizer_of_python_code_is_refused(tmp_path):
    hugging_face.offline()
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "a": 2, "|": 3}))
    told = {"tokenizer_class": "Wav2Vec2CTCTokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="Wav2Vec2CTCTokenizer does not say where in a text its"):
        load_tokenizer(tmp_path)
