from pathlib import Path

import pytest
import torch

from configs.load import load
from data_pipeline.adopt import make_character_tokenizer
from model.networks.build import build
from pretrain.config import RunConfig

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted([*FOLDER.glob("*.yaml"), *FOLDER.glob("*/*.yaml")])
FILES = [path for path in FILES if path.parent.name not in ("compare", "slurm")]
NAMES = [str(path.relative_to(FOLDER)) for path in FILES]


def test_the_shipped_files_are_found() -> None:
    expected = {"demo.yaml", "tiny.yaml", "mdlm/lm1b.yaml", "mdlm/owt.yaml", "genie/release.yaml"}
    assert expected | {"mdlm/text8.yaml", "mdlm/dna.yaml"} <= set(NAMES)


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_shipped_file_loads_and_its_model_builds(path: Path) -> None:
    config = load(RunConfig, [path])
    with torch.device("meta"):
        model = build(config.model)
    head = model.get_parameter(f"layers.{config.model.total_layers - 1}.head.weight")
    assert head.shape == (config.model.num_rows, config.model.table_width)


MDLM = {
    "lm1b": (128, "pad", 30522, 512, 1_000_000),
    "owt": (1024, "wrap", 50257, 512, 1_000_000),
    "text8": (256 + 2, "wrap", 27 + 4, 512, 1_000_000),
}


@pytest.mark.parametrize("name", MDLM)
def test_the_presets_of_mdlm_are_the_published_settings(name: str) -> None:
    config = load(RunConfig, [FOLDER / f"mdlm/{name}.yaml"])
    model, data, optim = config.model, config.data, config.optim
    found = data.sequence_length, data.packing, model.vocab_size, config.global_batch, config.steps
    assert found == MDLM[name]
    assert (model.width, model.num_layers, model.num_heads, model.dropout) == (768, 12, 12, 0.1)
    assert (optim.lr, optim.betas, optim.weight_decay, optim.clip) == (3e-4, (0.9, 0.999), 0.0, 1.0)
    assert (optim.schedule.name, optim.schedule.warmup) == ("constant", 2500)
    assert config.ema.decay == 0.9999
    assert (config.objective.t_min, config.objective.schedule.eps) == (1e-3, 1e-3)


@pytest.mark.parametrize(("name", "alphabet"), [("text8", "text8"), ("dna", "dna")])
def test_a_preset_of_characters_fits_its_alphabet(name: str, alphabet: str, tmp_path: Path) -> None:
    config = load(RunConfig, [FOLDER / f"mdlm/{name}.yaml"])
    tokenizer = make_character_tokenizer(alphabet, tmp_path / "corpus")
    assert (config.model.vocab_size, config.model.mask_id) == (tokenizer.vocab_size, None)


def test_the_openwebtext_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = build(load(RunConfig, [FOLDER / "mdlm/owt.yaml"]).model)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(170e6, rel=5e-3)
