"""What several tests need: a prepared corpus, and a configuration that trains in seconds."""

import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
import torch
from torch import Tensor
from xdist.scheduler import LoadScopeScheduling

from configs.load import load

# What starts ranks is imported by those who ask for it: the tests of the model need none of it.
if TYPE_CHECKING:
    from pretrain.config import RunConfig
    from pretrain.launch.pool import Pool

# How long one example takes says nothing on a machine that others use too.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parents[1]

# What these modules assert says what it found, as in a test.
pytest.register_assert_rewrite("saving", "schemas")
pytest.register_assert_rewrite(
    "lab", "references", "scenarios", "when_nodes_change", "when_stopped", "when_used"
)


RANKED = re.compile(r"def \w+\([^)]*\b(pool|train)\b[^)]*\)")
FIRST = ("tests/slurm/test_cluster.py", "ranks", "tests/tools/convert/test_finetune.py")
"""What takes longest, and so is not to be begun last, when one process has nothing left."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first; slow tests with live ranks have the machine alone."""
    for item in items:
        if item.get_closest_marker("alone"):
            item.add_marker("slow")
        elif _share(item.nodeid) == "ranks" and item.get_closest_marker("slow"):
            item.add_marker("alone")
    items.sort(key=lambda item: [_share(item.nodeid) != share for share in FIRST])


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Two processes share the tests: one has all that needs live ranks, each file is whole."""

    class ByShare(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _share(nodeid)

    return ByShare(config, log)


def _share(nodeid: str) -> str:
    """What a test goes with: its file, or all that needs live ranks."""
    file = nodeid.partition("::")[0]
    return "ranks" if _ranked(file) else file


@cache
def _ranked(file: str) -> bool:
    return RANKED.search((ROOT / file).read_text(encoding="utf-8")) is not None


@pytest.fixture(autouse=True)
def no_rank_is_left() -> Iterator[None]:
    """A test that leaves a rank's variables behind makes a rank of every test after it."""
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
    before = {name: os.environ.get(name) for name in names}
    yield
    after = {name: os.environ.get(name) for name in names}
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    assert after == before


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Small tensors gain nothing from threads, and lose much where other work shares the cores.

    A test that trains in its own process sets another number; the next one has one again.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def demo_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of demo corpora, as ``data.demo_dir`` names it."""
    from data_pipeline.demo import prepare_demo
    from pretrain.launch import local as launch

    # Whoever trains here starts ranks: their server is to import all engines, and early.
    launch.preload(tensor=True)
    directory = tmp_path_factory.mktemp("corpora")
    prepare_demo(directory / "demo-1024", 1024)
    return directory


@pytest.fixture(scope="session")
def corpus(demo_dir: Path) -> Path:
    return demo_dir / "demo-1024"


@pytest.fixture(scope="session")
def pool():
    """Four live ranks, for everything that takes more than one process."""
    from pretrain.launch.pool import Pool

    with Pool(4) as ranks:
        yield ranks


@pytest.fixture
def tiny(demo_dir: Path, tmp_path: Path):
    """Words for ``python -m pretrain``: the tiny configuration in a run directory of its own."""

    def words(*overrides: str, run: str = "run") -> list[str]:
        return [
            str(ROOT / "configs" / "tiny.yaml"),
            f"run_dir={tmp_path / run}",
            f"data.demo_dir={demo_dir}",
            *overrides,
        ]

    return words


@pytest.fixture
def tiny_config(tiny) -> "RunConfig":
    from pretrain.config import RunConfig

    file, *overrides = tiny()
    return load(RunConfig, [Path(file)], overrides)


@pytest.fixture
def train(pool: "Pool", tiny) -> Callable[..., None]:
    """Train on the live ranks of the pool, as ``python -m pretrain`` does on fresh ones."""
    from pretrain.config import RunConfig
    from pretrain.launch.rank import train_rank
    from pretrain.planner.plan import plan
    from pretrain.run.directory import RunDirectory, run_path

    def start_on_pool(*words: str, run: str = "run") -> None:
        file, *overrides = tiny(*words, run=run)
        config = load(RunConfig, [Path(file)], overrides)
        path = run_path(config, [Path(file)])
        RunDirectory(path).check(config)
        assert set(pool.run(plan(config, None).ranks, train_rank, config, path)) == {0}

    return start_on_pool


@pytest.fixture(scope="session")
def chi_square() -> Callable[[Tensor, Tensor], float]:
    """Pearson's statistic in standard deviations above its mean: about 0, well below 5.

    Cells of which fewer than five draws are expected are taken together.
    """

    def statistic(counts: Tensor, probability: Tensor) -> float:
        expected = probability.double() * counts.sum()
        assert not counts[expected == 0].any()
        rare = expected < 5
        counts = torch.cat([counts[~rare], counts[rare].sum()[None]])
        expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
        degrees = (expected > 0).sum().item() - 1
        terms = ((counts - expected) ** 2 / expected)[expected > 0]
        return float((terms.sum() - degrees) / (2 * degrees) ** 0.5)

    return statistic
