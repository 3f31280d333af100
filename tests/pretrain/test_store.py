import itertools
import json
from pathlib import Path

import pytest
import torch

from configs.errors import UserError
from pretrain.checkpoint import store
from pretrain.ranges import Range

SHAPE = (4, 5)
VALUES = torch.arange(20.0)


def save(directory: Path, step: int, cuts: list[int]) -> Path:
    """A checkpoint of one parameter, whose flattened range is cut among ranks at ``cuts``."""
    writer = store.Writer(directory, step)
    writer.prepare()
    bounds = [0, *cuts, 20]
    for rank, (low, high) in enumerate(itertools.pairwise(bounds)):
        part = Range(name="w", shape=SHAPE, start=low, num=high - low)
        writer.write(rank, {"master": [(part, VALUES[low:high] + step)]})
    return writer.commit({"step": step})


@pytest.mark.parametrize("cuts", [[], [10], [1, 2, 19]])
@pytest.mark.parametrize(("start", "num"), [(0, 20), (7, 9), (19, 1)])
def test_any_range_is_put_together_from_any_cut(
    tmp_path: Path, cuts: list[int], start: int, num: int
) -> None:
    reader = store.Reader(save(tmp_path, 3, cuts))
    got = reader.read("master", Range(name="w", shape=SHAPE, start=start, num=num))
    assert torch.equal(got, VALUES[start : start + num] + 3)


def test_whole_gives_parameters_in_their_shape(tmp_path: Path) -> None:
    ((name, value),) = store.Reader(save(tmp_path, 1, [6])).whole("master")
    assert name == "w"
    assert torch.equal(value, (VALUES + 1).view(SHAPE))


def test_a_wrong_shape_or_name_is_refused(tmp_path: Path) -> None:
    reader = store.Reader(save(tmp_path, 1, []))
    with pytest.raises(UserError, match=r"w has shape \[4, 5\], not \[5, 4\]"):
        reader.read("master", Range(name="w", shape=(5, 4), start=0, num=1))
    with pytest.raises(UserError, match="no parameter v"):
        reader.read("master", Range(name="v", shape=SHAPE, start=0, num=1))


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


def test_a_missing_rank_file_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 1, [5])
    (path / "rank-00000.safetensors").unlink()
    with pytest.raises(UserError, match=r"rank-00000\.safetensors is missing"):
        store.check(path)


def test_an_unfinished_save_is_no_checkpoint_and_is_swept(tmp_path: Path) -> None:
    save(tmp_path, 1, [])
    store.Writer(tmp_path, 2).prepare()
    assert store.committed(tmp_path) == [store.path_of(tmp_path, 1)]
    store.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_saving_over_a_broken_checkpoint_keeps_what_was_there(tmp_path: Path) -> None:
    (save(tmp_path, 1, []) / store.MANIFEST).unlink()
    save(tmp_path, 1, [3])
    assert store.newest(tmp_path)[0] == store.path_of(tmp_path, 1)
    assert any(path.name.startswith(".replaced-") for path in tmp_path.iterdir())


def test_prune_keeps_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save(tmp_path, step, [])
    store.prune(tmp_path, 2)
    assert [path.name for path in store.committed(tmp_path)] == ["step-00000003", "step-00000010"]


def test_the_manifest_names_every_file_with_its_checksum(tmp_path: Path) -> None:
    path = save(tmp_path, 1, [5])
    files = json.loads((path / store.MANIFEST).read_text())["files"]
    assert set(files) == {p.name for p in path.iterdir()} - {store.MANIFEST}
    assert all(len(facts["sha256"]) == 64 for facts in files.values())
