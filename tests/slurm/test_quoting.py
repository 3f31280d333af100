"""No value becomes a directive, a command, or another path: what a script and srun are given."""

import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_script import dry_run, settings

from configs.errors import UserError
from slurm import controller, quoting
from slurm import submission as submissions
from slurm.__main__ import main
from slurm.commands import preflight
from slurm.commands import submit as submitting
from slurm.executor import executor
from slurm.job import ranks
from slurm.records import Start
from slurm.script import script, template
from slurm.settings import load

ODD = [
    "my exp",
    "it's",
    'a"b"c',
    "$(touch pwned)",
    "`touch pwned`",
    "x%jy 100%",
    "a=b,c=d;e&f|g",
    "#x #y",
    "-lead",
    "ünï漢",
    "~",
    " *? ",
]


def parsed(text: str) -> list[str]:
    """A directive's words as sbatch 22.05 takes them, tried on it: a shell's but for ``\\``.

    Within single quotes too a backslash takes what follows for itself.
    """
    words, current, quote, escape = [], "", "", False
    for letter in text + " ":
        if escape:
            current, escape = current + letter, False
        elif letter == "\\":
            escape = True
        elif quote:
            quote, current = ("", current) if letter == quote else (quote, current + letter)
        elif letter in "'\"":
            quote = letter
        elif letter == " ":
            words, current = [*words, current] if current else words, ""
        else:
            current += letter
    assert not quote
    return words


