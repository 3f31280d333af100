"""The model card beside exported weights: what the run was, and how to use it."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from pretrain.config import RunConfig
from pretrain.plan import count_parameters

USE_DENOISER = """\
## Use

Needs torch and transformers 5, and nothing else.

```python
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained("HERE", trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained("HERE", trust_remote_code=True)
ids = tokenizer("a text", return_tensors="pt")["input_ids"]
ids[0, 1] = model.config.mask_token_id
with torch.no_grad():
    logits = model(ids, attention_mask=torch.ones_like(ids)).logits
```

`AutoModelForSequenceClassification` puts a linear layer on the mean of the last hidden states.
`attention_mask` hides padding. LoRA fits the modules `q`, `k`, `v`, `out`, `up`, `down`, `gate`.
"""

USE_SEQ2SEQ = """\
## Use

Needs torch and transformers 5, and nothing else.

```python
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = AutoModelForSeq2SeqLM.from_pretrained("HERE", trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained("HERE", trust_remote_code=True)
batch = tokenizer(["a source", "another"], padding=True, return_tensors="pt")
ids = model.generate(**batch, sampling_steps=50, num_return_sequences=5, seed=0)
print(tokenizer.batch_decode(ids, skip_special_tokens=True))
```

`generate` denoises {target_length} positions from pure noise (`sampler="ddpm"` or `"ddim"`).
`model(input_ids, attention_mask, labels=...)` gives the training loss, with padding as a target:
pad `labels` to the length that targets are to have, with -100 or with the padding token.
`model(input_ids, decoder_inputs_embeds=x, level=t)` is one evaluation of the network.

Fine-tune it with transformers' plain `Trainer` (`Seq2SeqTrainer` asks `generate` for beams).
LoRA fits the modules `q`, `k`, `v`, `out`, in a `LoraConfig` without `task_type`.
"""


def card(config: RunConfig, facts: Mapping[str, Any], report: Mapping[str, Any], own: bool) -> str:
    """README.md.

    Args:
        facts: step, tokens_seen, score, elapsed_s, weights, code.
        report: on parity. own: whether our modelling code lies beside it.
    """
    model: ModelConfig = config.model
    blocks = f"{model.num_layers} layers of width {model.width}"
    score, unit, tag, use = "held-out bound", " nats per token", "fill-mask", USE_DENOISER
    if model.seq2seq is not None:
        blocks = (
            f"{model.seq2seq.num_encoder_layers} encoder and {model.num_layers} decoder layers "
            f"of width {model.width}, embeddings of {model.seq2seq.embedding_width}"
        )
        score, unit, tag = "held-out loss", "", "text2text-generation"
        use = USE_SEQ2SEQ.format(target_length=config.data.sequence_length)
    objective = type(config.objective).__module__.rpartition(".")[2]
    rows = {
        "parameters": f"{count_parameters(model):,}",
        "architecture": blocks,
        "vocabulary": f"{model.vocab_size:,} ids, mask token {model.mask}",
        "objective": objective,
        "sequence length": f"{config.data.sequence_length:,}",
        "steps": f"{facts['step']:,} of {config.steps:,}",
        "tokens seen": f"{facts['tokens_seen']:,}",
        "global batch": f"{config.global_batch:,}",
        "precision": config.precision,
        score: "not measured" if facts["score"] is None else f"{facts['score']:.4f}{unit}",
        "weights": facts["weights"],
        "code": facts["code"].get("git_commit") or "unknown",
        "parity": f"largest difference of a logit {report['largest_difference']:.2g} in float64",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    head = f"---\nlibrary_name: transformers\npipeline_tag: {tag}\n---\n\n" if own else ""
    usage = "\n" + use if own else ""
    return f"{head}# A text diffusion model\n\n| | |\n| --- | --- |\n{table}\n{usage}"
