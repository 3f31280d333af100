"""``generate`` of an exported MDLM: the samples of ``tools.sample``, asked for as elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exports import export_denoiser, export_genie, masked_lm, seq2seq_lm, some_ids
from torch import Tensor
from transformers import GenerationConfig

from configs.load import Plugin, validate
from data_pipeline.tokenizer import Tokenizer, load_tokenizer
from model.samplers.ancestral import Ancestral
from model.samplers.semi_autoregressive import SemiAutoregressive
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from tools.sample.prompt import parse
from tools.sample.text import sample

STEPS = 5


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """Of a time-conditioned model with the corpus's tokenizer."""
    folder = tmp_path_factory.mktemp("generate")
    return export_denoiser(folder, corpus, vocab_size=1024, time_conditioning=True)


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> Tokenizer:
    return load_tokenizer(corpus)


@pytest.fixture
def model(export: Path) -> Any:
    return masked_lm(export)


def ours(export: Path, tokenizer: Tokenizer, prompt: str, num: int, **settings: Any) -> list[str]:
    """What ``tools.sample --seed 3`` prints."""
    found = sample(
        load_denoiser(export.parent / "ckpt", "ema"),
        tokenizer,
        prompt=prompt,
        num=num,
        length=settings.pop("length", 16),
        sampler=settings.pop("sampler", None) or Ancestral(steps=STEPS, **settings),
        seed=3,
        batch=2,
    )
    return found.texts


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, {"temperature": 0.0}])
def test_samples_are_those_of_our_own_command(
    export: Path, tokenizer: Tokenizer, model: Any, settings: dict[str, float]
) -> None:
    words = {"seed": 3, "sampling_steps": STEPS, "num_return_sequences": 3, **settings}
    found = model.generate(max_length=16, **words)
    assert found.shape == (3, 16)
    assert [tokenizer.decode(row) for row in found.tolist()] == ours(
        export, tokenizer, "", 3, **settings
    )
    prompt = "The assert statement"
    ids = torch.tensor(tokenizer.encode([prompt]))
    found = model.generate(ids, max_length=20, **words)
    assert [tokenizer.decode(row) for row in found.tolist()] == ours(
        export, tokenizer, prompt, 3, length=20, **settings
    )
    blanks = "if ___{4}: return ___"
    template = parse(blanks, tokenizer, 24, model.config.mask_token_id)
    found = model.generate(torch.tensor([template.ids]), **words)
    assert [tokenizer.decode(row) for row in found.tolist()] == ours(
        export, tokenizer, blanks, 3, length=24, **settings
    )
    kept = ~torch.tensor(template.blank)
    assert torch.equal(found[:, kept], torch.tensor([template.ids])[:, kept].expand(3, -1))
    assert (found != model.config.mask_token_id).all()


def test_every_sampler_is_taken_along_with_its_settings(
    export: Path, tokenizer: Tokenizer, model: Any
) -> None:
    prompt = "The assert statement"
    ids = torch.tensor(tokenizer.encode([prompt]))
    for name, settings in {
        "ancestral": {"steps": STEPS, "top_p": 0.7, "guidance": 2.0},
        "confidence": {"steps": 3, "block_length": 4, "criterion": "margin", "guidance": 1.0},
        "first_hitting": {"temperature": 0.8},
        "remasking": {"steps": STEPS, "eta": 0.5, "schedule": "rescale"},
        "semi_autoregressive": {"steps": 3, "window": 8, "stride": 3},
    }.items():
        words = {"sampling_steps" if key == "steps" else key: x for key, x in settings.items()}
        found = model.generate(
            ids, max_length=16, seed=3, num_return_sequences=3, sampler=name, **words
        )
        sampler = Plugin("model.samplers").build({"name": name, **settings})
        wanted = ours(export, tokenizer, prompt, 3, sampler=sampler)
        assert [tokenizer.decode(row) for row in found.tolist()] == wanted


