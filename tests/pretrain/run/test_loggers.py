"""Loggers beside metrics.jsonl: what they show is what that file says, and none ends a run."""

import csv
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from configs.load import load
from pretrain.config import RunConfig
from pretrain.run import loggers
from pretrain.run.loggers import Loggers
from pretrain.run.loggers.csv_file import CsvFile
from pretrain.run.loggers.logger import Opening
from pretrain.run.loggers.tensorboard_events import TensorboardEvents
from pretrain.run.loggers.wandb_run import WandbRun, name
from pretrain.run.metrics import read_rows

ROOT = Path(__file__).parents[3]


def opening(directory: Path, step: int, rows: list[dict[str, Any]], **wandb: str) -> Opening:
    config = {"wandb": {"mode": "offline", "project": "p", **wandb}}
    return Opening(directory=directory, step=step, config=config, rows=lambda: rows)


def table(directory: Path) -> tuple[list[str], list[dict[str, str]]]:
    with (directory / "metrics.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or []), list(reader)


def scalars(directory: Path) -> dict[str, list[int]]:
    """The steps that TensorBoard shows, by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(directory / "tensorboard"))
    events.Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


# -- a table --------------------------------------------------------------------------------


def test_a_table_has_one_header_whose_columns_never_move(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 2.5},
        {"step": 1, "val/nelbo": 3.0},
        {"step": 2, "loss": 2.0, "a": 1},
    ]
    log = CsvFile(opening(tmp_path, 0, []))
    for row in rows:
        log.write(row)
        assert len(table(tmp_path)[1]) == rows.index(row) + 1
    log.close()
    header, found = table(tmp_path)
    assert header == ["step", "loss", "val/nelbo", "a"]
    assert [{k: float(v) for k, v in row.items() if v} for row in found] == rows
    again = CsvFile(opening(tmp_path, 1, rows[:2]))
    again.write({"a": 5, "step": 2})
    again.close()
    assert table(tmp_path)[0] == header
    assert [row["step"] for row in table(tmp_path)[1]] == ["1", "1", "2"]


def test_a_damaged_table_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"\xff\xfe\x00,")
    CsvFile(opening(tmp_path, 1, [{"step": 1, "loss": 2.0}])).close()
    assert table(tmp_path) == (["step", "loss"], [{"step": "1", "loss": "2.0"}])


# -- TensorBoard ----------------------------------------------------------------------------


def test_tensorboard_shows_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    for first, last in ((1, 9), (6, 12)):
        log = TensorboardEvents(opening(tmp_path, first - 1, []))
        for step in range(first, last):
            log.write({"step": step, "loss": 1 / step, "note": None})
        if first == 6:
            log.close()  # The first start was killed.
    assert scalars(tmp_path) == {"loss": list(range(1, 12))}


# -- wandb ----------------------------------------------------------------------------------


class FakeWandb:
    """What is asked of the library."""

    Settings = staticmethod(dict)

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def init(self, **facts: Any) -> "FakeWandb":
        self.runs.append(facts)
        return self

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        pass


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    made = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", made)
    return made


def test_a_wandb_run_has_an_id_of_its_own_and_keeps_it(tmp_path: Path, wandb: FakeWandb) -> None:
    places = [
        tmp_path / "x" / "owt",
        tmp_path / "y" / "owt",
        tmp_path / "s" / "optim.lr=1e-3,seed=1",
    ]
    for place in places:
        place.mkdir(parents=True)
        for _ in range(2):
            WandbRun(opening(place, 0, [])).close()
    ids = [run["id"] for run in wandb.runs]
    assert len(set(ids)) == 3
    assert ids[0::2] == ids[1::2]
    assert all(identity.isalnum() for identity in ids)
    assert [run["name"] for run in wandb.runs[::2]] == ["x/owt", "y/owt", "s/optim.lr=1e-3,seed=1"]
    assert name(Path("runs/owt").absolute()) == "owt"


def test_wandb_gets_no_step_twice(tmp_path: Path, wandb: FakeWandb) -> None:
    for first, last in ((1, 9), (6, 12)):
        log = WandbRun(opening(tmp_path, first - 1, []))
        for step in range(first, last):
            log.write({"step": step, "loss": 1 / step})
            if step == 11:
                log.write({"step": step, "val/nelbo": 3.0})
    assert [step for step, _ in wandb.rows] == [*range(1, 12), 11]
    assert wandb.rows[-1] == (11, {"val/nelbo": 3.0})


def test_what_a_dead_machine_had_not_sent_is_sent(tmp_path: Path, wandb: FakeWandb) -> None:
    """It logged steps to 8; the server has those before 5, and the checkpoint is of step 3."""
    log = WandbRun(opening(tmp_path, 0, [], mode="online"))
    for step in range(1, 9):
        log.write({"step": step, "loss": 1 / step})
    wandb.rows.clear()
    monkey: Any = wandb
    monkey.starting_step = 5
    log = WandbRun(opening(tmp_path, 3, [], mode="online"))
    for step in range(4, 11):
        log.write({"step": step, "loss": 1 / step})
    assert [step for step, _ in wandb.rows] == [*range(5, 11)]


def test_what_a_killed_start_did_not_write_is_logged_anew(tmp_path: Path, wandb: FakeWandb) -> None:
    """Offline: the library keeps rows for seconds, and a second directory would have a hole."""
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 12)]
    made = []

    def start(first: int, last: int) -> WandbRun:
        log = WandbRun(opening(tmp_path, first - 1, rows[: first - 1]))
        made.append(tmp_path / "wandb" / f"offline-run-{first}-{wandb.runs[-1]['id']}")
        made[-1].mkdir(parents=True)
        for row in rows[first - 1 : last]:
            log.write(row)
        return log

    start(1, 3).close()
    start(4, 8)  # Killed; the checkpoint is of step 6.
    wandb.rows.clear()
    log = start(7, 9)
    assert [step for step, _ in wandb.rows] == [4, 5, 6, 7, 8, 9]
    assert made[0].exists()
    assert not made[1].exists()
    assert made[1].with_name(f"cut-{made[1].name}").exists()
    log.close()
    wandb.rows.clear()
    start(10, 10)  # Killed, but sent before that.
    (made[-1] / "run.wandb.synced").touch()
    start(11, 11)
    assert [step for step, _ in wandb.rows] == [10, 11]
    assert made[-2].exists()


@pytest.mark.parametrize("text", ["", "[]", '{"id": "x"}', '{"id": "x", "step": null}', "\0\0"])
def test_a_damaged_note_of_the_id_is_named(
    tmp_path: Path, wandb: FakeWandb, started, text: str
) -> None:
    """Another id in silence would make two runs of one."""
    (tmp_path / "wandb.json").write_text(text)
    _, said = started("wandb.mode=offline")
    assert not wandb.runs
    (line,) = said
    assert "wandb.json is damaged" in line
    assert "remove it" in line
    (tmp_path / "wandb.json").unlink()
    assert not started("wandb.mode=offline")[1]


def test_wandb_takes_the_id_and_writes_offline(tmp_path: Path, monkeypatch) -> None:
    """By the library itself, in a directory whose name no id may have."""
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    place = tmp_path / "optim.lr=1e-3,seed=1"
    place.mkdir()
    log = WandbRun(opening(place, 0, []))
    log.write({"step": 1, "loss": 2.0})
    log.close()
    identity = json.loads((place / "wandb.json").read_text())["id"]
    (found,) = (place / "wandb").glob("offline-run-*")
    assert found.name.endswith(f"-{identity}")


# -- all of them ----------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path) -> Callable[..., tuple[Loggers, list[str]]]:
    def start(*words: str) -> tuple[Loggers, list[str]]:
        config = load(RunConfig, [ROOT / "configs" / "tiny.yaml"], words)
        said: list[str] = []
        return Loggers(config, tmp_path, 0, list, said.append), said

    return start


def test_nothing_is_logged_elsewhere_unasked(tmp_path: Path, started) -> None:
    made, said = started()
    made.write({"step": 1, "loss": 1.0})
    made.close()
    assert not list(tmp_path.iterdir())
    assert not said


class Failing:
    """Fails at its second row."""

    def __init__(self, _: Opening) -> None:
        self.rows = 0

    def write(self, row: dict[str, Any]) -> None:
        self.rows += 1
        if self.rows > 1:
            raise OSError(28, "No space left on device")

    def close(self) -> None:
        raise AssertionError


def test_one_that_fails_is_said_once_and_the_others_go_on(
    tmp_path: Path, started, monkeypatch
) -> None:
    monkeypatch.setattr(loggers, "TensorboardEvents", Failing)
    made, said = started("log.tensorboard=true", "log.csv=true")
    for step in range(1, 5):
        made.write({"step": step, "loss": 1.0})
    made.close()
    assert said == ["tensorboard is off: OSError: [Errno 28] No space left on device"]
    assert len(table(tmp_path)[1]) == 4


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("log.tensorboard=true", "tensorboard"),
        ("log.csv=true", ".metrics.csv"),
        ("wandb.mode=offline", "wandb.json"),
    ],
)
def test_one_that_cannot_write_is_off(
    tmp_path: Path, started, wandb: FakeWandb, words: str, place: str
) -> None:
    """Something else lies where its file belongs, as in a directory that is read-only."""
    if place == "tensorboard":
        (tmp_path / place).write_text("")
    else:
        (tmp_path / place).mkdir()
    made, said = started(words)
    made.write({"step": 1, "loss": 1.0})
    made.close()
    (text,) = said
    assert " is off: " in text


def test_a_wandb_file_that_cannot_be_written(started, monkeypatch, wandb: FakeWandb) -> None:
    refuse = Mock(side_effect=OSError("Read-only file system"))
    monkeypatch.setattr("pretrain.run.loggers.wandb_run.write_json", refuse)
    made, said = started("wandb.mode=offline")
    made.close()
    refuse.assert_called_once()
    assert said == ["wandb is off: OSError: Read-only file system"]


@pytest.mark.parametrize(
    ("words", "library"), [("log.tensorboard=true", "tensorboard"), ("wandb.mode=offline", "wandb")]
)
def test_a_missing_library_is_named(started, monkeypatch, words: str, library: str) -> None:
    for module in [key for key in sys.modules if key.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, library, None)
    made, said = started(words)
    made.write({"step": 1})
    (text,) = said
    assert text.startswith(f"{library} is off: ")
    assert text.endswith(f"pip install {library}")


def test_a_wandb_that_does_not_end_is_left(started, monkeypatch, wandb: FakeWandb) -> None:
    import threading

    from pretrain.run.loggers import wandb_run

    monkeypatch.setattr(wandb_run, "CLOSE_S", 0.05)
    monkeypatch.setattr(wandb, "finish", threading.Event().wait)
    made, said = started("wandb.mode=online")
    made.close()
    assert len(said) == 1
    assert "wandb sync" in said[0]


def test_a_resumed_run_is_one_curve_in_every_logger(train, tmp_path: Path) -> None:
    """Killed behind a checkpoint, as it were: its last rows are beyond it."""
    words = ["log.csv=true", "log.tensorboard=true", "checkpoint.every=3", "eval.every=4"]
    run = tmp_path / "run"
    train(*words, "stop_after=6")
    lost = {"step": 7, "loss": 9.0}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(lost) + "\n")
    late = TensorboardEvents(opening(run, 6, []))
    late.write(lost)
    late.close()
    time.sleep(1.1)  # event files are put in order by the seconds in their names
    train(*words, "stop_after=9")
    rows = read_rows(run / "metrics.jsonl")
    steps = [row["step"] for row in rows]
    assert Counter(steps)[7] == 1
    assert [int(row["step"]) for row in table(run)[1]] == steps
    for row, line in zip(rows, table(run)[1], strict=True):
        assert {k: float(v) for k, v in line.items() if v} == row
    assert scalars(run)["train/loss"] == list(range(1, 10))
    assert scalars(run)["val/nelbo"] == [4, 8]
