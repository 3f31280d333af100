"""Held-out numbers and samples of a trained run, kept in its directory until what is asked changes.

``held-out.json`` and ``samples.json`` are what ``python -m tools.evaluate`` prints, with the
settings that they answer under ``asked``.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.json_files import read_json, write_json
from configs.load import to_plain
from data_pipeline.manifest import read_manifest
from pretrain.checkpoint.weights import load_denoiser
from pretrain.data import corpus_path
from pretrain.evaluation.of_checkpoint import held_out_bound, held_out_loss, with_estimator
from tools.command import best_device
from tools.compare.config import CompareConfig, EvaluationConfig
from tools.compare.members import Member
from tools.evaluate.judges.named import NGRAM
from tools.evaluate.samples import check_samples, evaluate_samples
from tools.sample.options import sampler_of

if TYPE_CHECKING:
    from pretrain.checkpoint.weights import Loaded
    from pretrain.config import RunConfig

HELD_OUT, SAMPLES = "held-out.json", "samples.json"


def kept(
    file: Path, asked: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]
) -> dict[str, Any]:
    """What a file holds, if it answers what is asked; else it is made, and written."""
    asked = json.loads(json.dumps(asked))
    found = read_json(file)
    if found.get("asked") != asked:
        write_json(file, {"asked": asked, **finite(make())})
        found = read_json(file)
    return found


def finite(value: Any) -> Any:
    """Plain data with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Evaluation:
    """The numbers of one run; its weights are loaded when the first of them has to be made."""

    def __init__(self, compare: CompareConfig, member: Member) -> None:
        self._compare, self._member = compare, member

    @cached_property
    def _loaded(self) -> "Loaded":
        weights = self._compare.evaluation.weights
        return load_denoiser(self._member.path, weights, best_device())

    def held_out(self) -> dict[str, Any]:
        """The bound, or the loss where there is none, with its interval."""
        member, how = self._member, self._compare.evaluation
        asked = {**self._text(), "evaluation": to_plain(how)}
        return kept(member.path / HELD_OUT, asked, self._score)

    def samples(self) -> dict[str, Any] | None:
        """The scores of drawn texts and of held-out ones; None where none are asked for."""
        compare, member = self._compare, self._member
        if compare.samples is None or member.config.model.reads_source:
            return None
        evaluation = compare.evaluation
        arguments = sample_arguments(compare, member)
        asked = {
            **self._text(),
            **{key: getattr(evaluation, key) for key in ("split", "weights", "seed")},
            **{key: getattr(arguments, key) for key in ("num", "length", "sampler", "sweep")},
        }
        return kept(member.path / SAMPLES, asked, lambda: evaluate_samples(self._loaded, arguments))

    def _text(self) -> dict[str, Any]:
        """What else the numbers depend on: the step of the weights, and the text."""
        config = self._member.config
        splits = (config.data.train_split, self._compare.evaluation.split)
        return {"step": config.steps, "text": text_facts(config, splits)}

    def _score(self) -> dict[str, Any]:
        how = self._compare.evaluation
        common: Any = {"which": how.weights, "batch": how.batch, "seed": how.seed}
        if self._member.config.objective.bound is None:
            return held_out_loss(self._loaded, how.split, **common)
        estimator = estimator_of(how, self._member.config)
        return held_out_bound(
            self._loaded, how.split, samples=how.samples, estimator=estimator, **common
        ).summary


def text_facts(config: "RunConfig", splits: tuple[str, ...]) -> list[str]:
    """A fingerprint of each split: the SHA-256 of the counts of its ids."""
    corpus = corpus_path(config)
    return [read_manifest(corpus / split).counts_sha256 for split in splits]


def estimator_of(how: EvaluationConfig, config: "RunConfig") -> str | None:
    """The estimator that is asked for, for objectives that have a choice of them."""
    return how.estimator if config.objective.estimators else None


def check_evaluation(compare: CompareConfig, member: Member) -> None:
    """UserError for an estimator, split or sampler that does not fit, before training."""
    config, how = member.config, compare.evaluation
    if config.objective.bound is not None:
        with_estimator(config.objective, estimator_of(how, config))
    text_facts(config, (config.data.train_split, how.split))
    if compare.samples is not None and not config.model.reads_source:
        check_samples(sample_arguments(compare, member), config)


def sample_arguments(compare: CompareConfig, member: Member) -> argparse.Namespace:
    """The arguments of ``python -m tools.evaluate RUN --task samples``."""
    how, texts = compare.evaluation, compare.samples
    assert texts is not None
    own = texts.samplers.get(member.name, {})
    words = [str(own["name"])] if "name" in own else []
    words += [f"{key}={json.dumps(value)}" for key, value in own.items() if key != "name"]
    has_steps = hasattr(sampler_of(words, member.config), "steps")
    return argparse.Namespace(
        run=member.path,
        split=how.split,
        weights=how.weights,
        batch=how.batch,
        seed=how.seed,
        num=texts.num,
        length=texts.length,
        sampler=words,
        sweep=[f"steps={number}" for number in texts.steps] if has_steps else None,
        judge=NGRAM,
        mauve=None,
        features=None,
        out=None,
    )