def test_the_schedule_is_the_runs_own(tmp_path: Path, corpus: Path, tokenizer: Tokenizer) -> None:
    from small_models import configured, random_weights, run_of, save_weights

    from model.networks.build import build
    from tools.convert.from_hf import from_hf
    from tools.convert.to_hf import to_hf

    denoiser = random_weights(build(configured(vocab_size=1024)))
    geometric = {"name": "mdlm", "schedule": {"name": "geometric", "sigma_max": 9.0}}
    run = run_of(denoiser.config, corpus, objective=geometric)
    save_weights(tmp_path / "ckpt", denoiser, run, 2**20)
    to_hf(tmp_path / "ckpt", tmp_path / "out")
    model = masked_lm(tmp_path / "out")
    words = {"max_length": 32, "seed": 3, "sampling_steps": STEPS, "num_return_sequences": 2}
    found = [tokenizer.decode(row) for row in model.generate(**words).tolist()]
    assert found == ours(tmp_path / "out", tokenizer, "", 2, length=32)
    model.config.objective = {}
    other = [tokenizer.decode(row) for row in model.generate(**words).tolist()]
    assert other != found
    for wrong in ({"name": "another"}, {"schedule": {"name": "another"}}):
        model.config.objective = wrong
        with pytest.raises(ValueError, match="not of another"):
            model.generate(**words)
    # What transformers saved of it knows the schedule, too.
    masked_lm(tmp_path / "out").save_pretrained(tmp_path / "saved")
    from_hf(tmp_path / "saved", tmp_path / "back")
    config: RunConfig = load_denoiser(tmp_path / "back", "ema").config
    assert config.objective == validate(RunConfig, _plain(run), where="").objective


def ending(folder: Path, corpus: Path, tokenizer: Tokenizer, padding: str) -> Any:
    """An export, to ``out``, of a model of padded texts that ends them after a few tokens."""
    from small_models import configured, random_weights, run_of, save_weights

    from model.networks.build import build
    from tools.convert.to_hf import to_hf

    denoiser = random_weights(build(configured(vocab_size=1024)))
    with torch.no_grad():
        dict(denoiser.named_parameters())["layers.3.head.bias"][tokenizer.eos_id] += 9.0
    objective = {"name": "mdlm", "padding": padding}
    run = run_of(denoiser.config, corpus, objective=objective, data={"packing": "pad"})
    save_weights(folder / "ckpt", denoiser, run, 2**20)
    to_hf(folder / "ckpt", folder / "out")
    return masked_lm(folder / "out")


@pytest.mark.parametrize("padding", ["masked", "generated", "visible"])
def test_a_model_of_padded_texts_ends_them_as_our_own_command_does(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer, padding: str
) -> None:
    from tools.convert.from_hf import from_hf

    model = ending(tmp_path, corpus, tokenizer, padding)
    words = {"seed": 3, "sampling_steps": STEPS, "num_return_sequences": 3}
    prompt = "The assert statement"
    given = tokenizer.encode([prompt])
    for start, text in ((None, ""), (torch.tensor(given), prompt)):
        rows = model.generate(start, max_length=20, **words)
        texts = [tokenizer.decode(row) for row in rows.tolist()]
        assert texts == ours(tmp_path / "out", tokenizer, text, 3, length=20)
        assert rows.shape == (3, 20)
        if padding != "visible":
            fixed = 1 + (len(given[0]) if text else 0)
            behind = (rows[:, fixed:] == tokenizer.eos_id).long().cumsum(dim=1) > 0
            assert behind[:, :-1].any()
            specials = {tokenizer.eos_id, tokenizer.pad_id}
            assert set(rows[:, fixed:][behind].tolist()) <= specials
    # Without the file of the run, too: transformers does not copy it.
    masked_lm(tmp_path / "out").save_pretrained(tmp_path / "saved")
    from_hf(tmp_path / "saved", tmp_path / "back")
    back: RunConfig = load_denoiser(tmp_path / "back", "ema").config
    assert (back.data.packing, back.objective.padding) == ("pad", padding)
    assert back.data.sequence_length == 32


def test_texts_that_have_ended_are_not_gone_on_with(
    tmp_path: Path, corpus: Path, tokenizer: Tokenizer
) -> None:
    """Beginnings of two lengths, so that one is padded: it ends all the same."""
    model, seen = ending(tmp_path, corpus, tokenizer, "generated"), list[int]()
    model.denoiser.register_forward_hook(lambda *_: seen.append(1))
    sampler = SemiAutoregressive(steps=2, window=8, stride=4)
    words = {"sampler": sampler.name, "sampling_steps": 2, "window": 8, "stride": 4, "seed": 3}
    rows = tokenizer.encode(["x", "The assert statement"])
    alone = [
        model.generate(torch.tensor([row]), max_length=60, num_return_sequences=2, **words)[i]
        for i, row in enumerate(rows)
    ]
    wanted, *_ = ours(tmp_path / "out", tokenizer, "x", 2, length=60, sampler=sampler)
    assert tokenizer.decode(alone[0].tolist()) == wanted
    ids, mask = padded(rows, tokenizer.pad_id, "right")
    seen.clear()
    found = model.generate(ids, attention_mask=mask, max_length=60, **words)
    assert torch.equal(found, torch.stack(alone))
    assert 2 <= len(seen) < sampler.num_steps(60) / 2
    seen.clear()
    new = model.generate(ids, attention_mask=mask, max_new_tokens=50, **words)
    assert (new[:, 40:] == tokenizer.pad_id).all()
    assert 2 <= len(seen) < sampler.num_steps(60) / 2


