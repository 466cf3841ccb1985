"""Cases on the CPU and on the pretend device, loaded once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.device_cases import (
    PICTURES,
    TEXTS,
    Twins,
    picture_files,
    text_files,
    twins,
    word_files,
)


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train in float32 on both: bfloat16's roundings differ by kernel."""
    monkeypatch.setattr("poison_audit.training.loop.fast_precision", lambda device: "float32")


@pytest.fixture(scope="session")
def pictures(small_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    folder = tmp_path_factory.mktemp("device") / "pictures"
    return twins(picture_files(small_pictures, folder), PICTURES)


@pytest.fixture(scope="session")
def texts(small_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    folder = tmp_path_factory.mktemp("device") / "texts"
    return twins(text_files(small_texts, folder), TEXTS)


@pytest.fixture(scope="session")
def words(small_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Twins:
    folder = tmp_path_factory.mktemp("device") / "words"
    return twins(word_files(small_texts, folder), TEXTS)
