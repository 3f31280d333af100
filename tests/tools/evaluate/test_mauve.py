"""`--mauve`: features in files, another Python, its answer."""

import json
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import UserError
from tools.evaluate.judges import Text
from tools.evaluate.judges.pretrained import pretrained_judge
from tools.evaluate.mauve import PROGRAM, check_mauve, mauve

MAUVE = '''
import sys, types, importlib.abc, importlib.util

class Stub(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """A mauve that answers with means of features."""

    def find_spec(self, name, path, target=None):
        return importlib.util.spec_from_loader(name, self) if name == "mauve" else None

    def exec_module(self, module):
        def compute_mauve(p_features, q_features, seed):
            print("noise on stdout")
            value = float(p_features[:, 0].mean() - q_features[:, 0].mean()) + seed
            return types.SimpleNamespace(mauve=value)

        module.compute_mauve = compute_mauve

sys.meta_path.insert(0, Stub())
'''


def program(file: Path, text: str) -> str:
    """An executable Python script."""
    file.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python that has a mauve, and writes down each call beside it."""
    text = f"""{MAUVE}
import json
_, isolated, option, program, *words = sys.argv
assert (isolated, option) == ("-I", "-c")
with open({str(tmp_path / "calls.jsonl")!r}, "a") as file:
    file.write(json.dumps([program, words]) + "\\n")
sys.argv = ["-c", *words]
exec(program)
"""
    return program(tmp_path / "python", text)


def calls(tmp_path: Path) -> list[Any]:
    return [json.loads(line) for line in (tmp_path / "calls.jsonl").read_text().splitlines()]


def test_features_go_over_files_and_numbers_come_back(python: str, tmp_path: Path) -> None:
    check_mauve(python)
    reference = np.full((3, 4), 1.0, dtype=np.float32)
    others = [np.full((5, 4), 1.25, dtype=np.float32), np.full((2, 4), np.inf, dtype=np.float32)]
    assert mauve(python, reference, others, seed=7) == [7.25, None]
    assert mauve(python, reference, others[:1], seed=2**62 + 3) == [3.25]
    checked, called, _ = calls(tmp_path)
    assert checked == ["import mauve", []]
    assert called[0] == PROGRAM
    answer, seed, *files = called[1]
    assert seed == "7"
    assert [Path(name).name for name in files] == ["0.npy", "1.npy", "2.npy"]
    assert not Path(answer).parent.exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise ImportError(\"No module named 'mauve'\")", r"'mauve'; give it an environment of"),
        ("import sys; sys.exit(3)", "it ended with status 3$"),
        ("raise ValueError('of the other program')", "ValueError: of the other program$"),
        (None, r"No such file or directory; .*mauve-env/bin/pip install mauve-text"),
    ],
)
def test_a_program_that_fails_is_one_line(tmp_path: Path, text: str | None, told: str) -> None:
    python = str(tmp_path / "away") if text is None else program(tmp_path / "python", text)
    with pytest.raises(UserError, match=told) as found:
        check_mauve(python)
    assert "\n" not in str(found.value)
    assert str(found.value).startswith(f"--mauve {python}: ")


def test_features_are_the_last_hidden_state_of_the_last_token(pretrained: Path) -> None:
    judge = pretrained_judge(pretrained, torch.device("cpu"), "of a run")
    texts = [Text(ids=[], text=text) for text in ("abc", "", "abcdefgh", "abcdefghabc")]
    found = judge.features(texts)
    with torch.no_grad():
        ids = torch.tensor([judge.tokenizer.encode("abc")])
        wanted = judge.model.transformer(ids).last_hidden_state[0, -1]
    assert found.dtype == np.float32
    assert found.shape == (3, 8)
    assert found[0] == pytest.approx(wanted.numpy())
    assert (found[1] == found[2]).all()  # cut where its positions end
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_a_row_of_each_and_of_training_texts(
    masked: Path, pretrained: Path, python: str, evaluated: Any, tmp_path: Path
) -> None:
    words = (masked, "--task", "samples", "--num", 4, "--length", 16, "--sweep", "steps=2,3")
    file = tmp_path / "found.json"
    done = evaluated(*words, "--mauve", python, "--features", pretrained, "--out", file)
    found = done.summary
    values = [row["mauve"] for row in (*found["rows"], found["reference"])]
    assert len(set(values)) == 3
    assert "mauve" in json.loads(file.read_text())["reference"]
    assert found["mauve_texts"] == 4
    assert found["mauve_features"] == f"last token's hidden state, GPT2LMHeadModel of {pretrained}"
    assert "note: MAUVE of 4 texts depends on how many" in done.err
    assert done.err.splitlines()[-4].split()[-1] == "MAUVE"
    assert len(calls(tmp_path)) == 2
    plain = evaluated(*words).summary
    assert not any("mauve" in row for row in (*plain["rows"], plain["reference"]))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--mauve", "python"), "ngram is no directory of one; name it with --features DIR"),
        (("--features", "DIR"), "it needs --mauve PYTHON"),
        (("--mauve", "nowhere/python", "--judge", "DIR"), "--mauve nowhere/python: No such"),
    ],
)
def test_options_that_do_not_fit(
    masked: Path, pretrained: Path, evaluated: Any, words: tuple[str, ...], told: str
) -> None:
    given = (str(pretrained) if word == "DIR" else word for word in words)
    found = evaluated(masked, "--task", "samples", *given)
    assert found.status == 2
    assert told in found.err.splitlines()[-1]
