"""``python -m tools.inspect CKPT``: what a checkpoint holds, and whether it is complete.

CKPT is a checkpoint, or a run directory: then its newest checkpoint that looks sound is
shown, and all of them are listed. Looking compares the small files with their checksums and
the others with their sizes. ``--verify`` reads every byte of what is named, of a run
directory all checkpoints, and compares it with what was written.
"""

import argparse
import contextlib
import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from configs.errors import UserError, exit_code
from pretrain.checkpoint import manifest, store
from tools import command

EPILOG = """\
exit status: 0 shown, and with --verify sound in every byte; 1 --verify found damage, each
damaged file is named; 2 no checkpoint, or an incomplete one
"""

PARTS = {
    "tokens": "embedding",
    "positions": "embedding",
    "attention": "attention",
    "mlp": "MLP",
    "attention_norm": "norms",
    "mlp_norm": "norms",
    "norm": "norms",
    "modulation": "modulation and time",
    "time_in": "modulation and time",
    "time_out": "modulation and time",
    "head": "head",
    "transform": "head",
}
"""The kind of parameter by ``PART`` of its name ``layers.N.PART.weight``."""

CHUNK = 2**24

Facts = dict[str, Any]


def describe(path: Path) -> Facts:
    """Step, score, layout, architecture, and counts and sizes of the tensors of a checkpoint.

    Raises:
        UserError: it is no checkpoint, is incomplete, or was not saved by a run.
    """
    from pretrain.checkpoint.reader import Reader

    reader = Reader(path)
    state = reader.state
    parameters: Counter[str] = Counter()
    for name, shape in reader.shapes().items():
        part = (*name.split("."), "", "")[2]
        parameters[PARTS.get(part, "other")] += math.prod(shape)
    kinds = {}
    for kind in reader.kinds():
        held = reader.shapes(kind)
        elements = sum(math.prod(shape) for shape in held.values())
        kinds[kind] = {"tensors": len(held), "elements": elements, "bytes": 4 * elements}
    total = sum(parameters.values())
    size = _size(path)
    return {
        "checkpoint": str(path),
        "step": state["step"],
        "tokens_seen": state["tokens_seen"],
        "elapsed_s": state["elapsed_s"],
        "score": state["score"],
        "layout": state["layout"],
        "objective": state["config"]["objective"]["name"],
        "precision": state["config"]["precision"],
        "model": state["config"]["model"],
        "code": state["code"],
        "tokenizer_sha256": state.get("tokenizer_sha256"),
        "parameters": {"total": total, **dict(parameters.most_common())},
        "tensors": kinds,
        "files": {name: facts["bytes"] for name, facts in sorted(reader.files.items())},
        "bytes": size,
        "bytes_per_parameter": size / max(1, total),
    }


def listing(directory: Path) -> Iterator[Facts]:
    """The checkpoints of a run, oldest first, sound or not."""
    for path in store.committed(directory):
        try:
            score = store.in_place(path).state.get("score")
            problem = None
        except UserError as error:
            score, problem = None, str(error)
        yield {
            "checkpoint": str(path),
            "step": store.step_of(path),
            "bytes": _size(path),
            "score": score,
            "problem": problem,
        }


def verify(path: Path, advance: Callable[[int], object]) -> list[str]:
    """Damage of a checkpoint, by file; every byte is read and compared with its checksum.

    Args:
        advance: called with the number of bytes just read.
    """
    problems = []
    for name, facts in sorted(manifest.read(path)["files"].items()):
        file = path / name
        try:
            size = file.stat().st_size
            if not file.is_file():
                problems.append(f"{file}: cannot be read (it is no file)")
            elif size != facts["bytes"]:
                problems.append(f"{file}: {size} bytes, not {facts['bytes']}")
            elif _sha256(file, advance) != facts["sha256"]:
                problems.append(f"{file}: not the checksum it was written with")
        except OSError as error:
            problems.append(f"{file}: cannot be read ({error.strerror})")
    return problems or _gaps(path)


def _gaps(path: Path) -> list[str]:
    """Tensors of which the index holds fewer elements than their shape has."""
    found = []
    for name, entry in store.check(path).index.items():
        held = sum(math.prod(box["sizes"]) for box in entry["boxes"])
        if held != math.prod(entry["shape"]):
            found.append(f"{path / 'index.json'}: {held} elements of {name} {entry['shape']}")
    return found


def _sha256(file: Path, advance: Callable[[int], object]) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            advance(len(chunk))
    return digest.hexdigest()


