"""Options have bounds, which every command says in argparse's own way."""

import importlib

import pytest


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("sample", ["RUN", "--num", "0"], "argument --num: 0 is not at least 1"),
        ("sample", ["RUN", "--batch", "0"], "argument --batch: 0 is not at least 1"),
        ("evaluate", ["RUN", "--batch", "-3"], "argument --batch: -3 is not at least 1"),
        ("evaluate", ["RUN", "--samples", "two"], "argument --samples: two is no whole number"),
        ("verify", ["--ranks", "0"], "argument --ranks: 0 is not at least 1"),
        ("verify", ["--steps", "0"], "argument --steps: 0 is not at least 1"),
        ("plan", ["a.yaml", "--nodes", "0"], "argument --nodes: 0 is not at least 1"),
        ("plan", ["a.yaml", "--mfu=--"], "argument --mfu: expected one argument"),
        ("verify", ["--json=--"], "argument --json: expected one argument"),
        ("bench", ["train", "--json=--"], "argument --json: expected one argument"),
        ("crash", ["--kills=-1"], "argument --kills: -1 is not at least 0"),
        (
            "bench",
            ["checkpoint", "--repeats=0"],
            "argument --repeats: 0 is not at least 1",
        ),
    ],
)
def test_options_have_bounds(command: str, words: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(f"tools.{command}.__main__").main(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
