"""An exported GENIE as a transformers model: targets from sources, by diffusion.

It wraps the project's own encoder-decoder, whose parameters keep their names behind
``denoiser.``, its objective and its samplers.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils import ModelOutput

from model.draws import Draws
from model.networks.build import build
from model.objectives import LOSS, Noisy
from model.prediction import Networks, Prediction
from model.processes.gaussian import to_x0
from model.query import Query
from tools.convert.huggingface.configuration_palimpsest import PalimpsestSeq2SeqConfig
from tools.convert.huggingface.labels import IGNORED, check_ids
from tools.convert.huggingface.padding import TextFirst, text_first
from tools.convert.huggingface.resize_embeddings import check_table
from tools.convert.huggingface.target_generation import TargetGenerationMixin
from tools.convert.huggingface.trained_by import model_config, objective_of
from tools.convert.huggingface.wrapper import Wrapper, as_asked, one_of, reading, recording

Hidden = dict[str, Any]


@dataclass
class DenoiserOutput(ModelOutput):
    """What one evaluation of the network gives.

    Args:
        loss: GENIE's, the mean over all target positions.
        logits: ``[B, L, num_ids]``, the rounding classifier's of the clean embeddings that
            the prediction means; -inf at the mask token, which is never an answer. Without
            gradient where there is a loss.
        prediction: ``[B, L, E]``: clean embeddings, noise or velocity, as trained.
        decoder_hidden_states: of the target's entry and every decoder block, ``[B, L, D]``
            each, the last one normed; encoder_hidden_states: likewise of the source,
            ``[B, S, D]``; encoder_last_hidden_state: the last of these. Where asked for.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    prediction: Tensor | None = None
    decoder_hidden_states: tuple[Tensor, ...] | None = None
    encoder_last_hidden_state: Tensor | None = None
    encoder_hidden_states: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source, its text before its padding.

    Args:
        read: ids ``[B, S]`` or embeddings ``[B, S, D]``; valid_BS: bool, no padding.
        place: how it stood before.
    """

    read: Tensor
    valid_BS: Tensor
    place: TextFirst


class PalimpsestForSeq2SeqLM(Wrapper, TargetGenerationMixin):
    """The encoder-decoder, its loss, and its sampling loop as ``generate``."""

    config_class = PalimpsestSeq2SeqConfig
    _no_split_modules = ["EncoderBlock", "BertBlock", "DecoderBlock"]  # noqa: RUF012 - transformers wants a list

    def __init__(self, config: PalimpsestSeq2SeqConfig) -> None:
        super().__init__(config)
        self.model_config = model_config(config.denoiser)
        self.objective = objective_of(config.objective)
        self.denoiser = build(self.model_config)
        last = f"denoiser.layers.{self.denoiser.last}"
        table = "denoiser.layers.0.tokens.weight"
        self._tied_weights_keys = {f"{last}.tokens.weight": table, f"{last}.head.weight": table}
        self.post_init()
        if self.generation_config.max_length is None:
            self.generation_config.max_length = config.target_length

    def _tables(self) -> list[nn.Embedding]:
        """Sources and targets have tables of their own, of one vocabulary."""
        entry = self.denoiser.embedding
        return [entry.source_tokens, entry.tokens, self.denoiser.output.tokens]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table of the same shape there, of the source.

        Raises:
            ValueError: its shape is another.
        """
        check_table(value, self.denoiser.embedding.source_tokens)
        self.denoiser.embedding.source_tokens = value

    # -- one evaluation -------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        level: Tensor | None = None,
        self_cond: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_input_ids: None = None,
        decoder_attention_mask: None = None,
        **asked: bool | None,
    ) -> Any:
        """One evaluation of the network: with ``labels`` for the loss, else at given embeddings.

        Args:
            input_ids: ``[B, S]``, the sources; or inputs_embeds ``[B, S, D]``, their embeddings.
            attention_mask: ``[B, S]``, 0 at padding, which may stand anywhere in a row.
            labels: ``[B, L]``, the targets, which get noise: of random levels while training
                (drawn evenly), in evaluation of levels that follow from the texts, whatever
                the batch. -100 stands for padding, which is a target like any other: it is
                how the model marks where its text ends; it counts as behind the text.
            decoder_inputs_embeds: ``[B, L, E]``, noisy embeddings of the targets.
            level: ``[B]``, their noise levels in (0, 1].
            self_cond: ``[B, L, E]``, the prediction of the step before, with self-conditioning.
            decoder_input_ids, decoder_attention_mask: None; there is no text to go on from.
            asked: ``output_hidden_states`` and ``return_dict``, as in transformers.

        Raises:
            ValueError: neither ``labels``, nor ``decoder_inputs_embeds`` with ``level``; or both;
                a label that is [MASK], or no id.
        """
        named, hidden = self._asked(**asked)
        given = [value is not None for value in (labels, decoder_inputs_embeds, level)]
        ids = (decoder_input_ids, decoder_attention_mask)
        if given not in ([True, False, False], [False, True, True]) or ids != (None, None):
            raise ValueError(
                "give labels for the loss, or decoder_inputs_embeds and level for one "
                "prediction; generate() makes text"
            )
        if self_cond is not None and (labels is not None or not self.objective.refines):
            raise ValueError("draft goes with decoder_inputs_embeds and self-conditioning")
        source = self._source(one_of(input_ids, inputs_embeds), attention_mask)
        if labels is not None:
            check_ids(labels, self.model_config)
            behind = text_first(labels != IGNORED, labels)
            query: Query = self._noised(source, behind.forth(labels))
        else:
            assert decoder_inputs_embeds is not None
            behind = text_first(None, decoder_inputs_embeds)
            query = _query(source, decoder_inputs_embeds, level, self_cond)
        found, states = self._evaluated(query, source, behind, hidden)
        loss = None
        if isinstance(query, Noisy):
            loss = self.objective.losses(found, query)[LOSS].sum() / query.count()
        with torch.set_grad_enabled(torch.is_grad_enabled() and loss is None):
            logits = behind.back(self._logits(query, found))
        assert found.vector_ME is not None
        prediction = behind.back(found.vector_ME.unflatten(0, query.ids_BL.shape))
        outputs = DenoiserOutput(loss=loss, logits=logits, prediction=prediction, **states)
        return as_asked(outputs, named)

    def _source(self, read: Tensor, attention_mask: Tensor | None) -> Source:
        """Sources, their text first, and what of them is no padding.

        A model that sees the padding of sources (``ignore_source_padding``) gets as much of it
        as in training.
        """
        place = text_first(attention_mask, read)
        read = place.forth(read)
        valid_BS = place.valid_BL
        if valid_BS is None:
            valid_BS = torch.ones(read.shape[:2], dtype=torch.bool, device=read.device)
        if not self.model_config.ignore_source_padding:
            return Source(read=read, valid_BS=valid_BS, place=place)
        length = max(int(valid_BS.sum(dim=1).max()), self.config.source_length)
        more = max(0, length - read.shape[1])
        valid_BS = F.pad(valid_BS, (0, more))[:, :length]
        read = F.pad(read, (*(0, 0) * (read.dim() - 2), 0, more))[:, :length]
        return Source(read=self._filled(read, valid_BS), valid_BS=valid_BS, place=place)

    def _filled(self, read: Tensor, valid_BS: Tensor) -> Tensor:
        """The source with the padding token where there is no text, if that is known."""
        pad = self.config.pad_token_id
        if pad is None:
            return read
        if not read.is_floating_point():
            return read.masked_fill(~valid_BS, pad)
        row_D = self.denoiser.embedding.source_tokens(torch.tensor(pad, device=read.device))
        return torch.where(valid_BS[..., None], read, row_D.to(read.dtype))

    def _evaluated(
        self, query: Query, source: Source, behind: TextFirst, hidden: bool
    ) -> tuple[Prediction, Hidden]:
        """A prediction, and the hidden states on the way where they are wanted."""
        if not hidden:
            return self._predict(query), {}
        layers, first = self.denoiser.layers, self.denoiser.first_decoder
        encoder = [layers[str(index)] for index in range(first)]
        decoder = [layers["0"], *(layers[str(i)] for i in range(first, self.denoiser.last))]
        # The last decoder block leaves the memory behind.
        memories = recording(encoder)
        targets = recording(decoder, lambda stream: stream[len(targets_of) < len(decoder) - 1])
        with (
            memories as memories_of,
            targets as targets_of,
            reading(self.denoiser.output.down) as last,
        ):
            found = self._predict(query)
        targets_of[-1] = last[0].unflatten(0, query.ids_BL.shape)
        encoded = tuple(source.place.back(memory) for memory in memories_of)
        return found, {
            "decoder_hidden_states": tuple(behind.back(state) for state in targets_of),
            "encoder_last_hidden_state": encoded[-1],
            "encoder_hidden_states": encoded,
        }

    def _predict(self, query: Query) -> Prediction:
        return self.denoiser.prediction(self.denoiser(query))

    def _logits(self, query: Query, found: Prediction) -> Tensor:
        """``[B, L, num_ids]`` of the clean embeddings that a prediction means."""
        assert query.noise_BLE is not None
        assert query.signal_BK is not None
        table, process = self.denoiser.output.weight, self.objective.process
        assert found.vector_ME is not None
        x_BLE = self.denoiser.embedding.noisy(query.noise_BLE, query.signal_BK, query.ids_BL)
        abar_B1 = process.abar(process.index(query.level_BK.double())).float()
        x0_BLE = to_x0(
            self.objective.prediction,
            found.vector_ME.float().view_as(x_BLE),
            x_BLE,
            abar_B1[..., None],
        )
        logits_BLR = self.denoiser.output.head(x0_BLE.to(table.dtype))
        return logits_BLR[..., : self.model_config.num_ids]

    # -- training -------------------------------------------------------------------------

    def _noised(self, source: Source, labels_BL: Tensor) -> Noisy:
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
            texts = [(labels_BL, given_BL)]
            if not source.read.is_floating_point():
                texts = [(source.read, source.valid_BS), *texts]
            position_B = _content(*texts)
        batch = {
            "tokens": labels_BL.masked_fill(~given_BL, self._pad(given_BL)),
            "valid": torch.ones_like(given_BL),
            "position": position_B,
            "source": source.read,
            "source_valid": source.valid_BS,
        }
        draws = Draws(seed=0, split="train" if self.training else "valid", batch=num)
        noisy = self.objective.corrupt(batch, draws, self.model_config)
        with torch.no_grad():
            return self.objective.refine(noisy, Networks(self.denoiser.ask), draws)

    def _pad(self, given_BL: Tensor) -> int:
        pad = self.config.pad_token_id
        if pad is None and not bool(given_BL.all()):
            raise ValueError("labels hold -100, which is padding: set config.pad_token_id")
        return 0 if pad is None else int(pad)


def _query(
    source: Source,
    noisy_BLE: Tensor | None,
    level: Tensor | None,
    self_cond_BLE: Tensor | None,
) -> Query:
    """Embeddings that are noisy already."""
    assert noisy_BLE is not None
    assert level is not None
    shape = noisy_BLE.shape[:2]
    if level.shape not in (shape[:1], (*shape[:1], 1)):
        raise ValueError(f"level has shape {list(level.shape)}; give one for each of {shape[0]}")
    return Query(
        ids_BL=torch.zeros(shape, dtype=torch.int64, device=noisy_BLE.device),
        level_BK=level.view(-1, 1).float(),
        predict_mask_BL=torch.ones(shape, dtype=torch.bool, device=noisy_BLE.device),
        signal_BK=torch.zeros(shape[0], 1, device=noisy_BLE.device),
        noise_BLE=noisy_BLE.float(),
        self_cond_BLE=self_cond_BLE,
        source_BS=source.read,
        source_valid_BS=source.valid_BS,
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