def _size(path: Path) -> int:
    """Bytes of all files; one that is removed meanwhile counts as 0."""
    total = 0
    for file in path.iterdir():
        with contextlib.suppress(OSError):
            total += file.stat().st_size
    return total


# -- what is printed ------------------------------------------------------------------------


def _text(found: Facts) -> str:
    layout, model, code = found["layout"], found["model"], found["code"]
    total = found["parameters"]["total"]
    bound = "" if found["score"] is None else f", held-out score {found['score']:.4f}"
    lines = [
        found["checkpoint"],
        f"step {found['step']:,}, {found['tokens_seen']:,} tokens seen{bound}",
        f"saved by data {layout['data']} x tensor {layout['tensor']} x pipeline "
        f"{layout['pipeline']}, ZeRO {layout['zero_stage']}, {found['precision']}",
        f"{found['objective']}, {model['num_layers']} layers of width {model['width']}, "
        f"vocabulary {model['vocab_size']:,}",
        f"code {code.get('git_commit') or 'unknown'}, Python {code.get('python')}, "
        + ", ".join(f"{name} {version}" for name, version in code.get("packages", {}).items()),
        "",
        f"{'parameters':<22}{total:>16,}",
    ]
    for name, num in found["parameters"].items():
        if name != "total":
            lines.append(f"  {name:<20}{num:>16,}{num / total:>8.1%}")
    lines += ["", f"{'tensors':<22}{'bytes':>16}"]
    for kind, held in found["tensors"].items():
        lines.append(f"  {kind:<20}{held['bytes']:>16,}  {held['tensors']} tensors")
    lines += ["", f"{'files':<32}{'bytes':>16}"]
    for name, size in found["files"].items():
        lines.append(f"  {name:<30}{size:>16,}")
    lines.append(
        f"  {len(found['files']) + 1} with the manifest{found['bytes']:>25,}  "
        f"{found['bytes_per_parameter']:.2f} per parameter"
    )
    return "\n".join(lines)


def _list(all_of_run: Sequence[Facts], verified: bool) -> str:
    lines = [f"{'step':>10}{'bytes':>16}{'bound':>10}"]
    for one in all_of_run:
        bound = "-" if one["score"] is None else f"{one['score']:.4f}"
        if one["problem"] is not None:
            state = f"NOT SOUND: {one['problem']}"
        elif verified:
            state = "sound, every byte checked"
        else:
            state = "tensors not checked"
        lines.append(f"{one['step']:>10,}{one['bytes']:>16,}{bound:>10}  {state}")
    if not verified:
        lines.append("--verify reads and checks every byte")
    return "\n".join(lines)


# -- the command ----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("inspect", __doc__, EPILOG)
    parser.add_argument("checkpoint", type=Path, metavar="CKPT", help="checkpoint or run directory")
    parser.add_argument("--verify", action="store_true", help="read and check every byte")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    return exit_code(lambda: _inspect(arguments))


def _inspect(arguments: argparse.Namespace) -> int:
    from pretrain.checkpoint.weights import find

    where: Path = arguments.checkpoint
    is_run = not (where / store.MANIFEST).exists()
    others = list(listing(where / "checkpoints")) if is_run else []
    result: Facts = {"run": others} if others else {}
    if arguments.verify:
        paths = [Path(one["checkpoint"]) for one in others] or [find(where)]
        damage = _verify(paths)
        for one in others:
            found = damage[Path(one["checkpoint"])]
            one["problem"] = one["problem"] or (found[0] if found else None)
        result["damage"] = [problem for found in damage.values() for problem in found]
    if not result.get("damage"):
        result |= describe(find(where))
    if arguments.json:
        print(json.dumps(result, indent=2))
        return 1 if result.get("damage") else 0
    if "step" in result:
        print(_text(result))
    if others:
        print(f"\n{_list(others, arguments.verify)}")
    for problem in result.get("damage", []):
        print(f"DAMAGED {problem}")
    if arguments.verify and not result["damage"]:
        print("\nevery byte is as it was written")
    return 1 if result.get("damage") else 0


def _verify(paths: Sequence[Path]) -> dict[Path, list[str]]:
    """Problems by checkpoint."""
    total = sum(_size(path) for path in paths)
    problems = {}
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="verify", leave=False, disable=None
    ) as bar:
        for path in paths:
            try:
                problems[path] = verify(path, bar.update)
            except UserError as error:
                problems[path] = [str(error)]
    return problems


if __name__ == "__main__":
    sys.exit(main())
