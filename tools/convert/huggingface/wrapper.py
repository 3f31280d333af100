"""Base class that makes a network of ours a transformers model.

Its parameters keep their names behind ``denoiser.``. Activation checkpointing, the embedding
tables and what may be asked of a forward pass are handled here, for both kinds of network.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from model.networks.config import ModelConfig
from model.networks.layers import Checkpointed
from model.networks.linears import Head
from tools.convert.huggingface.resize_embeddings import check_table, resize, resized, resized_head

Recorded = list[Tensor]


class Wrapper(PreTrainedModel):
    """The part of a transformers model that does not depend on the network inside."""

    base_model_prefix = "denoiser"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    """The Trainer is to average losses over accumulation steps itself."""
    _supports_sdpa = True
    gradient_checkpointing = False

    model_config: ModelConfig
    denoiser: Any

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing to initialise: a checkpoint holds all weights."""

    def _set_gradient_checkpointing(
        self,
        enable: bool = True,
        gradient_checkpointing_func: Callable[..., Any] | None = None,
        every_n_layers: int = 1,
    ) -> None:
        """The blocks do it by themselves, always in the non-reentrant form."""
        blocks = [module for module in self.modules() if isinstance(module, Checkpointed)]
        for index, block in enumerate(blocks):
            block.recompute = enable and index % every_n_layers == 0
        self.gradient_checkpointing = enable

    # -- embeddings -----------------------------------------------------------------------

    def _tables(self) -> list[nn.Embedding]:
        """The tables that have a row for every id, the input's first."""
        return [self.denoiser.embedding.tokens]

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of the input's token embeddings."""
        return self._tables()[0]

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table of the same shape there; a tied head follows it.

        Raises:
            ValueError: its shape is another.
        """
        check_table(value, self._tables()[0])
        self.denoiser.embedding.tokens = value
        self._share()

    def get_output_embeddings(self) -> nn.Module | None:
        """The head, where there is one."""
        head = self.denoiser.output.head
        return None if isinstance(head, nn.Identity) else head

    def _share(self) -> None:
        """Tie again the weights that are shared."""
        if self.model_config.shares_embedding and self.get_output_embeddings() is not None:
            self.denoiser._share()

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Change the number of ids; returns the table of the input's embeddings.

        The tables have a multiple of 128 rows; ``config.vocab_size`` is the number of ids.

        Args:
            new_num_tokens: ids that there are to be, [MASK] included (``len(tokenizer)``).
            pad_to_multiple_of: a divisor of 128, which changes nothing.
            mean_resizing: new tokens begin as the mean of all others, not at random.

        Raises:
            ValueError: [MASK] would be lost, or rows are no multiple of what is asked.
        """
        old = self.model_config
        new = resized(old, new_num_tokens, pad_to_multiple_of)
        if new != old:
            std = None if mean_resizing else old.initial_embedding_std
            resize(self._tables(), old, new, std=std)
            head = self.get_output_embeddings()
            if isinstance(head, Head):
                self.denoiser.output.head = resized_head(head, old, new, mean=mean_resizing)
            self.model_config = self.denoiser.config = new
            self.config.denoiser |= {"vocab_size": new.vocab_size, "mask_id": new.mask_id}
            self.config.vocab_size = new.num_ids
            self._share()
        return self.get_input_embeddings()

    # -- what may be asked ----------------------------------------------------------------

    def _asked(
        self,
        return_dict: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> tuple[bool, bool]:
        """Whether named outputs and hidden states are wanted, here or by the configuration.

        The arguments are those that ``forward`` takes as ``**asked``.

        Raises:
            ValueError: attention weights are.
        """
        given = (return_dict, output_hidden_states, output_attentions)
        names = ("return_dict", "output_hidden_states", "output_attentions")
        named, hidden, weights = (
            getattr(self.config, name) if value is None else value
            for name, value in zip(names, given, strict=True)
        )
        if weights:
            raise ValueError(
                "output_attentions: attention runs in one fused kernel here, which gives no weights"
            )
        return bool(named), bool(hidden)


def one_of(input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """The one of the two inputs that is given.

    Raises:
        ValueError: neither or both are given, or their shape is none of a batch.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise ValueError("give input_ids or inputs_embeds, and not both")
    read = input_ids if inputs_embeds is None else inputs_embeds
    assert read is not None
    if read.dim() != (2 if inputs_embeds is None else 3):
        raise ValueError(
            f"input_ids are [batch, length] and inputs_embeds [batch, length, width], "
            f"not {list(read.shape)}"
        )
    return read


@contextmanager
def recording(
    layers: Iterable[nn.Module], part: int | Callable[[Any], Tensor] = 0
) -> Iterator[Recorded]:
    """Record one tensor of the output of each layer, as they run.

    Args:
        part: which tensor of a layer's tuple; or a function of the tuple.
    """
    found: Recorded = []
    take = part if callable(part) else lambda given: given[part]
    hooks = [
        layer.register_forward_hook(lambda module, given, made: found.append(take(made)))
        for layer in layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def reading(layer: nn.Module) -> Iterator[Recorded]:
    """Record the input of a layer, as it runs."""
    found: Recorded = []
    hook = layer.register_forward_pre_hook(lambda module, given: found.append(given[0]))
    try:
        yield found
    finally:
        hook.remove()


def as_asked(outputs: Any, named: bool) -> Any:
    """Named outputs, or a tuple of those that are not None."""
    return outputs if named else outputs.to_tuple()
