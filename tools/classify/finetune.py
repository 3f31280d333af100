"""Fine-tune one directory of transformers on a task, under transformers' own Trainer.

Nothing here knows whose model it is: an export of ours is loaded by the code that lies beside its
weights, as any reader of the export would load it. The recipe is BERT's (Devlin et al. 2019,
appendix A.3): AdamW with weight decay 0.01, warm-up over the first tenth of the steps, then linear
decay. Random numbers are the Trainer's own, by its seed.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from configs.errors import UserError
from configs.json_files import read_json
from tools.classify.rows import Labelled, Task

CONFIG = "config.json"
CLASSIFIER = "AutoModelForSequenceClassification"
WARMUP, WEIGHT_DECAY = 0.1, 0.01


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a classifier is trained, the same for every model.

    Args:
        epochs: passes over the training rows.
        lr: the learning rate after warm-up.
        batch: texts per step.
        length: tokens of a text at most; None for what the model takes.
        trust_remote_code: run the code that lies beside the weights.
    """

    epochs: int
    lr: float
    batch: int
    length: int | None
    trust_remote_code: bool


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The rows of a task as a model's tokenizer gives them.

    Args:
        length: tokens that a text may have; None if there is no end.
        truncated: how many texts of training and of the test were longer, and cut.
    """

    tokenizer: Any
    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    length: int | None
    truncated: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one fine-tuning gave.

    Args:
        accuracy: share of the test rows that are right.
        seconds: of training.
        kind: class of the model. parameters: how many it has.
        new: names of those that training began with at random.
    """

    accuracy: float
    seconds: float
    kind: str
    parameters: int
    new: list[str]


def check_model(path: Path, *, trust_remote_code: bool) -> None:
    """UserError unless this is a directory of transformers that may be loaded as a classifier."""
    if not (path / CONFIG).is_file():
        is_run = (path / "checkpoints").is_dir() or (path / "manifest.json").is_file()
        hint = (
            f"export the run first: `python -m tools.convert to-hf {path} DIR`"
            if is_run
            else "name a Hugging Face directory, such as `python -m tools.convert to-hf` writes"
        )
        raise UserError(f"{path}: has no {CONFIG}; {hint}")
    own_code = read_json(path / CONFIG).get("auto_map") or {}
    if not own_code:
        return
    if CLASSIFIER not in own_code:
        raise UserError(f"{path}: its code has no {CLASSIFIER}, and so no classifier")
    if not trust_remote_code:
        raise UserError(
            f"{path}: has modelling code of its own, which is run only with --trust-remote-code; "
            "look at its files first, unless you exported them"
        )


def encode(path: Path, task: Task, settings: Settings) -> Encoded:
    """The rows as ids, cut where the model's positions or ``settings.length`` end.

    Raises:
        UserError: the directory has no tokenizer, or none that can pad.
    """
    from transformers import AutoConfig, AutoTokenizer

    here = {"local_files_only": True, "trust_remote_code": settings.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(path, **here)
        tokenizer = AutoTokenizer.from_pretrained(path, **here)
    except _CANNOT_LOAD as error:
        raise UserError(f"{path}: no tokenizer to load: {_first_line(error)}") from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):  # made up where there is no file
        raise UserError(f"{path}: holds no tokenizer; put the model's files of it there")
    if tokenizer.pad_token is None:
        raise UserError(f"{path}: its tokenizer has no padding token; give it one first")
    known = (
        settings.length,
        getattr(config, "max_position_embeddings", None),
        tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None,
    )
    length = min((most for most in known if most), default=None)
    train, test = (_rows(rows, tokenizer, task.classes, length) for rows in (task.train, task.test))
    return Encoded(
        tokenizer=tokenizer,
        train=[row for row, _ in train],
        test=[row for row, _ in test],
        length=length,
        truncated=(sum(cut for _, cut in train), sum(cut for _, cut in test)),
    )


def _rows(
    rows: Sequence[Labelled], tokenizer: Any, classes: Sequence[str], length: int | None
) -> list[tuple[dict[str, Any], bool]]:
    """Inputs with the number of the class, and whether the text was cut."""
    number = {label: place for place, label in enumerate(classes)}
    found = []
    for row in rows:
        whole = tokenizer(row.text, verbose=False)
        cut = length is not None and len(whole["input_ids"]) > length
        kept = tokenizer(row.text, truncation=True, max_length=length) if cut else whole
        found.append(({**kept, "labels": number[row.label]}, cut))
    return found


def finetune(
    path: Path, encoded: Encoded, classes: Sequence[str], settings: Settings, *, seed: int
) -> Outcome:
    """Train on the task, and test once at the end.

    Args:
        seed: of the new head's weights, the order of the rows, and dropout.

    Raises:
        UserError: the directory holds no model that can classify.
    """
    import torch
    from transformers import (
        AutoModelForSequenceClassification,
        DataCollatorWithPadding,
        PrinterCallback,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            path,
            local_files_only=True,
            trust_remote_code=settings.trust_remote_code,
            num_labels=len(classes),
            dtype=torch.float32,
            output_loading_info=True,
        )
    except _CANNOT_LOAD as error:
        raise UserError(f"{path}: no classifier to load: {_first_line(error)}") from error
    new = sorted(loading["missing_keys"])
    if len(new) == len(list(model.parameters())):
        raise UserError(f"{path}: none of its weights is of a {type(model).__name__}")
    steps = settings.epochs * math.ceil(len(encoded.train) / settings.batch)
    with TemporaryDirectory(prefix="classify-") as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                num_train_epochs=settings.epochs,
                learning_rate=settings.lr,
                weight_decay=WEIGHT_DECAY,
                warmup_steps=int(WARMUP * steps),
                per_device_train_batch_size=settings.batch,
                per_device_eval_batch_size=settings.batch,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=seed,
                use_cpu=not torch.cuda.is_available(),
                label_names=["labels"],
            ),
            train_dataset=encoded.train,
            eval_dataset=encoded.test,
            data_collator=DataCollatorWithPadding(encoded.tokenizer),
        )
        trainer.remove_callback(PrinterCallback)
        began = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - began
        found = trainer.predict(encoded.test)
    logits = found.predictions[0] if isinstance(found.predictions, tuple) else found.predictions
    return Outcome(
        accuracy=float((logits.argmax(-1) == found.label_ids).mean()),
        seconds=seconds,
        kind=type(model).__name__,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        new=new,
    )


_CANNOT_LOAD = (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
