"""Checkpoints on disk: saved by several ranks, read by any others, whole or not there at all."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from pretrain.checkpoint import manifest, retention, store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.saver import Saver
from pretrain.config import CheckpointConfig
from pretrain.parallel.ranges import FlatRange, OwnedRange

SHAPE = (4, 5)
VALUES = torch.arange(20.0)


def part(start: int, num: int, name: str = "w") -> FlatRange:
    return FlatRange(name=name, shape=SHAPE, corner=(0, 0), sizes=SHAPE, start=start, num=num)


def savers(directory: Path, size: int, attempt: int = 1, **settings: Any) -> list[Saver]:
    store.fence(directory, attempt)
    return [
        Saver(directory, rank=rank, size=size, attempt=attempt, **settings) for rank in range(size)
    ]


def settle(ranks: list[Saver]) -> list[str]:
    """What the ranks do together at every step; the complaints."""
    reports = [saver.report() for saver in ranks]
    sums = [sum(column) for column in zip(*reports, strict=True)]
    return [note.text for saver in ranks if (note := saver.settle(*sums))]


def finish(ranks: list[Saver]) -> list[str]:
    notes = []
    for _ in range(2):
        for saver in ranks:
            saver.wait()
        notes += settle(ranks)
    return notes


def begin(ranks: list[Saver], step: int, cuts: list[int], **state: Any) -> None:
    """One parameter, whose flattened range is cut among ranks at ``cuts``."""
    for saver, (low, high) in zip(ranks, itertools.pairwise([0, *cuts, 20]), strict=True):
        owned_range = OwnedRange(range=part(low, high - low), group=0, offset=0)
        flat = VALUES[low:high] + step
        saver.begin({"step": step, **state}, {"master": [flat], "ema": [-flat]}, [owned_range])


def save(directory: Path, step: int, cuts: list[int], **state: Any) -> Path:
    ranks = savers(directory, len(cuts) + 1)
    begin(ranks, step, cuts, **state)
    assert finish(ranks) == []
    store.leave(directory, 1)
    return store.path_of(directory, step)


@pytest.mark.parametrize("cuts", [[], [10], [1, 2, 19]])
@pytest.mark.parametrize(("start", "num"), [(0, 20), (7, 9), (19, 1)])
def test_any_range_is_put_together_from_any_cut(
    tmp_path: Path, cuts: list[int], start: int, num: int
) -> None:
    reader = Reader(save(tmp_path, 3, cuts))
    assert torch.equal(reader.read("master", part(start, num)), VALUES[start : start + num] + 3)
    assert torch.equal(reader.read("ema", part(start, num)), -VALUES[start : start + num] - 3)
    column = FlatRange(name="w", shape=SHAPE, corner=(0, 2), sizes=(4, 2), start=1, num=6)
    assert reader.read("master", column).tolist() == [6, 10, 11, 15, 16, 20]


def test_whole_gives_parameters_in_their_shape(tmp_path: Path) -> None:
    ((name, value),) = Reader(save(tmp_path, 1, [6])).whole("master")
    assert name == "w"
    assert torch.equal(value, (VALUES + 1).view(SHAPE))


def test_wrong_shapes_and_names_are_all_named(tmp_path: Path) -> None:
    reader = Reader(save(tmp_path, 1, []))
    other = FlatRange.whole("w", (5, 4))
    with pytest.raises(UserError, match=r"master/w has shape \[4, 5\], not \[5, 4\]"):
        reader.read("master", other)
    with pytest.raises(UserError, match="master/v is missing"):
        reader.read("master", part(0, 1, "v"))


def test_what_no_rank_wrote_is_not_made_up(tmp_path: Path) -> None:
    (saver,) = savers(tmp_path, 1)
    owned_range = OwnedRange(range=part(0, 19), group=0, offset=0)
    saver.begin({"step": 1}, {"master": [VALUES[:19]]}, [owned_range])
    finish([saver])
    with pytest.raises(UserError, match="holds 19 of 20 elements of master/w"):
        Reader(store.path_of(tmp_path, 1)).read("master", part(0, 20))


def test_copies_are_not_written_twice(tmp_path: Path) -> None:
    ranks = savers(tmp_path, 2)
    for saver in ranks:
        is_copy = saver is ranks[1]
        owned_range = OwnedRange(range=part(0, 20), group=0, offset=0, is_copy=is_copy)
        saver.begin({"step": 1}, {"master": [VALUES]}, [owned_range])
    finish(ranks)
    boxes = json.loads((store.path_of(tmp_path, 1) / "index.json").read_text())["master/w"]["boxes"]
    assert [box["file"] for box in boxes] == ["rank-00000.safetensors"]


def test_a_save_holds_what_was_there_when_it_began(tmp_path: Path) -> None:
    (saver,) = savers(tmp_path, 1)
    flat = VALUES.clone()
    saver.begin({"step": 1}, {"master": [flat]}, [OwnedRange(range=part(0, 20), group=0, offset=0)])
    flat.zero_()
    finish([saver])
    assert torch.equal(Reader(store.path_of(tmp_path, 1)).read("master", part(0, 20)), VALUES)


def test_nothing_is_committed_before_all_ranks_have_written(tmp_path: Path) -> None:
    ranks = savers(tmp_path, 2)
    begin(ranks[:1], 1, [])
    ranks[0].wait()
    assert ranks[0].report() == (1, 0)
    assert ranks[0].settle(1, 0) is None
    assert ranks[0].busy
    assert store.committed(tmp_path) == []


def test_a_rank_that_cannot_write_spoils_the_save_and_not_the_run(tmp_path: Path) -> None:
    save(tmp_path, 1, [5])
    ranks = savers(tmp_path, 2)
    staging = store.staging_of(tmp_path, 1, 2)
    (staging / "rank-00001.safetensors").mkdir(parents=True)  # in the way of the second rank
    begin(ranks, 2, [5])
    notes = finish(ranks)
    assert len(notes) == 1
    assert all(note.startswith("checkpoint of step 2 could not be saved: ") for note in notes)
    assert not staging.exists()
    assert not any(saver.busy for saver in ranks)
    begin(ranks, 3, [5])
    assert finish(ranks) == []
    steps = [path.name for path in store.committed(tmp_path)]
    assert steps == ["step-00000001", "step-00000003"]


def test_a_commit_that_fails_is_told(tmp_path: Path) -> None:
    ranks = savers(tmp_path, 1)
    (store.staging_of(tmp_path, 1, 1) / "state.json").mkdir(parents=True)
    begin(ranks, 1, [])
    (note,) = finish(ranks)
    assert "checkpoint of step 1 could not be saved" in note
    assert store.committed(tmp_path) == []
    assert not ranks[0].busy


DAMAGES = {
    "missing": lambda file: file.unlink(),
    "has 999 bytes, not": lambda file: file.write_bytes(file.read_bytes().ljust(1999)[:999]),
    "does not have the checksum": lambda file: file.write_bytes(flipped(file.read_bytes())),
}


def flipped(data: bytes) -> bytes:
    """One bit is another."""
    return data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]


@pytest.mark.parametrize("file", ["rank-00001.safetensors", "index.json", "state.json"])
@pytest.mark.parametrize("message", DAMAGES)
def test_damage_is_found_and_the_file_named(tmp_path: Path, file: str, message: str) -> None:
    path = save(tmp_path, 1, [5])
    assert store.damage(path) is None
    DAMAGES[message](path / file)
    problem = store.damage(path)
    assert problem is not None
    assert message in problem
    assert file in problem
    found = [store.damage(path, share, 3) for share in range(3)]
    assert any(found)


def test_the_newest_whole_checkpoint_is_taken_and_others_are_named(tmp_path: Path) -> None:
    save(tmp_path, 1, [5])
    broken = save(tmp_path, 2, [5])
    file = broken / "rank-00001.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    unfinished = save(tmp_path, 3, [5])
    (unfinished / store.MANIFEST).unlink()
    path, problems = store.newest(tmp_path)
    assert path == store.path_of(tmp_path, 1)
    assert len(problems) == 2
    assert "rank-00001.safetensors" in problems[1]


def test_a_new_attempt_takes_the_staging_of_older_ones_away(tmp_path: Path) -> None:
    save(tmp_path, 1, [])
    old = savers(tmp_path, 1, attempt=1)
    begin(old, 2, [])
    old[0].wait()
    new = savers(tmp_path, 1, attempt=2)
    for _ in range(2):  # the old one, still alive, can neither commit nor begin again
        (note,) = finish(old)
        assert "could not be saved" in note
        begin(old, 3, [])
    old[0].wait()
    assert store.committed(tmp_path) == [store.path_of(tmp_path, 1)]
    begin(new, 2, [])
    assert finish(new) == []
    store.leave(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001", "step-00000002"]


def test_saving_over_a_broken_checkpoint_keeps_what_was_there(tmp_path: Path) -> None:
    (save(tmp_path, 1, []) / store.MANIFEST).unlink()
    save(tmp_path, 1, [3])
    assert store.newest(tmp_path)[0] == store.path_of(tmp_path, 1)
    assert any(path.name.startswith(".replaced-") for path in tmp_path.iterdir())


def test_the_manifest_names_every_file_with_its_checksum(tmp_path: Path) -> None:
    path = save(tmp_path, 1, [5])
    files = json.loads((path / store.MANIFEST).read_text())["files"]
    assert set(files) == {p.name for p in path.iterdir()} - {store.MANIFEST}
    assert all(facts["sha256"] == store.sha256(path / name) for name, facts in files.items())


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1, [])
    manifest = json.loads((path / store.MANIFEST).read_text())
    (path / store.MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(UserError, match="has checkpoint format 99; this version reads"):
        Reader(path)


SMALL = [store.MANIFEST, "state.json", "index.json"]


@pytest.mark.parametrize("file", SMALL)
def test_every_flipped_bit_of_a_small_file_is_seen(tmp_path: Path, file: str) -> None:
    good, path = save(tmp_path, 1, [5]), save(tmp_path, 2, [5])
    data = (path / file).read_bytes()
    for bit in range(8 * len(data)):
        other = bytearray(data)
        other[bit // 8] ^= 1 << bit % 8
        (path / file).write_bytes(other)
        with pytest.raises(UserError) as error:
            store.check(path)
        problem = str(error.value)
        assert str(path) in problem, bit
        assert file in problem or "has checkpoint format" in problem, problem
        if bit % 97 == 0:
            assert store.newest(tmp_path) == (good, [problem]), bit
    (path / file).write_bytes(data)
    assert store.damage(path) is None


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


OTHERS = {
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b" "),
    "list": lambda file: file.write_text("[]"),
    "number": lambda file: file.write_text("7"),
    "null": lambda file: file.write_text("null"),
    "text": lambda file: file.write_text('"format"'),
    "object": lambda file: file.write_text("{}"),
    "odd manifest": lambda file: file.write_text('{"format": 5, "files": [], "sha256": 3}'),
    "former, odd": lambda file: file.write_text('{"format": 4, "files": {"a": {}}}'),
    "deep": lambda file: file.write_text("[" * 100_000),
    "not UTF-8": lambda file: file.write_bytes(b"\xff\xfe{}"),
    "missing": lambda file: file.unlink(),
    "directory": folder,
    "pipe": pipe,
}


@pytest.mark.parametrize("file", [*SMALL, "rank-00001.safetensors"])
@pytest.mark.parametrize("damage", OTHERS)
def test_any_damage_to_any_file_is_named_and_passed_over(
    tmp_path: Path, file: str, damage: str
) -> None:
    good, path = save(tmp_path, 1, [5]), save(tmp_path, 2, [5])
    OTHERS[damage](path / file)
    problem = store.damage(path)
    assert problem is not None
    assert str(path) in problem
    assert file in problem
    if (file, damage) != ("rank-00001.safetensors", "zeros"):  # of which only the size is seen
        assert store.newest(tmp_path)[0] == good
    with pytest.raises(UserError):
        Reader(path).read("master", part(0, 20))


def test_a_box_is_compared_with_its_checksum_as_it_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, 1, [5])
    file = path / "rank-00001.safetensors"
    file.write_bytes(flipped(file.read_bytes()))
    with pytest.raises(UserError, match=r"is damaged: rank-00001.safetensors does not have"):
        Reader(path).read("master", part(0, 20))
    assert Reader(path).read("master", part(0, 5)).tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["state.json", "index.json"])
def test_a_manifest_that_names_no_state_or_index_is_of_no_checkpoint(
    tmp_path: Path, name: str
) -> None:
    good, path = save(tmp_path, 1, [5]), save(tmp_path, 2, [5])
    files = dict(manifest.read(path)["files"])
    del files[name]
    (path / store.MANIFEST).write_text(manifest.text_of(files))
    found, (problem,) = store.newest(tmp_path)
    assert found == good
    assert f"its manifest.json names no {name}" in problem


def test_a_file_of_the_former_format_is_hashed_once(tmp_path: Path, monkeypatch) -> None:
    path = save(tmp_path, 1, [5])
    index = json.loads((path / "index.json").read_text())
    for entry in index.values():
        for box in entry["boxes"]:
            del box["crc32"]
    (path / "index.json").write_text(json.dumps(index))
    files = dict(manifest.read(path)["files"])
    file = path / "index.json"
    files[file.name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
    (path / store.MANIFEST).write_text(json.dumps({"format": 4, "files": files}, indent=2))
    hashed = []
    monkeypatch.setattr(store, "require_checksum", lambda path, name, facts: hashed.append(name))
    reader = Reader(path)
    for kind in ("master", "ema", "master"):
        reader.read(kind, part(0, 20))
    assert hashed == ["rank-00000.safetensors", "rank-00001.safetensors"]


def test_an_index_that_asks_for_the_impossible_is_refused(tmp_path: Path) -> None:
    def refused(change: Callable[[dict[str, Any]], object], message: str) -> None:
        path = save(tmp_path, 1, [5])
        index = json.loads((path / "index.json").read_text())
        change(index)
        (path / "index.json").write_text(json.dumps(index))
        files = json.loads((path / store.MANIFEST).read_text())["files"]
        file = path / "index.json"
        files[file.name] = {"bytes": file.stat().st_size, "sha256": store.sha256(file)}
        (path / store.MANIFEST).write_text(manifest.text_of(files))
        with pytest.raises(UserError, match=message):
            Reader(path).read("master", FlatRange.whole("w", tuple(index["master/w"]["shape"])))

    def box(index: dict[str, Any]) -> dict[str, Any]:
        return index["master/w"]["boxes"][1]

    refused(lambda index: box(index).update(file="../x"), "which is no file of it")
    refused(lambda index: box(index).update(offsets=[3, 1]), "reaches beyond it")
    refused(lambda index: box(index).update(offsets=[1]), "other dimensions")
    refused(lambda index: index["master/w"].update(shape=[2**31, 2**31]), "holds 20 of")
    refused(lambda index: index["master/w"]["boxes"].extend([box(index)] * 99), "too small")
    refused(lambda index: index["master/w"].update(boxes={}), "not what a save writes")


def test_values_that_are_not_finite_are_never_committed(tmp_path: Path) -> None:
    save(tmp_path, 1, [5])
    ranks = savers(tmp_path, 2)
    for saver, (low, high) in zip(ranks, [(0, 5), (5, 20)], strict=True):
        flat = torch.cat([VALUES[low:high], torch.tensor([torch.nan])])  # padding, of no account
        owned_range = OwnedRange(range=part(low, high - low), group=0, offset=0)
        saver.begin({"step": 2}, {"master": [flat]}, [owned_range])
    assert finish(ranks) == []
    for bad in (torch.nan, torch.inf, -torch.inf):
        ranks = savers(tmp_path, 2)
        for saver, (low, high) in zip(ranks, [(0, 5), (5, 20)], strict=True):
            flat = VALUES[low:high].clone()
            flat[3] = bad if low else 0.0
            owned_range = OwnedRange(range=part(low, high - low), group=0, offset=0)
            saver.begin({"step": 3}, {"master": [VALUES[low:high]], "ema": [flat]}, [owned_range])
        (note,) = finish(ranks)
        assert note == "the weights of step 3 are not finite (ema of w)"
    assert [store.step_of(path) for path in store.committed(tmp_path)] == [1, 2]


# -- retention ----------------------------------------------------------------------------

scores = st.dictionaries(st.integers(1, 60), st.none() | st.floats(0, 9), min_size=1, max_size=12)


@given(
    scores=scores,
    last=st.integers(1, 4),
    every=st.integers(0, 10),
    best=st.integers(0, 4),
)
def test_what_is_kept(scores: dict[int, float | None], last: int, every: int, best: int) -> None:
    config = CheckpointConfig(keep_last=last, keep_every=every, keep_best=best)
    kept = retention.kept(scores, config)
    steps = sorted(scores)
    assert max(steps) in kept
    assert set(steps[-last:]) <= kept <= set(steps)
    assert not every or {step for step in steps if step % every == 0} <= kept
    judged = sorted((score, step) for step, score in scores.items() if score is not None)
    assert {step for _, step in judged[:best]} <= kept
    allowed = set(steps[-last:]) | {step for _, step in judged[:best]}
    assert kept <= allowed | {step for step in steps if every and step % every == 0}


def test_what_fails_after_a_commit_does_not_make_it_a_lost_save(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("no permission")

    [saver] = ranks = savers(tmp_path, 1, after_commit=fail)
    for step in (1, 2):
        begin(ranks, step, [])
        saver.wait()
        assert saver.settle(1, 0) is None
        saver.wait()
        note = saver.settle(0, 0)
        assert note is not None
        assert "no permission" in note.text
        assert not note.lost
    assert [path.name for path in store.committed(tmp_path)] == ["step-00000001", "step-00000002"]


def test_pruning_removes_the_rest_and_leaves_alone_what_is_broken(tmp_path: Path) -> None:
    for step, score in ((1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, None), (6, None)):
        save(tmp_path, step, [], score=score)
    (store.path_of(tmp_path, 6) / "state.json").unlink()
    retention.prune(tmp_path, CheckpointConfig(keep_last=1, keep_every=3, keep_best=1))
    left = [int(path.name[5:]) for path in store.committed(tmp_path)]
    assert left == [2, 3, 5, 6]  # best, third, newest whole one, and the one that is not whole


def test_a_damaged_old_one_does_not_stop_the_pruning_of_others(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step, [], score=None)
    file = store.path_of(tmp_path, 2) / "state.json"
    file.write_bytes(flipped(file.read_bytes()))
    (problem,) = retention.prune(tmp_path, CheckpointConfig(keep_last=2))
    assert "state.json does not have the checksum" in problem
    assert [store.step_of(path) for path in store.committed(tmp_path)] == [2, 4, 5]


def test_a_copy_under_another_name_is_not_the_newest_for_ever(tmp_path: Path) -> None:
    """Each start would begin with it, and what came after it would be lost each time."""
    save(tmp_path, 1, [], score=None)
    shutil.copytree(store.path_of(tmp_path, 1), store.path_of(tmp_path, 9))
    shutil.copytree(store.path_of(tmp_path, 1), tmp_path / "step-000000001")  # no name of ours
    save(tmp_path, 2, [], score=None)
    newest, (problem,) = store.newest(tmp_path)
    assert newest == store.path_of(tmp_path, 2)
    assert "step-00000009 is not what its name says: it was saved at step 1" in problem
    assert retention.prune(tmp_path, CheckpointConfig(keep_last=1)) != []
    assert [store.step_of(path) for path in store.committed(tmp_path)] == [2, 9]
    assert (tmp_path / "step-000000001").is_dir()


def test_what_the_pruning_met_is_told(tmp_path: Path) -> None:
    [saver] = ranks = savers(tmp_path, 1, after_commit=lambda: ["step-00000001 is damaged"])
    begin(ranks, 3, [])
    saver.wait()
    saver.settle(1, 0)
    saver.wait()
    note = saver.settle(0, 0)
    assert note is not None
    assert (note.text, note.lost) == ("step-00000001 is damaged", False)


def test_what_must_be_on_the_disk_comes_before_the_commit(tmp_path: Path) -> None:
    found = []
    ranks = savers(tmp_path, 1, before_commit=lambda: found.append(store.committed(tmp_path)))
    begin(ranks, 1, [])
    assert finish(ranks) == []
    assert found == [[]]


FOREIGN = [
    ".attempt-old", ".attempt-", ".nfs0001", ".DS_Store", ".stale-mine", ".pruned-by-hand",
    "step-1", "step-00000007x", "step-abcdefgh", "notes.txt",
]  # fmt: skip


@pytest.mark.parametrize("is_file", [True, False])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, is_file: bool) -> None:
    save(tmp_path, 1, [])
    for name in FOREIGN:
        (tmp_path / name).touch() if is_file else (tmp_path / name).mkdir()
    (tmp_path / "step-00000009").touch()
    for attempt in (1, 2):
        begin(ranks := savers(tmp_path, 1, attempt=attempt), 2 + attempt, [])
        assert finish(ranks) == []
        assert retention.prune(tmp_path, CheckpointConfig(keep_last=1)) == []
    assert {path.name for path in tmp_path.iterdir()} == {
        *FOREIGN, "step-00000009", "step-00000004", ".attempt-2",
    }  # fmt: skip


def test_an_interrupted_pruning_is_finished_by_the_next_start(tmp_path: Path) -> None:
    path = save(tmp_path, 1, [])
    save(tmp_path, 2, [])
    doomed = path.rename(tmp_path / f".pruned-{path.name}")
    (doomed / store.MANIFEST).unlink()
    store.fence(tmp_path, 2)
    assert {p.name for p in tmp_path.iterdir()} == {".attempt-2", "step-00000002"}
