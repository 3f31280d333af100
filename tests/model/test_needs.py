"""What objectives want of network and data, and what a configuration is told that lacks it."""

import pytest

from model.architectures.dit import DiT
from model.architectures.encoder_decoder import EncoderDecoder
from model.needs import Need, misfits
from model.networks.config import ModelConfig

DENOISER = DiT(vocab_size=8, width=8, num_heads=2, num_layers=1)
ENCODER_DECODER = EncoderDecoder(vocab_size=8, width=8, num_heads=2, num_layers=1)


def told(*needs: Need, model: ModelConfig, has_source: bool = False) -> list[str]:
    return list(misfits(frozenset(needs), model.offers, has_source=has_source))


def test_what_is_there_is_not_asked_for() -> None:
    assert told(Need.IDS, Need.OWN_LAYOUT, Need.OWN_POSITION, model=DENOISER) == []
    needs = (Need.EMBEDDINGS, Need.ANY_VECTOR, Need.SOURCE)
    assert told(*needs, model=ENCODER_DECODER, has_source=True) == []


@pytest.mark.parametrize("need", list(Need))
def test_every_need_is_missing_somewhere_and_says_what_to_set(need: Need) -> None:
    """By a network that has it not; the sentence names a key of the configuration."""
    bare = DiT(
        vocab_size=8, width=8, num_heads=2, num_layers=1, time_conditioning=True,
        attention="causal", shifted_output=True,
    )  # fmt: skip
    mixture = EncoderDecoder(vocab_size=8, width=8, num_heads=2, num_layers=1, output="mixture")
    model = mixture if need in (Need.IDS, Need.ANY_VECTOR) else bare
    assert need not in model.offers
    (line,) = told(need, model=model)
    assert any(word in line for word in ("model.", "data.")), line


def test_what_would_be_in_vain_is_told() -> None:
    drafts = EncoderDecoder(
        vocab_size=8, width=8, num_heads=2, num_layers=1, self_conditioning=True
    )
    (line,) = told(Need.EMBEDDINGS, model=drafts)
    assert "set both or neither" in line
    (line,) = told(Need.IDS, model=DENOISER, has_source=True)
    assert "does not read the source" in line
