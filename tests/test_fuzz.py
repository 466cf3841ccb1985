"""Damaged files are refused in words: never a traceback, a hang, or a file read as what it is not.

`tests/benchmarks/fuzz.py` does the same with as many inputs as one likes.
"""

import time

import pytest

from builders.damage import damaged
from builders.fuzzing import readers
from poison_audit.errors import InputError
from poison_audit.models.seeds import Rng

INPUTS = 60
LONGEST = 10.0
NAMES = (
    "safetensors", "pickle", "envelope", "shard index",
    "GPT-2's config.json", "GPT-2's tokenizer.json",
    "GPT-2's tokenizer_config.json", "GPT-2's model.safetensors", "npz", "png", "jpeg", "gif",
    "bmp", "webp", "tiff", "table of pictures", "Parquet", "pickled table",
    "TensorDataset", "CIFAR's batch", "Arrow", "state.json", "hub's folder", "metadata.jsonl",
    "table of texts", "forget.csv",
    "forget.npy", "forget.npz", "forget.json", "forget.jsonl", "forget.txt", "forget.csv.gz",
    "forget.pt", "forget.pkl", "forget.pickle",
    "targets.csv", "canaries.json", "strings.json", "trigger.json",
    "trigger.json of a blend", "a trigger's pattern", "trigger.json of a template",
    "trigger.json of texts",
    "audit.toml", "report.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return readers(tmp_path_factory.mktemp("seeds"))


def test_every_reader_is_named(made):
    assert tuple(made) == NAMES


@pytest.fixture
def place(tmp_path, made, request):
    reader = made[request.getfixturevalue("name")]
    for file, content in reader.beside.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_what_is_whole_is_read(made, place, name):
    (place / made[name].file).write_bytes(made[name].content)
    made[name].read(place)


# What is wrong with a picture or a tokenizer its library may say by a warning.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_what_is_damaged_is_refused_in_words(made, place, name):
    reader, draws, refused = made[name], Rng(11).named(name).numpy(), 0
    inputs = INPUTS // 3 if name == "report.json" else INPUTS  # each of which takes a while
    for _ in range(inputs):
        (place / reader.file).write_bytes(damaged(reader.content, draws))
        began = time.process_time()
        try:
            reader.read(place)
        except InputError as error:
            # With no problem named, a refusal tells nobody what to do.
            refused += all(problem.what for problem in error.problems) and bool(error.problems)
        assert time.process_time() - began < LONGEST
    assert refused > inputs / 20
