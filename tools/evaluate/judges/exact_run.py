"""A run of ours as judge, whose objective knows -log p of a text and not a bound only."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.errors import UserError
from data_pipeline.packing import FRAME
from model.draws import Draws
from model.naming import method_name
from model.objectives import Bounded
from pretrain.checkpoint.weights import Loaded, configuration, load_denoiser
from tools.evaluate.judges import Text, of_tokenizer


@dataclass(frozen=True, kw_only=True)
class RunJudge:
    """The averaged weights of a run.

    Texts are framed by BOS and EOS, as windows are for its own held-out number, and cut where they
    are longer than its samples.

    Args:
        same_tokenizer: whether its tokenizer is that of the run that is judged.
        batch: pieces per forward pass.
    """

    loaded: Loaded
    same_tokenizer: bool
    batch: int

    @property
    def facts(self) -> dict[str, Any]:
        """See :class:`tools.evaluate.judges.Judge`."""
        method = method_name(self.loaded.config.objective)
        return {
            "judge": f"{method} of {self.loaded.checkpoint}",
            "judge_tokenizer": of_tokenizer(self.same_tokenizer),
        }

    @torch.inference_mode()
    def nats(self, texts: Sequence[Text]) -> np.ndarray:
        """See :class:`tools.evaluate.judges.Judge`."""
        tokenizer = self.loaded.tokenizer()
        if self.same_tokenizer:
            encoded = [one.ids for one in texts]
        else:
            encoded = tokenizer.encode([one.text for one in texts])
        size = self.loaded.config.data.sequence_length - FRAME
        pieces = [
            (number, [tokenizer.bos_id, *ids[first : first + size], tokenizer.eos_id])
            for number, ids in enumerate(encoded)
            for first in range(0, len(ids), size)
        ]
        rows = np.zeros((len(texts), 2))
        for start in range(0, len(pieces), self.batch):
            numbers, framed = zip(*pieces[start : start + self.batch], strict=True)
            nats_B2 = self._nats(framed, tokenizer.pad_id, tokenizer.eos_id)
            np.add.at(rows, np.array(numbers), nats_B2)
        return rows

    def _nats(self, framed: Sequence[list[int]], pad: int, eos: int) -> np.ndarray:
        """Nats and tokens of each framed piece."""
        loaded, num = self.loaded, len(framed)
        objective, model = loaded.config.objective, loaded.config.model
        assert isinstance(objective, Bounded)
        length_B = torch.tensor([len(piece) for piece in framed])
        column_L = torch.arange(int(length_B.max()))
        tokens_BL = torch.full((num, len(column_L)), pad)
        for row, piece in zip(tokens_BL, framed, strict=True):
            row[: len(piece)] = torch.tensor(piece)
        inner_BL = (column_L > 0) & (column_L < length_B[:, None] - 1)
        batch: dict[str, Tensor] = {
            "tokens": tokens_BL,
            "valid": column_L < length_B[:, None],
            "free": inner_BL,
            "position": torch.arange(num),
        }
        if loaded.config.data.document_mask:
            ends_BL = (tokens_BL == eos).long()
            batch["segment"] = 1 + ends_BL.cumsum(dim=1) - ends_BL
        batch = {name: value.to(loaded.device) for name, value in batch.items()}
        draws = Draws(seed=0, split="valid", batch=num)
        noisy = objective.bound_corrupt(batch, draws, model, loaded.state)
        read = partial(objective.bound_losses, noisy=noisy)
        losses_M = loaded.network.ask(noisy, read).double().cpu()
        row_M = noisy.predict_mask_BL.cpu().nonzero()[:, 0]
        nats_B = torch.zeros(num, dtype=torch.float64).index_add_(0, row_M, losses_M)
        return np.stack([nats_B.numpy(), torch.bincount(row_M, minlength=num).numpy()], axis=1)


def check_run_judge(path: Path) -> None:
    """UserError unless the run's objective knows -log p exactly."""
    config = configuration(path)
    objective = config.objective
    padded = config.data.packing == "pad"
    if objective.bound is None or not objective.scope(padded=padded).exact:
        raise UserError(
            f"--judge {path}: its objective {method_name(objective)} has no exact likelihood; "
            "name a run whose held-out number is exact"
        )


def run_judge(path: Path, device: torch.device, tokenizer_sha256: str, batch: int) -> RunJudge:
    """Load the judge.

    Args:
        tokenizer_sha256: of the tokenizer of the run that is judged.
    """
    loaded = load_denoiser(path, "ema", device)
    same = loaded.tokenizer().sha256 == tokenizer_sha256
    return RunJudge(loaded=loaded, same_tokenizer=same, batch=batch)
