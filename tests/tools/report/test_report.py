"""Pictures and tables of runs, from metrics that are written here."""

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from tools.report import __main__ as report
from tools.report import plots
from tools.report.curves import differences, read_runs, smooth
from tools.report.pictures import report as draw_report


def rows(num: int, spike: int | None = None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(1, num + 1):
        loss = 14.0 if step == spike else 4.0 + 3.0 * 0.98**step
        row = {
            "step": step,
            "tokens_seen": 100 * step,
            "loss": loss,
            "train/loss": loss,
            "train/grad_norm": 1.0,
            "train/lr": 0.001,
            "perf/tokens_per_second": 1000.0,
        }
        found.append(row | {f"train/loss_level_0.{b}": loss + b for b in range(10)})
        if step % 50 == 0:
            found.append({"step": step, "tokens_seen": 100 * step, "val/nelbo": loss})
    return found


def make(path: Path, given: list[dict[str, Any]], config: str = "optim: {lr: 0.001}\n") -> Path:
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    (path / "config.yaml").write_text(config)
    return path


@pytest.fixture
def drawn(monkeypatch) -> dict[str, Figure]:
    """The figures by the names of their files, which would be closed."""
    found: dict[str, Figure] = {}
    save, close = Figure.savefig, plt.close
    monkeypatch.setattr(plots.plt, "close", lambda figure: None)

    def keep(self: Figure, path: Path, **more: Any) -> None:
        found[path.name] = self
        save(self, path, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    yield found
    close("all")


def test_one_spike_is_no_plateau_and_no_end_is_cut_off() -> None:
    values = np.full(800, 5.0)
    values[400] = 14.0
    assert smooth(values).max() == 5.0
    falling = np.linspace(7, 5, 800)
    assert smooth(falling) == pytest.approx(falling)
    assert len(smooth(np.array([3.0]))) == 1
    assert len(smooth(np.array([]))) == 0


@pytest.mark.parametrize("place", [0, 1, 2, -3, -2, -1])
def test_a_spike_at_an_end_is_no_slope(place: int) -> None:
    """There a value has few neighbours, and the first step is where spikes are common."""
    values = np.full(400, 5.0)
    values[place] = 300.0
    assert smooth(values).max() == 5.0


def test_the_loss_is_drawn_from_the_first_row_to_the_last(tmp_path: Path, drawn) -> None:
    draw_report([make(tmp_path / "run", rows(200, spike=97))])
    (axes,) = drawn["loss.png"].axes
    points, line, held, above = axes.get_lines()
    for curve in (points, line):
        assert (curve.get_xdata()[0], curve.get_xdata()[-1]) == (100, 20_000)
    assert list(points.get_ydata())[96] == 14.0
    low, high = axes.get_ylim()
    assert low < 4.05
    assert 6.9 < high < 8  # the first loss is in the picture, the spike is marked at its edge
    assert list(above.get_xdata()) == [9_700]
    assert above.get_label() == "1 higher, up to 14"
    assert list(held.get_xdata()) == [5_000, 10_000, 15_000, 20_000]


@pytest.mark.parametrize(("decay", "text"), [("0.99", "averaged weights"), ("0", "raw weights")])
def test_the_held_out_curve_names_its_weights(tmp_path: Path, drawn, decay: str, text: str) -> None:
    draw_report([make(tmp_path / "run", rows(60), f"ema: {{decay: {decay}}}\n")])
    labels = drawn["loss.png"].axes[0].get_legend_handles_labels()[1]
    assert f"held-out NELBO ({text})" in labels


def test_levels_fill_their_picture(tmp_path: Path, drawn) -> None:
    draw_report([make(tmp_path / "run", rows(200))])
    (axes,) = drawn["levels.png"].axes
    first, last = axes.get_lines()
    assert list(last.get_xdata()) == pytest.approx([0.05 + 0.1 * n for n in range(10)])
    lowest = min(min(first.get_ydata()), min(last.get_ydata()))
    assert axes.get_ylim()[0] > 0.8 * lowest


def test_several_runs_are_drawn_over_each_other(tmp_path: Path, drawn, capsys) -> None:
    runs = [
        make(tmp_path / "a" / "x", rows(200), "optim: {lr: 0.001, eps: 1}\nmodel: {width: 8}\n"),
        make(tmp_path / "b" / "x", rows(100), "optim: {lr: 0.002, eps: 1}\nrun_dir: b\n"),
        make(tmp_path / "y", rows(1), "optim: {lr: 0.001, eps: 1}\nmodel: {width: 8}\n"),
    ]
    assert report.main([*map(str, runs), "--out", str(tmp_path / "out" / "new")]) == 0
    printed = capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out" / "new").iterdir()}
    assert names == {"loss.png", "levels.png", "training.png", "differences.txt"}
    labels = drawn["loss.png"].axes[0].get_legend_handles_labels()[1]
    assert labels == [str(runs[0]), str(runs[1]), "y"]
    assert len(drawn["training.png"].axes) == 3
    for axes in drawn["training.png"].axes:
        assert axes.get_legend_handles_labels()[1] == labels
    assert differences(read_runs(runs)) == [
        ("optim.lr", ["0.001", "0.002", "0.001"]),
        ("model.width", ["8", "-", "8"]),
    ]
    assert "optim.lr" in printed
    assert "optim.eps" not in printed
    assert (tmp_path / "out" / "new" / "differences.txt").read_text().strip() in printed


def test_many_runs_have_colours_of_their_own_and_room(tmp_path: Path, drawn) -> None:
    runs = [make(tmp_path / f"{number}", rows(2)) for number in range(12)]
    draw_report(runs, tmp_path / "out")
    (axes,) = drawn["levels.png"].axes
    lines, labels = axes.get_legend_handles_labels()
    assert labels == [run.name for run in runs]  # one entry a run, not one a line
    assert len({tuple(map(float, to_rgb(line.get_color()))) for line in lines}) == 12
    for name, (first, *_) in {name: figure.axes for name, figure in drawn.items()}.items():
        assert first.get_legend() is None, name
        assert len(drawn[name].legends) == 1, name
        assert first.get_position().height > 0.2, name


@pytest.mark.parametrize("name", ["lr$x_{$b", "_hidden", "日本", "a\nb"])
def test_names_are_shown_as_they_are(name: str, tmp_path: Path, drawn, recwarn) -> None:
    draw_report([make(tmp_path / name, rows(2)), make(tmp_path / "b", rows(2))], tmp_path / "out")
    labels = drawn["loss.png"].axes[0].get_legend_handles_labels()[1]
    assert [label.strip().replace("\\$", "$") for label in labels] == [name, "b"]
    assert not list(recwarn)


def test_values_that_no_run_writes_are_left_out(tmp_path: Path, drawn) -> None:
    odd = [True, "x", [1], {}, 10**400, 1e308, -1e308, None]
    given = rows(40)
    for number, value in enumerate(odd):
        for key in ("train/loss", "train/grad_norm", "train/lr", "train/loss_level_0.1"):
            given[number][key] = value
        given[20 + number]["tokens_seen"] = value
    given[30] |= {"train/loss_level_x": 1.0, "train/loss_level_": 1.0, "train/loss_level_7": 1.0}
    draw_report([make(tmp_path / "run", given)])
    for axes in (drawn["loss.png"].axes[0], *drawn["training.png"].axes[:2]):
        assert len(axes.get_lines()[0].get_xdata()) == 40 - 2 * len(odd)
    last = drawn["levels.png"].axes[0].get_lines()[-1]
    assert len(last.get_xdata()) == 10


def test_runs_of_one_configuration_have_no_differences(tmp_path: Path, capsys) -> None:
    runs = [make(tmp_path / name, rows(2)) for name in "ab"]
    assert report.main([*map(str, runs), "--out", str(tmp_path / "out")]) == 0
    assert "their configurations are the same" in capsys.readouterr().out


def test_numbers_that_are_none_are_left_out(tmp_path: Path, drawn) -> None:
    given = rows(40)
    given[3]["train/loss"] = float("nan")
    given[4]["train/grad_norm"] = float("inf")
    given[5]["train/grad_norm"] = None
    given[6]["train/grad_norm"] = 0.0
    draw_report([make(tmp_path / "run", given)])
    assert len(drawn["loss.png"].axes[0].get_lines()[0].get_xdata()) == 39
    assert len(drawn["training.png"].axes[0].get_lines()[0].get_xdata()) == 37


@pytest.mark.parametrize("num", [1, 2, 39])
def test_short_runs_have_pictures_too(tmp_path: Path, num: int) -> None:
    pictures = draw_report([make(tmp_path / "run", rows(num))])
    assert [path.name for path in pictures] == ["loss.png", "levels.png", "training.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, -1.0, 5.0, 1e18, 9223372036854775807])
def test_what_never_changes_has_a_picture(tmp_path: Path, drawn, value: float) -> None:
    constant = dict.fromkeys(("train/loss", "train/lr", "perf/tokens_per_second"), value)
    draw_report([make(tmp_path / "run", [row | constant for row in rows(12)])])
    low, high = drawn["loss.png"].axes[0].get_ylim()
    assert low < value < high


def test_wrong_words_are_one_error(tmp_path: Path, capsys) -> None:
    run, empty = make(tmp_path / "run", rows(2)), make(tmp_path / "empty", [])
    diverged = make(tmp_path / "diverged", [{**row, "train/loss": None} for row in rows(2)])
    (tmp_path / "file").write_text("")
    for words, message in (
        ([run, empty, "--out", tmp_path / "out"], "empty has no metrics yet"),
        ([diverged], "diverged: none of its 2 rows has a finite training loss"),
        ([run, run], "with --out DIR"),
        ([run, "--out", tmp_path / "file"], "cannot write into"),
        ([tmp_path / "nowhere"], "has no metrics yet"),
    ):
        assert report.main([*map(str, words)]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