def directives(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH ")]
    found = {}
    for line in lines:
        (word,) = parsed(line.removeprefix("#SBATCH "))
        key, _, value = word.partition("=")
        assert key not in found
        found[key] = value
    return found


@pytest.mark.usefixtures("srun")
@pytest.mark.parametrize("name", ODD)
def test_scripts_hold_a_paths_name_as_it_is(tmp_path: Path, name: str) -> None:
    chosen = settings()
    facts = {**dry_run(tmp_path, chosen), "run_dir": str(tmp_path / name)}
    made = submissions.prepare(facts, chosen, ["x.yaml"], code=tmp_path / name / "code")
    theirs = executor(made)
    texts = [script(made), theirs._make_submission_file_text("exec here", "")]
    for text in texts:
        found = directives(text)
        assert found["--job-name"] == name
        assert found["--output"] == f"{made.logs}".replace("%", "%%") + "/%j.out"
        line = next(line for line in text.splitlines() if "PYTHONPATH" in line)
        assert shlex.split(line)[1] == f"PYTHONPATH={made.code}"
    last = [line for line in texts[0].splitlines() if line][-1]
    assert shlex.split(last)[-1] == str(made.path)
    # submitit replaces %j in all of its folder's name.
    assert name not in str(theirs.folder)
    printed = template(chosen, name, f"runs/{name}", ["c.yaml"], [f"run_dir={name}"])
    assert directives(printed)["--job-name"] == name
    assert f"--run=runs/{name}" in shlex.split(printed.splitlines()[-1])


def test_backslashes_are_read_as_they_stand() -> None:
    values = ["a\\b", "a\\'b", "trailing\\", '\\"', "\\\\", "a\\ b"]
    for value in values:
        assert parsed(quoting.directive(value)) == [value]
    made = template(settings(options={"comment": "a\\b 'c'"}), "n", "r", ["c.yaml"], ["x.yaml"])
    assert directives(made)["--comment"] == "a\\b 'c'"


def test_a_word_with_a_newline_stays_on_its_line(tmp_path: Path) -> None:
    words = ["x.yaml", "a=b\n#SBATCH --job-name=evil\ntouch pwned\t'\\\x07"]
    text = template(settings(), "n", "r", ["c.yaml"], words)
    assert len([line for line in text.splitlines() if "pwned" in line]) == 2
    assert directives(text)["--job-name"] == "n"
    last = text.splitlines()[-1].replace('exec "$python"', "printf '%s\\0'")
    done = subprocess.run(["bash", "-c", last], capture_output=True, cwd=tmp_path, check=True)
    assert done.stdout.decode().split("\0")[-3:-1] == words
    remark = text.splitlines()[1]
    assert remark.startswith("# ")


def test_lines_of_the_environment_are_no_directives() -> None:
    chosen = settings(environment=("#SBATCH --job-name=evil", "module load x"))
    lines = template(chosen, "n", "r", ["c.yaml"], ["x.yaml"]).splitlines()
    # sbatch reads directives up to the first command.
    assert lines.index("trap '' USR1 USR2") < lines.index("#SBATCH --job-name=evil")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('partition: "a\\nb"', "partition holds a newline"),
        ('account: "a\\rb"', "account holds a newline"),
        ('time: "1:00:00\\n"', "time holds a newline"),
        ('memory: "1G\\x07"', "memory holds a newline"),
        ('options: {comment: "a\\nb"}', "options holds a newline"),
        ('options: {"x\\ny": 1}', "options holds a newline"),
        ('srun_options: ["--x", "a\\nb"]', "srun_options holds a newline"),
        ('container: "a\\nb"', "container holds a newline"),
        ('python: "a\\nb"', "python holds a newline"),
        ("options: {'x --wrap': 1}", "'x --wrap' is no name of an option"),
        ("options: {output: x}", "options.output is for submit itself to set"),
        ("options: {parsable: true}", "options.parsable is for submit itself to set"),
        ("container: a 'b", "container: No closing quotation"),
        ("container: --overlap x", "container must begin with a command, not '--overlap'"),
        ("python: -c", "python must name an interpreter, not '-c'"),
        ("python: ~/env/bin/python", "no shell reads it"),
    ],
)
def test_a_value_that_would_be_more_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.yaml").write_text(f"ranks_per_node: 1\n{text}\n")
    with pytest.raises(UserError, match=message):
        load(tmp_path / "a.yaml")


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "a\tb", "run-12:30"])
def test_a_run_that_no_job_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="choose another run_dir") as raised:
        quoting.require_usable(tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_name_is_what_the_directory_is_called(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert submissions.name_of(f"{tmp_path}/link/") == "link"
    assert submissions.name_of("runs/x/../owt") == "owt"


def test_a_long_name_leaves_room_in_a_files() -> None:
    text = template(settings(), "漢" * 85, "r", ["c.yaml"], ["x.yaml"])
    name = directives(text)["--job-name"]
    assert len(f"{name}-12345678.out".encode()) <= 255
    assert name == "漢" * (len(name))


@pytest.mark.usefixtures("srun")
def test_an_option_of_ones_own_is_the_last_word(tmp_path: Path) -> None:
    chosen = settings(options={"job-name": "other", "comment": "x y"})
    made = submissions.prepare(dry_run(tmp_path, chosen), chosen, ["x"], code=tmp_path)
    for text in (script(made), executor(made)._make_submission_file_text("c", "")):
        assert directives(text)["--job-name"] == "other"
        assert directives(text)["--comment"] == "x y"


def test_srun_is_given_paths_as_they_are(tmp_path: Path, monkeypatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr(ranks.subprocess, "Popen", lambda command, **_: given.append(command))
    place = tmp_path / "my %j exp" / "0001"
    place.mkdir(parents=True)
    ranks.Srun(settings(), Start(place), ["/c d/config.yaml"], 1, {})
    assert f"--output={tmp_path}/my %%j exp/0001/rank-%5t.log" in given[0]
    assert given[0][-2:] == [str(place), "/c d/config.yaml"]


def test_a_jobs_name_is_not_taken_for_its_state() -> None:
    name = "a UserId=x JobState=FAILED Reason=no"
    text = (
        f"JobId=5 JobName={name} UserId=root(0) GroupId=root(0) JobState=RUNNING Reason=None "
        "Restarts=2 PreemptTime=None NodeList=n1 WorkDir=/x JobState=FAILED NodeList=n2"
    )
    found = controller.shown(text, "5")
    assert (found.state, found.reason, found.nodes) == ("RUNNING", "", "n1")


# -- the command line -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["configs/demo.yaml"], "configs/demo.yaml stands before --"),
        (["nodes=1", "configs/demo.yaml", "steps=5"], "configs/demo.yaml stands before --"),
        (["--sweep", "seed=1,2", "my.yaml"], "my.yaml stands before --"),
        (["steps=5", "--", "configs/tiny.yaml"], "words of the run come after --"),
        (["optim.lr=1", "--", "configs/tiny.yaml"], "unknown setting 'optim.lr'"),
        ([], "name the run after --"),
        (
            ["--sweep", "seed=1,2", "nodes=2"],
            "nodes=2 is a setting of the cluster: it stands before",
        ),
        (["--sweep", "run_dir=a,b", "--", "x.yaml"], "directories of their own below the run_dir"),
        (["--print", "nodes=1", "--", "x.yaml", "--keys"], "--keys stands after --"),
        (["--print", "nodes=1", "--", "x.yaml", "--help"], "--help stands after --"),
    ],
)
def test_a_forgotten_dash_is_named(capsys, words: list[str], message: str) -> None:
    assert main(["submit", "configs/slurm/cpu.yaml", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_runs_file_is_no_clusters(capsys) -> None:
    assert main(["submit", "configs/tiny.yaml", "--", "configs/tiny.yaml"]) == 2
    assert "a run's configuration comes after --" in capsys.readouterr().err


FAILS = """#!/bin/sh
for i in 1 2 3 4; do echo "$(basename $0): error: fetch_config: DNS SRV lookup failed" >&2; done
echo "$(basename $0): fatal: Could not establish a configuration source" >&2
exit 1
"""


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        ((), "there is no sbatch, srun, squeue, scontrol, scancel here"),
        (("sbatch", "squeue", "scontrol", "scancel"), "there is no srun here"),
        (preflight.PROGRAMS, "SLURM has no configuration here (scontrol)"),
    ],
)
def test_without_slurm_one_line_says_what_is_missing(
    tmp_path: Path, monkeypatch, capsys, programs: tuple[str, ...], message: str
) -> None:
    for name in programs:
        (tmp_path / name).write_text(FAILS)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if programs else str(tmp_path))
    absent = set(preflight.PROGRAMS) - set(programs)
    there = lambda name: None if name in absent else str(tmp_path / name)  # noqa: E731
    monkeypatch.setattr(preflight.shutil, "which", there)
    assert main(["submit", "configs/slurm/cpu.yaml", "--", "configs/tiny.yaml"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "--local" in error
    assert error.count("\n") == 1


def test_each_job_of_a_chain_names_its_log(tmp_path: Path, capsys) -> None:
    chosen = settings()
    facts = {**dry_run(tmp_path, chosen), "run_dir": str(tmp_path / "my run")}
    made = submissions.prepare(facts, chosen, ["x"], code=tmp_path)
    for job in ("7", "8"):
        made.records.add_job(job, made.number, "chain", log=str(made.log(job)))
    submitting._print_how_to_follow(made)
    printed = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in printed if line[0] == "log"] == [
        str(made.logs / "7.out"),
        str(made.logs / "8.out"),
    ]
    assert ["follow", "python", "-m", "slurm", "logs", str(made.run), "--follow"] in printed


def test_a_printed_script_runs_the_checkouts_interpreter(tmp_path: Path) -> None:
    """And where there is none, that of the environment."""
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for place, text in ((tmp_path / "bin", "environment's"), (tmp_path / ".venv/bin", "own")):
        (place / "python").write_text(f"#!/bin/sh\necho {shlex.quote(text)}\n")
        (place / "python").chmod(0o755)
    text = template(settings(), "n", "r", ["c.yaml"], ["x.yaml"])
    chosen: dict[str, Any] = {
        "cwd": tmp_path,
        "env": {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        "capture_output": True,
        "text": True,
    }
    assert subprocess.run(["bash", "-c", text], **chosen).stdout == "own\n"
    (tmp_path / ".venv/bin/python").unlink()
    assert subprocess.run(["bash", "-c", text], **chosen).stdout == "environment's\n"
    named = template(settings(python="my python"), "n", "r", ["c.yaml"], ["x.yaml"])
    assert "python='my python'" in named.splitlines()


def test_a_rehearsal_needs_no_slurm(tmp_path: Path, monkeypatch) -> None:
    """Not even where the run's former jobs were a cluster's."""
    found: Any = SimpleNamespace(jobs=lambda: [{"job": "7"}], starts=list)
    monkeypatch.setattr(preflight, "Records", lambda run: found)

    def missing(*_: str) -> str:
        raise controller.MissingError("there is no squeue here")

    monkeypatch.setattr(controller, "call", missing)
    preflight.alone(tmp_path, local=True)
    with pytest.raises(UserError, match="rehearse it here with --local"):
        preflight.alone(tmp_path)
