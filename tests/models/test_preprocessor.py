"""What lies beside the weights and says how pictures are made: obeyed, or named."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import EfficientNetImageProcessor, ViTImageProcessor

from poison_audit.errors import InputError
from poison_audit.models.preprocessor import (
    misfit,
    normalize_from_preprocessor,
    pictures_of,
    timm_labels,
)

HALF = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def beside(folder, config, name="preprocessor_config.json"):
    (folder / name).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, HALF),
        ({"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "rescale_factor": 1 / 255}, HALF),
        # Nobody says whether the pictures were in [0, 1] already.
        ({"image_mean": [0.5], "image_std": [0.5], "do_rescale": False}, None),
        ({"image_mean": [0.5], "image_std": [0.5], "rescale_offset": True}, None),
        ({"do_normalize": False}, ((0.0,), (1.0,))),
        ({"size": 32}, None),
        ([], None),
    ],
)
def test_a_preprocessor(tmp_path, config, expected):
    assert normalize_from_preprocessor(tmp_path) is None
    assert normalize_from_preprocessor(beside(tmp_path, config)) == expected


@pytest.mark.parametrize(
    "text",
    ["{", '{"image_mean": 0.5, "image_std": [0.2]}', '{"image_mean": [9], "image_std": [1]}'],
)
def test_a_malformed_preprocessor_is_refused(tmp_path, text):
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        normalize_from_preprocessor(tmp_path)


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(do_resize=False, image_mean=[0.4] * 3, image_std=[0.2] * 3),
        ViTImageProcessor(do_resize=False, rescale_factor=1 / 127.5, image_mean=[0.5] * 3),
        ViTImageProcessor(do_resize=False, rescale_factor=1.0, image_mean=[120, 110, 100],
                          image_std=[60, 61, 62]),
        ViTImageProcessor(do_resize=False, do_rescale=False, image_mean=[120, 110, 100],
                          image_std=[60, 61, 62]),
        ViTImageProcessor(do_resize=False, do_normalize=False),
        ViTImageProcessor(do_resize=False, do_normalize=False, rescale_factor=1 / 127.5),
        EfficientNetImageProcessor(do_resize=False, image_std=[0.4, 0.5, 0.6]),
        EfficientNetImageProcessor(do_resize=False, include_top=False),
        EfficientNetImageProcessor(do_resize=False, do_normalize=False, rescale_factor=1 / 127.5,
                                   rescale_offset=True, include_top=False),
    ],
)  # fmt: skip
def test_pixels_become_what_transformers_makes_of_them(tmp_path, processor):
    processor.save_pretrained(tmp_path)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in normalize_from_preprocessor(tmp_path))
    pixels = np.random.default_rng(0).integers(256, size=(8, 8, 3), dtype=np.uint8)
    x = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    expected = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close((x - mean) / std, expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "size"),
    [
        ({"do_resize": True, "size": {"height": 16, "width": 24}, "resample": 0}, "16x24"),
        ({"do_resize": True, "size": 24}, "24x24"),
        ({"do_resize": True, "size": {"shortest_edge": 20}}, "20 pixels on the shorter side"),
        ({"do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True,
          "crop_size": {"height": 224, "width": 224}}, "224x224"),
        ({"do_resize": True, "size": {"shortest_edge": 224}, "crop_pct": 0.875}, "224x224"),
        ({"do_resize": False, "size": {"height": 16, "width": 16}}, None),
        ({"do_resize": False, "do_center_crop": True, "crop_size": 28}, "28x28"),
        ({"do_resize": True, "size": {"shortest_edge": 800, "longest_edge": 1333}}, None),
        ({"do_resize": True}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_size_of_a_preprocessor_s_pictures(tmp_path, config, size):
    found = pictures_of(beside(tmp_path, config))
    assert (found and found.size) == size


def test_what_transformers_makes_has_the_size_that_is_expected(tmp_path):
    for number, more in enumerate(({"size": {"height": 12, "width": 10}}, {"size": 9})):
        folder = tmp_path / str(number)
        ViTImageProcessor(**more).save_pretrained(folder)
        made = ViTImageProcessor.from_pretrained(folder)(
            Image.new("RGB", (8, 8)), return_tensors="pt"
        )["pixel_values"]
        assert pictures_of(folder).fits(*made.shape[2:])
        assert not pictures_of(folder).fits(8, 8)


def test_another_size_is_named_with_what_to_do(tmp_path):
    config = {"do_resize": True, "size": {"height": 16, "width": 16}, "resample": 0}
    pictures = pictures_of(beside(tmp_path, config))
    assert misfit(pictures, (3, 16, 16), "train.npz") is None
    assert misfit(None, (3, 8, 8), "train.npz") is None
    told = str(misfit(pictures, (3, 8, 8), "train.npz"))
    for part in ("train.npz", "8x8", "16x16 (resized, nearest)", "do_resize", "AutoImageProcessor"):
        assert part in told


def test_a_processor_of_several_parts(tmp_path):
    config = {"image_processor": {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}}
    assert normalize_from_preprocessor(beside(tmp_path, config, "processor_config.json")) == HALF


def test_timm_s_config_tells_normalisation_and_names(tmp_path):
    config = {"architecture": "resnet18", "num_classes": 2, "label_names": ["cat", "dog"],
              "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}  # fmt: skip
    beside(tmp_path, config, "config.json")
    assert normalize_from_preprocessor(tmp_path) == HALF
    assert timm_labels(tmp_path, 2) == ("cat", "dog")
    assert timm_labels(tmp_path, 3) is None
    beside(tmp_path, {**config, "model_type": "resnet"}, "config.json")
    assert normalize_from_preprocessor(tmp_path) is None
