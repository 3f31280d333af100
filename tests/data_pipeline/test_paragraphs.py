"""Continuous paragraph denoise: the identities of Lin et al. 2023, and the samples."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.errors import UserError
from data_pipeline.loader import Stream
from data_pipeline.pairs import Pairs
from data_pipeline.paragraphs import ParagraphConfig, Paragraphs, cut_spans, reinsert
from data_pipeline.shards import Split, open_split
from data_pipeline.tokenizer import load_tokenizer
from model.draws import Draws

MASK = 10_000
DRAWS = Draws(seed=0, split="train", batch=8)


@given(
    st.integers(10, 200),
    st.floats(0.1, 0.9),
    st.integers(1, 4),
    st.lists(st.floats(1e-9, 1 - 1e-9), min_size=4, max_size=4),
)
def test_what_was_cut_out_fits_back_in(
    num: int, ratio: float, spans: int, uniform: list[float]
) -> None:
    if int(ratio * 10) < spans:
        return
    config = ParagraphConfig(ratio=ratio, num_spans=spans, min_length=10)
    tokens = np.arange(num) + 7
    source, target = cut_spans(tokens, np.array(uniform[:spans]), config, MASK)
    assert len(target) == int(ratio * num)
    assert len(source) == num - int(ratio * num) + spans
    assert (source == MASK).sum() == spans
    assert np.array_equal(np.sort(np.concatenate([source[source != MASK], target])), tokens)
    assert np.array_equal(reinsert(source, target, config, MASK), tokens)


def test_every_start_is_as_likely_from_the_first_to_the_last() -> None:
    """Ten tokens, a span of three: eight starts. (The release never draws the last.)"""
    config, tokens = ParagraphConfig(min_length=10), np.arange(10)
    starts = [
        int(cut_spans(tokens, np.array([(k + 0.5) / 8000]), config, MASK)[1][0])
        for k in range(8000)
    ]
    assert np.bincount(starts).tolist() == [1000] * 8


@pytest.fixture(scope="module")
def demo(corpus: Path) -> Split:
    return open_split(corpus, "train", tokenizer=load_tokenizer(corpus))


def paragraphs(split: Split, **settings: Any) -> Paragraphs:
    config = ParagraphConfig(**settings)
    return Paragraphs(
        split, config, source_length=60, sequence_length=60, mask=MASK, uniforms=DRAWS
    )


def test_paragraphs_are_the_documents_in_order(demo: Split) -> None:
    found = paragraphs(demo, min_length=20)
    starts = demo.document_starts()
    expected, documents = [], []
    for document, (start, stop) in enumerate(pairwise(starts)):
        text = demo.tokens(int(start), int(stop) - 1)
        pieces = [text[a : a + 60] for a in range(0, len(text), 60)]
        pieces = [piece for piece in pieces if len(piece) >= 20]
        expected += pieces
        documents += [document] * len(pieces)
    assert len(found) == len(expected) > len(set(documents))
    assert found.document_of(np.arange(len(found))).tolist() == documents
    for index in (0, 1, 17, len(found) - 1):
        assert np.array_equal(found.paragraph(index), expected[index])


@pytest.mark.parametrize("target", ["span", "full"])
def test_a_sample_follows_from_its_position(demo: Split, target: Any) -> None:
    stream = Stream(paragraphs(demo, target=target, num_spans=2), key=3)
    positions = np.array([0, 5, 2, 10**9])
    together = stream.batch(positions)
    again = stream.batch(positions[::-1])
    for name, value in together.items():
        assert np.array_equal(value.numpy()[::-1], again[name].numpy()), name
    assert bool(together["valid"].all())
    source, tokens = together["source"].numpy(), together["tokens"].numpy()
    pad = demo.manifest.pad_id
    for row in range(4):
        own = source[row][together["source_valid"].numpy()[row]]
        assert (own == MASK).sum() == 2
        text = tokens[row][tokens[row] != pad]
        if target == "span":
            whole = reinsert(own, text, ParagraphConfig(num_spans=2), MASK)
            assert len(text) == int(0.3 * len(whole))
        else:
            assert len(text) - int(0.3 * len(text)) + 2 == len(own)


def test_another_epoch_masks_another_span(demo: Split) -> None:
    found = paragraphs(demo)
    index = np.array([4, 4, 4, 4])
    arrays = found.read(index, np.arange(4) * len(found))
    assert len({row.tobytes() for row in arrays["source"]}) > 1


def test_what_does_not_fit_is_refused(demo: Split) -> None:
    with pytest.raises(UserError, match="set it to 18 or more"):
        Paragraphs(
            demo, ParagraphConfig(), source_length=60, sequence_length=17, mask=MASK, uniforms=DRAWS
        )
    with pytest.raises(UserError, match="no document has 5000 tokens"):
        Paragraphs(
            demo,
            ParagraphConfig(min_length=5000),
            source_length=6000,
            sequence_length=2000,
            mask=MASK,
            uniforms=DRAWS,
        )
    with pytest.raises(UserError, match="does not hold pairs"):
        Pairs(demo, source_length=9, sequence_length=9)


@pytest.mark.parametrize(
    "settings", [{"ratio": 0.0}, {"ratio": 1.0}, {"num_spans": 0}, {"min_length": 3}]
)
def test_senseless_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ParagraphConfig(**settings)
