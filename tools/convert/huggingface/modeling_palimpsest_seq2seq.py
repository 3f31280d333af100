"""An exported GENIE as a transformers model: targets from sources, by diffusion.

It wraps the project's own encoder-decoder, whose parameters keep their names behind
``denoiser.``, its objective and its samplers.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from model.config import from_fields
from model.draws import Draws
from model.gaussian_samplers import GaussianSampler
from model.gaussian_samplers.ddim import Ddim
from model.gaussian_samplers.ddpm import Ddpm
from model.generate_embeddings import generate_embeddings
from model.network import Whole
from model.objectives import Noisy
from model.objectives.genie import Genie
from model.prediction import Reconstruction
from model.processes.gaussian import to_x0
from model.query import Query
from model.seq2seq import Seq2Seq
from model.seq2seq_layers import shape_of
from tools.convert.huggingface.configuration_palimpsest import PalimpsestSeq2SeqConfig

SAMPLERS = {"ddpm": Ddpm, "ddim": Ddim}
IGNORED = -100


@dataclass
class DenoiserOutput(ModelOutput):
    """What one evaluation of the network gives.

    Args:
        loss: GENIE's, the mean over all target positions.
        logits: ``[B, L, num_ids]``, the rounding classifier's of the clean embeddings that
            the prediction means; -inf at the mask token, which is never an answer. Without
            gradient where there is a loss.
        prediction: ``[B, L, E]``: clean embeddings, noise or velocity, as trained.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    prediction: Tensor | None = None


