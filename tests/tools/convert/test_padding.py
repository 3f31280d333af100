"""Each prediction of an export is that of the row without its padding, wherever that stands."""

from pathlib import Path
from typing import Any

import pytest
import torch
from exports import (
    DENOISERS,
    GENIES,
    PAD,
    export_denoiser,
    export_genie,
    masked_lm,
    padded,
    seq2seq_lm,
    some_ids,
)
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification

SIDES = (["left"] * 3, ["right"] * 3, ["inside"] * 3, ["inside", "left", "right"])
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def texts() -> list[Tensor]:
    """Of several lengths, with a [MASK] of our own in each."""
    rows = [some_ids(1, n, seed=n)[0] for n in (9, 6, 3)]
    return [torch.cat((row[:1], torch.tensor([90]), row[1:])) for row in rows]


def additive(mask: Tensor) -> Tensor:
    """A mask as transformers' layers read it, ``[B, 1, L, L]``."""
    shown = mask.bool()[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
    return torch.zeros(shown.shape).masked_fill(~shown, torch.finfo(torch.float32).min)


FORMS: dict[str, Any] = {
    "int": lambda mask: mask,
    "bool": lambda mask: mask.bool(),
    "float": lambda mask: mask.float(),
    "additive": additive,
    "four": lambda mask: mask.bool()[:, None, None, :],
}


@pytest.mark.parametrize("name", ["llama", "bert", "time"])
def test_a_denoiser_reads_each_row_as_if_alone(tmp_path: Path, name: str) -> None:
    path = export_denoiser(tmp_path, **DENOISERS[name])
    model, bare = masked_lm(path), masked_lm(path, AutoModel)
    torch.manual_seed(0)
    classifier = masked_lm(path, AutoModelForSequenceClassification, num_labels=3)
    rows = texts()
    with torch.no_grad():
        alone = [model(row[None], output_hidden_states=True) for row in rows]
        classes = torch.cat([classifier(row[None]).logits for row in rows])
        for where in SIDES:
            ids, mask = padded(rows, where, 14)
            for form in FORMS.values():
                found = model(ids, form(mask), output_hidden_states=True)
                last = bare(ids, form(mask)).last_hidden_state
                for i, one in enumerate(alone):
                    at = mask[i].bool()
                    assert torch.equal(found.logits[i][at].argmax(-1), one.logits[0].argmax(-1))
                    seen = one.logits[0].isfinite()
                    torch.testing.assert_close(
                        found.logits[i][at][seen], one.logits[0][seen], **CLOSE
                    )
                    torch.testing.assert_close(last[i][at], one.hidden_states[-1][0], **CLOSE)
                    for state, state_alone in zip(
                        found.hidden_states, one.hidden_states, strict=True
                    ):
                        torch.testing.assert_close(state[i][at], state_alone[0], **CLOSE)
                torch.testing.assert_close(classifier(ids, form(mask)).logits, classes, **CLOSE)
            embeds = model.get_input_embeddings()(ids)
            level = torch.tensor([1 / 10, 1 / 7, 1 / 4])
            given = model(inputs_embeds=embeds, attention_mask=mask, level=level).logits
            torch.testing.assert_close(given, found.logits, **CLOSE)
        assert torch.equal(
            model(ids).logits[..., :90], model(ids, torch.ones_like(ids)).logits[..., :90]
        )


def test_what_is_no_padding_mask_is_refused(tmp_path: Path) -> None:
    model = masked_lm(export_denoiser(tmp_path, **DENOISERS["llama"]))
    ids = some_ids()
    causal = torch.ones(9, 9, dtype=torch.bool).tril().expand(3, 1, 9, 9)
    for mask, message in (
        (torch.ones(3, 8), r"shape \[3, 8\]; give \[batch, length\], here \[3, 9\]"),
        (torch.ones(3, 9, 9), r"give \[batch, length\]"),
        (torch.full((3, 9), 2), r"more than 1 \(text\) and 0 \(padding\)"),
        (torch.full((3, 9), -torch.inf), r"more than 1 \(text\) and 0"),
        (causal, "hides different keys from different positions"),
    ):
        with pytest.raises(ValueError, match=message):
            model(ids, mask)


@pytest.mark.parametrize("name", GENIES)
def test_genie_reads_each_source_and_target_as_if_alone(tmp_path: Path, name: str) -> None:
    model = seq2seq_lm(export_genie(tmp_path, name))
    rows = [some_ids(1, n, seed=n)[0] for n in (9, 6, 3)]
    targets = [some_ids(1, n, seed=20 + n)[0] for n in (7, 4, 2)]
    x = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(2))
    level = torch.tensor([0.2, 0.5, 1.0])
    with torch.no_grad():
        alone = [
            model(row[None], decoder_inputs_embeds=x[i : i + 1], level=level[i : i + 1])
            for i, row in enumerate(rows)
        ]
        ids, mask = padded(rows, SIDES[1], 11)
        labels, shown = padded(targets, SIDES[1], 7)
        wanted = model(ids, mask, labels=labels.masked_fill(shown == 0, -100))
        sampled = model.generate(ids, mask, sampling_steps=3, seed=0)
        for where in SIDES:
            for length in (9, 13):
                ids, mask = padded(rows, where, length)
                for form in FORMS.values():
                    found = model(ids, form(mask), decoder_inputs_embeds=x, level=level)
                    for i, one in enumerate(alone):
                        torch.testing.assert_close(
                            found.prediction[i], one.prediction[0], rtol=0, atol=5e-5
                        )
                for given in (mask, None):
                    again = model.generate(ids, given, sampling_steps=3, seed=0)
                    assert torch.equal(again, sampled)
            labels, shown = padded(targets, where, 7)
            found = model(ids, mask, labels=labels.masked_fill(shown == 0, -100))
            torch.testing.assert_close(found.loss, wanted.loss)
            for i, target in enumerate(targets):
                torch.testing.assert_close(
                    found.prediction[i][shown[i].bool()],
                    wanted.prediction[i, : len(target)],
                    rtol=0,
                    atol=5e-5,
                )
        embeds = model.get_input_embeddings()(ids.masked_fill(mask == 0, PAD + 1))
        again = model(
            inputs_embeds=embeds, attention_mask=mask, decoder_inputs_embeds=x, level=level
        )
        for i, one in enumerate(alone):
            torch.testing.assert_close(again.prediction[i], one.prediction[0], rtol=0, atol=5e-5)
