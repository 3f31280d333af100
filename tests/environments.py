"""Environments of other packages than this one's, made of what is installed here in a moment."""

import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement


def make_environment(folder: Path, *requirements: str) -> Path:
    """A virtual environment that holds what the requirements ask for, and no more.

    Its packages are links to those installed here: what they need themselves comes along, with
    the extras that are asked for.

    Returns:
        its interpreter.

    Raises:
        AssertionError: what is installed here does not satisfy a requirement.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    owners = Counter(name for one in distributions() for name in tops(one))
    for one in needed(requirements):
        for name in tops(one):
            if owners[name] == 1:
                (packages / name).symlink_to(Path(str(one.locate_file(name))))
        # Folders that several packages share are made anew, with the files of those wanted.
        for file in one.files or ():
            if owners[file.parts[0]] > 1 and ".." not in file.parts:
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                if not (packages / file).is_symlink():
                    (packages / file).symlink_to(Path(str(one.locate_file(file))))
    return folder / "bin" / "python"


def tops(one: Distribution) -> set[str]:
    """The names at the top of site-packages in which a distribution has files."""
    return {file.parts[0] for file in one.files or () if ".." not in file.parts}


def needed(requirements: tuple[str, ...]) -> list[Distribution]:
    """The distributions that satisfy the requirements, and those that they need."""
    found: dict[str, Distribution] = {}
    seen: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in seen:
            continue
        seen.add(str(wanted))
        one = distribution(wanted.name)
        assert wanted.specifier.contains(one.version, prereleases=True), (wanted, one.version)
        found[re.sub(r"[-_.]+", "-", wanted.name).lower()] = one
        for text in one.requires or ():
            below = Requirement(text)
            extras = wanted.extras or {""}
            if below.marker is None or any(below.marker.evaluate({"extra": e}) for e in extras):
                waiting.append(below)
    return list(found.values())
