"""Which checkpoints are kept, and which are removed."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from saving import begin, finish, flipped, save, savers

from pretrain.checkpoint import retention, store
from pretrain.checkpoint.config import CheckpointConfig

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
