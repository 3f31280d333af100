"""What a checkpoint costs grows with ranks and bytes, and not with the number of parameters."""

import ctypes
import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from model.architectures.dit import DiT
from pretrain.checkpoint.config import CheckpointConfig
from pretrain.config import RunConfig
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.parallel.config import ParallelConfig
from tools.bench.checkpoint_ranks import State, plain_state
from tools.bench.whole_step import run_config

MODELS = {
    "many small": DiT(vocab_size=90, width=64, num_layers=100, num_heads=4),
    "few large": DiT(vocab_size=30_000, width=256, num_layers=1, num_heads=4),
}
NOISE = 8 * 2**20
PER_TENSOR = 4 * 2**10
"""Python's objects for the place of a tensor in a file, which the index names one by one."""


def peak_above(work: Callable[[], object]) -> int:
    """Bytes by which this process grew at most while it worked, files that it maps included."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # else what was freed before would be used again, unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = status("VmRSS")
    assert status("VmHWM") <= before + 2**20
    work()
    return status("VmHWM") - before


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def share_of(state: State) -> tuple[int, int]:
    """Bytes of this rank's masters, moments and average, and of its largest tensor."""
    shards = state.engine.shards
    flats = [*shards.masters, *shards.moments("exp_avg"), *shards.moments("exp_avg_sq")]
    flats += state.ema.shadows
    largest = max(owned_range.range.num for owned_range in shards.owned_ranges)
    return sum(flat.numel() for flat in flats) * 4, largest * 4


def save(world: World, config: RunConfig, directory: Path) -> tuple[int, int, int]:
    state = State(world, config, directory, 1)

    def work() -> None:
        assert state.checkpoints.save(dict(plain_state(1))) is None
        assert state.checkpoints.finish() is None

    peak = peak_above(work)
    share, largest = share_of(state)
    state.mesh.close()
    return peak, share, largest


def load(world: World, config: RunConfig, directory: Path) -> tuple[int, int, int]:
    state = State(world, config, directory, 2)
    peak = peak_above(state.checkpoints.resume)
    share, largest = share_of(state)
    state.mesh.close()
    return peak, share, largest


def configured(name: str, layout: ParallelConfig) -> RunConfig:
    config = run_config(MODELS[name], 4, 16, "fp32")
    return replace(config, parallel=layout, checkpoint=CheckpointConfig(keep_last=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_files_and_memory_of_a_save_and_of_loads(pool: Pool, tmp_path: Path, name: str) -> None:
    ranks = pool.run(2, save, configured(name, ParallelConfig(data=2)), tmp_path)
    (checkpoint,) = tmp_path.glob("step-*")
    names = {path.name for path in checkpoint.iterdir()}
    assert names == {
        "manifest.json", "state.json", "index.json",
        "rank-00000.safetensors", "rank-00001.safetensors",
    }  # fmt: skip
    for layout in (ParallelConfig(data=2), ParallelConfig(tensor=2)):
        ranks += pool.run(2, load, configured(name, layout), tmp_path)
    num_tensors = len(json.loads((checkpoint / "index.json").read_text()))
    for peak, share, largest in ranks:
        assert peak <= share + largest + PER_TENSOR * num_tensors + NOISE


@pytest.mark.parametrize("num", [1, 2, 4])
def test_a_file_for_every_rank_and_three_for_all(pool: Pool, tmp_path: Path, num: int) -> None:
    config = configured("many small", ParallelConfig(data=num))
    small = replace(config, model=replace(config.model, num_layers=2))
    pool.run(num, save, small, tmp_path)
    (checkpoint,) = tmp_path.glob("step-*")
    assert len(list(checkpoint.iterdir())) == num + 3
