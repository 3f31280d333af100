"""Damage to the files of a checkpoint: found, named, and passed over."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from saving import flipped, part, save

from configs.errors import UserError
from pretrain.checkpoint import manifest, store
from pretrain.checkpoint.reader import Reader
from pretrain.parallel.ranges import FlatRange

DAMAGES = {
    "missing": lambda file: file.unlink(),
    "has 999 bytes, not": lambda file: file.write_bytes(file.read_bytes().ljust(1999)[:999]),
    "does not have the checksum": lambda file: file.write_bytes(flipped(file.read_bytes())),
}


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


@pytest.mark.parametrize("stride", [pytest.param(1, marks=pytest.mark.slow), 9])
@pytest.mark.parametrize("file", SMALL)
def test_every_flipped_bit_of_a_small_file_is_seen(tmp_path: Path, file: str, stride: int) -> None:
    """A stride of 9 bits takes one of nearly every byte, and each of the eight in turn."""
    good, path = save(tmp_path, 1, [5]), save(tmp_path, 2, [5])
    data = (path / file).read_bytes()
    for bit in range(0, 8 * len(data), stride):
        other = bytearray(data)
        other[bit // 8] ^= 1 << bit % 8
        (path / file).write_bytes(other)
        with pytest.raises(UserError) as error:
            store.check(path)
        problem = str(error.value)
        assert str(path) in problem, bit
        assert file in problem or "has checkpoint format" in problem, problem
        if bit // stride % 97 == 0:
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
