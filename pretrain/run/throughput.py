"""Speed of a run, its clocks, and its peak memory."""

import math
import time

import torch

SMOOTHED_S = 30.0
"""Seconds over which a shown speed is averaged."""


class Smoothed:
    """Speed averaged over steps with weights exp(-age / 30 s)."""

    def __init__(self) -> None:
        self._tokens = self._steps = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Add a step."""
        kept = math.exp(-seconds / SMOOTHED_S)
        self._tokens = kept * self._tokens + tokens
        self._steps = kept * self._steps + 1
        self._seconds = kept * self._seconds + seconds

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second."""
        return self._tokens / max(self._seconds, 1e-9)

    @property
    def seconds_per_step(self) -> float:
        """Seconds per step."""
        return self._seconds / max(self._steps, 1e-9)


class Throughput:
    """Clocks of the training loop: of a step, between logged rows, and over all starts of a run."""

    def __init__(self) -> None:
        self._step_at = self._waited = self._logged_at = self._began = self._before = 0.0
        self._logged_tokens = 0

    def start(self, tokens: int, elapsed_s: float) -> None:
        """Begin the loop, after these tokens and seconds of earlier starts."""
        self._began, self._before = time.perf_counter(), elapsed_s
        self.restart(tokens)

    @property
    def elapsed_s(self) -> float:
        """Seconds in the training loop, over all starts of the run."""
        return self._before + time.perf_counter() - self._began

    def restart(self, tokens: int) -> None:
        """Measure throughput from now on, without the time since the last row (a validation)."""
        self._logged_at, self._logged_tokens = time.perf_counter(), tokens

    def step_begins(self) -> None:
        """Start the clock of a step."""
        self._step_at = time.perf_counter()

    def data_is_there(self) -> None:
        """Stop the clock of the data: the batch of the step has been read."""
        self._waited = time.perf_counter() - self._step_at

    @property
    def step_seconds(self) -> float:
        """Seconds of the step so far."""
        return time.perf_counter() - self._step_at

    def measured(self, tokens: int) -> dict[str, float]:
        """The metrics of the step that ends now; tokens per second since the last row."""
        now = time.perf_counter()
        per_second = (tokens - self._logged_tokens) / (now - self._logged_at)
        self.restart(tokens)
        return {
            "perf/tokens_per_second": per_second,
            "perf/step_time_s": now - self._step_at,
            "perf/data_wait_s": self._waited,
        }


def peak_memory(device: torch.device) -> int:
    """Peak bytes on the GPU, or the peak resident size of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
