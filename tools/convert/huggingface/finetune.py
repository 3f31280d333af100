"""Fine-tune exported weights with transformers: a classifier, or more masked-LM training.

    python finetune.py EXPORT train.jsonl valid.jsonl OUT --task classify
    python finetune.py EXPORT train.jsonl valid.jsonl OUT --task classify --lora
    python finetune.py EXPORT train.jsonl valid.jsonl OUT --task masked-lm

Rows are ``{"text": ..., "label": ...}``, the label a number from 0. Needs torch, transformers,
accelerate and, for ``--lora``, peft, and nothing of Palimpsest: an example to start from.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

LORA_TARGETS = ["q", "k", "v", "out", "up", "gate", "down"]
Rows = list[dict[str, Any]]


def read(path: Path, tokenizer: Any, length: int, *, labels: bool) -> Rows:
    """Rows of a JSONL file as ids; with their labels or without."""
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    found = []
    for row in map(json.loads, lines):
        encoded = dict(tokenizer(row["text"], truncation=True, max_length=length))
        found.append({**encoded, "labels": row["label"]} if labels else encoded)
    return found


def accuracy(prediction: Any) -> dict[str, float]:
    """Accuracy of a classifier, for the Trainer."""
    right = prediction.predictions.argmax(-1) == prediction.label_ids
    return {"accuracy": float(right.mean())}


def with_lora(model: Any, rank: int, task: str) -> Any:
    """The model with low-rank updates of its linear layers (Hu et al. 2022)."""
    from peft import LoraConfig, get_peft_model

    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    settings = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=[name for name in LORA_TARGETS if name in names],
        task_type="SEQ_CLS" if task == "classify" else None,
        modules_to_save=["classifier"] if task == "classify" else None,
    )
    return get_peft_model(model, settings)


def finetune(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and save; the numbers before and after."""
    set_seed(arguments.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.export, trust_remote_code=True)
    classify = arguments.task == "classify"
    train, valid = (
        read(path, tokenizer, arguments.length, labels=classify)
        for path in (arguments.train, arguments.valid)
    )
    if classify:
        num_labels = 1 + max(row["labels"] for row in train)
        model = AutoModelForSequenceClassification.from_pretrained(
            arguments.export, trust_remote_code=True, num_labels=num_labels
        )
        collator: Any = DataCollatorWithPadding(tokenizer)
    else:
        model = AutoModelForMaskedLM.from_pretrained(arguments.export, trust_remote_code=True)
        collator = DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=0.3, mask_replace_prob=1.0, random_replace_prob=0.0, seed=0
        )
    if arguments.lora:
        model = with_lora(model, arguments.lora_rank, arguments.task)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(arguments.out),
            max_steps=arguments.steps,
            learning_rate=arguments.lr,
            per_device_train_batch_size=arguments.batch,
            per_device_eval_batch_size=arguments.batch,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=arguments.seed,
            use_cpu=not torch.cuda.is_available(),
            prediction_loss_only=not classify,
            label_names=["labels"],
        ),
        train_dataset=train,
        eval_dataset=valid,
        data_collator=collator,
        compute_metrics=accuracy if classify else None,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    model.save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    keys = ("eval_loss", "eval_accuracy")
    return {
        "before": {key: before[key] for key in keys if key in before},
        "after": {key: after[key] for key in keys if key in after},
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in model.parameters()),
        "reloaded_difference": _reloaded(model, arguments, [row["input_ids"] for row in valid[:4]]),
    }


@torch.no_grad()
def _reloaded(model: Any, arguments: argparse.Namespace, rows: list[list[int]]) -> float:
    """The largest difference of a logit between the model and what was saved of it."""
    kind = (
        AutoModelForSequenceClassification if arguments.task == "classify" else AutoModelForMaskedLM
    )
    if arguments.lora:
        from peft import PeftModel

        options = {"num_labels": model.config.num_labels} if arguments.task == "classify" else {}
        base = kind.from_pretrained(arguments.export, trust_remote_code=True, **options)
        again = PeftModel.from_pretrained(base, arguments.out)
    else:
        again = kind.from_pretrained(arguments.out, trust_remote_code=True)
    model, again = model.eval().cpu(), again.eval()
    found = 0.0
    for ids in rows:
        one, other = (m(input_ids=torch.tensor([ids])).logits for m in (model, again))
        seen = one.isfinite()
        found = max(found, float((one - other)[seen].abs().max()))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; prints a JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", type=Path, help="made by `python -m tools.convert to-hf`")
    parser.add_argument("train", type=Path)
    parser.add_argument("valid", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=("classify", "masked-lm"), default="classify")
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--lora-rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    print(json.dumps(finetune(parser.parse_args(argv))))
    return 0


if __name__ == "__main__":
    main()
