"""The methods that weights may be of: architectures, objectives, schedules and samplers.

Beside exported weights lies a file of this name that holds their architecture, the objective and
schedule that they were trained by, and the samplers that suit it
(:func:`tools.convert.code.flat_files`).
"""

from typing import Any

from configs import defaults
from configs.build import Plugin


def _classes(package: str) -> dict[str, Any]:
    registry = Plugin(package)
    return {name: registry.resolve(name) for name in registry.names()}


ARCHITECTURES = _classes("model.architectures")
OBJECTIVES = _classes("model.objectives")
SCHEDULES = _classes("model.schedules")
SAMPLERS = _classes("model.samplers")
OBJECTIVE = defaults.OBJECTIVE
"""The objective of weights whose config.json names none."""
