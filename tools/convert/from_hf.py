"""Converting foreign weights, a directory or file of any known format, to a checkpoint of ours.

The checkpoint holds weights only. A run begins from it with ``fork_from``; ``model.yaml``
beside it has the architecture that the run's configuration needs.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from configs.defaults import OBJECTIVE
from configs.errors import UserError
from configs.load import named_plain, to_yaml, validate
from data_pipeline.tokenizer import load_tokenizer
from model.networks.config import ModelConfig
from model.objectives import NO_STATE, State
from pretrain.checkpoint import objective_tensors, store
from pretrain.config import RunConfig
from pretrain.run.stored_config import stored_config
from tools.convert import formats, parity, tensors, tokenizer_files, write
from tools.convert.foreign import checked
from tools.convert.format import Format, Incoming, Options
from tools.convert.output import staged
from tools.convert.to_hf import RUN_FILE

DEFAULT_LENGTH = 1024


def from_hf(
    source: Path,
    out: Path,
    *,
    format_name: str | None = None,
    options: Options | None = None,
    ema: bool = False,
    tokenizer: Path | None = None,
    shard_bytes: int = write.SHARD_BYTES,
) -> dict[str, Any]:
    """Write the checkpoint ``out``; the parity report.

    Args:
        format_name: of the source, where its config.json does not name it.
        ema: the averaged weights of a .ckpt that has them.
        tokenizer: the one that goes with the weights; its ids must be the model's.

    Raises:
        UserError: the source is of no known format, does not fit it, or is incomplete.
        RunError: the logits differ.
    """
    options = options or Options()
    held = tensors.of_path(source, ema=ema)
    config: Mapping[str, Any] = {}
    if (source / "config.json").exists():
        config = checked(tensors.json_file(source / "config.json"), str(source), len(held.shapes))
    kind = formats.named(format_name) if format_name else formats.recognised(config, held)
    if tokenizer is not None and options.vocab_size is None:
        found = load_tokenizer(tokenizer)
        options = replace(options, vocab_size=found.vocab_size, tokenizer_mask=found.mask_id)
    incoming = _incoming(kind, held, config, options)
    if tokenizer is not None:
        tokenizer_files.check(tokenizer, incoming.model)
    length = options.length or incoming.length
    recorded = incoming.run.get("data", {}).get("sequence_length")
    known = bool(length or recorded or (source / RUN_FILE).exists())
    run, objective_state = _run(source, incoming, tokenizer, options), _objective_state_of(source)
    with staged(out, write.num_bytes(incoming.tensors.shapes)) as aside:
        write.write_checkpoint(aside, incoming.tensors, run, shard_bytes, objective_state)
        note = ", under the causal mask" if incoming.compared_as.attention == "causal" else ""
        written = tensors.of_checkpoint(tensors.Reader(aside), "master")
        report = parity.report(
            incoming.model,
            incoming.logits,
            parity.of_network(incoming.compared_as, written),
            (f"{source.name} ({kind.name})", "the checkpoint"),
            num_ids=incoming.num_ids,
            note=note,
        )
        write.write_json(aside / parity.FILE_NAME, report)
        store.write(aside / "model.yaml", _yaml(incoming.model))
    return {
        **report,
        "length": run["config"]["data"]["sequence_length"],
        "length_known": known,
        "left_out": incoming.left_out,
    }


def _incoming(
    kind: Format, held: tensors.Tensors, config: Mapping[str, Any], options: Options
) -> Incoming:
    try:
        return kind.incoming(held, config, options)
    except UserError:
        raise
    except ValueError as error:  # numbers that no denoiser can have
        raise UserError(f"{held.origin}: {error}") from error


def _run(
    source: Path, incoming: Incoming, tokenizer: Path | None, options: Options
) -> dict[str, Any]:
    """The state of the checkpoint: that of the run it was exported from, or of none."""
    longest = incoming.model.max_length or DEFAULT_LENGTH
    known = {} if tokenizer is None else {"tokenizer_sha256": load_tokenizer(tokenizer).sha256}
    given: dict[str, Any] = {"sequence_length": options.length, "packing": options.packing}
    given = {name: value for name, value in given.items() if value}
    if options.packing and incoming.model.reads_source:
        raise UserError("--packing is of denoisers; an encoder-decoder has pairs or paragraphs")
    if (source / RUN_FILE).exists():
        facts = _facts(source / RUN_FILE)
        config = stored_config(facts["config"], where=f"{source}/{RUN_FILE}")
        data = replace(config.data, **given)
        config = replace(config, model=incoming.model, data=data)
        return write.state_of(
            config, step=facts["step"], tokens_seen=facts["tokens_seen"], facts=facts | known
        )
    config = validate(
        RunConfig,
        {
            "steps": 1,
            "global_batch": 1,
            "model": named_plain(incoming.model),
            "objective": incoming.run.get("objective", {"name": OBJECTIVE}),
            "data": {
                "corpus": str(tokenizer or "unknown"),
                "sequence_length": max(3, incoming.length or min(DEFAULT_LENGTH, longest)),
                **incoming.run.get("data", {}),
                **given,
            },
        },
        where="the converted run",
    )
    return write.state_of(config, step=0, tokens_seen=0, facts=known)


def _objective_state_of(source: Path) -> State:
    """The objective state of the run that was exported, if the export holds it."""
    file = source / objective_tensors.NAME
    return objective_tensors.parsed(file.read_bytes(), file) if file.is_file() else NO_STATE


def _facts(file: Path) -> dict[str, Any]:
    """The run of an export, by its file; UserError where entries are missing or damaged."""
    facts = tensors.json_file(file)
    wanted: dict[str, tuple[type, ...]] = {"config": (dict,), "step": (int,), "tokens_seen": (int,)}
    optional: dict[str, tuple[type, ...]] = {"elapsed_s": (int, float), "code": (dict,)}
    optional["score"] = (int, float, type(None))
    bad = [name for name, kinds in wanted.items() if not isinstance(facts.get(name), kinds)]
    bad += [n for n, kinds in optional.items() if n in facts and not isinstance(facts[n], kinds)]
    if bad:
        raise UserError(
            f"{file} is damaged at {', '.join(bad)}; without the file, the weights come in as of "
            "no run that is known"
        )
    return facts


def _yaml(model: ModelConfig) -> str:
    """The block of a configuration file that builds this model."""
    lines = to_yaml(named_plain(model)).splitlines()
    return "model:\n" + "".join(f"  {line}\n" for line in lines)
