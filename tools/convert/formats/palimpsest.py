"""Our own format on Hugging Face: parameters keep their names, behind ``denoiser.``.

A denoiser becomes a masked-LM, an encoder-decoder a sequence-to-sequence model; each with
the project's own modelling code beside it.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from configs.errors import UserError
from configs.load import named_plain, to_plain
from model.naming import method_name
from model.networks.config import ModelConfig
from model.schedules import Schedule
from pretrain.config import RunConfig
from pretrain.run.stored_config import stored_model
from tools.convert import parity
from tools.convert.code import flat_files
from tools.convert.fit import parameter_shapes, require
from tools.convert.format import Incoming, Options, Outgoing
from tools.convert.kept_rows import Vocabulary, vocabulary
from tools.convert.parity import Inputs
from tools.convert.tensors import Tensors
from tools.sample.options import sampler_of, suiting

PREFIX = "denoiser."
TABLES = ("tokens", "source_tokens", "head")
"""Modules with a row for each id."""
FILL_MASK = {"impl": "fill_mask.TemplatePipeline", "pt": ["AutoModelForMaskedLM"], "type": "text"}
"""The entry by which transformers finds the pipeline beside the weights."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a network of ours is on Hugging Face.

    Args:
        entry: the modelling file, with which the others come. classes: of it, by the name
            that transformers finds them by; the one for ``head`` is the network as trained.
        settings: of the run, in config.json beside the architecture.
        run: what a run with such weights is configured with, from that config.json.
    """

    model_type: str
    config_class: str
    entry: str
    classes: Mapping[str, str]
    head: str
    settings: Callable[[RunConfig], dict[str, Any]]
    run: Callable[[Mapping[str, Any]], dict[str, Any]]

    def auto_map(self) -> dict[str, str]:
        """The ``auto_map`` of config.json: where transformers finds each class."""
        classes = {name: f"{self.entry}.{own}" for name, own in self.classes.items()}
        return {"AutoConfig": f"configuration_palimpsest.{self.config_class}", **classes}

    def logits(self, fields: Mapping[str, Any], held: Tensors, inputs: Inputs) -> Tensor:
        """Logits of exported weights, by the modelling code of a present export."""
        with TemporaryDirectory() as folder:
            for name, text in flat_files(self.entry, fields["name"]).items():
                (Path(folder) / name).write_text(text, encoding="utf-8")
            package = f"exported_{Path(folder).name}"
            spec = importlib.util.spec_from_loader(package, None, is_package=True)
            assert spec is not None
            module = importlib.util.module_from_spec(spec)
            module.__path__ = [folder]
            sys.modules[package] = module
            try:
                model = importlib.import_module(f"{package}.trained_by").model_config(fields)
                tensors = held.renamed({n.removeprefix(PREFIX): n for n in held.shapes})
                return parity.logits(model, tensors, inputs)
            finally:
                for name in [n for n in sys.modules if n.partition(".")[0] == package]:
                    del sys.modules[name]


def _denoiser_settings(run: RunConfig) -> dict[str, Any]:
    packing = run.data.packing
    return {
        "objective": to_plain(run)["objective"],
        "packing": packing,
        "open_end": run.objective.scope(padded=packing == "pad").end_masked,
        "max_position_embeddings": run.data.sequence_length,
        "custom_pipelines": {"fill-mask": FILL_MASK},
    }


def _denoiser_run(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {"objective": config["objective"]} if config.get("objective") else {}
    return found | ({"data": {"packing": config["packing"]}} if config.get("packing") else {})


def _seq2seq_settings(run: RunConfig) -> dict[str, Any]:
    sampler: Any = sampler_of([], run)
    return {
        "objective": to_plain(run)["objective"],
        "source_length": run.data.source_length,
        "target_length": run.data.sequence_length,
        "is_encoder_decoder": True,
        "sampler": sampler.name,
        "sampling_steps": sampler.steps,
    }


def _seq2seq_run(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "objective": config.get("objective"),
        "data": {
            "packing": "pairs",
            "source_length": config.get("source_length"),
            "sequence_length": config.get("target_length"),
        },
    }


FORMS = (
    Form(
        model_type="palimpsest",
        config_class="PalimpsestConfig",
        entry="modeling_palimpsest",
        classes={
            "AutoModel": "PalimpsestModel",
            "AutoModelForMaskedLM": "PalimpsestForMaskedLM",
            "AutoModelForSequenceClassification": "PalimpsestForSequenceClassification",
        },
        head="AutoModelForMaskedLM",
        settings=_denoiser_settings,
        run=_denoiser_run,
    ),
    Form(
        model_type="palimpsest_seq2seq",
        config_class="PalimpsestSeq2SeqConfig",
        entry="modeling_palimpsest_seq2seq",
        classes={"AutoModelForSeq2SeqLM": "PalimpsestForSeq2SeqLM"},
        head="AutoModelForSeq2SeqLM",
        settings=_seq2seq_settings,
        run=_seq2seq_run,
    ),
)


class Palimpsest:
    """See the module."""

    name = "palimpsest"

    def recognises(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """By its model_type."""
        return config.get("model_type") in [form.model_type for form in FORMS]

    def incoming(self, source: Tensors, config: Mapping[str, Any], options: Options) -> Incoming:
        """The same tensors without the prefix."""
        fields = config.get("denoiser")
        if not isinstance(fields, dict):
            raise UserError(f"{source.origin}: its config.json lacks 'denoiser'")
        given = stored_model(fields, where=f"{source.origin}/config.json")
        fields = named_plain(given)
        form = _form(given)
        ours = source.renamed({name.removeprefix(PREFIX): name for name in source.shapes})
        require(ours, parameter_shapes(given))
        ids = Vocabulary(rows=given.num_rows, vocab_size=given.vocab_size, mask=given.mask)
        left_out = given.vocab_size - (options.vocab_size or given.vocab_size)
        if left_out > 0:
            ids = vocabulary(given.num_ids, given.mask, options, source.origin)
        model = replace(given, vocab_size=ids.vocab_size, mask_id=ids.mask_id)

        def read(name: str) -> Tensor:
            value = ours.read(name)
            owner = name.split(".")[-2]
            return ids.taken(value, model.num_rows) if owner in TABLES else value

        return Incoming(
            model=model,
            tensors=ours
            if model == given
            else Tensors(parameter_shapes(model), read, source.origin),
            compared_as=model,
            num_ids=model.num_ids,
            logits=ids.renumbered(lambda inputs: form.logits(fields, source, inputs)),
            length=config.get("max_position_embeddings"),
            run=form.run(config),
            left_out=max(0, left_out),
        )

    def outgoing(self, run: RunConfig, ours: Tensors) -> Outgoing:
        """The same tensors under the prefix, and the modelling code."""
        model = run.model
        form = _form(model)
        fields = named_plain(model)
        return Outgoing(
            config={
                "model_type": form.model_type,
                "architectures": [form.classes[form.head]],
                "auto_map": form.auto_map(),
                "denoiser": fields,
                "vocab_size": model.num_ids,
                "hidden_size": model.width,
                "num_hidden_layers": model.num_layers,
                "num_attention_heads": model.num_heads,
                "mask_token_id": model.mask,
                "tie_word_embeddings": model.shares_embedding,
                "dtype": "float32",
                **form.settings(run),
            },
            tensors=ours.renamed({PREFIX + name: name for name in ours.shapes}),
            logits=lambda written, inputs: form.logits(fields, written, inputs),
            files=flat_files(
                form.entry,
                model.architecture,
                method_name(run.objective),
                _schedule(run.objective),
                suiting(run),
            ),
        )


def _schedule(objective: Any) -> str | None:
    """Name of the objective's noise schedule, if it has one."""
    schedule = getattr(objective, "schedule", None)
    return method_name(schedule) if isinstance(schedule, Schedule) else None


def _form(model: ModelConfig) -> Form:
    return FORMS[int(model.reads_source)]
