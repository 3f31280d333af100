"""What local ranks are given: their share of the cores, or what OMP_NUM_THREADS asks for."""

import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.__main__ import main
from pretrain.launch import local as launch
from pretrain.launch.local import external_world, num_threads

SOURCE = """
import torch
from pathlib import Path
from pretrain.parallel.mesh import Mesh

def rank(world, out):
    mesh = Mesh(world)
    Path(out, str(mesh.rank)).write_text(str(torch.get_num_threads()))
    mesh.close()
    return 0
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, None), ("", None), ("3", 3), ("4,2", 4), (" 2 ", 2), ("0", None), ("-1", None),
     ("many", None)],
)  # fmt: skip
def test_threads_are_what_openmp_reads(text: str | None, expected: int | None) -> None:
    environ = {} if text is None else {"OMP_NUM_THREADS": text}
    assert num_threads(environ) == expected
    ranks = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    world = external_world({**environ, **ranks})
    assert world is not None
    assert world.threads == expected


def test_a_plain_start_obeys_omp_num_threads(tiny, monkeypatch) -> None:
    """As a launcher's ranks do: on a shared machine, more threads than cores cost dearly."""
    given = {}
    monkeypatch.setattr(launch, "run_local", lambda *args, **named: given.update(named) or 0)
    monkeypatch.setattr(launch, "preload", lambda **named: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert main(tiny()) == 0
    assert given == {"threads": 3}


def test_ranks_compute_with_the_threads_they_are_given(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(SOURCE)
    code = "import sys; from pretrain.launch.local import run_local; import work; "
    code += "sys.exit(run_local(1, work.rank, sys.argv[1], threads=3))"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, check=True)
    assert (tmp_path / "0").read_text() == "3"
