"""Seeded mutations of configuration files and of words: what a hand, an editor or a disk does."""

import random
import re
from collections.abc import Callable, Sequence

VALUES = [
    "", "~", "null", "-1", "0", "1", "2", "3", "7", "1e3", "1e400", "-1e400", ".nan", "-.inf",
    "2147483648", "9223372036854775807", "9223372036854775808", "1000000000000000000",
    "9" * 500, "-" + "9" * 30, "1:30", "on", "no", "0x10", "0o17", "010", "1_000", "2020-01-01",
    "[1]", "[]", "{}", "{a: 1}", "[.nan, 1]", "[0.9, 0.99]", "'x'", '"\\ud800"', '"\\0"',
    '"\\UFFFFFFFF"', "&a [*a]", "&a {b: *a}", "*b", "<<", "?", "- 1", "!!python/name:os.system x",
    "!!binary aGVsbG8=", "!!int x", "true", "false", "x" * 300, "a/b", "../x", "/proc/x", "3.5",
    "-0.0", "1e-300", "1e308", "mdlm", "genie", "cosine", "pairs", "[[[[[[", "]" * 50, "{" * 2000,
    "a: b: c", "\t", "é", "\U0001f600", "\udc80", "=", "a=b", "%", "@", "`", "|", ">", "#", "'",
    '"',
]  # fmt: skip

NUMBERS = [
    "-1", "0", "1", "2", "3", "4", "5", "6", "7", "8", "16", "22", "64", "128", "512", "1000",
    "4096",
    "65536", "1048576", "16777216", "2147483647", "2147483648", "1000000000000000000",
    "9223372036854775807", "4611686018427387904", "0.5", "0.1", "0.999", "1.0", "1e-300", "1e308",
    "1e-5", "-0.5", "[0, 0]", "[0.9, 1]", "null", "true", "false",
]  # fmt: skip
"""Values that many fields take."""

CHOICES = [
    "mdlm", "genie", "cosine", "loglinear", "wsd", "sqrt", "linear", "pad", "pairs", "paragraphs",
    "geglu", "swiglu", "rmsnorm", "pre_norm", "post_norm", "bert", "v", "eps", "loss_second_moment",
    "additive", "learned", "mixture", "fp16", "fp32", "bf16", "kept", "raw", "encoder", "noise",
    "{name: mdlm, t_min: 0.5}", "{num_encoder_layers: 2}", "{pipeline: 2, tensor: 2}",
]  # fmt: skip


def tame(keys: Sequence[str], rng: random.Random) -> list[str]:
    """Settings that are well-formed, with values that may well be right."""
    return [
        f"{rng.choice(keys)}={rng.choice(NUMBERS if rng.random() < 0.8 else CHOICES)}"
        for _ in range(rng.randint(1, 5))
    ]


def renumber(text: str, rng: random.Random) -> bytes:
    """A file in which a few numbers are others."""
    for _ in range(rng.randint(1, 3)):
        places = [found.span() for found in re.finditer(r"(?<=[ \[])[\d.e-]+(?=[,}\]\n])", text)]
        start, end = rng.choice(places)
        text = text[:start] + rng.choice(NUMBERS) + text[end:]
    return text.encode()


def mutate(text: str, rng: random.Random) -> bytes:
    """A file after one to four changes; some no longer hold text."""
    for _ in range(rng.randint(1, 4)):
        text = rng.choice(_LINES)(text, rng)
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.25:
        content = _damage(content, rng)
    return content


def words(keys: Sequence[str], rng: random.Random) -> list[str]:
    """A few settings, most of them well-formed, with any values."""
    return [word(keys, rng) for _ in range(rng.randint(1, 4))]


def word(keys: Sequence[str], rng: random.Random) -> str:
    """A setting, or something like one."""
    key, value = rng.choice(keys), rng.choice(VALUES)
    chance = rng.random()
    if chance < 0.7:
        return f"{key}={value}"
    if chance < 0.8:
        place = rng.randrange(len(key) + 1)
        slip = rng.choice([".", "..", "x", "", "=", " ", "-", "0"])
        return f"{key[:place]}{slip}{key[place:]}={value}"
    return rng.choice(
        [key, f"{key} = {value}", f"--{key}={value}", f"-{key}", f"{key}.0={value}", f".{key}=1",
         f"{key}.={value}", "=", f"={value}", f"{key}=", value, "a." * 3000 + "b=1",
         f"{key.partition('.')[0]}={value}"]
    )  # fmt: skip


def _replace_value(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.choice([n for n, line in enumerate(lines) if ":" in line] or [0])
    key = lines[at].partition(":")[0]
    lines[at] = f"{key}: {rng.choice(VALUES)}"
    return "\n".join(lines)


def _replace_number(text: str, rng: random.Random) -> str:
    at = [n for n, letter in enumerate(text) if letter.isdigit()]
    if not at:
        return text
    place = rng.choice(at)
    return text[:place] + rng.choice(VALUES) + text[place + 1 :]


def _drop_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    lines.pop(rng.randrange(len(lines)))
    return "\n".join(lines)


def _double_line(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    return "\n".join(lines)


def _indent(text: str, rng: random.Random) -> str:
    lines = text.split("\n")
    at = rng.randrange(len(lines))
    lines[at] = rng.choice([" ", "  ", "\t", "- "]) + lines[at]
    return "\n".join(lines)


def _insert(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text) + 1)
    return (
        text[:place] + rng.choice([*VALUES, "---\n", "...\n", "%YAML 9.9\n", "\0"]) + text[place:]
    )


def _cut(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text) + 1)]


_LINES: list[Callable[[str, random.Random], str]] = [
    _replace_value, _replace_value, _replace_value, _replace_number, _drop_line, _double_line,
    _indent, _insert, _cut,
]  # fmt: skip


def _damage(content: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return content.decode("utf-8", "replace").encode(rng.choice(["utf-16", "utf-8-sig"]))
    changed = bytearray(content or b"x")
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)
