"""A run directory that cannot be made, and what is asked of a run that stands elsewhere."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from configs.errors import UserError
from pretrain.__main__ import main
from pretrain.checkpoint import store
from pretrain.checkpoint.contents import State
from pretrain.launch.preflight import nothing_to_do
from pretrain.run import writable as place


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        place.check(path)
    return str(caught.value)


def test_a_new_directory_and_an_old_one_are_taken_and_nothing_is_left(tmp_path: Path) -> None:
    place.check(tmp_path)
    place.check(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path / 'file'} is a file" in refusal(tmp_path / "file" / "run")
    assert f"{tmp_path / 'file'} is a file" in refusal(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "is a link to nothing" in refusal(tmp_path / "link" / "run")


def test_names_that_no_file_system_takes_are_refused(tmp_path: Path) -> None:
    assert "a name of 300 bytes" in refusal(tmp_path / ("x" * 300) / "run")
    assert "the whole path is too long" in refusal(tmp_path.joinpath(*["x" * 200] * 30))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_file_system_that_takes_no_directories_is_refused() -> None:
    assert "cannot be made: /proc" in refusal(Path("/proc/run"))


def test_a_directory_without_permission_is_refused(tmp_path: Path, monkeypatch) -> None:
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # who may write everywhere

        def refuse(*arguments: object, **more: object) -> str:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(tempfile, "mkdtemp", refuse)
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "Permission denied" in refusal(tmp_path / "run")
    assert "no permission" in refusal(tmp_path)
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["file/run", "x" * 300, "file"])
def test_the_command_says_it_in_a_line(tiny, tmp_path: Path, capsys, name: str) -> None:
    (tmp_path / "file").write_text("x")
    assert main(tiny(f"run_dir={tmp_path / name}")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: run_dir")
    assert error.count("\n") == 1


def test_a_missing_corpus_is_named_before_another_run_is(tiny, tmp_path: Path, capsys) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text((Path(tiny()[0])).read_text())
    assert main(tiny("data.corpus=../nope")) == 2
    error = capsys.readouterr().err
    assert "../nope" in error
    assert "another run" not in error


def test_steps_that_lie_behind_a_run_are_named(tmp_path: Path) -> None:
    path = tmp_path / "step-00000030"
    state = State({"step": 30}, path / "state.json")
    newest = store.Contents(path=path, files={}, state=state, index={})
    behind = nothing_to_do(tmp_path, newest, 20)
    assert behind is not None
    assert "is at step 30: steps=20 lies behind it" in behind
    done = nothing_to_do(tmp_path, newest, 30)
    assert done is not None
    assert "is done: 30 steps" in done
    assert nothing_to_do(tmp_path, newest, 31) is None
    assert nothing_to_do(tmp_path, None, 20) is None


def test_a_crowd_of_ranks_is_not_started_here(tiny, capsys) -> None:
    assert main(tiny("parallel.data=1024", "global_batch=1024")) == 2
    assert "1,024 ranks would all start on this machine" in capsys.readouterr().err
