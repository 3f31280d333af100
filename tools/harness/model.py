"""The model class of lm-evaluation-harness for runs and checkpoints of this project.

Importing this module registers it: ``lm_eval.simple_evaluate("palimpsest", "run=runs/demo", ...)``.
"""

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model

from configs.errors import UserError
from data_pipeline.packing import FRAME
from model.naming import method_name
from model.samplers import Sampler
from pretrain.checkpoint.weights import Loaded, load_denoiser
from tools import command
from tools.harness.score import at, continuation_nats, is_greedy, write
from tools.harness.windows import Window, framed, numbered, pieces, split_pair
from tools.sample.options import sampler_of

NAME = "palimpsest"
MAX_GEN_TOKS = 256
"""Tokens that a task without a limit of its own lets the model write."""

Pair = tuple[list[int], list[int]]


@register_model(NAME)
class Palimpsest(LM):
    """A run or checkpoint as the harness asks it.

    Args:
        run: run directory or checkpoint, or a model that is loaded already.
        weights: averaged over training (``ema``), or as they were last (``raw``).
        samples: corruptions of each continuation.
        batch_size: rows of a forward pass.
        seed: of the corruptions and the texts.
        sampler: words of ``--sampler``, separated by spaces.
        device: of the network; by default the first GPU, or the CPU.
        max_batch_size: of the harness's own command line; not used.

    Raises:
        UserError: there is no such run, or its model is an encoder-decoder.
    """

    def __init__(
        self,
        run: str | Path | Loaded,
        weights: Any = "ema",
        samples: int = 128,
        batch_size: int | str = 32,
        seed: int = 0,
        sampler: str = "",
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if isinstance(run, str | Path):
            loaded = load_denoiser(Path(run), weights, device or command.best_device())
        else:
            loaded = run
        config = loaded.config
        if config.model.reads_source:
            raise UserError(
                "an encoder-decoder answers no task of the harness; use python -m tools.evaluate "
                "RUN --task seq2seq"
            )
        self._loaded, self._tokenizer = loaded, loaded.tokenizer()
        self._samples, self._batch, self._seed = int(samples), int(batch_size), int(seed)
        self._sampler: Sampler = sampler_of(sampler.split(), config)
        self._device = torch.device(loaded.device)
        self._length = config.data.sequence_length
        self._told = False
        scope = config.objective.scope(padded=config.data.packing == "pad")
        self._writes_end = scope.end_masked

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """Bound on log p(continuation | context), and whether greedy sampling writes it."""
        pairs = [split_pair(self._tokenizer, *request.args) for request in requests]
        windows = self._windows(pairs)
        nats = self._nats(windows)
        settings = {"batch": self._batch, "seed": self._seed}
        greedy = is_greedy(self._loaded, windows, self._sampler, **settings)
        return [(-nat, found) for nat, found in zip(nats, greedy, strict=True)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """Bound on log p(text); a long text in windows, each of whose tokens is scored once."""
        texts = self._tokenizer.encode([request.args[0] for request in requests])
        cut = [pieces(ids, self._length - FRAME) for ids in texts]
        nats = iter(self._nats(self._windows([pair for pairs in cut for pair in pairs])))
        return [-sum(next(nats) for _ in pairs) for pairs in cut]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What the sampler writes behind each context, up to the first of the ``until`` strings."""
        room = self._length - FRAME
        contexts = self._tokenizer.encode([request.args[0] for request in requests])
        settings = [request.args[1] for request in requests]
        pairs: list[Pair] = []
        for context, given in zip(contexts, settings, strict=True):
            most = int(given.get("max_gen_toks", MAX_GEN_TOKS))
            # Of a long context at least half the window stays.
            num = min(most, max(room - len(context), room // 2))
            pairs.append((context, [self._loaded.config.model.mask] * num))
        windows = self._windows(pairs, open_end=self._writes_end)
        by_sampler = defaultdict(list)
        for number, given in enumerate(settings):
            by_sampler[self._sampler_for(given)].append(number)
        texts = [""] * len(requests)
        for sampler, numbers in by_sampler.items():
            chosen = [windows[number] for number in numbers]
            written = write(self._loaded, chosen, sampler, batch=self._batch, seed=self._seed)
            for number, ids in zip(numbers, written, strict=True):
                texts[number] = self._text(windows[number], ids, settings[number])
        return texts

    def _windows(self, pairs: Sequence[Pair], *, open_end: bool = False) -> list[Window]:
        cut = sum(len(given) + len(free) > self._length - FRAME for given, free in pairs)
        if cut and not self._told:
            self._told = True
            print(
                f"note: {cut} of {len(pairs)} contexts are too long for the {self._length} "
                "positions that the model was trained on, and are cut from the left",
                file=sys.stderr,
            )
        return numbered(
            [
                framed(self._tokenizer, given, free, self._length, open_end=open_end)
                for given, free in pairs
            ]
        )

    def _nats(self, windows: Sequence[Window]) -> list[float]:
        objective = self._loaded.config.objective
        if objective.bound is None:
            raise UserError(
                f"objective {method_name(objective)} has no bound on the likelihood, by which the "
                "harness scores; only tasks that generate text can be run"
            )
        return continuation_nats(
            self._loaded, windows, samples=self._samples, batch=self._batch, seed=self._seed
        ).tolist()

    def _sampler_for(self, given: Mapping[str, Any]) -> Sampler:
        """The sampler at the settings of a task: greedy, unless the task asks for sampling."""
        if not given.get("do_sample", False):
            return at(self._sampler, temperature=0.0)
        asked = {
            name: value
            for name, value in given.items()
            if name not in ("until", "max_gen_toks", "do_sample")
        }
        known: Any = self._sampler
        if unknown := asked.keys() - {field.name for field in fields(known)}:
            raise UserError(
                f"the task sets {', '.join(sorted(unknown))}, which sampler {self._sampler.name} "
                "does not have; choose another with --sampler"
            )
        return at(self._sampler, **asked)

    def _text(self, window: Window, ids: Sequence[int], given: Mapping[str, Any]) -> str:
        written = [index for index, free in zip(ids, window.free, strict=True) if free]
        if (eos := self._tokenizer.eos_id) in written:
            written = written[: written.index(eos)]
        text = self._tokenizer.decode(written)
        until = given.get("until") or []
        for stop in [until] if isinstance(until, str) else until:
            text = text.partition(stop)[0] if stop else text
        return text
