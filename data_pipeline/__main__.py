"""`python -m data_pipeline`: prepare a corpus, once, before training.

Exit status: 0 done, 1 output pipe closed, 2 wrong input, 130 interrupted (nothing half-written).
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.command_line import describe_commands, make_parser
from configs.errors import UserError, exit_code
from data_pipeline import demo
from data_pipeline.adopt import adopt_tokenizer, make_character_tokenizer, train_tokenizer
from data_pipeline.atomic_directory import leftovers
from data_pipeline.characters import ALPHABETS
from data_pipeline.manifest import FILE_NAME, Manifest, read_manifest, verify_manifest
from data_pipeline.reading_options import add_reading_options, documents_of
from data_pipeline.sources import Documents
from data_pipeline.special_tokens import SIDECAR
from data_pipeline.tokenizer import FILE_NAMES, Tokenizer, load_tokenizer, tokenizer_file

_EXAMPLES = """
a corpus from your own files, start to end:
  python -m data_pipeline tokenizer --train train.jsonl --vocab-size 32000 --out corpus
  python -m data_pipeline tokenize 'train/*.jsonl.gz' --corpus corpus --split train
  python -m data_pipeline tokenize valid.jsonl --corpus corpus --split valid
  python -m data_pipeline verify corpus

pairs of a source and a target, one JSON object a line:
  python -m data_pipeline tokenize pairs.jsonl --pairs source target --corpus corpus --split train

a genome, one id for each base:
  python -m data_pipeline tokenizer --kind characters --alphabet dna --out corpora/genome
  python -m data_pipeline tokenize 'chr[1-9]*.fa.gz' --corpus corpora/genome --split train

with the tokenizer of a published model:
  python -m data_pipeline tokenizer --adopt path/to/tokenizer.json --out corpus

a small corpus without any download:
  python -m data_pipeline demo --out corpora/demo --vocab-size 2048
