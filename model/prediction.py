"""What a denoiser predicts at M positions, as losses and samplers ask for it.

Behind a class, so that logits split over ranks need no objective's attention. Nothing
is computed before it is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.draws import Draws
from model.log_prob import LogProb


class Prediction:
    """A categorical over the vocabulary: logits ``[M, R]``, -inf at ids never predicted."""

    def __init__(self, logits_MR: Tensor) -> None:
        self.logits_MR = logits_MR

    def log_prob(self, ids_M: Tensor) -> Tensor:
        """log p of one id at each position, ``[M]`` float32, with gradient."""
        log_p_M: Tensor = LogProb.apply(self.logits_MR, ids_M)
        return log_p_M

    def sample(
        self, draws: Draws, kind: str, position_M: Tensor, column_M: Tensor, temperature: float
    ) -> Tensor:
        """One id for each position, ``[M]``, by the Gumbel-max trick in float64.

        Low-precision Gumbel noise silently lowers the temperature (Zheng et al. 2024,
        "Masked diffusion models are secretly time-agnostic masked models", section 4).

        Args:
            draws: the randomness; kind: its purpose.
            position_M: stream position of the sample that each row belongs to.
            column_M: its place in the sequence; one draw per (position, column, id).
            temperature: 0 takes the likeliest id.
        """
        return self.scores(draws, kind, position_M, column_M, temperature).argmax(dim=-1)

    def scores(
        self,
        draws: Draws,
        kind: str,
        position_M: Tensor,
        column_M: Tensor,
        temperature: float,
        *,
        first_id: int = 0,
        num_rows: int | None = None,
    ) -> Tensor:
        """What sampling maximises, float64, for ids from ``first_id`` on of ``num_rows`` in all."""
        logits = self.logits_MR.double()
        if temperature == 0.0:
            return logits
        ids = first_id + torch.arange(logits.shape[-1], device=logits.device)
        coordinate = column_M[:, None] * (num_rows or logits.shape[-1]) + ids
        uniform = draws.uniform_at(kind, position_M[:, None], coordinate)
        return logits / temperature - torch.log(-torch.log(uniform))


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Vectors in the space of the embeddings, and what a loss compares them with.

    Args:
        output_ME: the network's output: clean embeddings, noise or velocity.
        embedding_ME: of the clean ids, with gradient; None where only the output was wanted.
        rounding: the categorical over ids of the noised embeddings, likewise.
    """

    output_ME: Tensor
    embedding_ME: Tensor | None = None
    rounding: Prediction | None = None


AnyPrediction = Prediction | Reconstruction


def prediction_of(
    outputs: Tensor | tuple[Tensor, ...], categorical: Callable[[Tensor], Prediction] = Prediction
) -> AnyPrediction:
    """What a network's outputs mean.

    Args:
        outputs: logits ``[M, R]``, or the tensors of :class:`Reconstruction`, logits last.
        categorical: makes a prediction of logits, whole or one rank's part of them.
    """
    if isinstance(outputs, Tensor):
        return categorical(outputs)
    if len(outputs) == 1:
        return Reconstruction(output_ME=outputs[0])
    output_ME, embedding_ME, logits_MR = outputs
    return Reconstruction(
        output_ME=output_ME, embedding_ME=embedding_ME, rounding=categorical(logits_MR)
    )