class PalimpsestForSeq2SeqLM(PreTrainedModel):
    """The encoder-decoder, its loss, and its sampling loop as ``generate``."""

    config_class = PalimpsestSeq2SeqConfig
    base_model_prefix = "denoiser"
    main_input_name = "input_ids"
    _no_split_modules = ["EncoderBlock", "BertBlock", "DecoderBlock"]  # noqa: RUF012 - a list, they say

    def __init__(self, config: PalimpsestSeq2SeqConfig) -> None:
        super().__init__(config)
        self.model_config = from_fields(config.denoiser)
        self.objective = Genie(**config.objective)
        self.denoiser = Seq2Seq(self.model_config)
        last = f"denoiser.layers.{self.denoiser.last}"
        table = "denoiser.layers.0.tokens.weight"
        self._tied_weights_keys = {f"{last}.tokens.weight": table, f"{last}.head.weight": table}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """A checkpoint holds everything."""

    def get_input_embeddings(self) -> nn.Module:
        """The table of the source's token embeddings."""
        return self.denoiser.embedding.source_tokens

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """Refused: sources and targets have tables of their own, of one vocabulary."""
        raise NotImplementedError("the vocabulary of this model is fixed")

    # -- one evaluation -------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        level: Tensor | None = None,
        draft: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """One evaluation of the network: with ``labels`` for the loss, else at given embeddings.

        Args:
            input_ids: ``[B, S]``, the sources.
            attention_mask: ``[B, S]``, 0 at padding.
            labels: ``[B, L]``, the targets, which get noise: of random levels while training
                (drawn evenly), in evaluation of levels that follow from the texts, whatever
                the batch. -100 stands for padding, which is a target like any other: it is
                how the model says where its text ends.
            decoder_inputs_embeds: ``[B, L, E]``, noisy embeddings of the targets.
            level: ``[B]``, their noise levels in (0, 1].
            draft: ``[B, L, E]``, the prediction of the step before, with self-conditioning.

        Raises:
            ValueError: neither ``labels``, nor ``decoder_inputs_embeds`` with ``level``; or both.
        """
        given = [value is not None for value in (labels, decoder_inputs_embeds, level)]
        if given not in ([True, False, False], [False, True, True]):
            raise ValueError(
                "give labels for the loss, or decoder_inputs_embeds and level for one "
                "prediction; generate() makes text"
            )
        if draft is not None and (labels is not None or not self.objective.drafts):
            raise ValueError("draft goes with decoder_inputs_embeds and self-conditioning")
        source_BS, valid_BS = self._source(input_ids, attention_mask)
        loss = None
        if labels is not None:
            noisy = self._noised(source_BS, valid_BS, labels)
            query: Query = noisy
            found = self._predict(noisy)
            loss = self.objective.token_losses(found, noisy).sum() / noisy.count
        else:
            query = _query(source_BS, valid_BS, decoder_inputs_embeds, level, draft)
            found = self._predict(query)
        with torch.set_grad_enabled(torch.is_grad_enabled() and loss is None):
            logits = self._logits(query, found)
        prediction = found.output_ME.unflatten(0, query.ids_BL.shape)
        if return_dict is False:
            return (logits, prediction) if loss is None else (loss, logits, prediction)
        return DenoiserOutput(loss=loss, logits=logits, prediction=prediction)

    def _source(self, ids_BS: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sources and what of them is no padding.

        A model that sees the padding of sources (``ignore_source_padding``) gets as much of it
        as in training.
        """
        valid_BS = torch.ones_like(ids_BS) if attention_mask is None else attention_mask
        valid_BS = valid_BS.bool()
        missing = self.config.source_length - ids_BS.shape[1]
        if shape_of(self.model_config).ignore_source_padding and missing > 0:
            ids_BS = F.pad(ids_BS, (0, missing), value=self.config.pad_token_id or 0)
            valid_BS = F.pad(valid_BS, (0, missing), value=False)
        return ids_BS, valid_BS

    def _predict(self, query: Query) -> Reconstruction:
        found = Whole(self.denoiser).predict(query)
        assert isinstance(found, Reconstruction)
        return found

    def _logits(self, query: Query, found: Reconstruction) -> Tensor:
        """``[B, L, num_ids]`` of the clean embeddings that a prediction means."""
        assert query.noise_BLE is not None
        assert query.signal_B1 is not None
        table, process = self.denoiser.output.weight, self.objective.process
        x_BLE = self.denoiser.embedding.noisy(query.noise_BLE, query.signal_B1, query.ids_BL)
        abar_B1 = process.abar(process.index(query.level_BK.double())).float()
        x0_BLE = to_x0(
            self.objective.prediction,
            found.output_ME.float().view_as(x_BLE),
            x_BLE,
            abar_B1[..., None],
        )
        logits_BLR = self.denoiser.output.head(x0_BLE.to(table.dtype))
        return logits_BLR[..., : self.model_config.num_ids]

    # -- training -------------------------------------------------------------------------

    def _noised(self, source_BS: Tensor, valid_BS: Tensor, labels_BL: Tensor) -> Noisy:
        """Targets as the objective noises them, with their drafts."""
        given_BL = labels_BL != IGNORED
        if self.training:
            # Times are spread over the batch, and differ from rank to rank.
            num = len(labels_BL)
            rank, size = _rank()
            start = (int(torch.randint(2**30, ())) * size + rank) * num
            position_B = start + torch.arange(num, device=labels_BL.device)
        else:
            num = 1
            position_B = _content((source_BS, valid_BS), (labels_BL, given_BL))
        batch = {
            "tokens": labels_BL.masked_fill(~given_BL, self._pad(given_BL)),
            "valid": torch.ones_like(given_BL),
            "position": position_B,
            "source": source_BS,
            "source_valid": valid_BS,
        }
        draws = Draws(seed=0, split="train" if self.training else "valid", batch=num)
        noisy = self.objective.corrupt(batch, draws, self.model_config)
        if self.objective.drafts:
            with torch.no_grad():
                draft = self._predict(self.objective.draft_query(noisy))
            noisy = self.objective.with_draft(noisy, draft)
        return noisy

    def _pad(self, given_BL: Tensor) -> int:
        pad = self.config.pad_token_id
        if pad is None and not bool(given_BL.all()):
            raise ValueError("labels hold -100, which is padding: set config.pad_token_id")
        return 0 if pad is None else int(pad)

    # -- sampling -------------------------------------------------------------------------

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        max_length: int | None = None,
        sampling_steps: int | None = None,
        sampler: Literal["ddpm", "ddim"] | None = None,
        num_return_sequences: int = 1,
        seed: int | None = None,
        **settings: Any,
    ) -> Tensor:
        """Targets ``[B * num_return_sequences, max_length]``, padded after their end.

        Args:
            max_length: positions of a target, padding included (default: as trained).
            sampling_steps, sampler: evaluations of the network, and how (default: the
                configuration's).
            seed: of all draws; by default from torch's generator.
            settings: of the sampler: variance (ddpm), eta (ddim), clamp_below.

        Raises:
            ValueError: a number is out of range, or there is no such sampler. TypeError: the
                sampler has no such setting.
        """
        length = self.config.target_length if max_length is None else max_length
        if length < 1 or num_return_sequences < 1:
            raise ValueError("max_length and num_return_sequences must be at least 1")
        source_BS, valid_BS = (
            x.repeat_interleave(num_return_sequences, dim=0)
            for x in self._source(input_ids, attention_mask)
        )
        ids_BL = generate_embeddings(
            source_BS,
            valid_BS,
            torch.arange(len(source_BS), device=source_BS.device),
            Whole(self.denoiser),
            length=length,
            width=self.model_config.table_width,
            sampler=self._sampler(sampler, sampling_steps, settings),
            process=self.objective.process,
            prediction=self.objective.prediction,
            self_conditioning=self.objective.drafts,
            draws=Draws(
                seed=int(torch.randint(2**40, ())) if seed is None else seed,
                split="sample",
                batch=len(source_BS),
            ),
        )
        pad, end = self.config.pad_token_id, self.config.eos_token_id
        if pad is None:
            return ids_BL
        ends_BL = (ids_BL == pad) | (ids_BL == (pad if end is None else end))
        return ids_BL.masked_fill(ends_BL.cumsum(dim=1) > 0, pad)

    def _sampler(
        self, name: str | None, steps: int | None, settings: dict[str, Any]
    ) -> GaussianSampler:
        name = self.config.sampler if name is None else name
        if name not in SAMPLERS:
            raise ValueError(f"there is no sampler {name}; choose {' or '.join(SAMPLERS)}")
        allowed = [f.name for f in fields(SAMPLERS[name]) if f.name != "steps"]
        for setting in settings:
            if setting not in allowed:
                raise TypeError(f"generate() knows no {setting}; {name} has {', '.join(allowed)}")
        steps = self.config.sampling_steps if steps is None else steps
        made: GaussianSampler = SAMPLERS[name](steps=steps, **settings)
        return made


def _query(
    source_BS: Tensor,
    valid_BS: Tensor,
    noisy_BLE: Tensor | None,
    level: Tensor | None,
    draft_BLE: Tensor | None,
) -> Query:
    """Embeddings that are noisy already."""
    assert noisy_BLE is not None
    assert level is not None
    shape = noisy_BLE.shape[:2]
    if level.shape not in (shape[:1], (*shape[:1], 1)):
        raise ValueError(f"level has shape {list(level.shape)}; give one for each of {shape[0]}")
    return Query(
        ids_BL=torch.zeros(shape, dtype=torch.int64, device=source_BS.device),
        level_BK=level.view(-1, 1).float(),
        where_BL=torch.ones(shape, dtype=torch.bool, device=source_BS.device),
        signal_B1=torch.zeros(shape[0], 1, device=source_BS.device),
        noise_BLE=noisy_BLE.float(),
        draft_BLE=draft_BLE,
        source_BS=source_BS,
        source_valid_BS=valid_BS,
    )


def _rank() -> tuple[int, int]:
    """This process's, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def _content(*texts: tuple[Tensor, Tensor]) -> Tensor:
    """A number for each sample, ``[B]`` in [0, 2^62): a hash of its ids, without padding."""
    found_B = torch.zeros_like(texts[0][0][:, 0])
    for ids_BL, valid_BL in texts:
        place_L = torch.full_like(ids_BL[0], 6364136223846793005).cumprod(dim=0)
        found_B = found_B * 1442695040888963407 + ((ids_BL + 1) * valid_BL * place_L).sum(dim=1)
    return (found_B ^ (found_B >> 31)) & (2**62 - 1)
