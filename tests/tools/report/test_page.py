"""The page of a run: whole by itself, and of what the run's directory holds."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.tokenizer import load_tokenizer
from tools.report import __main__ as report
from tools.report.curves import read_runs
from tools.report.page import write_page
from tools.report.sweeps import cells, read_sweeps
from tools.report.unmasking import BLOCK, MOST_SHOWN, written

VOID = {"meta", "link", "br", "img", "hr", "input"}
OUTSIDE = {"src", "href", "xlink:href", "srcset", "data", "action"}


class Page(HTMLParser):
    """Tags that are closed in order, ids, and what the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [str(value) for name, value in attrs if name == "id"]
        self.fetched += [
            str(value)
            for name, value in attrs
            if name in OUTSIDE and not str(value).startswith(("#", "data:"))
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def make(path: Path, num: int = 30) -> Path:
    path.mkdir(parents=True)
    rows = [
        {
            "step": step,
            "tokens_seen": 100 * step,
            "train/loss": 4.0 + 3.0 * 0.9**step,
            "train/grad_norm": 1.0,
            "train/lr": 0.001,
            "perf/tokens_per_second": 1000.0,
            "perf/elapsed_s": 2.0 * step,
            "train/loss_level_0.0": 4.0,
            "train/loss_level_0.5": 5.0,
        }
        for step in range(1, num + 1)
    ]
    rows.append({"step": num, "tokens_seen": 100 * num, "val/nelbo": 4.25})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "config.yaml").write_text("objective: {name: a_method}\nmodel: {name: <net>}\n")
    (path / "status.json").write_text(json.dumps({"state": "done", "step": num}))
    origin = {"git_commit": "abc123", "gpus": ["H1", "H1"], "packages": {"torch": "2.8"}}
    (path / "run.json").write_text(json.dumps(origin))
    return path


def page_of(run: Path) -> Page:
    (read,) = read_runs([run])
    path = write_page(read, run / "report.html")
    return Page(path.read_text(encoding="utf-8"))


def sweep(judge: str, **rows: list[tuple[int, float, float]]) -> dict[str, Any]:
    return {
        "task": "samples",
        "judge": judge,
        "judge_tokenizer": "the run's",
        "length": 64,
        "rows": [
            {
                "sampler": name,
                "swept": f"steps={steps}",
                "evaluations": steps,
                "perplexity": perplexity,
                "entropy": entropy,
            }
            for name, own in rows.items()
            for steps, perplexity, entropy in own
        ],
        "reference": {"perplexity": 40.0, "entropy": 3.5, "copied": 0.1},
    }


def test_the_page_is_whole_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "a <b>run")
    (run / "sweep.json").write_text(json.dumps(sweep("n-grams", one=[(8, 90.0, 3.4)])))
    file = run / "plots" / "report.html"
    assert report.main([str(run), "--no-text"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(file)
    text = file.read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.fetched == []
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    assert page.tags.count("svg") == 4
    assert "Left out, as was asked for." in page.text
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"url\((?!#)|@import|http-equiv", text)
    assert "#000000" not in text
    assert "currentColor" in text
    for referred in re.findall(r'(?:url\(|href=")#([\w-]+)', text):
        assert referred in page.ids


def test_facts_are_those_of_the_directory(tmp_path: Path) -> None:
    text = page_of(make(tmp_path / "run")).text
    for told in (
        "a_method · <net> · done at step 30 · held-out nelbo 4.2500",
        "commit abc123",
        "tokens seen 3,000",
        "time 0:01:00",
        "hardware 2 x H1 on the first node",
        "packages torch 2.8",
        "The run has no checkpoint to draw a text with.",
    ):
        assert told in text


def test_the_same_run_has_the_same_page(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    page_of(run)
    first = (run / "report.html").read_bytes()
    page_of(run)
    assert (run / "report.html").read_bytes() == first


def test_many_points_are_an_image_within_the_page(tmp_path: Path) -> None:
    run = make(tmp_path / "run", num=3000)
    page = page_of(run)
    assert "image" in page.tags
    assert page.fetched == []
    assert (run / "report.html").stat().st_size < 1_000_000


def test_samples_stand_in_the_order_of_their_steps(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    (run / "samples").mkdir()
    for step in (2, 10, 9):
        (run / "samples" / f"step-{step}.txt").write_text(f"text <{step}>")
    (run / "samples" / "step-100.txt").write_text("x" * 5000)
    text = page_of(run).text
    places = [text.index(f"text <{step}>") for step in (2, 9, 10)]
    assert places == sorted(places)
    assert "[...]" in text[places[-1] :]
    assert "x" * 3001 not in text


def test_sweeps_of_one_judge_are_one_table(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    for name, found in {
        "a": sweep("n-grams", one=[(8, 90.0, 3.4), (16, 80.0, 3.45)]),
        "b": sweep("n-grams", two=[(8, 70.0, 3.2)]),
        "c": sweep("another", one=[(8, 9.0, 3.4)]),
        "d": sweep("n-grams", one=[(8, float("nan"), 3.4)]) | {"length": 9},
        "e": {"task": "samples", "rows": 3},
        "f": {"task": "held-out"},
    }.items():
        (run / f"{name}.json").write_text(json.dumps(found))
    (run / "g.json").write_text("no JSON")
    first, second = read_sweeps(run)
    assert (first.judge, second.judge) == ("n-grams", "another")
    assert list(cells(first))[1:] == [
        ["one steps=8", "8", "90.0", "-", "3.400", "-", "-"],
        ["one steps=16", "16", "80.0", "-", "3.450", "-", "-"],
        ["two steps=8", "8", "70.0", "-", "3.200", "-", "-"],
        ["held-out text", "-", "40.0", "-", "3.500", "-", "0.100"],
    ]
    page = page_of(run)
    assert page.tags.count("svg") == 5
    assert "two steps=8 8 70.0" in page.text


def test_a_text_is_shown_as_it_is_written(train: Any, tmp_path: Path, corpus: Path) -> None:
    train("stop_after=2", "checkpoint.every=2", "eval.every=0")
    run = tmp_path / "run"
    found = written(run)
    assert found is not None
    assert (found.evaluations, found.length, found.positions) == (16, 63, 63)
    assert len(found.steps) == MOST_SHOWN
    left = [step.left for step in found.steps]
    assert left == sorted(left, reverse=True)
    assert (left[0], left[-1]) == (62, 0)
    for then, now in zip(found.steps, found.steps[1:], strict=False):
        said = {
            kind: "".join(text for k, text in now.pieces if k == kind)
            for kind in ("noise", "new", "kept")
        }
        assert said["noise"] == BLOCK * now.left
        assert bool(said["new"]) == (now.left < then.left)
        written_then = "".join(text for kind, text in then.pieces if kind != "noise")
        assert len(said["kept"]) == pytest.approx(len(written_then), abs=1)
    final = "".join(text for _, text in found.steps[-1].pieces)
    tokenizer = load_tokenizer(corpus)
    assert tokenizer.decode(tokenizer.encode([final])[0]) == final
    page = page_of(run)
    assert f"One text by {found.sampler} after 16 evaluations of the network." in page.text
    assert found.sampler.startswith("ancestral (steps=16, temperature=1.0")
    assert "step 0, 62 left" in page.text
    assert "parameters" in page.text
    assert "data 1, tensor 1, pipeline 1" in page.text
