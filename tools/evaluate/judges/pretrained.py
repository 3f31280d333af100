"""A causal language model of Hugging Face transformers as judge, from a local directory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from data_pipeline.tokenizer import FILE_NAMES
from pretrain.checkpoint.store import sha256
from tools.evaluate.judges import Text, of_tokenizer

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True)
class PretrainedJudge:
    """A model and its tokenizer.

    A text longer than the model has positions is cut. Each piece begins with the tokenizer's BOS,
    if it has one; without one its first token is given, and not counted.

    Args:
        same_tokenizer: whether it is the run's.
    """

    path: Path
    model: Any
    tokenizer: Any
    same_tokenizer: bool

    @property
    def facts(self) -> dict[str, Any]:
        """See :class:`tools.evaluate.judges.Judge`."""
        return {
            "judge": f"{type(self.model).__name__} of {self.path}",
            "judge_tokenizer": of_tokenizer(self.same_tokenizer),
            "judge_first_token": "given" if self.tokenizer.bos_token_id is None else "after BOS",
        }

    @torch.inference_mode()
    def nats(self, texts: Sequence[Text]) -> np.ndarray:
        """See :class:`tools.evaluate.judges.Judge`."""
        rows = np.zeros((len(texts), 2))
        for row, one in zip(rows, texts, strict=True):
            for piece in self._pieces(self.tokenizer.encode(one.text, add_special_tokens=False)):
                ids_1L = torch.tensor([piece], device=self.model.device)
                log_p_LV = self.model(ids_1L).logits[0, :-1].float().log_softmax(dim=-1)
                log_p_L = log_p_LV.gather(1, ids_1L[0, 1:, None]).double()
                row += (-float(log_p_L.sum()), len(log_p_L))
        return rows

    @torch.inference_mode()
    def features(self, texts: Sequence[Text]) -> np.ndarray:
        """Last hidden state of the last token of each text, float32 ``[N, D]``: MAUVE's features.

        Texts are cut where the model's positions end; one without tokens has no row.
        """
        encoded = (self.tokenizer.encode(one.text)[: self._most] for one in texts)
        rows = [
            self.model(torch.tensor([ids], device=self.model.device), output_hidden_states=True)
            .hidden_states[-1][0, -1]
            .float()
            .cpu()
            .numpy()
            for ids in encoded
            if ids
        ]
        return np.array(rows, dtype=np.float32).reshape(len(rows), -1)

    @property
    def _most(self) -> int | None:
        """Positions of the model; None where they have no end."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def _pieces(self, ids: list[int]) -> Iterator[list[int]]:
        """Ids in pieces that the model has positions for, at least two each."""
        bos = self.tokenizer.bos_token_id
        before = [] if bos is None else [bos]
        size = (self._most or len(ids) + 1) - len(before)
        for first in range(0, len(ids), size):
            piece = [*before, *ids[first : first + size]]
            if len(piece) > 1:
                yield piece


def pretrained_judge(
    path: Path, device: torch.device, tokenizer_sha256: str, *, option: str = "--judge"
) -> PretrainedJudge:
    """Load a model and its tokenizer; nothing is downloaded, and no code of the directory is run.

    Args:
        tokenizer_sha256: of the run's tokenizer.
        option: that names the directory, for messages.

    Raises:
        UserError: transformers is not installed, or the directory holds no such model.
    """
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UserError(f"{option} DIR needs transformers: `pip install transformers`") from error
    here = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **here)
        model = AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, **here)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{option} {path}: no causal language model to load: {reason}") from error
    files = [path / name for name in FILE_NAMES]
    same = any(file.is_file() and sha256(file) == tokenizer_sha256 for file in files)
    return PretrainedJudge(
        path=path, model=model.to(device).eval(), tokenizer=tokenizer, same_tokenizer=same
    )
