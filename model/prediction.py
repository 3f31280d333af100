"""A categorical over the vocabulary at M positions, as losses and samplers ask for it.

Behind one class, so that logits split over ranks need no objective's attention. Nothing
is computed before it is asked for.
"""

import torch
from torch import Tensor

from model.draws import Draws
from model.log_prob import LogProb


class Prediction:
    """Logits ``[M, R]``, -inf where an id must not be predicted."""

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
