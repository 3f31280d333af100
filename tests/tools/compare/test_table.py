import re
from statistics import stdev
from typing import Any

from tools.compare.table import Result, commands, held_out_table, notes, samples_table


def held_out(nelbo: float | None, **facts: Any) -> dict[str, Any]:
    if nelbo is None:
        return {"loss": 0.25, **facts}
    ends = (nelbo - 0.5, nelbo + 0.5)
    return {"nelbo": nelbo, "nelbo_ci95": ends, "exact": False, "tokens": 100, **facts}


def result(name: str, seed: int, nelbo: float | None, **changes: Any) -> Result:
    given: dict[str, Any] = {
        "name": name, "seed": seed, "directory": f"out/{name}-seed{seed}", "parameters": 1234,
        "tokens": 4096, "tokens_per_second": 10.0, "seconds": 90.0, "machine": {}, "commit": None,
        "packages": {}, "held_out": held_out(nelbo), "samples": None,
    }  # fmt: skip
    return Result(**(given | changes))


def cells(text: str) -> list[list[str]]:
    return [re.split(r" ?\| ?", line)[1:-1] for line in text.splitlines()]


def test_seeds_are_one_row_of_mean_and_standard_deviation() -> None:
    results = [result("a", 0, 3.0), result("b", 0, 5.0), result("a", 1, 4.0)]
    head, _, a, b = cells(held_out_table(results, []))
    assert head == [
        "", "nats per token", "parameters", "tokens", "tokens/s", "minutes", "likelihood",
    ]  # fmt: skip
    assert a[:2] == ["a (2 seeds)", f"3.500 ± {stdev((3.0, 4.0)):.3f}"]
    assert b[:2] == ["b", "5.000 (4.500 to 5.500)"]
    assert a[2:] == ["1,234", "4,096", "10", "1.5", "upper bound on -log p"]
    assert "± their standard deviation" in next(iter(notes(results, [])))


def test_a_run_without_a_bound_has_no_number_in_its_row() -> None:
    results = [result("a", 0, 3.0), result("b", 0, None)]
    row = cells(held_out_table(results, []))[-1]
    assert row[:2] == ["b", "-"]
    assert row[-1] == "none: its loss is no bound"
    assert "b has a held-out loss of 0.2500, which bounds no likelihood." in notes(results, [])


def test_rows_of_different_tokens_are_named() -> None:
    results = [result("a", 0, 3.0), result("b", 0, 3.0, held_out=held_out(3.0, tokens=99))]
    assert any("a 100, b 99" in note for note in notes(results, []))
    baseline = {"name": "c", "counted": 7, **held_out(2.0, exact=True, tokens=100)}
    same = list(notes(results[:1], [baseline]))
    assert "All are of the same 100 held-out tokens." in same
    assert cells(held_out_table(results[:1], [baseline]))[-1] == [
        "c", "2.000 (1.500 to 2.500)", "-", "7", "-", "-", "exact",
    ]  # fmt: skip


def test_samples_are_means_over_seeds() -> None:
    def drawn(perplexity: float, copied: float | None) -> dict[str, Any]:
        row = {"sampler": "s", "swept": "steps=2", "evaluations": 2.0, "texts": 4}
        return {
            "rows": [{**row, "perplexity": perplexity, "copied": copied}],
            "reference": {"perplexity": 20.0, "copied": 0.5},
            "length": 8,
            "judge": "n-grams",
        }

    results = [
        result("a", 0, 3.0, samples=drawn(10.0, 0.25)),
        result("a", 1, 3.0, samples=drawn(30.0, 0.75)),
        result("b", 0, 3.0, samples=drawn(50.0, None)),
    ]
    text = samples_table(results)
    assert text is not None
    assert cells(text)[2:] == [
        ["a, s steps=2", "2", "20.0", "0.500"],
        ["b, s steps=2", "2", "50.0", "-"],
        ["held-out text", "-", "20.0", "0.500"],
    ]
    assert samples_table([result("a", 0, 3.0)]) is None


def test_the_command_can_be_pasted() -> None:
    pasted = commands(["make"], ["a.yaml", "seeds=[0, 1]"])
    assert pasted == ["make", "python -m tools.compare a.yaml 'seeds=[0, 1]'"]
