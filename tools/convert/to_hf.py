"""A checkpoint of ours to a Hugging Face directory, in our format or another's."""

from functools import partial
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.load import to_plain
from model.naming import method_name
from model.networks.attention_layouts import FULL
from pretrain.checkpoint import objective_tensors, store
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.weights import Which, config_of, find
from pretrain.config import RunConfig
from pretrain.data import other_tokenizer
from tools.convert import parity, tensors, tokenizer_files, write
from tools.convert.card import About, card
from tools.convert.formats import named
from tools.convert.formats.palimpsest import Palimpsest
from tools.convert.output import staged
from tools.sample.options import sampler_of

RUN_FILE = "palimpsest_run.json"
"""The file with the run's configuration and progress, for :mod:`tools.convert.from_hf`."""


def to_hf(
    checkpoint: Path,
    out: Path,
    *,
    weights: Which = "ema",
    format_name: str = Palimpsest.name,
    tokenizer: Path | None = None,
    no_tokenizer: bool = False,
    shard_bytes: int = write.SHARD_BYTES,
    about: About | None = None,
) -> dict[str, Any]:
    """Write ``out``; the parity report.

    Args:
        checkpoint: or a run directory, of which the newest checkpoint is taken.
        tokenizer: or a directory with one; by default the corpus of the run, if it is here.
        no_tokenizer: write none.
        about: further facts for the model card.

    Raises:
        UserError: nothing to convert, no place to write to, or no place in the format.
        RunError: the logits differ.
    """
    path = find(checkpoint)
    reader = Reader(path)
    config = config_of(reader)
    kind = reader.weights(weights)
    if config.model.reads_source and format_name != Palimpsest.name:
        raise UserError(
            f"format {format_name} holds denoisers only, and this is an encoder-decoder"
        )
    _check_form(config)
    ours = tensors.of_checkpoint(reader, kind)
    outgoing = named(format_name).outgoing(config, ours)
    texts = dict(outgoing.files)
    found = None if no_tokenizer else tokenizer or _corpus(config)
    trained = reader.state.get("tokenizer_sha256")
    if found is not None:
        if tokenizer is None:
            problem = other_tokenizer(tokenizer_files.load_tokenizer(found), found, trained)
            if problem:
                raise UserError(f"{problem}; put it back, or name the right one by --tokenizer")
        length = config.data.source_length or config.data.sequence_length
        texts |= tokenizer_files.files(found, config.model, length)
    facts = {
        key: reader.state[key] for key in ("step", "tokens_seen", "score", "elapsed_s", "code")
    }
    facts["tokenizer_sha256"] = trained
    facts |= {"weights": "averaged (EMA)" if kind == "ema" else "raw"}
    with staged(out, write.num_bytes(outgoing.tensors.shapes)) as aside:
        write.write_huggingface(aside, outgoing.tensors, shard_bytes)
        report = parity.report(
            config.model,
            parity.of_network(config.model, ours),
            partial(outgoing.logits, tensors.of_path(aside)),
            (f"{path.name} ({facts['weights']})", f"the {format_name} format"),
        )
        special = _special_ids(found)
        write.write_json(aside / parity.FILE_NAME, report)
        write.write_json(aside / "config.json", {**outgoing.config, **special})
        write.write_json(aside / "generation_config.json", _generation(config, special))
        run = {**facts, "config": {**to_plain(config), "run_dir": None, "fork_from": None}}
        write.write_json(aside / RUN_FILE, run)
        objective_tensors.write(aside, reader.objective_state())
        own = "configuration_palimpsest.py" in texts
        texts["README.md"] = card(config, facts, report, own, found, about)
        for name, text in texts.items():
            store.write(aside / name, text)
    return {**report, "tokenizer": found is not None}


def _check_form(config: RunConfig) -> None:
    """UserError where transformers has no form for what the weights were trained to do."""
    objective, name = config.objective, method_name(config.objective)
    if objective.noise not in ("mask", "gaussian"):
        raise UserError(
            f"objective {name} has no form in transformers: its text is not written by filling in "
            "[MASK]s, nor by denoising embeddings; sample it with tools.sample"
        )
    if objective.layout(config.data.sequence_length) != FULL:
        raise UserError(
            f"objective {name} has no form in transformers: it attends by a layout of its own; "
            "sample it with tools.sample"
        )


def _corpus(config: RunConfig) -> Path | None:
    """The directory of the run's corpus, if it is on this machine."""
    path = Path(config.data.corpus)
    if config.data.corpus == "demo":
        path = Path(config.data.demo_dir) / f"demo-{config.model.vocab_size}"
    return path if path.is_dir() else None


def _special_ids(path: Path | None) -> dict[str, int]:
    if path is None:
        return {}
    found = tokenizer_files.load_tokenizer(path)
    return {
        "bos_token_id": found.bos_id,
        "eos_token_id": found.eos_id,
        "pad_token_id": found.pad_id,
    }


def _generation(config: RunConfig, special: dict[str, int]) -> dict[str, Any]:
    """generation_config.json: default sampling; ``max_length`` counts BOS and EOS of a denoiser."""
    sampler = sampler_of([], config)
    settings = {"steps": "sampling_steps", "temperature": "temperature"}
    return {
        **special,
        "mask_token_id": config.model.mask,
        "max_length": config.data.sequence_length,
        "do_sample": True,
        "sampler": sampler.name,
        **{
            theirs: getattr(sampler, own)
            for own, theirs in settings.items()
            if hasattr(sampler, own)
        },
    }
