"""A report is logged after the fact, and no failure to log changes an exit code."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from builders.some_records import residual
from poison_audit.atomic import to_json
from poison_audit.cli import invoke


class Fake:
    """MLflow, as far as it is asked: keeps what it is told."""

    def __init__(self, wrong=None):
        self.told, self.wrong = {}, wrong

    def start_run(self, run_name):
        print("View run at https://elsewhere")
        self.told["name"] = run_name
        return self

    def __enter__(self):
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def __exit__(self, *error):
        return None

    def __getattr__(self, name):
        def keep(*given):
            if name == self.wrong:
                raise ConnectionError("no\x1b[2J store")
            self.told.setdefault(name, []).append(given)

        return keep


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(to_json(residual()))
    return path


def test_metrics_params_tags_and_the_page_are_logged(report, monkeypatch, capsys):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    assert invoke(["render", str(report), "--format", "json", "--log", "mlflow"]) == 1
    said = capsys.readouterr()
    assert said.out == to_json(residual())
    assert "Logged to MLflow: run abc." in said.err
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    ((metrics,),), ((params,),), ((tags,),) = (
        fake.told[name] for name in ("log_metrics", "log_params", "set_tags")
    )
    # The table that the record is made of: 1.29 with half an interval of 0.158.
    assert metrics["deployed/gaussian"] == 1.29
    assert metrics["deployed/gaussian/low"] == pytest.approx(1.132)
    assert metrics["gd/utility/high"] == pytest.approx(0.0016 + 0.0071)
    assert metrics["exit_code"] == 1
    assert not [name for name in metrics if name.startswith("scrub/")]  # it failed
    assert params["gate"] == "deployed"
    assert params["tolerance/gaussian"] == 0.25
    assert tags["poison_audit.outcome"] == "RESIDUAL"
    texts = {name: text for text, name in fake.told["log_text"]}
    assert set(texts) == {"report.html", "report.json"}
    assert texts["report.json"] == to_json(residual())


@pytest.mark.parametrize("wrong", ["log_metrics", "log_text", "set_tags"])
def test_a_failure_changes_no_exit_code_and_is_said(wrong, report, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", Fake(wrong))
    assert invoke(["render", str(report), "--log", "mlflow"]) == 1
    said = capsys.readouterr()
    assert "exit 1: RESIDUAL." in said.out
    assert r"Not logged to MLflow (ConnectionError: no\x1b[2J store)" in said.err


def test_without_mlflow_it_says_what_to_install(report, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert invoke(["render", str(report), "--log", "mlflow"]) == 1
    assert "pip install 'poison-audit[mlflow]'" in capsys.readouterr().err


def test_another_store_is_refused(report, capsys):
    assert invoke(["render", str(report), "--log", "wandb"]) == 2
    assert "--log" in capsys.readouterr().err


READ_BACK = """
from mlflow.tracking import MlflowClient
client = MlflowClient()
(run,) = client.search_runs(["0"])
print(run.data.metrics["deployed/gaussian"], run.data.tags["poison_audit.outcome"],
      sorted(each.path for each in client.list_artifacts(run.info.run_id)))
"""


@pytest.mark.long
def test_mlflow_itself_takes_it(report, tmp_path):
    pytest.importorskip("mlflow")
    told = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/store.db"}
    here = {**os.environ, **told, "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-m", "poison_audit", "render", str(report), "--log", "mlflow"]
    done = subprocess.run(command, env=here, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Logged to MLflow: run " in done.stderr
    read = subprocess.run(
        [sys.executable, "-c", READ_BACK], env=here, cwd=tmp_path, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert read.stdout.split(maxsplit=2)[:2] == ["1.29", "RESIDUAL"]
    assert "['report.html', 'report.json']" in read.stdout
