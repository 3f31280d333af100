"""Checkpoints on disk: saved by several ranks, read by any others, whole or not there at all."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from pretrain.checkpoint import retention, store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.saver import Saver
from pretrain.config import CheckpointConfig
from pretrain.ranges import Fragment, Range

SHAPE = (4, 5)
VALUES = torch.arange(20.0)


def part(start: int, num: int, name: str = "w") -> Range:
    return Range(name=name, shape=SHAPE, corner=(0, 0), sizes=SHAPE, start=start, num=num)


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
        fragment = Fragment(range=part(low, high - low), group=0, offset=0)
        flat = VALUES[low:high] + step
        saver.begin({"step": step, **state}, {"master": [flat], "ema": [-flat]}, [fragment])


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
    column = Range(name="w", shape=SHAPE, corner=(0, 2), sizes=(4, 2), start=1, num=6)
    assert reader.read("master", column).tolist() == [6, 10, 11, 15, 16, 20]


def test_whole_gives_parameters_in_their_shape(tmp_path: Path) -> None:
    ((name, value),) = Reader(save(tmp_path, 1, [6])).whole("master")
    assert name == "w"
    assert torch.equal(value, (VALUES + 1).view(SHAPE))


def test_wrong_shapes_and_names_are_all_named(tmp_path: Path) -> None:
    reader = Reader(save(tmp_path, 1, []))
    other = Range.whole("w", (5, 4))
    with pytest.raises(UserError, match=r"master/w has shape \[4, 5\], not \[5, 4\]"):
        reader.read("master", other)
    with pytest.raises(UserError, match="master/v is missing"):
        reader.read("master", part(0, 1, "v"))


def test_what_no_rank_wrote_is_not_made_up(tmp_path: Path) -> None:
    (saver,) = savers(tmp_path, 1)
    fragment = Fragment(range=part(0, 19), group=0, offset=0)
    saver.begin({"step": 1}, {"master": [VALUES[:19]]}, [fragment])
    finish([saver])
    with pytest.raises(UserError, match="holds 19 of 20 elements of master/w"):
        Reader(store.path_of(tmp_path, 1)).read("master", part(0, 20))


def test_copies_are_not_written_twice(tmp_path: Path) -> None:
    ranks = savers(tmp_path, 2)
    for saver in ranks:
        is_copy = saver is ranks[1]
        fragment = Fragment(range=part(0, 20), group=0, offset=0, is_copy=is_copy)
        saver.begin({"step": 1}, {"master": [VALUES]}, [fragment])
    finish(ranks)
    boxes = json.loads((store.path_of(tmp_path, 1) / "index.json").read_text())["master/w"]["boxes"]
    assert [box["file"] for box in boxes] == ["rank-00000.safetensors"]


def test_a_save_holds_what_was_there_when_it_began(tmp_path: Path) -> None:
    (saver,) = savers(tmp_path, 1)
    flat = VALUES.clone()
    saver.begin({"step": 1}, {"master": [flat]}, [Fragment(range=part(0, 20), group=0, offset=0)])
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


def test_an_interrupted_pruning_is_finished_by_the_next_start(tmp_path: Path) -> None:
    path = save(tmp_path, 1, [])
    save(tmp_path, 2, [])
    doomed = path.rename(tmp_path / f".pruned-{path.name}")
    (doomed / store.MANIFEST).unlink()
    store.fence(tmp_path, 2)
    assert {p.name for p in tmp_path.iterdir()} == {".attempt-2", "step-00000002"}
