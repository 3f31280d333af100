"""The public harness runs tasks of its own form, on local data, by a model of ours."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lm_eval
import pytest
import yaml
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from tools.harness import __main__ as harness

CHOICES = {
    "task": "local_choices",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
TEXTS = {
    "task": "local_texts",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices[0]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
    "metric_list": [{"metric": "exact_match"}],
}
PERPLEXITY = {
    "task": "local_perplexity",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{question}}",
    "metric_list": [{"metric": "bits_per_byte"}],
}


@pytest.fixture
def tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of tasks on data of their own; nothing may come from the network."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "tasks"
    folder.mkdir()
    lines = [
        {"question": f"The {word} statement", "choices": ["is", "zzz qqq"], "answer": 0}
        for word in ("assert", "return", "import")
    ]
    data = folder / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    for task in (CHOICES, TEXTS, PERPLEXITY):
        source = {
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
        }
        text = yaml.safe_dump(task | source)
        (folder / f"{task['task']}.yaml").write_text(text, encoding="utf-8")
    return folder


def test_tasks_of_the_harness_on_a_run(
    train: Any,
    tasks: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train("steps=2", "eval.every=0")
    run = tmp_path / "run"
    out = tmp_path / "answers.json"
    words = [str(run), "--include-path", str(tasks), "--samples", "2"]
    names = "local_choices,local_texts,local_perplexity"
    assert harness.main([*words, "--tasks", names, "--out", str(out)]) == 0
    found = json.loads(capsys.readouterr().out)
    results = found["results"]
    assert set(results) == set(names.split(","))
    assert found["documents"]["local_choices"]["effective"] == 3
    assert 0 <= results["local_choices"]["acc,none"] <= 1
    assert results["local_texts"]["exact_match,none"] == 0
    assert results["local_perplexity"]["bits_per_byte,none"] > 0
    answers = json.loads(out.read_text(encoding="utf-8"))["answers"]
    bounds = [float(bound) for bound, _ in answers["local_choices"][0]["filtered_resps"]]
    assert all(bound < 0 for bound in bounds)

    model = get_model("palimpsest").create_from_arg_string(f"run={run},samples=2", {})
    asked = [
        SimpleNamespace(args=("The assert statement", choice)) for choice in (" is", " zzz qqq")
    ]
    again = [bound for bound, _ in model.loglikelihood(asked)]
    assert again == pytest.approx(bounds, rel=1e-5), "the same as without the other tasks"
    by_name = lm_eval.simple_evaluate(
        model,
        tasks=["local_perplexity"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
    )
    assert by_name is not None
    assert by_name["results"]["local_perplexity"]["bits_per_byte,none"] == pytest.approx(
        results["local_perplexity"]["bits_per_byte,none"], rel=1e-5
    )

    def only_own(include_path: list[str], include_defaults: bool = True) -> Any:
        return TaskManager(include_path=include_path, include_defaults=False)

    monkeypatch.setattr("lm_eval.tasks.TaskManager", only_own)  # the public ones take seconds
    assert harness.main([*words, "--tasks", "no_such_task"]) == 2
    assert "--tasks no_such_task: there is no such task" in capsys.readouterr().err
