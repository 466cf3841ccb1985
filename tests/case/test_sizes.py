"""Pictures of another size than the preprocessor beside the model makes: named, never measured."""

import json

import numpy as np
import pytest
from safetensors.torch import save_file

from builders.checkpoints import network
from poison_audit.case.files import misfits, read_files
from poison_audit.case.sources import Sources
from poison_audit.errors import Problems
from poison_audit.records import Recipe


def problems(folder, **preprocessor):
    x = np.random.default_rng(0).integers(256, size=(10, 3, 8, 8), dtype=np.uint8)
    np.savez(folder / "train.npz", x=x, y=np.arange(10) % 5)
    (folder / "model").mkdir()
    save_file(network().state_dict(), folder / "model/model.safetensors")
    config = {"do_normalize": False, **preprocessor}
    (folder / "model/preprocessor_config.json").write_text(json.dumps(config))
    sources = Sources(model=folder / "model", forget=None, train=folder / "train.npz", test=None)
    found = Problems()
    files = read_files(sources, {}, found)
    return [*found, *misfits(files, Recipe(epochs=1))]


def test_another_size_is_named(tmp_path):
    (found,) = problems(tmp_path, do_resize=True, size={"height": 16, "width": 16}, resample=0)
    assert found.where == str(tmp_path / "train.npz")
    assert "has pictures of 8x8" in found.what
    assert "16x16 (resized, nearest)" in found.what


@pytest.mark.parametrize(
    "preprocessor",
    [
        {"do_resize": True, "size": {"height": 8, "width": 8}},
        {"do_resize": False, "size": {"height": 16, "width": 16}},
        {"do_resize": True, "size": {"shortest_edge": 9}, "do_center_crop": True, "crop_size": 8},
    ],
)
def test_the_size_that_is_stated_is_let_through(tmp_path, preprocessor):
    assert problems(tmp_path, **preprocessor) == []
