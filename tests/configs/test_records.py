"""Files that several programs read and write: JSON, numbered entries, checkpoints, commits."""

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from configs import git_commit as commits
from configs.git_commit import COMMIT_FILE, git_commit
from configs.json_files import read_json, write_json
from configs.numbered_files import claim, numbers
from configs.run_files import checkpoint_name, checkpoint_step


def test_json_comes_back_and_leaves_no_other_file(tmp_path: Path) -> None:
    for value in ({"a": 1}, {"b": [2, "é"]}):
        write_json(tmp_path / "x.json", value)
        assert read_json(tmp_path / "x.json") == value
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_write_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "x.json", {"a": object()})
    assert read_json(tmp_path / "x.json") == {"a": 1}


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "\0\0", "[" * 100_000])
def test_a_damaged_file_reads_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    assert read_json(tmp_path / "x.json") == {}
    assert read_json(tmp_path / "missing.json") == {}


def test_no_two_claim_the_same_number(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: claim(tmp_path, Path.mkdir, digits=4), range(40)))
    assert sorted(found) == numbers(tmp_path) == list(range(1, 41))
    assert (tmp_path / "0040").is_dir()


def test_a_claim_is_above_all_names_and_the_given_number(tmp_path: Path) -> None:
    for name in ("3", "x", "²", "7.txt"):
        (tmp_path / name).touch()
    assert numbers(tmp_path) == [3]
    assert claim(tmp_path, Path.touch) == 4
    assert claim(tmp_path, Path.touch, above=9) == 10
    assert numbers(tmp_path / "missing") == []


@pytest.mark.parametrize("step", [0, 20, 99_999_999, 100_000_000])
def test_a_checkpoint_is_known_by_its_name(step: int) -> None:
    assert checkpoint_step(checkpoint_name(step)) == step


@pytest.mark.parametrize("name", ["step-20", "step-000000020", "step-0000002x", ".pruned-step-3"])
def test_other_names_are_no_checkpoints(name: str) -> None:
    assert checkpoint_step(name) is None


def test_a_commit_is_read_from_git_or_from_the_file_beside_a_copy(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert git_commit(tmp_path) == head.stdout.strip()
    (tmp_path / COMMIT_FILE).write_text("of-the-copy\n")
    assert git_commit(tmp_path) == "of-the-copy"


def test_our_own_packages_lie_where_a_commit_is_looked_for(root: Path) -> None:
    assert root == commits.ROOT
