"""Options of commands that sample.

``--sampler [NAME] [key=value ...]`` is a sampler of the registry, and its settings; an
encoder-decoder draws several candidates for each source.
"""

import argparse
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from configs.documentation import keys, without_markup
from configs.errors import UserError
from configs.load import Plugin, merged
from configs.words import split
from tools import command

if TYPE_CHECKING:
    from model.samplers import Sampler
    from pretrain.config import RunConfig

SAMPLERS = Plugin("model.samplers")
HELP = "help"
INDENT = " " * 15


def add_sampler_option(parser: argparse.ArgumentParser) -> None:
    """``--sampler``, and the names of all samplers at the end of the help."""
    parser.add_argument(
        "--sampler",
        nargs="*",
        default=[],
        metavar="NAME | key=value",
        help="a sampler, its settings, or both, as in --sampler steps=16; by default that of the "
        "objective. `RUN --sampler help` lists their settings, and which of them suit a model",
    )
    names = ", ".join(SAMPLERS.names())
    parser.epilog = textwrap.fill(f"samplers: {names}", 80, subsequent_indent="  ")


def add_candidate_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--candidates`` and ``--choose``."""
    options = parser.add_argument_group("encoder-decoders (seq2seq)")
    options.add_argument(
        "--candidates", type=command.positive, default=5, help="for each source (default 5)"
    )
    options.add_argument(
        "--choose",
        choices=("mbr", "single", "oracle"),
        default="mbr",
        help="which candidate counts: mbr, the one most like the others (default); the first; "
        "oracle, the one most like the references, which is no result of a model",
    )


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether the words of ``--sampler`` ask for the list."""
    return list(words) == [HELP]


def with_sampler(
    work: command.Work,
    check: Callable[[argparse.Namespace, "RunConfig"], None],
    arguments: argparse.Namespace,
) -> int:
    """Run a command that samples: list the samplers if asked, else check and load the model.

    Args:
        work: see :func:`tools.command.with_model`.
        check: raises UserError for options that do not fit, before a model is loaded.
    """
    from pretrain.checkpoint.weights import configuration

    config = configuration(arguments.run)
    if asks_for_help(arguments.sampler):
        print(listing(config))
        return 0
    check(arguments, config)
    return command.with_model(work, arguments)


def sampler_of(words: Sequence[str], config: "RunConfig") -> "Sampler":
    """The sampler that the words of ``--sampler`` ask for, or the objective's own.

    Raises:
        UserError: it is not there, a setting is wrong, or it does not suit the model.
    """
    elsewhere = [word for word in words if word.startswith("parallel.")]
    if elsewhere:
        raise UserError(f"--sampler: {elsewhere[0]} is no setting of a sampler: put it before")
    names, settings = split(words)
    if len(names) > 1:
        raise UserError(f"--sampler: one name, not {', '.join(map(str, names))}")
    block = {"name": str(names[0]) if names else config.objective.sampler} | merged([], settings)
    try:
        return _made(block, config)
    except ValueError as error:
        raise UserError(f"--sampler: {'; '.join(str(error).splitlines())}") from error


def _made(block: Mapping[str, Any], config: "RunConfig") -> "Sampler":
    """Build the sampler; ValueError for a wrong setting, or one that does not suit the model."""
    sampler: Sampler = SAMPLERS.build(block)
    sampler = sampler.trained_on(config.data.sequence_length)
    if "steps" not in block and config.objective.noise in sampler.undoes:
        sampler = sampler.within(config.objective)
    sampler.suits(config.objective, config.model)
    return sampler


def suiting(config: "RunConfig") -> list[str]:
    """The samplers that suit a model."""
    return [name for name in SAMPLERS.names() if _misfit(name, config) is None]


def listing(config: "RunConfig | None" = None) -> str:
    """Every sampler with its settings and their defaults; for a model, which of them suit it."""
    return "\n".join(line for name in SAMPLERS.names() for line in _described(name, config))


def _described(name: str, config: "RunConfig | None") -> Iterator[str]:
    kind: Any = SAMPLERS.resolve(name)
    first = without_markup((kind.__doc__ or "").strip().partition("\n")[0])
    width = max(map(len, SAMPLERS.names()))
    yield f"  {name:<{width}} {first}"
    if config is not None:
        yield from _filled(_suits(name, config), INDENT)
    for key in keys(kind):
        yield from _filled(f"{key.name}={key.default}  ({key.type}) {key.meaning}", INDENT)


def _misfit(name: str, config: "RunConfig") -> str | None:
    try:
        _made({"name": name}, config)
    except ValueError as error:
        return str(error)
    return None


def _suits(name: str, config: "RunConfig") -> str:
    misfit = _misfit(name, config)
    if misfit is not None:
        return f"(does not suit this model: {misfit})"
    default = ", and is its default" if name == config.objective.sampler else ""
    return f"(suits this model{default})"


def _filled(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent=f"{indent}    ")
