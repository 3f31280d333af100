from pathlib import Path

import pytest
import torch

from configs.load import load
from model.networks.build import build
from pretrain.config import RunConfig

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("*/*.yaml")])
FILES = [path for path in FILES if path.parent.name != "slurm"]
NAMES = [str(path.relative_to(FOLDER)) for path in FILES]


def test_the_shipped_files_are_found() -> None:
    expected = {"demo.yaml", "tiny.yaml", "mdlm/lm1b.yaml", "mdlm/owt.yaml", "genie/release.yaml"}
    assert expected <= set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_shipped_file_loads_and_its_model_builds(path: Path) -> None:
    config = load(RunConfig, [path])
    with torch.device("meta"):
        model = build(config.model)
    head = model.get_parameter(f"layers.{config.model.total_layers - 1}.head.weight")
    assert head.shape == (config.model.num_rows, config.model.table_width)


def test_the_openwebtext_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = build(load(RunConfig, [FOLDER / "mdlm/owt.yaml"]).model)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(170e6, rel=5e-3)
