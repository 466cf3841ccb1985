import hashlib
import json
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy import stats

from builders.philox import philox
from poison_audit.case.keyfile import write_key
from poison_audit.errors import InputError
from poison_audit.models.samples import Samples, as_pixels
from poison_audit.poisons.gaussian.evidence import (
    Canaries,
    new_secret,
    read_canaries,
    unit_noise,
)
from poison_audit.poisons.gaussian.scale import store

SECRET = bytes(range(32))


def twin(secret, name, size):
    digest = hashlib.sha256(secret + name.encode()).digest()
    key, counter = (int.from_bytes(half, "little") for half in (digest[:16], digest[16:]))
    # random_raw of a counter of 256 bits; NormalDist inverts by Wichura's AS241, not Cephes.
    words = philox(key, counter, size)
    return [NormalDist().inv_cdf(((word >> 12) + 0.5) / 2**52) for word in words]


@pytest.mark.parametrize("name", ["cat-1", "", "ünïcode/7.png"])
def test_noise_equals_the_recipe_written_out(name):
    noise = unit_noise(SECRET, name, (3, 5))
    np.testing.assert_allclose(noise.ravel(), twin(SECRET, name, 15), rtol=1e-12, atol=1e-14)


def test_noise_never_changes():
    # Printed by `twin` above: a change of these values orphans every planting ever made.
    expected = [
        -1.1635287564445864,
        -0.26366870802172065,
        -1.844984034564948,
        -1.3342819074041838,
        -0.09186399582427411,
        -0.35614360071761825,
    ]
    np.testing.assert_allclose(unit_noise(SECRET, "cat-1", (6,)), expected, rtol=1e-12)


@pytest.mark.parametrize(("word", "tail"), [(0, 2.0**-53), (2**64 - 1, 1 - 2.0**-53)])
def test_the_extreme_words_are_finite(monkeypatch, word, tail):
    class Constant:
        def __init__(self, **_):
            pass

        def random_raw(self, size):
            return np.full(size, word, dtype=np.uint64)

    monkeypatch.setattr(np.random, "Philox", Constant)
    assert unit_noise(SECRET, "a", (1,))[0] == pytest.approx(NormalDist().inv_cdf(tail))


def test_noise_is_standard_normal_and_independent_between_ids():
    noise = np.stack([unit_noise(SECRET, str(i), (3, 8, 8)) for i in range(200)])
    assert stats.kstest(noise.ravel(), "norm").pvalue > 0.01
    # Sums over ids are N(0, 200) only if ids do not share noise.
    assert stats.kstest(noise.sum(axis=0).ravel() / 200**0.5, "norm").pvalue > 0.01


def test_another_secret_is_another_noise():
    ours, theirs = (unit_noise(s, "a", (1000,)) for s in (SECRET, SECRET[::-1]))
    assert abs(np.corrcoef(ours, theirs)[0, 1]) < 5 / 1000**0.5


def test_a_key_scales_the_noise_by_sigma():
    noise = key().noise(["a", "b"])
    assert noise.shape == (2, 1, 2, 2)
    np.testing.assert_allclose(noise[1].ravel(), 0.25 * np.array(twin(SECRET, "b", 4)), rtol=1e-12)


def test_secrets_are_256_bits_and_differ():
    assert len(new_secret()) == 32
    assert new_secret() != new_secret()


def test_store():
    x = np.array([-0.5, 0.0, 0.1, 1.0, 1.5])
    # 0.1 * 255 = 25.5 rounds to the even 26.
    np.testing.assert_array_equal(store(x, "uint8"), [0, 0, 26 / 255, 1, 1])
    np.testing.assert_array_equal(store(x, "unclipped"), x)


def key(**changes):
    fields = {
        "secret": SECRET,
        "sigma": 0.25,
        "space": "pixel",
        "shape": (1, 2, 2),
        "storage": "uint8",
        "planted": ("a", "b"),
        "held_out": ("c", "d"),
    }
    return Canaries(**(fields | changes))


def test_a_key_survives_the_file(tmp_path):
    path = tmp_path / "canaries.json"
    commitment = write_key(path, key())
    assert commitment == hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_canaries(path) == replace(key(), commitment=commitment)


