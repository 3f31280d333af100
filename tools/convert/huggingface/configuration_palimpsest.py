"""The configuration of an exported denoiser, as transformers reads it."""

from typing import Any

from transformers import PretrainedConfig

from model.config import ModelConfig


class PalimpsestConfig(PretrainedConfig):
    """transformers' own settings, and under ``denoiser`` the fields of ``ModelConfig``.

    Args:
        denoiser: the architecture.
        classifier_dropout: before the classifier's linear layer.
    """

    model_type = "palimpsest"

    def __init__(
        self,
        denoiser: dict[str, Any] | None = None,
        classifier_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        self.denoiser = {"vocab_size": 1, **(denoiser or {})}
        self.classifier_dropout = classifier_dropout
        model = ModelConfig(**self.denoiser)
        self.vocab_size = model.num_ids
        self.hidden_size = model.width
        self.num_hidden_layers = model.num_layers
        self.num_attention_heads = model.num_heads
        self.mask_token_id = model.mask
        # transformers ties weights by this name.
        kwargs["tie_word_embeddings"] = model.tied_head
        super().__init__(**kwargs)
