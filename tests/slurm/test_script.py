"""The options of a job, the copies that a submission keeps, and what must not leak into it."""

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit

from configs.errors import RunError, UserError
from configs.load import validate
from slurm import executor as executors
from slurm import submission as submissions
from slurm.__main__ import main
from slurm.commands import preflight
from slurm.commands.preflight import _fits
from slurm.controller import clean
from slurm.executor import executor, shell
from slurm.job import hand_submitted
from slurm.job.allocation import exclusions
from slurm.job.hand_submitted import record_submission
from slurm.records import Records
from slurm.script import options, script
from slurm.settings import Settings
from slurm.submission import Submission

ROOT = Path(__file__).parents[2]


def settings(**changes: Any) -> Settings:
    return Settings(**{"nodes": 2, "ranks_per_node": 2, "time": "1:00:00", **changes})


def dry_run(directory: Path, chosen: Settings) -> dict[str, Any]:
    """As pretrain prints one."""
    fits = {"problem": None, "layout": {"data": None, "tensor": 1}}
    ranks = [nodes * chosen.per_node for nodes in chosen.node_counts]
    return {
        "run_dir": str(directory / "a=b" / "run"),
        "config": {"steps": 20, "run_dir": None},
        "layouts": {str(number): fits for number in ranks},
    }


@pytest.fixture
def submission(tmp_path: Path) -> Submission:
    chosen = settings(environment=("module load x",))
    return submissions.prepare(dry_run(tmp_path, chosen), chosen, ["configs/tiny.yaml"])


def test_the_shape_is_spelled_out() -> None:
    found = options(settings(gpus_per_node=4, ranks_per_node=0, cpus_per_rank=8, memory="64G"), "x")
    assert found["nodes"] == 2
    assert found["ntasks-per-node"] == found["gpus-per-node"] == 4
    assert found["cpus-per-task"] == 8
    assert found["mem"] == "64G"
    assert found["signal"] == "B:USR2@120"
    assert found["open-mode"] == "append"
    assert found["requeue"] is True


def test_a_site_that_forbids_requeueing_is_told_so() -> None:
    found = options(settings(requeue=False), "x")
    assert found["no-requeue"] is True
    assert "requeue" not in found


def test_a_range_of_nodes_asks_for_a_nodes_cores_at_once() -> None:
    found = options(settings(elastic=True, nodes=4, cpus_per_rank=3), "x")
    assert (found["nodes"], found["cpus-per-task"]) == ("1-4", 6)
    assert "ntasks-per-node" not in found


def test_any_option_passes_through() -> None:
    found = options(settings(options={"nice": 10, "exclusive": True, "time": "9"}), "x")
    assert (found["nice"], found["exclusive"], found["time"]) == (10, True, "9")


def test_code_and_configuration_are_copied(submission: Submission) -> None:
    assert (submission.code / "pretrain" / "__main__.py").exists()
    assert (submission.code / "configs" / "tiny.yaml").exists()
    assert str(submission.run) in submission.config.read_text()
    again = submissions.load(submission.path)
    assert again == submission
    assert again.layouts["2"] == {"data": None, "tensor": 1}


@pytest.mark.usefixtures("srun")
def test_both_scripts_import_the_copy_and_become_the_supervisor(submission: Submission) -> None:
    made = executor(submission)
    theirs = made._make_submission_file_text(made._submitit_command_str, "")
    ours = script(submission)
    for text in (ours, theirs):
        lines = text.splitlines()
        assert f"export PYTHONPATH={submission.code} PYTHONSAFEPATH=1" in lines
        assert lines.index("trap '' USR1 USR2") < lines.index("module load x")
        assert [line for line in lines if line][-1].startswith(f"exec {sys.executable} -u -m ")
        orders = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
        assert {"nodes=2", "ntasks-per-node=2", "requeue", "signal=B:USR2@120"} <= orders
        names = [order.partition("=")[0] for order in orders]
        assert len(names) == len(set(names))


def test_lost_nodes_are_excluded_beside_those_of_the_settings(tmp_path: Path) -> None:
    chosen = settings(exclude="a[1-2]")
    made = submissions.prepare(dry_run(tmp_path, chosen), chosen, ["x.yaml"], code=tmp_path)
    assert exclusions(made, ["b3"]) == "a[1-2],b3"
    assert exclusions(made, []) == "a[1-2]"


def test_a_surrounding_jobs_variables_are_not_handed_on() -> None:
    found = clean({"SLURM_NTASKS": "4", "SLURM_CONF": "x", "PATH": "y"})
    assert found == {"SLURM_CONF": "x", "PATH": "y"}


