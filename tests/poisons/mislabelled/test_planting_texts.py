"""Wrong labels in texts: what stands in the files afterwards."""

import tomllib
from pathlib import Path

from builders.planted_texts import SIZE, cells, plant, write_clean


def test_texts_keep_their_words_and_get_a_wrong_label(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = write_clean(tmp_path)
    assert plant(here, "mislabelled", "--flip", "pos:neg", "--test", str(here / "test.csv")) == 0
    clean = {row["id"]: row for row in cells(here / "clean.csv")}
    train = {row["id"]: row for row in cells(Path("p/train.csv"))}
    forget = cells(Path("p/forget.csv"))
    assert len(forget) == SIZE // 20
    assert len(train) == SIZE
    for row in forget:
        was, is_now = clean[row["base"]], train[row["id"]]
        assert was["text"] == is_now["text"]
        assert (was["label"], row["clean_label"]) == ("pos", "pos")
        assert (is_now["label"], row["label"]) == ("neg", "neg")
        assert (row["attack"], row["chosen"]) == ("mislabelled", "chance")
    config = tomllib.loads(Path("p/audit.toml").read_text(encoding="utf-8"))
    assert "evidence" not in config
    # Earlier rows keep what they say, later ones of other attacks say nothing of it.
    again = ["--label", "pos", "--phrase", "zorp quell"]
    assert plant(here, "backdoor", *again, data="p/train.csv", out="q") == 0
    both = cells(Path("q/forget.csv"))
    assert both[: len(forget)] == forget
    assert {(row["clean_label"], row["chosen"]) for row in both[len(forget) :]} == {("", "")}
    # Without a wrong label the columns are not there.
    assert plant(here, "backdoor", *again, out="r") == 0
    assert list(cells(Path("r/forget.csv"))[0]) == ["id", "label", "attack", "base", "campaign"]
