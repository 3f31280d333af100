"""Errors become one line and an exit status."""

import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import RunError, UserError, exit_code
from configs.exit_codes import FAILED, INTERRUPTED, WRONG_INPUT


def raises(error: BaseException) -> Callable[[], int]:
    def command() -> int:
        raise error

    return command


def missing(path: str) -> OSError:
    return OSError(errno.ENOENT, "No such file or directory", path)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("name a file"), WRONG_INPUT, "error: name a file\n"),
        (missing("a.txt"), WRONG_INPUT, "error: a.txt: No such file or directory\n"),
        (RunError("the loss is NaN"), FAILED, "error: the loss is NaN\n"),
        (KeyboardInterrupt(), INTERRUPTED, ""),
    ],
)
def test_an_error_is_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raises(error)) == status
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("status", [0, 75])
def test_the_status_of_a_command_is_its_own(status: int) -> None:
    assert exit_code(lambda: status) == status


def test_other_errors_keep_their_traceback() -> None:
    with pytest.raises(ValueError, match="a bug"):
        exit_code(raises(ValueError("a bug")))


def test_a_job_leaves_errors_of_the_system_to_a_traceback() -> None:
    """A file system may recover, and status 2 would end the run for good."""
    for error in (missing("a.txt"), BrokenPipeError()):
        with pytest.raises(type(error)):
            exit_code(raises(error), user_errors=(UserError,))


def test_an_error_that_all_ranks_share_is_logged_by_one() -> None:
    lines: list[str] = []
    quiet = {"log": lines.append, "log_user_error": lambda line: None}
    assert exit_code(raises(UserError("wrong")), **quiet) == WRONG_INPUT
    assert exit_code(raises(RunError("disk full")), **quiet) == FAILED
    assert lines == ["error: disk full"]


def test_an_interrupt_may_have_a_message() -> None:
    lines: list[str] = []
    exit_code(raises(KeyboardInterrupt()), log=lines.append, interrupted="nothing was written")
    assert lines == ["nothing was written"]


SHOWS = """
import sys
from configs.errors import exit_code

def command():
    for _ in range(100_000):
        print(sys.argv[1])
    return 0

sys.exit(exit_code(command))
"""


def test_a_reader_that_leaves_early_sees_no_traceback(root: Path) -> None:
    command = [sys.executable, "-c", SHOWS, "a line"]
    with subprocess.Popen(command, cwd=root, stdout=-1, stderr=-1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == FAILED


def test_a_name_that_is_no_text_is_printed_escaped(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOWS.replace("100_000", "1"), b"caf\xe9"],
        cwd=root,
        capture_output=True,
        env={"PYTHONIOENCODING": "utf-8"},
        check=True,
    )
    assert done.stdout == b"caf\\udce9\n"