"""

_FILES_HELP = (
    "text, JSON lines (one object a line), CSV or TSV with a header, FASTA, Parquet or Arrow "
    "files; compressed by gzip, zstd, xz or bzip2 too, but for the last two; quote a pattern"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    arguments = _parser().parse_args(argv)
    return exit_code(
        lambda: _run(arguments), interrupted="interrupted: nothing was left half-written"
    )


def _run(arguments: argparse.Namespace) -> int:
    arguments.run(arguments)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = make_parser(
        "data_pipeline",
        "Turn text into a corpus directory: a tokenizer and splits of token shards.",
        _EXAMPLES,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("tokenizer", help="train, make or adopt a tokenizer")
    command.set_defaults(run=_tokenizer)
    origin = command.add_mutually_exclusive_group(required=True)
    origin.add_argument(
        "--train",
        nargs="+",
        metavar="FILE",
        help="train SentencePiece on these files, which have to fit in memory: a "
        "representative part of a large corpus is enough. " + _FILES_HELP,
    )
    origin.add_argument(
        "--adopt", type=Path, metavar="PATH", help="a tokenizer.json or SentencePiece .model file"
    )
    origin.add_argument(
        "--alphabet",
        choices=sorted(ALPHABETS),
        help="with --kind characters: text8 is a-z and the space, dna A, C, G, T and N",
    )
    command.add_argument(
        "--kind",
        choices=("bpe", "characters"),
        help="bpe (the default) is trained on text, characters are an id for each of an alphabet",
    )
    command.add_argument("--out", type=Path, required=True, help="the corpus directory")
    command.add_argument("--vocab-size", type=int, help="number of ids, with --train")
    command.add_argument("--bos-token", help="with --adopt: the token that begins a text")
    command.add_argument("--eos-token", help="with --adopt: the token that ends a text")
    _add_source_options(command)

    command = commands.add_parser("tokenize", help="tokenize files into a split of a corpus")
    command.set_defaults(run=_tokenize)
    command.add_argument("files", nargs="+", metavar="FILE", help=_FILES_HELP)
    command.add_argument("--corpus", type=Path, required=True, help="holds the tokenizer")
    command.add_argument("--split", required=True, help="name of the split, e.g. train or valid")
    command.add_argument("--overwrite", action="store_true", help="replace the split if it exists")
    _add_source_options(command)

    command = commands.add_parser("demo", help="make the demo corpus (the Python reference)")
    command.set_defaults(run=_demo)
    command.add_argument("--out", type=Path, required=True, help="the corpus directory")
    size = command.add_mutually_exclusive_group(required=True)
    size.add_argument("--vocab-size", type=int, help="number of ids, e.g. 2048")
    size.add_argument(
        "--letters",
        action="store_true",
        help="the text in the 27 characters of text8, an id for each, instead of SentencePiece",
    )

    command = commands.add_parser("verify", help="check every byte of a corpus")
    command.set_defaults(run=_verify)
    command.add_argument("corpus", type=Path, help="the corpus directory")
    command.add_argument("--split", help="this split only")

    command = commands.add_parser("info", help="show tokenizer, splits and sizes of a corpus")
    command.set_defaults(run=_info)
    command.add_argument("corpus", type=Path, help="the corpus directory")
    describe_commands(commands)
    return parser


def _add_source_options(command: argparse.ArgumentParser) -> None:
    add_reading_options(command)
    command.add_argument(
        "--pairs",
        nargs=2,
        metavar=("SOURCE", "TARGET"),
        help="two fields of every record: a source and its target, for sequence to sequence",
    )
    command.add_argument(
        "--longest",
        type=int,
        metavar="N",
        help="cut FASTA records into documents of at most N letters (a chromosome is one record)",
    )


def _documents(arguments: argparse.Namespace, files: Sequence[str]) -> Documents:
    if arguments.longest is not None and arguments.longest < 1:
        raise UserError(f"--longest must be at least 1, not {arguments.longest}")
    pairs = arguments.pairs or ()
    return documents_of(arguments, files, fields=pairs, longest=arguments.longest)


def _tokenizer(arguments: argparse.Namespace) -> None:
    corpus: Path = arguments.out
    _check_tokenizer_options(arguments)
    if arguments.train:
        documents = _documents(arguments, arguments.train)
        tokenizer = train_tokenizer(documents, corpus, arguments.vocab_size)
        _print_skipped(documents.skipped["empty"], documents.skipped["bad"])
    elif arguments.alphabet:
        tokenizer = make_character_tokenizer(arguments.alphabet, corpus)
    else:
        tokenizer = adopt_tokenizer(
            arguments.adopt,
            corpus,
            bos_token=arguments.bos_token,
            eos_token=arguments.eos_token,
        )
    print(_tokenizer_line(corpus, tokenizer))
    print(f"next: python -m data_pipeline tokenize FILES --corpus {corpus} --split train")


def _check_tokenizer_options(arguments: argparse.Namespace) -> None:
    """UserError for options that belong to another origin of the tokenizer."""
    if (arguments.kind == "characters") != (arguments.alphabet is not None):
        raise UserError("--kind characters and --alphabet go together; BPE is trained with --train")
    if arguments.kind == "bpe" and not arguments.train:
        raise UserError("--kind bpe belongs to --train: an adopted tokenizer has its own kind")
    if arguments.train and arguments.vocab_size is None:
        raise UserError("--train needs --vocab-size, e.g. --vocab-size 32000")
    if arguments.vocab_size is not None and not arguments.train:
        origin = "an alphabet" if arguments.alphabet else "an adopted tokenizer"
        raise UserError(f"--vocab-size belongs to --train: {origin} has its own")
    if (arguments.bos_token or arguments.eos_token) and not arguments.adopt:
        raise UserError("--bos-token and --eos-token belong to --adopt: a new tokenizer has both")


def _tokenize(arguments: argparse.Namespace) -> None:
    from data_pipeline.writer import write_split

    corpus, split = arguments.corpus, arguments.split
    _check_split(split)
    tokenizer = load_tokenizer(corpus)
    if not corpus.is_dir():
        raise UserError(f"--corpus {corpus}: the corpus directory is expected, not a file in it")
    for path in leftovers(corpus / split):
        print(
            f"note: {path} is left from a run that was killed, unless one is running; remove it",
            file=sys.stderr,
        )
    documents = _documents(arguments, arguments.files)
    manifest = write_split(
        documents,
        tokenizer,
        corpus / split,
        overwrite=arguments.overwrite,
        skipped=documents.skipped,
        pairs=bool(arguments.pairs),
    )
    print(_summary(corpus / split, manifest))
    _print_skipped(manifest.skipped_empty, manifest.skipped_bad)
    print(f"next: python -m data_pipeline verify {corpus}")


def _check_split(name: str) -> None:
    """UserError unless the name can be a directory beside the tokenizer."""
    if name in (*FILE_NAMES, SIDECAR):
        raise UserError(f"--split {name}: is a file of the tokenizer; choose another name")
    plain = name.isprintable() and name.strip() == name and not set(name) & set("/\\")
    if not plain or not name or name.startswith("."):
        raise UserError(
            f"--split {name!r}: a name such as train is expected, not a path, and no dot before it"
        )


def _demo(arguments: argparse.Namespace) -> None:
    if arguments.letters:
        corpus = demo.prepare_letters(arguments.out)
    else:
        corpus = demo.prepare_demo(arguments.out, arguments.vocab_size)
    _info(argparse.Namespace(corpus=corpus))
    print(f"next: python -m pretrain CONFIG.yaml data.corpus={corpus}")


def _verify(arguments: argparse.Namespace) -> None:
    from data_pipeline.shards import verify_split

    for split in [arguments.split] if arguments.split else _splits(arguments.corpus):
        manifest = verify_split(arguments.corpus, split)
        print(f"{_summary(arguments.corpus / split, manifest)}: intact")
        if not verify_manifest(arguments.corpus / split):
            print(
                "note: the manifest holds no checksum of its own, since an earlier version wrote "
                "it: edits of it are not seen"
            )


def _info(arguments: argparse.Namespace) -> None:
    print(_tokenizer_line(arguments.corpus, load_tokenizer(arguments.corpus)))
    for split in _splits(arguments.corpus):
        print(_summary(arguments.corpus / split, read_manifest(arguments.corpus / split)))


def _splits(corpus: Path) -> list[str]:
    # Shards without a manifest are a split that lost it: named when it is opened.
    files = (path for name in (FILE_NAME, "*.bin") for path in corpus.glob(f"[!.]*/{name}"))
    names = sorted({path.parent.name for path in files})
    if not names:
        raise UserError(
            f"{corpus}: has no split; make one with "
            f"`python -m data_pipeline tokenize FILES --corpus {corpus} --split train`"
        )
    return names


def _tokenizer_line(corpus: Path, tokenizer: Tokenizer) -> str:
    mask = "none of its own" if tokenizer.mask_id is None else str(tokenizer.mask_id)
    return (
        f"{tokenizer_file(corpus)}: {tokenizer.vocab_size} ids, BOS {tokenizer.bos_id}, "
        f"EOS {tokenizer.eos_id}, PAD {tokenizer.pad_id}, mask {mask}"
    )


def _summary(directory: Path, manifest: Manifest) -> str:
    return (
        f"{directory}: {manifest.documents} documents, {manifest.tokens} tokens, "
        f"{manifest.bytes} bytes of text, {len(manifest.shards)} shard"
        f"{'' if len(manifest.shards) == 1 else 's'}"
        + ("" if manifest.lossless else ", not lossless")
    )


def _print_skipped(empty: int, bad: int) -> None:
    if empty or bad:
        print(f"left out: {empty} empty documents, {bad} bad lines")


if __name__ == "__main__":
    sys.exit(main())
