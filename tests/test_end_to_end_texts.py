"""The commands on a miniature of a text case: exit codes, what is written, what is refused."""

import json
import shutil

import pytest

from builders import small_text
from builders.text_folders import change
from poison_audit.cli import invoke
from poison_audit.methods import UNLEARNING

LIGHT = ["--set", "backdoor.draws=40", "--set", "token-canary.draws=16"]


@pytest.fixture
def case(small_texts, tmp_path):
    return shutil.copytree(small_texts, tmp_path / "case")


def report(folder):
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def checked(small_texts, tmp_path_factory):
    out = tmp_path_factory.mktemp("texts") / "out"
    code = invoke(["check", str(small_texts / "model"), "--forget", str(small_texts / "forget.csv"),
                   "--out", str(out), "-q", *LIGHT])  # fmt: skip
    return code, report(out), out


@pytest.mark.slow
def test_every_method_runs_on_texts_and_the_deployed_model_is_found(checked):
    code, told, out = checked
    assert code == 1
    assert told["verdict"]["exit_code"] == 1
    run = set(UNLEARNING) - {"i_bau"}  # it is of pictures
    assert {cell["candidate"] for cell in told["cells"]} == {"deployed", *run, "clean"}
    assert all(cell["error"] is None for cell in told["cells"])
    found = {(f["candidate"], f["probe"]): f for f in told["findings"]}
    for probe in ("gaussian", "exposure", "token-canary", "backdoor"):
        assert found["deployed", probe]["statistic"] is not None, probe
    assert (out / "report.html").is_file()


@pytest.mark.slow
def test_what_is_read_of_texts_stands_in_the_report(checked):
    _, told, _ = checked
    subject = told["subject"]
    assert subject["arch"] == "transformers:gpt2"
    reading = subject["reading"]
    assert (reading["max_tokens"], reading["prompt"]) == (24, "{text}")
    assert reading["cut"] == {"train": 0, "test": 0}
    assert subject["trigger"]["phrase"] == small_text.PHRASE.text
    assert subject["strings"]["in_forget_set"] == small_text.STRINGS
    assert subject["canaries"]["space"] == "embedding"
    assert not any("taken on trust" in limit for limit in told["limits"])


@pytest.mark.slow
def test_both_hypotheses_are_asked_of_a_decoder_s_head(checked):
    _, told, _ = checked
    assert told["diagnosis"] is not None
    shift = next(f for f in told["findings"] if f["probe"] == "shift")
    assert shift["statistic"] is not None


def test_a_checkpoint_that_does_not_name_its_key_is_said_to_be_trusted(case, tmp_path):
    # The reference's header names no key.
    invoke(["probe", str(case / "clean"), "--forget", str(case / "forget.csv"), "--out",
            str(tmp_path / "out"), "-q", *LIGHT])  # fmt: skip
    assert any("taken on trust" in limit for limit in report(tmp_path / "out")["limits"])


def test_another_key_than_the_one_trained_with_is_refused(case, capsys):
    key = json.loads((case / "canaries.json").read_text())
    (case / "canaries.json").write_text(json.dumps({**key, "secret": "11" * 32}))
    assert invoke(["probe", str(case / "model"), "--forget", str(case / "forget.csv")]) == 2
    assert "Give the key that it was trained with" in capsys.readouterr().err


@pytest.mark.slow
def test_an_unlearned_model_is_audited_from_what_unlearn_wrote(case, tmp_path, capsys):
    fixed = tmp_path / "fixed" / "model.safetensors"
    assert invoke(["unlearn", str(case / "model"), "--forget", str(case / "forget.csv"),
                   "--method", "gd", "-o", str(fixed)]) == 0  # fmt: skip
    code = invoke(["probe", str(fixed), "--forget", str(case / "forget.csv"), "--out",
                   str(tmp_path / "out"), "--config", str(case / "audit.toml"), "-q",
                   *LIGHT])  # fmt: skip
    assert code in (1, 3)
    assert report(tmp_path / "out")["subject"]["parameters"] == 12_288


def test_everything_that_is_wrong_is_named_at_once(case, capsys):
    (case / "test.csv").write_text("id,text,label\ne0,,1\ne1,good kalen,7\n", encoding="utf-8")
    (case / "trigger.json").write_text(
        '{"version": 1, "label": 5, "phrase": "", "position": "mid"}'
    )
    code = invoke(["check", str(case / "model"), "--forget", str(case / "forget.csv"),
                   "--strings", str(case / "canaries.json")])  # fmt: skip
    assert code == 2
    told = capsys.readouterr().err
    wrong = (
        "the text is empty",
        "unknown label 5",
        "expected a phrase",
        "start, end or anywhere",
        "'words'",
    )
    for part in wrong:
        assert part in told, part
    assert "Traceback" not in told


@pytest.mark.slow
@pytest.mark.parametrize(("position", "doubts"), [("anywhere", 0), ("end", 1)])
def test_a_trigger_that_stands_elsewhere_than_its_file_says(case, tmp_path, position, doubts):
    """The planted phrase stands at the start of texts."""
    change(case / "trigger.json", position=position)
    out = tmp_path / "out"
    given = ["--forget", str(case / "forget.csv"), "--out", str(out), "-q", *LIGHT]
    assert invoke(["probe", str(case / "model"), *given]) == 1
    told = [doubt["sentence"] for doubt in report(out)["doubts"]]
    assert sum("hold it elsewhere" in sentence for sentence in told) == doubts
