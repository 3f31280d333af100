"""Our own layout on Hugging Face: parameters keep their names, behind ``denoiser.``."""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from configs.errors import UserError
from configs.load import validate
from model.config import ModelConfig
from tools.convert import parity
from tools.convert.code import flat_files
from tools.convert.fit import parameter_shapes, require
from tools.convert.layout import Incoming, Options, Outgoing
from tools.convert.parity import Inputs
from tools.convert.tensors import Tensors

PREFIX = "denoiser."
MODEL_TYPE = "palimpsest"
CLASSES = {
    "AutoConfig": "configuration_palimpsest.PalimpsestConfig",
    "AutoModel": "modeling_palimpsest.PalimpsestModel",
    "AutoModelForMaskedLM": "modeling_palimpsest.PalimpsestForMaskedLM",
    "AutoModelForSequenceClassification": (
        "modeling_palimpsest.PalimpsestForSequenceClassification"
    ),
}


class Palimpsest:
    """See the module."""

    name = "palimpsest"

    def recognises(self, config: Mapping[str, Any], tensors: Tensors) -> bool:
        """By its model_type."""
        return bool(config.get("model_type") == MODEL_TYPE)

    def incoming(self, source: Tensors, config: Mapping[str, Any], options: Options) -> Incoming:
        """The same tensors without the prefix."""
        fields = config.get("denoiser")
        if not isinstance(fields, dict):
            raise UserError(f"{source.origin}: its config.json lacks 'denoiser'")
        model = validate(ModelConfig, fields, where=f"{source.origin}/config.json")
        ours = source.renamed({name.removeprefix(PREFIX): name for name in source.shapes})
        require(ours, parameter_shapes(model))
        return Incoming(
            model=model,
            tensors=ours,
            compared_as=model,
            num_ids=model.num_ids,
            logits=lambda inputs: _flat_logits(flat_files(), fields, source, inputs),
        )

    def outgoing(self, model: ModelConfig, ours: Tensors, length: int) -> Outgoing:
        """The same tensors under the prefix, and the modelling code."""
        files = flat_files()
        fields = asdict(model)
        return Outgoing(
            config={
                "model_type": MODEL_TYPE,
                "architectures": ["PalimpsestForMaskedLM"],
                "auto_map": CLASSES,
                "denoiser": fields,
                "vocab_size": model.num_ids,
                "hidden_size": model.width,
                "num_hidden_layers": model.num_layers,
                "num_attention_heads": model.num_heads,
                "max_position_embeddings": length,
                "mask_token_id": model.mask,
                "tie_word_embeddings": model.tied_head,
                "dtype": "float32",
            },
            tensors=ours.renamed({PREFIX + name: name for name in ours.shapes}),
            logits=lambda written, inputs: _flat_logits(files, fields, written, inputs),
            files=files,
        )


def _flat_logits(
    files: Mapping[str, str], fields: Mapping[str, Any], held: Tensors, inputs: Inputs
) -> Tensor:
    """Of exported weights by the exported code, as it stands beside them."""
    with TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text, encoding="utf-8")
        package = f"exported_{Path(folder).name}"
        spec = importlib.util.spec_from_loader(package, None, is_package=True)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        module.__path__ = [folder]
        sys.modules[package] = module
        try:
            config = importlib.import_module(f"{package}.config")
            denoiser = importlib.import_module(f"{package}.denoiser")
            model = config.ModelConfig(**fields)
            tensors = held.renamed({n.removeprefix(PREFIX): n for n in held.shapes})
            return parity.logits(model, tensors, inputs, kind=denoiser.Denoiser)
        finally:
            for name in [n for n in sys.modules if n.partition(".")[0] == package]:
                del sys.modules[name]