def test_a_misfit_is_said_with_its_nodes() -> None:
    layouts = {"4": {"problem": "no", "layout": None}, "2": {"problem": None, "layout": {}}}
    with pytest.raises(ValueError, match="2 nodes x 2 ranks: no; or change nodes"):
        _fits(settings(), layouts)


def test_plain_settings_are_read_back() -> None:
    from configs.load import to_plain

    chosen = settings(options={"nice": 1, "exclusive": True}, environment=("a", "b"))
    assert validate(Settings, to_plain(chosen), "x") == chosen


def test_a_rehearsal_runs_what_a_job_runs(tmp_path: Path) -> None:
    """Its lines by bash, where it was submitted, and then our own entry."""
    chosen = settings(
        python="./my python", environment=("# a comment", "false", "[[ x == x* ]] && own='a b'")
    )
    facts = {**dry_run(tmp_path, chosen), "run_dir": str(tmp_path / "my $(run)")}
    made = submissions.prepare(facts, chosen, ["x"], code=tmp_path / "c d")
    made = dataclasses.replace(made, directory=tmp_path)
    shown = '#!/bin/bash\nprintf \'%s\\n\' "$PWD" "$PYTHONPATH" "$@"\n'
    (tmp_path / "my python").write_text(shown)
    (tmp_path / "my python").chmod(0o755)
    # submitit takes it apart again.
    command = shlex.split(shlex.join([*shell(made), "-u", "-m", "x y"]))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first = ["-u", "-m", "slurm.job.bootstrap", str(made.path)]
    assert done.stdout.splitlines() == [str(tmp_path), f"{tmp_path}/c d", *first, "-u", "-m", "x y"]


def test_a_scripts_two_names_of_the_run_are_one(tmp_path: Path, monkeypatch) -> None:
    """A requeue would look for the job in the wrong place."""
    facts = dry_run(tmp_path, settings(elastic=True))
    monkeypatch.setattr(preflight, "dry_run", lambda settings, words: facts)
    cluster = str(ROOT / "configs" / "slurm" / "cpu.yaml")
    with pytest.raises(UserError, match="change both, or print the script anew"):
        record_submission(Records(tmp_path / "other"), [cluster], ["x.yaml"], {"SLURM_JOB_ID": "7"})
    assert not (tmp_path / "other").exists()
    (tmp_path / "link").symlink_to(tmp_path)
    run = tmp_path / "link" / "a=b" / "run"
    monkeypatch.setattr(hand_submitted, "submissions", SimpleNamespace(prepare=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        record_submission(Records(run.resolve()), [cluster], ["x.yaml"], {"SLURM_JOB_ID": "7"})


def test_an_interpreter_that_a_printed_script_would_not_find_is_said(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    facts = dry_run(tmp_path, settings())
    monkeypatch.setattr(preflight, "dry_run", lambda settings, words: facts)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    command = ["submit", str(ROOT / "configs" / "slurm" / "cpu.yaml"), "--print"]
    assert main([*command, "--", "x.yaml"]) == 0
    printed = capsys.readouterr()
    assert str(tmp_path) not in printed.out.partition("exec")[0].partition("trap")[2]
    assert f"add 'python={sys.executable}' before --" in printed.err
    for place in (tmp_path / "my env" / "bin", tmp_path / ".venv" / "bin"):
        place.mkdir(parents=True)
        (place / "python").write_text("#!/bin/sh\n")
        (place / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    assert main([*command, "--", "x.yaml"]) == 0
    assert not capsys.readouterr().err
    (tmp_path / ".venv" / "bin" / "python").unlink()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my env" / "bin" / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'my env' / 'bin'}:/usr/bin:/bin")
    assert main([*command, "--", "x.yaml"]) == 0
    assert not capsys.readouterr().err


def test_an_sbatch_that_names_no_job_is_said(tmp_path: Path, monkeypatch) -> None:
    """As with a site's wrapper that prints nothing."""
    chosen = settings()
    made = submissions.prepare(dry_run(tmp_path, chosen), chosen, ["x"], code=tmp_path)

    def submit_array(_: object) -> None:
        raise submitit.core.utils.FailedSubmissionError("no\njob")

    monkeypatch.setattr(
        executors, "executor", lambda *_, **__: SimpleNamespace(submit_array=submit_array)
    )
    with pytest.raises(RunError, match="sbatch named no job; look with squeue for one: no job"):
        executors.submit(made)
