"""The usage section of a model card.

Every block of Python runs as it stands from within the directory; a test runs them.
"""

from collections.abc import Sequence

from model.networks.config import ModelConfig

_LOAD = """\
## Use

Needs torch and transformers 5, and nothing else.

```python
{torch}from transformers import {auto}{and_tokenizer}

where = "{where}"{comment}
model = {auto}.from_pretrained(where, trust_remote_code=True).eval()
{tokenizer}"""

_TOKENIZER = "tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=True)\n"

_DENOISER = """
# New text; text that goes on from a beginning; text for the [MASK]s within another.
new = model.generate(num_return_sequences=2, seed=0)
batch = tokenizer("This is", return_tensors="pt")
further = model.generate(**batch, seed=0)
before, behind = tokenizer(["This is", "of it"], add_special_tokens=False)["input_ids"]
ids = [*before, *[model.config.mask_token_id] * 3, *behind]
ids = [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
filled = model.generate(torch.tensor([ids]), seed=0)
for found in (new, further, filled):
    print(tokenizer.batch_decode(found, skip_special_tokens=True))

# The probability of every id at every position.
with torch.no_grad():
    logits = model(torch.tensor([ids])).logits
"""

_BARE_DENOISER = """
# No tokenizer lies here: ids in, ids out.
new = model.generate(max_length=32, seed=0)
with torch.no_grad():
    logits = model(new).logits
"""

_DENOISER_WORDS = """```

`generate` samples as training ended: `sampling_steps` evaluations of the network,
`temperature` (or `do_sample=False`), `max_length` positions of a whole text (by default
{length}) or `max_new_tokens`; the same `seed` gives the same samples. `pipeline("fill-mask")`
and `pipeline("feature-extraction")` read it too. As in training, the tokenizer reads no special
token out of a text; with `split_special_tokens=False` it does, and in `pipeline("fill-mask")`.

`AutoModelForSequenceClassification` puts a linear layer on the mean of the last hidden states.
`attention_mask` hides padding, wherever it stands. LoRA fits the modules {targets}, with
`task_type` "SEQ_CLS" or "TOKEN_CLS", or without one.
"""

_SEQ2SEQ = """
batch = tokenizer(["a source", "another"], padding=True, return_tensors="pt")
ids = model.generate(**batch, num_return_sequences=5, seed=0)
print(tokenizer.batch_decode(ids, skip_special_tokens=True))
"""

_BARE_SEQ2SEQ = """
# No tokenizer lies here: ids in, ids out.
ids = model.generate(torch.tensor([[0, 1, 2]]), num_return_sequences=5, seed=0)
"""

_SEQ2SEQ_WORDS = """```

`generate` denoises {length} positions from pure noise, in `sampling_steps` evaluations of the
network by a `sampler` ({samplers}); the same `seed` gives the same samples.
`model(input_ids, attention_mask, labels=...)` gives the training loss, with padding as a target:
pad `labels` to the length that targets are to have, with -100 or with the padding token.
`model(input_ids, decoder_inputs_embeds=x, level=t)` is one evaluation of
the network.

Fine-tune it with transformers' `Trainer` or `Seq2SeqTrainer` (`predict_with_generate=True`).
LoRA fits the modules `q`, `k`, `v`, `out`, with `task_type` "SEQ_2_SEQ_LM" or without one.
"""


def usage(
    model: ModelConfig,
    length: int,
    *,
    samplers: Sequence[str],
    where: str | None,
    tokenizer: bool,
) -> str:
    """The section for a model.

    Args:
        samplers: those that suit the model.
        length: positions of a text (a target). where: the repository; by default the directory
            itself. tokenizer: whether one lies beside.
    """
    auto = "AutoModelForSeq2SeqLM" if model.reads_source else "AutoModelForMaskedLM"
    load = _LOAD.format(
        auto=auto,
        torch="" if model.reads_source and tokenizer else "import torch\n",
        and_tokenizer=", AutoTokenizer" if tokenizer else "",
        where=where or ".",
        comment="" if where else "  # this directory; on the Hub, the name of the repository",
        tokenizer=_TOKENIZER if tokenizer else "",
    )
    if model.reads_source:
        words = _SEQ2SEQ_WORDS.format(
            length=length, samplers=", ".join(f'"{name}"' for name in samplers)
        )
        return load + (_SEQ2SEQ if tokenizer else _BARE_SEQ2SEQ) + words
    names = ["q", "k", "v", "out", "up", "down", *(["gate"] if model.mlp != "gelu" else [])]
    words = _DENOISER_WORDS.format(length=length, targets=", ".join(f"`{n}`" for n in names))
    return load + (_DENOISER if tokenizer else _BARE_DENOISER) + words