def _plain(run: RunConfig) -> Any:
    from configs.load import to_plain

    return to_plain(run)


def padded(rows: list[list[int]], pad: int, side: str) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows)) + 2
    ids, mask = [], []
    for row in rows:
        fill = [pad] * (longest - len(row))
        cut = {"left": 0, "right": len(row), "inside": len(row) // 2}[side]
        ids.append([*row[:cut], *fill, *row[cut:]])
        mask.append([*[1] * cut, *[0] * len(fill), *[1] * (len(row) - cut)])
    return torch.tensor(ids), torch.tensor(mask)


@pytest.mark.parametrize(
    ("side", "settings"), [("left", {}), ("right", {"guidance": 1.0}), ("inside", {})]
)
def test_padding_changes_no_sample(
    tokenizer: Tokenizer, model: Any, side: str, settings: dict[str, Any]
) -> None:
    pad, mask_id = tokenizer.pad_id, model.config.mask_token_id
    rows = tokenizer.encode(["The assert statement", "x", "A longer beginning of a text"])
    words = {"seed": 3, "sampling_steps": STEPS, **settings}
    # Row i has the draws of sample i: each alone is the i-th copy of itself.
    alone = [
        model.generate(torch.tensor([row]), max_length=20, num_return_sequences=3, **words)[i]
        for i, row in enumerate(rows)
    ]
    ids, mask = padded(rows, pad, side)
    found = model.generate(ids, attention_mask=mask, max_length=20, **words)
    assert torch.equal(found, torch.stack(alone))
    assert torch.equal(model.generate(ids, max_length=20, **words), found)
    new = model.generate(ids, attention_mask=mask, max_new_tokens=4, **words)
    assert new.shape[1] == max(map(len, rows)) + 6
    for row, text in zip(new.tolist(), rows, strict=True):
        window = len(text) + 6
        assert row[: len(text) + 1] == [tokenizer.bos_id, *text]
        assert row[window - 1] == tokenizer.eos_id
        assert row[window:] == [pad] * (len(row) - window)
    blanks = [[*row, mask_id, mask_id] for row in rows]
    alone = [
        model.generate(torch.tensor([row]), num_return_sequences=3, **words)[i]
        for i, row in enumerate(blanks)
    ]
    ids, mask = padded(blanks, pad, side)
    ids[mask == 0] = mask_id  # in the padding it is none to fill in
    found = model.generate(ids, attention_mask=mask, **words)
    assert (found[mask == 0] == mask_id).all()
    for row, shown, one in zip(found, mask.bool(), alone, strict=True):
        assert torch.equal(row[shown], one)


def test_settings_come_from_where_they_do_elsewhere(export: Path, model: Any) -> None:
    own = model.generation_config
    assert (own.max_length, own.sampling_steps, own.do_sample) == (32, 64, True)
    own.sampling_steps = STEPS
    assert model.generate(seed=3).shape == (1, 32)
    short = GenerationConfig(max_length=12, num_return_sequences=2, do_sample=True)
    found = model.generate(generation_config=short, seed=3)
    assert found.shape == (2, 12)
    assert torch.equal(
        found, model.generate(max_length=12, num_return_sequences=2, seed=3, num_beams=1)
    )
    assert model.generate(generation_config=short, max_length=10, seed=3).shape == (2, 10)
    assert model.generate(max_new_tokens=5, seed=3).shape == (1, 7)
    greedy = model.generate(do_sample=False, seed=3)
    assert torch.equal(greedy, model.generate(temperature=0.0, seed=3))
    assert torch.equal(
        greedy, model.generate(generation_config=GenerationConfig(do_sample=False), seed=3)
    )
    named = model.generate(return_dict_in_generate=True, seed=3)
    assert torch.equal(named.sequences, model.generate(seed=3))
    own.max_length = 9
    assert model.generate(seed=3).shape == (1, 9)
    torch.manual_seed(0)
    one, other = model.generate(), model.generate()
    assert not torch.equal(one, other)
    torch.manual_seed(0)
    assert torch.equal(one, model.generate())
    ids = torch.tensor([[own.bos_token_id, 300, own.eos_token_id]])
    found = model.generate(input_ids=ids, seed=3)
    assert found[0, :2].tolist() == ids[0, :2].tolist()
    assert found[0, -1] == own.eos_token_id


def test_what_cannot_be_asked_is_said(model: Any) -> None:
    mask = model.config.mask_token_id
    ids = torch.tensor([[300, 301, 302], [300, 301, 302]])
    for words, error, message in (
        ({"top_k": 5}, TypeError, r"knows no top_k; masked diffusion has max_length"),
        ({"num_beams": 4}, TypeError, "knows no num_beams"),
        ({"top_p": 0.0}, ValueError, r"top_p must lie in \(0, 1\], not 0.0"),
        ({"block_length": 3}, TypeError, "knows no block_length; .* top_p, guidance"),
        ({"sampler": "first_hitting", "sampling_steps": 3}, TypeError, "knows no sampling_steps"),
        ({"streamer": object()}, TypeError, "knows no streamer"),
        ({"generation_config": GenerationConfig(num_beams=3)}, ValueError, "num_beams=3 asks"),
        ({"generation_config": GenerationConfig(min_p=0.1)}, ValueError, "min_p=0.1 asks"),
        ({"sampling_steps": 0}, ValueError, "steps must be at least 1"),
        ({"num_return_sequences": 0}, ValueError, "num_return_sequences must be at least 1"),
        ({"temperature": -1.0}, ValueError, "temperature must not be negative"),
        ({"sampler": "ddpm"}, ValueError, "there is no sampler ddpm; choose ancestral"),
        ({"max_length": 5}, ValueError, "a beginning of 5 positions, .* give max_length=6"),
        ({"max_new_tokens": 0}, ValueError, "leaves none to fill"),
        ({"input_ids": ids}, ValueError, "give inputs or input_ids"),
        ({"attention_mask": torch.ones(2, 2)}, ValueError, r"shape \[2, 2\]; give"),
    ):
        with pytest.raises(error, match=message):
            model.generate(ids, **words)
    ids[0, 1] = mask
    with pytest.raises(ValueError, match=r"some rows hold \[MASK\]"):
        model.generate(ids)
    with pytest.raises(ValueError, match="are filled in where they stand"):
        model.generate(ids[:1], max_new_tokens=4)
    model.generate(ids[:1], max_length=3, sampling_steps=2)


def test_genie_is_asked_in_the_same_way(tmp_path: Path) -> None:
    model = seq2seq_lm(export_genie(tmp_path, "rotary"))
    ids, own = some_ids(), model.generation_config
    assert (own.max_length, own.sampler, own.sampling_steps) == (7, "ddpm", 40)
    wanted = model.generate(ids, sampling_steps=3, max_length=5, seed=3)
    given = GenerationConfig(max_length=5, sampling_steps=3, num_beams=1)
    assert torch.equal(model.generate(ids, generation_config=given, seed=3), wanted)
    assert model.generate(ids, generation_config=given, max_new_tokens=4).shape == (3, 4)
    own.sampling_steps, own.max_length = 3, 5
    assert torch.equal(model.generate(ids, seed=3, do_sample=False), wanted)
    named = model.generate(ids, seed=3, return_dict_in_generate=True)
    assert torch.equal(named.sequences, wanted)
    other = GenerationConfig(sampler="ddim", eta=0.5, sampling_steps=3)
    assert torch.equal(
        model.generate(ids, generation_config=other, seed=3),
        model.generate(ids, sampler="ddim", eta=0.5, seed=3),
    )
    embeds = model.get_input_embeddings()(ids)
    assert torch.equal(model.generate(inputs_embeds=embeds, seed=3), wanted)
    end = int(wanted[0, 2])
    ended = model.generate(ids, seed=3, eos_token_id=[end, 0], pad_token_id=1)
    assert (ended[0, 2:] == 1).all()
    with pytest.raises(ValueError, match="num_beams=4 asks for what cannot be done"):
        model.generate(ids, generation_config=GenerationConfig(num_beams=4))
    with pytest.raises(TypeError, match="knows no top_p; ddpm has variance, clamp_below"):
        model.generate(ids, top_p=0.9)
