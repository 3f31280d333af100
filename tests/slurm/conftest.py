"""The real cluster, brought up once for all tests that need one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, missing
from lab import Lab
from lanes import Lanes

REQUIRED = "PALIMPSEST_REQUIRE_SLURM"
"""Set by ``.ci/run``: a cluster that cannot be brought up is a failure."""


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of that name, without which submitit writes no script."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "srun").write_text("#!/bin/sh\nexit 1\n")
    (commands / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")


@pytest.fixture(scope="session")
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Five nodes of two CPUs and one pretended GPU each."""
    reason = missing()
    if reason and os.environ.get(REQUIRED):
        pytest.fail(f"{REQUIRED} is set, but {reason}")
    if reason:
        pytest.skip(f"no SLURM cluster: {reason}")
    # The name of a socket in it must be short.
    with (
        tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as short,
        _open(Path(short)) as place,
        Cluster(place / "c", nodes=5, cpus=2) as cluster,
    ):
        demo_dir = request.getfixturevalue("demo_dir")
        made = Lab(cluster, tmp_path_factory.mktemp("runs"), demo_dir)
        yield made
        made.clean()


@contextlib.contextmanager
def _open(directory: Path) -> Iterator[Path]:
    """Munge wants a path to its socket that everybody may take."""
    directory.chmod(0o755)
    yield directory


@pytest.fixture(scope="module")
def lanes(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Lanes]:
    """The scenarios that were asked for, under way side by side."""
    from scenarios import FIRST, REFERENCES, SECOND, THIRD

    items = request.session.items
    asked = {item.name.partition("[")[2].rstrip("]") for item in items}
    # Whoever asks for a refusal alone is not to wait for the runs that scenarios are compared with.
    compared = any(item.name.startswith(("test_scenario", "test_the_controller")) for item in items)
    chosen = [
        [one for one in lane if (compared and one in REFERENCES) or one.__name__ in asked]
        for lane in (FIRST, SECOND, THIRD)
    ]
    running = Lanes(lab, [lane for lane in chosen if lane])
    yield running
    running.close()
