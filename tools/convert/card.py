"""The model card (README.md) beside exported weights: facts, data, usage and licence.

It is ready to be published as it is. What the run does not know, such as the licence of the
weights or what the corpus holds, is stated as unknown, and never made up.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from configs.errors import UserError
from configs.load import to_plain
from data_pipeline.manifest import Manifest, read_manifest
from data_pipeline.tokenizer import load_tokenizer, tokenizer_file
from model.naming import method_name
from model.networks.config import ModelConfig
from pretrain.config import RunConfig
from pretrain.planner.plan import count_parameters
from tools.convert.usage import usage
from tools.sample.options import suiting

DEMO = "the Python language reference that ships with CPython (`pydoc_data.topics`)"
UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class About:
    """Facts of the weights that a run does not record.

    Args:
        license: of the weights, as the Hub names it (``apache-2.0``).
        repository: where they are to be published, ``owner/name``.
    """

    license: str | None = None
    repository: str | None = None


def card(
    config: RunConfig,
    facts: Mapping[str, Any],
    report: Mapping[str, Any],
    own: bool,
    tokenizer: Path | None = None,
    about: About | None = None,
) -> str:
    """README.md.

    Args:
        facts: step, tokens_seen, score, elapsed_s, weights, code.
        report: on parity. own: whether our modelling code lies beside it.
        tokenizer: the one that lies beside, or a directory with it.
    """
    about = about or About()
    model: ModelConfig = config.model
    title = (about.repository or "").rpartition("/")[2] or "A text diffusion model"
    parts = [_metadata(config, own, about), f"# {title}\n\n{config.objective.summary}\n"]
    parts += [_facts(config, facts, report), _data(config, facts, tokenizer)]
    if own:
        length = config.data.sequence_length
        has = tokenizer is not None
        parts.append(
            usage(
                model,
                length,
                samplers=suiting(config),
                where=about.repository,
                tokenizer=has,
            )
        )
    return "\n".join([*parts, _licence(own, about)])


def _metadata(config: RunConfig, own: bool, about: About) -> str:
    """The YAML that the Hub reads; a library and a task only where our code lies beside."""
    seq2seq = config.model.reads_source
    tags = ["palimpsest", "text-diffusion"]
    tags += ["masked-diffusion"] if config.objective.noise == "mask" else []
    tags += [method_name(config.objective), *(["seq2seq"] if seq2seq else [])]
    found: dict[str, Any] = {"tags": tags}
    if own:
        task = "text2text-generation" if seq2seq else "fill-mask"
        found = {"library_name": "transformers", "pipeline_tag": task}
        found["tags"] = [*tags, "custom_code"]
    if about.license is not None:
        found["license"] = about.license
    return f"---\n{yaml.safe_dump(found, sort_keys=False)}---\n"


def _facts(config: RunConfig, facts: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    model: ModelConfig = config.model
    score, unit = "held-out bound", " nats per token"
    if model.reads_source:
        score, unit = "held-out loss", ""
    rows = {
        "parameters": f"{count_parameters(model):,}",
        "architecture": model.summary,
        "vocabulary": f"{model.vocab_size:,} ids, mask token {model.mask}",
    }
    if facts["step"]:
        rows |= {
            "objective": _objective(config),
            "sequence length": f"{config.data.sequence_length:,}",
            "steps": f"{facts['step']:,} of {config.steps:,}",
            "tokens seen": f"{facts['tokens_seen']:,}",
            "global batch": f"{config.global_batch:,}",
            "precision": config.precision,
        }
        if config.fork_from is not None:
            rows["began from"] = f"the weights of {Path(config.fork_from).name}"
    else:
        rows["training"] = "converted weights; how they were trained is not recorded here"
    rows |= {
        score: "not measured" if facts["score"] is None else f"{facts['score']:.4f}{unit}",
        "weights": facts["weights"],
        "code": facts["code"].get("git_commit") or UNKNOWN,
        "parity": f"largest difference of a logit {report['largest_difference']:.2g} in float64",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"## Facts\n\n| | |\n| --- | --- |\n{table}\n"


def _objective(config: RunConfig) -> str:
    """Its name, and the schedule where it has one."""
    plain = to_plain(config)["objective"]
    schedule = plain.get("schedule")
    if isinstance(schedule, Mapping):
        schedule = schedule["name"]
    return plain["name"] + (f", schedule {schedule}" if schedule else "")


def _data(config: RunConfig, facts: Mapping[str, Any], tokenizer: Path | None) -> str:
    lines = ["## Data and tokenizer\n"]
    if not facts["step"]:
        lines.append(f"Training data: {UNKNOWN}.")
    elif config.data.corpus == "demo":
        lines.append(f"Training data: {DEMO}, packing `{config.data.packing}`.")
    else:
        name = Path(config.data.corpus).name
        lines.append(
            f"Training data: a corpus that was called `{name}`, packing `{config.data.packing}`. "
            "Where its text comes from, in which languages and under which licences, is not "
            "recorded."
        )
    lines += _splits(config, tokenizer) if facts["step"] and tokenizer is not None else []
    if tokenizer is None:
        lines.append(f"Tokenizer: {UNKNOWN}; none lies beside the weights.")
    else:
        kind = "SentencePiece" if tokenizer_file(tokenizer).suffix == ".model" else "Hugging Face"
        found = load_tokenizer(tokenizer)
        lines.append(
            f"Tokenizer: {kind}, {found.vocab_size:,} ids, SHA-256 of its file `{found.sha256}`; "
            "as `tokenizer.json` beside the weights."
        )
    return "\n".join(lines) + "\n"


def _splits(config: RunConfig, tokenizer: Path) -> list[str]:
    """Sizes of the splits by their manifests, where the corpus is on this machine."""
    found: list[str] = []
    for use, split in (
        ("Training", config.data.train_split),
        ("Held out", config.data.valid_split),
    ):
        manifest = _manifest(tokenizer / split)
        if manifest is not None:
            found.append(
                f"{use}: {manifest.documents:,} documents, {manifest.tokens:,} tokens, "
                f"{manifest.bytes:,} bytes of text."
            )
    return found


def _manifest(split: Path) -> Manifest | None:
    try:
        return read_manifest(split)
    except UserError:
        return None


def _licence(own: bool, about: About) -> str:
    weights = f"the weights: {about.license}" if about.license else "the weights: not stated"
    code = "; the Python files beside them: Apache-2.0 (Palimpsest)" if own else ""
    return f"## Licence\n\nOf {weights}{code}.\n"
