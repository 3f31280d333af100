"""GENIE out to transformers and back: the same predictions, samples and weights."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from genie_exports import (
    LENGTHS,
    PAD,
    VARIANTS,
    model_of,
    objective_of,
    save,
    some_targets,
    sources,
)
from torch import Tensor
from transformers import (
    AutoModelForSeq2SeqLM,
)

from configs.errors import UserError
from model.draws import Draws
from model.prediction import Prediction
from model.processes.gaussian import Gaussian, Parameterisation, target, to_x0
from model.query import Query
from model.samplers import Job
from model.samplers.ddim import Ddim
from model.samplers.ddpm import Ddpm
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import load_denoiser
from tools.convert.from_hf import from_hf
from tools.convert.to_hf import RUN_FILE, to_hf


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_evaluation_is_ours(tmp_path: Path, variant: str) -> None:
    ours = save(tmp_path / "ckpt", variant)
    report = to_hf(tmp_path / "ckpt", tmp_path / "out", shard_bytes=20_000)
    assert report["largest_difference"] == 0
    assert report["logits"] >= 3 * 20 * 89
    model = model_of(tmp_path / "out")
    ids, valid = sources()
    x, self_cond = torch.randn(2, 3, 7, 12, generator=torch.Generator().manual_seed(2))
    level = torch.tensor([0.2, 0.5, 1.0])
    query = Query(
        ids_BL=torch.zeros(3, 7, dtype=torch.int64),
        level_BK=level[:, None],
        predict_mask_BL=torch.ones(3, 7, dtype=torch.bool),
        signal_BK=torch.zeros(3, 1),
        noise_BLE=x,
        self_cond_BLE=self_cond,
        source_BS=ids,
        source_valid_BS=valid,
    )
    with torch.no_grad():
        wanted_ME = ours(query)["vector_ME"]
        self_cond = self_cond if objective_of(variant).refines else None
        found = model(ids, valid.long(), decoder_inputs_embeds=x, level=level, self_cond=self_cond)
        again = model(
            ids, valid.long(), decoder_inputs_embeds=x, level=level[:, None], self_cond=self_cond
        )
    assert torch.equal(found.prediction.flatten(0, 1), wanted_ME)
    assert torch.equal(again.prediction, found.prediction)
    objective = objective_of(variant)
    abar = objective.process.abar(objective.process.index(level.double())).float()[:, None, None]
    x0 = to_x0(objective.prediction, found.prediction, x, abar)
    assert torch.equal(found.logits.argmax(-1), ours.output.round(x0.flatten(0, 1)).view(3, 7))
    assert (found.logits[..., ours.config.mask] == -torch.inf).all()


class Perfect:
    """In the place of a network: what it should say."""

    def __init__(self, output_ME: Tensor) -> None:
        self.found = Prediction(vector_ME=output_ME)

    def __call__(self, query: Query) -> Prediction:
        return self.found


@pytest.mark.parametrize("kind", ["x0", "eps", "v"])
def test_logits_are_of_the_clean_embeddings(tmp_path: Path, kind: Parameterisation) -> None:
    ours = save(tmp_path / "ckpt", "plain", objective={"prediction": kind})
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out")
    # Rows far apart, of one length: each is its own likeliest.
    table = torch.randn(128, 12, generator=torch.Generator().manual_seed(4))
    ours.embedding.weight.data.copy_(8 * F.normalize(table, dim=1))
    with torch.no_grad():
        model.denoiser.embedding.weight.copy_(ours.embedding.weight)
        model.denoiser.output.head.bias.zero_()
    ids = some_targets()
    x0 = ours.embedding.weight.detach()[ids]
    eps = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    level = torch.tensor([0.25, 0.5, 0.75])
    process = Gaussian(schedule="sqrt", num_steps=40)
    abar = process.abar(process.index(level.double())).float()[:, None, None]
    model._predict = Perfect(target(kind, x0, eps, abar).flatten(0, 1))
    noisy = abar.sqrt() * x0 + (1 - abar).sqrt() * eps
    found = model(sources()[0], decoder_inputs_embeds=noisy, level=level)
    assert torch.equal(found.logits.argmax(-1), ids)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_of_sources_changes_nothing(tmp_path: Path, variant: str) -> None:
    """With ``ignore_source_padding`` it is seen, and always as much as in training."""
    save(tmp_path / "ckpt", variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model, (ids, valid) = model_of(tmp_path / "out"), sources()
    model.config.pad_token_id = PAD
    x = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(2))
    asked = {"decoder_inputs_embeds": x, "level": torch.tensor([0.2, 0.5, 1.0])}
    with torch.no_grad():
        together = model(ids, valid, **asked).prediction
        for i, n in enumerate(valid.sum(dim=1).tolist()):
            alone = model(
                ids[i : i + 1, :n], **{name: value[i : i + 1] for name, value in asked.items()}
            )
            torch.testing.assert_close(alone.prediction[0], together[i], rtol=0, atol=2e-5)
        bare = model(ids, **asked).prediction
    assert not torch.allclose(bare[2], together[2], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    save(tmp_path / "ckpt", "drafts")
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    whole, (ids, valid) = model_of(tmp_path / "out"), sources()
    half = AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "out", trust_remote_code=True, dtype=dtype
    ).eval()
    assert half.denoiser.embedding.weight.dtype == dtype
    with torch.no_grad():
        losses = [float(m(ids, valid, labels=ids % 80 + 4).loss) for m in (half, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    found = half.generate(ids, valid, sampling_steps=3, seed=0)
    assert found.shape == (3, 7)
    assert (found < 90).all()
    assert (found != half.config.mask_token_id).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_generate_is_our_sampler(tmp_path: Path, variant: str) -> None:
    ours, objective = save(tmp_path / "ckpt", variant), objective_of(variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = model_of(tmp_path / "out")
    ids, valid = sources()
    for name, sampler in (("ddpm", Ddpm(steps=6)), ("ddim", Ddim(steps=6, eta=0.5))):
        options = {"eta": 0.5} if name == "ddim" else {}
        with torch.no_grad():
            wanted = sampler.run(
                Job(
                    ids_BL=torch.zeros(6, 7, dtype=torch.int64),
                    free_BL=torch.ones(6, 7, dtype=torch.bool),
                    position_B=torch.arange(6),
                    draws=Draws(seed=5, split="sample", batch=6),
                    objective=objective,
                    model=ours.config,
                    network=ours,
                    source_BS=ids.repeat_interleave(2, dim=0),
                    source_valid_BS=valid.repeat_interleave(2, dim=0),
                )
            )
        words = {"sampling_steps": 6, "num_return_sequences": 2, "seed": 5, "sampler": name}
        found = model.generate(ids, valid.long(), **words, **options)
        assert torch.equal(found, wanted)
        # After the first PAD or EOS there is padding only. The configuration's own would also
        # stand in the places of the source that hold no text.
        pad, end = int(wanted[1, 5]), int(wanted[0, 3])
        settings = model.generation_config
        settings.pad_token_id, settings.eos_token_id = pad, end
        ended = model.generate(ids, valid.long(), **words, **options)
        settings.pad_token_id = settings.eos_token_id = None
        for row, given in zip(ended.tolist(), wanted.tolist(), strict=True):
            place = min(given.index(x) if x in given else 7 for x in (pad, end))
            assert row == given[:place] + [pad] * (7 - place)
        assert int(ended[0, 3]) == pad
    torch.manual_seed(3)
    one, other = (model.generate(ids, valid, sampling_steps=3, max_length=4) for _ in range(2))
    assert one.shape == (3, 4)
    assert not torch.equal(one, other)


def test_other_formats_hold_denoisers_only(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", "modern")
    with pytest.raises(UserError, match="format mdlm holds denoisers only"):
        to_hf(tmp_path / "ckpt", tmp_path / "out", format_name="mdlm")


def test_what_cannot_be_asked_is_said(tmp_path: Path) -> None:
    save(tmp_path / "ckpt", "modern")
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model, (ids, _) = model_of(tmp_path / "out"), sources()
    with pytest.raises(ValueError, match=r"generate\(\) makes text"):
        model(ids)
    with pytest.raises(ValueError, match=r"set config\.pad_token_id"):
        model(ids, labels=torch.full((3, 4), -100))
    x = torch.zeros(3, 7, 12)
    with pytest.raises(ValueError, match="draft goes with"):
        model(ids, decoder_inputs_embeds=x, level=torch.ones(3), self_cond=x)
    with pytest.raises(ValueError, match=r"level has shape \[1\]; give one for each of 3"):
        model(ids, decoder_inputs_embeds=x, level=torch.ones(1))
    with pytest.raises(TypeError, match="knows no temperature; ddpm has variance, clamp_below"):
        model.generate(ids, temperature=0.5)
    with pytest.raises(ValueError, match="there is no sampler dpm; choose ddim or ddpm"):
        model.generate(ids, sampler="dpm")
    for words in ({"max_length": 0}, {"sampling_steps": 0}, {"num_return_sequences": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            model.generate(ids, **words)
    with pytest.raises(ValueError, match=r"with 90 ids there would be no \[MASK\], which is id 90"):
        model.resize_token_embeddings(90)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("saved_again", [False, True])
def test_there_and_back(tmp_path: Path, variant: str, saved_again: bool) -> None:
    save(tmp_path / "ckpt", variant)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    if saved_again:
        model_of(tmp_path / "out").save_pretrained(tmp_path / "again")
        assert not (tmp_path / "again" / RUN_FILE).exists()
    from_hf(tmp_path / ("again" if saved_again else "out"), tmp_path / "back", shard_bytes=9_000)
    before, after = Reader(tmp_path / "ckpt"), Reader(tmp_path / "back")
    values = dict(after.whole("master"))
    for name, value in before.whole("master"):
        assert torch.equal(value, values.pop(name))
    assert not values
    for block in ("model", "objective"):
        assert after.state["config"][block] == before.state["config"][block]
    data = after.state["config"]["data"]
    assert {name: data[name] for name in LENGTHS} == LENGTHS
    assert load_denoiser(tmp_path / "back", "ema").config.objective == objective_of(variant)
