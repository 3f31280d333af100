"""The model card beside exported weights: what the run was, and how to use it."""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from pretrain.config import RunConfig
from pretrain.plan import count_parameters

USE = """\
## Use

Needs torch and transformers, and nothing else.

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


def card(config: RunConfig, facts: Mapping[str, Any], report: Mapping[str, Any], own: bool) -> str:
    """README.md.

    Args:
        facts: step, tokens_seen, score, elapsed_s, weights, code.
        report: on parity. own: whether our modelling code lies beside it.
    """
    model: ModelConfig = config.model
    bound = "not measured" if facts["score"] is None else f"{facts['score']:.4f} nats per token"
    objective = type(config.objective).__module__.rpartition(".")[2]
    rows = {
        "parameters": f"{count_parameters(model):,}",
        "architecture": f"{model.num_layers} layers of width {model.width}",
        "vocabulary": f"{model.vocab_size:,} ids, mask token {model.mask}",
        "objective": objective,
        "sequence length": f"{config.data.sequence_length:,}",
        "steps": f"{facts['step']:,} of {config.steps:,}",
        "tokens seen": f"{facts['tokens_seen']:,}",
        "global batch": f"{config.global_batch:,}",
        "precision": config.precision,
        "held-out bound": bound,
        "weights": facts["weights"],
        "code": facts["code"].get("git_commit") or "unknown",
        "parity": f"largest difference of a logit {report['largest_difference']:.2g} in fp32",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    head = "---\nlibrary_name: transformers\npipeline_tag: fill-mask\n---\n\n" if own else ""
    use = "\n" + USE if own else ""
    return f"{head}# A text diffusion model\n\n| | |\n| --- | --- |\n{table}\n{use}"
