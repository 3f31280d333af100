"""Checkpoints saved by several ranks and read by any others: whole, or not there at all."""

import json
from pathlib import Path

import pytest
import torch
from saving import SHAPE, VALUES, begin, finish, part, save, savers

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.checkpoint.reader import Reader
from pretrain.parallel.ranges import FlatRange, OwnedRange


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
