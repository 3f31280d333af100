"""The configuration of an exported denoiser, as transformers reads it."""

from typing import Any

from transformers import PretrainedConfig

from tools.convert.huggingface.trained_by import model_config


class PalimpsestConfig(PretrainedConfig):
    """transformers' own settings, and under ``denoiser`` its architecture: ``name`` and fields.

    Args:
        denoiser: the architecture.
        objective: what it was trained by, as a run is configured: its name and its fields.
        packing: how documents became its samples, if known.
        open_end: whether the model decides where a text ends: no EOS is put behind, then.
        classifier_dropout: before the classifier's linear layer.
    """

    model_type = "palimpsest"

    def __init__(
        self,
        denoiser: dict[str, Any] | None = None,
        objective: dict[str, Any] | None = None,
        packing: str | None = None,
        open_end: bool = False,
        classifier_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.denoiser = {"vocab_size": 1, **(denoiser or {})}
        self.objective = dict(objective or {})
        self.packing, self.open_end = packing, open_end
        self.classifier_dropout = classifier_dropout
        model = model_config(self.denoiser)
        self.vocab_size = model.num_ids
        self.hidden_size = model.width
        self.num_hidden_layers = model.num_layers
        self.num_attention_heads = model.num_heads
        self.mask_token_id = model.mask
        # transformers ties weights by this name.
        kwargs["tie_word_embeddings"] = model.shares_embedding
        super().__init__(**kwargs)


class PalimpsestSeq2SeqConfig(PalimpsestConfig):
    """The configuration of an encoder-decoder.

    Args:
        objective: what it was trained by, its name and its fields.
        source_length, target_length: positions that it was trained with.
        sampler, sampling_steps: how ``generate`` samples by default (None: by the
            objective's own sampler).
        pad_token_id, eos_token_id: what ends a target; None where the tokenizer is not known.
    """

    model_type = "palimpsest_seq2seq"

    def __init__(
        self,
        denoiser: dict[str, Any] | None = None,
        objective: dict[str, Any] | None = None,
        source_length: int = 128,
        target_length: int = 64,
        sampler: str | None = None,
        sampling_steps: int = 50,
        pad_token_id: int | None = None,
        eos_token_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.source_length, self.target_length = source_length, target_length
        self.sampler, self.sampling_steps = sampler, sampling_steps
        self.pad_token_id, self.eos_token_id = pad_token_id, eos_token_id
        kwargs["is_encoder_decoder"] = True
        super().__init__({"name": "encoder_decoder", **(denoiser or {})}, objective, **kwargs)
