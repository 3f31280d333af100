"""Who computes where: no fork of a process that asked for a GPU, and a GPU for every rank."""

import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.context import ForkServerContext, SpawnContext
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from configs.errors import UserError
from pretrain.__main__ import main
from pretrain.launch import device
from pretrain.launch import local as launch

COUNTED = """
import importlib, sys, torch
calls = []
def counted(name):
    real = getattr(torch.cuda, name)
    def asked(*args, **kwargs):
        calls.append(name)
        return real(*args, **kwargs)
    setattr(torch.cuda, name, asked)
for name in ("is_available", "device_count", "init", "current_device", "is_bf16_supported",
             "get_device_properties", "get_device_capability"):
    counted(name)
for module in sys.argv[1:]:
    importlib.import_module(module)
print(calls)
"""


@pytest.mark.slow
def test_what_the_server_imports_asks_for_no_gpu(root: Path) -> None:
    command = [sys.executable, "-c", COUNTED, *launch.PRELOADED]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def gpus(monkeypatch) -> Callable[[int], None]:
    """A machine with so many GPUs, as far as anybody asks."""

    def pretend(number: int) -> None:
        monkeypatch.setattr(device, "may_have_gpu", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)

    return pretend


def test_beside_a_gpu_ranks_are_no_forks(gpus) -> None:
    gpus(0)
    assert isinstance(launch.context(), ForkServerContext)
    gpus(1)
    assert isinstance(launch.context(), SpawnContext)


def test_device_files_tell(tmp_path: Path) -> None:
    (tmp_path / "null").touch()
    (tmp_path / "nvidia-caps").mkdir()
    assert not device.may_have_gpu(tmp_path)
    (tmp_path / "nvidia0").touch()
    assert device.may_have_gpu(tmp_path)


def test_without_device_files_the_runtime_is_not_asked(monkeypatch) -> None:
    def never() -> bool:
        raise AssertionError

    monkeypatch.setattr(device, "may_have_gpu", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", never)
    assert device.num_gpus() == 0


def test_more_ranks_than_gpus_is_one_error(tiny, tmp_path: Path, gpus, capsys) -> None:
    gpus(2)
    assert main(tiny("parallel.data=4")) == 2
    error = capsys.readouterr().err
    assert "4 ranks on this machine need 4 GPUs, and it has 2" in error
    assert "device=cpu" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_gpu_that_is_asked_for_must_be_there(tiny, gpus, capsys) -> None:
    gpus(0)
    assert main(tiny("device=cuda")) == 2
    assert "device=cuda, but PyTorch finds no GPU here" in capsys.readouterr().err


def test_device_cpu_hides_the_gpus(tiny, monkeypatch) -> None:
    """Before anything asks: a process that has seen them sees them for good."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "0,1")
    code = "import os, sys; from pretrain.__main__ import main; status = main(sys.argv[1:]); "
    code += "print(repr(os.environ['CUDA_VISIBLE_DEVICES'])); sys.exit(status)"
    command = [sys.executable, "-c", code, *tiny("device=cpu"), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "''"


def test_two_ranks_with_one_gpu_are_named_on_both() -> None:
    assert claims(["a/0", "a/1", "b/0"]) == [None, None, None]
    errors = claims(["a/0", "a/1", "a/0"])
    assert len(set(errors)) == 1
    assert "rank 0 and rank 2 were both given the GPU a/0" in str(errors[0])


def claims(names: list[str]) -> list[str | None]:
    store = dist.HashStore()
    found: list[str | None] = [None] * len(names)

    def rank(number: int) -> None:
        try:
            device.check_distinct(store, number, len(names), names[number])
        except UserError as error:
            found[number] = str(error)

    threads = [threading.Thread(target=rank, args=(number,)) for number in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return found


@pytest.mark.slow
def test_a_run_whose_ranks_are_no_forks(tiny, tmp_path: Path, monkeypatch) -> None:
    """As on a machine with GPUs, but for the GPUs."""
    code = "import sys; from pretrain.launch import device; from pretrain.__main__ import main\n"
    code += "if __name__ == '__main__':\n    device.may_have_gpu = lambda: True\n"
    code += "    sys.exit(main(sys.argv[1:]))"
    (tmp_path / "start.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[3]))
    command = [sys.executable, str(tmp_path / "start.py"), *tiny("parallel.data=2", "steps=2")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") >= 1
