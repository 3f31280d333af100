import os
import stat
from pathlib import Path

import pytest

from configs.errors import UserError
from data_pipeline import atomic_directory as module
from data_pipeline.atomic_directory import atomic_directory, leftovers


def test_appears_at_the_end_with_ordinary_permissions(tmp_path: Path) -> None:
    final = tmp_path / "a/b"
    with atomic_directory(final) as staging:
        (staging / "file").write_text("x")
        assert not final.exists()
        assert leftovers(final) == [staging]
    assert (final / "file").read_text() == "x"
    assert leftovers(final) == []
    os.mkdir(tmp_path / "plain")
    assert stat.S_IMODE(final.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_exception_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    def fail_half_way() -> None:
        with atomic_directory(tmp_path / "a") as staging:
            (staging / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []


def test_refuses_to_replace_unless_told(tmp_path: Path) -> None:
    final = tmp_path / "a"
    final.mkdir()
    with atomic_directory(final) as staging:  # an empty directory is as good as none
        (staging / "old").write_text("x")
    with pytest.raises(UserError, match="exists already"), atomic_directory(final):
        raise AssertionError("the check comes before the work")
    with pytest.raises(OSError, match="disk"), atomic_directory(final, own_files=names):
        raise OSError("disk full")
    assert (final / "old").exists()
    with atomic_directory(final, own_files=names) as staging:
        (staging / "new").write_text("x")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "new"]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("at_once", [True, False])
def test_nothing_but_its_own_files_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:  # as on systems that cannot exchange two names
        monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    final = tmp_path / "a"
    final.mkdir()
    for name in ("old", "notes"):
        (final / name).write_text(name)
    with atomic_directory(final, own_files=lambda directory: {"old"}) as staging:
        (staging / "new").write_text("new")
    assert names(final) == {"new"}
    [left] = leftovers(final)
    assert names(left) == {"notes"}


@pytest.mark.parametrize("call", ["rename", "unlink", "rmdir"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_crash_while_replacing_leaves_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    final = tmp_path / "a"
    final.mkdir()
    (final / "old").write_text("x")

    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    def replace() -> None:
        with atomic_directory(final, own_files=names) as staging:
            (staging / "new").write_text("x")
            monkeypatch.setattr(Path, call, stopped)

    with pytest.raises(KeyboardInterrupt):
        replace()
    assert names(final) in ({"old"}, {"new"})


def test_what_was_there_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On systems that cannot exchange two names."""
    monkeypatch.setattr(module, "_exchange", lambda one, other: False)
    final = tmp_path / "a"
    final.mkdir()
    (final / "old").write_text("x")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if "partial" in path.name:
            raise OSError("quota")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="quota"), atomic_directory(final, own_files=names):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "old"]


def test_a_link_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "real")
    (tmp_path / "b").symlink_to(tmp_path / "nowhere")
    for name in "ab":
        with (
            pytest.raises(UserError, match="is a link"),
            atomic_directory(tmp_path / name, own_files=names),
        ):
            raise AssertionError("the check comes before the work")


def test_the_slower_of_two_gets_an_error(tmp_path: Path) -> None:
    final = tmp_path / "a"

    def race() -> None:
        with atomic_directory(final) as slower:
            (slower / "slower").write_text("x")
            with atomic_directory(final) as faster:
                (faster / "faster").write_text("x")

    with pytest.raises(UserError, match="exists already"):
        race()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "faster"]
