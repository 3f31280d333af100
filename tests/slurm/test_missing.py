"""Where no cluster is to be had, that is said in plain words."""

from pathlib import Path

import cluster
import pytest


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "PATH", str(tmp_path))
    text = cluster.missing()
    assert text is not None
    assert text.startswith("SLURM is not installed here: there is no munged, slurmctld, slurmd")


def test_without_root_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "PROGRAMS", ())
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cluster.missing() == "a SLURM cluster of several machines on this one needs root"