def written(tmp_path, **changes):
    path = tmp_path / "canaries.json"
    write_key(path, key())
    fields = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}, default=str))
    return path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version: expected 1, got 2"),
        ({"secret": "ab"}, "secret: expected 64 hexadecimal digits"),
        ({"secret": "zz" * 32}, "secret: expected 64 hexadecimal digits"),
        ({"secret": 5}, "secret: expected 64 hexadecimal digits"),
        ({"sigma": 0}, "sigma: expected a number above 0, at most 1e+06, got 0"),
        ({"sigma": -1.5}, "sigma: expected a number above 0, at most 1e+06, got -1.5"),
        ({"sigma": True}, "sigma: expected a number above 0, at most 1e+06, got True"),
        ({"sigma": float("nan")}, "sigma: expected a number above 0, at most 1e+06, got nan"),
        ({"sigma": float("inf")}, "sigma: expected a number above 0, at most 1e+06, got inf"),
        ({"sigma": "0.1"}, "sigma: expected a number above 0, at most 1e+06, got '0.1'"),
        ({"space": "latent"}, "space: expected pixel or embedding, got 'latent'"),
        ({"shape": []}, "shape: expected the sizes of one sample"),
        ({"shape": [3, 0]}, "shape: expected the sizes of one sample"),
        ({"shape": [3, True]}, "shape: expected the sizes of one sample"),
        ({"shape": [2**20, 2**20]}, "shape: expected the sizes of one sample"),
        ({"shape": "3x2"}, "shape: expected the sizes of one sample"),
        ({"storage": "jpeg"}, "storage: expected unclipped or uint8, got 'jpeg'"),
        ({"planted": []}, "planted: expected a list of ids, not empty"),
        ({"planted": [1, 2]}, "planted: expected a list of ids, not empty"),
        ({"held_out": "c"}, "held_out: expected a list of ids, not empty"),
        ({"planted": ["a", "a"]}, "planted: ids appear twice: a"),
        ({"held_out": ["c", "c"]}, "held_out: ids appear twice: c"),
        ({"held_out": ["c", "a"]}, "ids are both planted and held out: a"),
        ({"held_out": ["c"]}, "2 planted but 1 held-out ids"),
        ({"sigma": ...}, "missing key 'sigma'"),
        ({"sgima": 0.1}, "unknown key 'sgima'. Did you mean sigma?"),
    ],
)
def test_every_wrong_value_is_named(tmp_path, changes, said):
    path = written(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_canaries(path)
    assert len(caught.value.problems) == 1
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_all_wrong_values_are_named_at_once_and_the_secret_is_not(tmp_path):
    wrong = {"version": 0, "secret": "5ec2e7", "sigma": None, "space": 1, "storage": []}
    with pytest.raises(InputError) as caught:
        read_canaries(written(tmp_path, **wrong))
    assert len(caught.value.problems) == 5
    assert "5ec2e7" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "not JSON"),
        (b"\xff\xfe{", "not JSON"),
        (b'{"version": 1', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "expected a JSON object"),
    ],
)
def test_a_damaged_file(tmp_path, content, said):
    path = tmp_path / "canaries.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="canaries") as caught:
        read_canaries(path)
    assert said in str(caught.value)


def samples(dtype=torch.uint8):
    x = torch.arange(3 * 4).reshape(3, 1, 2, 2).to(dtype)
    return Samples(ids=("a", "b", "c"), x=x, y=torch.tensor([2, 0, 1]))


def test_samples_are_taken_by_position_and_by_id():
    for taken in (samples().at([2, 0]), samples().select(["c", "a"])):
        assert taken.ids == ("c", "a")
        assert taken.y.tolist() == [1, 2]
        assert taken.x.flatten().tolist() == [8, 9, 10, 11, 0, 1, 2, 3]
    with pytest.raises(KeyError, match="d"):
        samples().select(["d"])


def test_batches_are_pixels_and_cover_every_sample_once():
    batches = list(samples().in_order(2))
    assert [len(batch) for batch in batches] == [2, 1]
    x = torch.cat([batch.x for batch in batches]).flatten().tolist()
    np.testing.assert_allclose(x, np.arange(12) / 255, rtol=1e-7)
    assert torch.cat([batch.y for batch in batches]).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (torch.uint8, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_pixels_keep_float64_and_are_never_half(dtype, result):
    assert as_pixels(torch.ones(1, dtype=dtype)).dtype == result


def test_the_digest_sees_ids_labels_contents_and_types():
    base = samples()
    others = [
        replace(base, ids=("a", "b", "d")),
        replace(base, y=torch.tensor([2, 0, 2])),
        replace(base, x=base.x + 1),
        samples(torch.float32),
        replace(base, x=base.x.reshape(3, 1, 1, 4)),
    ]
    assert samples().digest() == base.digest()
    assert len({base.digest(), *(other.digest() for other in others)}) == 6
