"""Token recovery by noise level: a network beside two baselines that need none.

Two things need no network: the mean embedding, whose squared error is the variance of the
embeddings, and rounding: the embedding nearest to the noisy one. At little noise rounding
recovers everything by itself and a network proves nothing; what counts are the levels at
which it fails. Padding, which is easy, is left out of every number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from model.draws import Draws
from model.prediction import Prediction
from model.processes import gaussian
from pretrain.checkpoint.weights import Loaded
from pretrain.data import Corpus


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Errors and recovered tokens at one noise level, over all held-out target tokens.

    Args:
        error, mean_error: squared error per dimension of the clean embeddings, of the network
            and of the training tokens' mean embedding.
        recovered: share of the tokens that the network's output is rounded to, as samples are.
        rounded: share of the tokens whose embedding is the one nearest to the noisy one.
    """

    level: float
    error: float
    mean_error: float
    recovered: float
    rounded: float


@dataclass(frozen=True, kw_only=True)
class _AtLevel(Draws):
    """Draws whose times are all equal."""

    time: float

    def times(self, position_B: Tensor, kind: str = "time", num: int = 1) -> Tensor:
        return torch.full((len(position_B), 1), self.time, dtype=torch.float64)


@torch.inference_mode()
def recovery(
    loaded: Loaded, corpus: Corpus, levels: Sequence[float], *, num: int, batch: int, seed: int
) -> list[Recovery]:
    """Recovery at each level, on the first ``num`` held-out samples."""
    assert corpus.held_out is not None
    stream, available = corpus.held_out
    num = min(num, available)
    counts = torch.from_numpy(corpus.train.counts()).double()
    pad = corpus.train.manifest.pad_id
    found = []
    for level in levels:
        sums = torch.zeros(5, dtype=torch.float64)
        # The middle of an index's share of the times, whatever the rounding.
        steps = loaded.config.objective.num_steps
        time = (max(1, round(level * steps)) - 0.5) / steps
        draws = _AtLevel(seed=seed, split="valid", batch=num, time=time)
        for first in range(0, num, batch):
            positions = np.arange(first, min(num, first + batch))
            sums += _batch_sums(loaded, stream.batch(positions), draws, counts, pad)
        error, mean_error, recovered, rounded, total = sums.tolist()
        found.append(
            Recovery(
                level=level,
                error=error / total,
                mean_error=mean_error / total,
                recovered=recovered / total,
                rounded=rounded / total,
            )
        )
    return found


def _batch_sums(
    loaded: Loaded, batch: dict[str, Tensor], draws: Draws, counts: Tensor, pad: int
) -> Tensor:
    """Sums of both errors, of both kinds of hits, and the number of tokens."""
    config = loaded.config
    batch = {name: value.to(loaded.device) for name, value in batch.items()}
    noisy = config.objective.corrupt(batch, draws, config.model, loaded.state)
    asked = replace(noisy, predict_mask_BL=batch["valid"] & (batch["tokens"] != pad))
    assert noisy.signal_BK is not None
    assert noisy.noise_BLE is not None
    assert noisy.x0_noise_BLE is not None
    predict_mask_BL = asked.predict_mask_BL
    signal_M1 = noisy.signal_BK.expand(predict_mask_BL.shape)[predict_mask_BL][:, None]
    noise_ME = noisy.noise_BLE[predict_mask_BL]
    start_ME, ids_M = noisy.x0_noise_BLE[predict_mask_BL], batch["tokens"][predict_mask_BL]
    table_RE = loaded.denoiser.embedding.weight.float()[: len(counts)]
    mean_E = (counts.to(table_RE) @ table_RE) / counts.sum()

    def sums(found: Prediction) -> Tensor:
        assert found.vector_ME is not None
        assert found.clean_ME is not None
        assert found.table is not None
        embedding_ME = found.clean_ME.float()
        clean_ME = embedding_ME + start_ME
        x_ME = signal_M1 * embedding_ME + noise_ME
        x0_ME = gaussian.to_x0(
            config.objective.prediction, found.vector_ME.float(), x_ME, signal_M1.square()
        )
        nearest_ME = found.table.nearest(x_ME / signal_M1)
        return torch.stack(
            [
                (x0_ME - clean_ME).square().mean(dim=1).sum(),
                (mean_E - clean_ME).square().mean(dim=1).sum(),
                (found.table.round(x0_ME) == ids_M).sum(),
                (nearest_ME == table_RE[ids_M]).all(dim=1).sum(),
                predict_mask_BL.sum(),
            ]
        )

    return loaded.network.ask(asked, sums).double().cpu()
