"""Settings: files that inherit, words that change them, and what is said of wrong ones."""

from pathlib import Path

import pytest

from configs.errors import UserError
from slurm import durations
from slurm.settings import NAMES, load

CLUSTERS = sorted((Path(__file__).parents[2] / "configs" / "slurm").glob("*.yaml"))


def write(directory: Path, name: str, text: str) -> Path:
    (directory / name).write_text(text)
    return directory / name


@pytest.mark.parametrize("file", CLUSTERS, ids=lambda path: path.stem)
def test_a_shipped_cluster_loads(file: Path) -> None:
    if file.stem != "base":
        assert load(file).per_node >= 1


def test_files_inherit_and_words_come_last(tmp_path: Path) -> None:
    write(
        tmp_path, "a.yaml", "ranks_per_node: 2\npartition: x\noptions: {exclusive: true, nice: 1}"
    )
    write(tmp_path, "b.yaml", "inherits: a.yaml\npartition: y\noptions: {nice: 2}")
    settings = load(write(tmp_path, "c.yaml", "inherits: b.yaml\nnodes: 2"), ["nodes=3"])
    assert (settings.nodes, settings.per_node, settings.partition) == (3, 2, "y")
    assert settings.options == {"exclusive": True, "nice": 2}


def test_a_circle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "inherits: b.yaml")
    with pytest.raises(UserError, match="inherits itself"):
        load(write(tmp_path, "b.yaml", "inherits: a.yaml"))


def test_a_misspelt_setting_fails_with_all_that_there_are(tmp_path: Path) -> None:
    file = write(tmp_path, "a.yaml", "ranks_per_node: 1\npartitoin: x")
    with pytest.raises(UserError) as raised:
        load(file)
    text = str(raised.value)
    assert "unknown setting 'partitoin'; did you mean 'partition'?" in text
    assert ", ".join(NAMES) in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nodes: 2", "set gpus_per_node"),
        ("ranks_per_node: 1\ngpus_per_node: 1", "set gpus_per_node"),
        ("ranks_per_node: 1\nnodes: 0", "nodes must be at least 1"),
        ("ranks_per_node: 1\nmin_nodes: 2", "min_nodes 2 is more than nodes 1"),
        ("ranks_per_node: 1\ntime: 90", "write time in quotes"),
        ("ranks_per_node: 1\ntime: soon", "'soon' is no duration"),
        ("ranks_per_node: 1\ntime: '4'", "too short for stop_ahead_s 120: allow at least 300 s"),
        ("ranks_per_node: true", "ranks_per_node: input should be a valid integer"),
    ],
)
def test_wrong_settings_say_what_to_do(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, "a.yaml", text))


def test_on_the_command_line_a_time_needs_no_quotes(tmp_path: Path) -> None:
    file = write(tmp_path, "a.yaml", "ranks_per_node: 1")
    assert load(file, ["time=1:00:00"]).time == "1:00:00"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("1:00:00", 3600), ("2-0", 172800), ("1-02:03:04", 93784)],
)
def test_durations_are_read_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert durations.seconds(text) == seconds
    assert durations.seconds("UNLIMITED") is None
