"""Whatever a user writes, a command answers with a status and a word, never with a traceback.

Everything runs in this process and no rank is started. A case that takes a minute hangs.
"""

import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mutations import mutate, renumber, tame, word, words

from configs.build import all_keys
from configs.errors import UserError
from configs.load import load, to_plain, to_yaml, validate
from pretrain.__main__ import main as pretrain
from pretrain.config import RunConfig
from pretrain.planner.plan import plan
from slurm import settings
from tools.plan.__main__ import main as plan_main

FOLDER = Path(__file__).resolve().parents[2] / "configs"
RUNS = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("mdlm/*.yaml"), *FOLDER.glob("genie/*.yaml")])
CLUSTERS = sorted(FOLDER.glob("slurm/*.yaml"))
KEYS = sorted({
    *all_keys(RunConfig, {"objective": {"name": "mdlm", "schedule": "loglinear"}}),
    *all_keys(RunConfig, {"objective": "genie"}),
})  # fmt: skip

slow = pytest.mark.slow
FAST_AND_SLOW = [pytest.param(range(60)), pytest.param(range(60, 1500), marks=slow)]
Case = Callable[[random.Random, Path], object]


@contextmanager
def in_time(seconds: int = 60) -> Iterator[None]:
    def late(number: int, frame: object) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def survive(case: Case, seeds: range, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a case with each seed; the seeds of those that failed, with what they raised."""
    failed = {}
    for seed in seeds:
        try:
            with in_time():
                status = case(random.Random(seed), path)
            said = capsys.readouterr()
            assert status in (0, 1, 2), status
            assert status == 0 or said.err, "a status without a word"
            assert "Traceback" not in said.err
        except (KeyboardInterrupt, pytest.exit.Exception):
            raise
        except BaseException as error:
            failed[seed] = f"{type(error).__name__}: {error}"[:300]
    assert not failed


def status_of(command: Callable[[], int]) -> int:
    """What a shell would see."""
    try:
        return command()
    except SystemExit as left:
        return int(left.code or 0)


def a_file(rng: random.Random, path: Path, files: list[Path]) -> Path:
    file = path / "mutated.yaml"
    change = mutate if rng.random() < 0.5 else renumber
    file.write_bytes(change(rng.choice(files).read_text(encoding="utf-8"), rng))
    return file


def a_run(rng: random.Random, path: Path) -> int:
    """Load a mutated file; what loads can be planned, and reads back as the same."""
    file = a_file(rng, path, RUNS)
    overrides = tame(KEYS, rng) if rng.random() < 0.5 else []
    try:
        config = load(RunConfig, [file], overrides)
        plan(config, None)
    except UserError as error:
        print(error)
        return 0
    assert validate(RunConfig, to_plain(config), "here") == config
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load(RunConfig, [file]) == config
    return 0


def a_dry_run(rng: random.Random, path: Path) -> int:
    arguments = [str(rng.choice(RUNS)), *(words if rng.random() < 0.3 else tame)(KEYS, rng)]
    if rng.random() < 0.2:
        arguments.insert(rng.randrange(len(arguments)), word(KEYS, rng))
    extra = [["--json"], ["--ranks", rng.choice(["1,2", "0", "x", "9" * 30, "3,", ""])], []]
    arguments += ["--dry-run", *rng.choice(extra)]
    return status_of(lambda: pretrain(arguments))


def a_plan(rng: random.Random, path: Path) -> int:
    odd = ["0", "-1", "1", "3", "8", "64", "1e3", "x", "nan", "inf", "9" * 30, "", "0.4"]
    arguments = [str(rng.choice(RUNS)), *tame(KEYS, rng)[: rng.randint(0, 3)]]
    for option in rng.sample(["--gpu", "--nodes", "--gpus-per-node", "--mfu"], rng.randint(0, 3)):
        arguments += [option, rng.choice([*odd, "cpu", "h100-80g"])]
    arguments += rng.choice([[], ["--json"], ["--all"]])
    return status_of(lambda: plan_main(arguments))


def a_cluster(rng: random.Random, path: Path) -> int:
    for file in CLUSTERS:
        (path / file.name).write_bytes(file.read_bytes())
    file = a_file(rng, path, CLUSTERS)
    keys = [*settings.NAMES, "inherits"]
    overrides = words(keys, rng) if rng.random() < 0.5 else []
    try:
        settings.load(file, overrides)
    except UserError as error:
        print(error)
    return 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seeds", FAST_AND_SLOW, ids=["some", "many"])
@pytest.mark.parametrize("case", [a_run, a_dry_run, a_plan, a_cluster])
def test_nothing_that_is_written_is_a_traceback(
    case: Case, seeds: range, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    survive(case, seeds, tmp_path, capsys)
