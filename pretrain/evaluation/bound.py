"""The held-out bound: NELBO in nats of each document, by corruptions of all windows.

Every token that the windows mark is scored once per sample, as far as the objective counts it
(:class:`model.objectives.Scope`). The bound is exact in the sense of
:meth:`model.objectives.Bounded.bound_corrupt`. Losses are summed by document, which is what
:mod:`pretrain.evaluation.interval` asks for.

Times are stratified over the corruptions of a round: the windows share the strata. A random
rotation, one for each round, deals them out, so that the mean over seeds or rounds is the bound of
these very documents, and rounds are independent of one another (systematic sampling with a random
start: Cochran 1977, chapter 8).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from data_pipeline.windows import Windows
from model.draws import Draws
from model.objectives import Bounded
from pretrain.evaluation.evaluator import Evaluator

SEEN = ("tokens", "valid", "ending", "segment")
"""Arrays of a window that the objective receives."""


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Sums by document, and counts of the tokens that were scored.

    Args:
        documents_D3: nats, counted tokens and tokens of the stream, summed over the samples.
        ids_R: occurrences of each id among the counted tokens of the stream, in one sample.
        frame: number of other counted tokens: of the BOS and EOS around windows, in one sample.
        windows_D: windows of each document where texts are padded; else 0.
    """

    documents_D3: Tensor
    ids_R: Tensor
    frame: Tensor
    windows_D: Tensor

    def total(self, total: Callable[[Tensor], Tensor]) -> "Tally":
        """Sum over all shares, by a function that sums one tensor."""
        return Tally(**{name: total(value).cpu() for name, value in vars(self).items()})

    def with_samples(self, other: "Tally") -> "Tally":
        """This tally with the samples of another one of the same windows."""
        return replace(self, documents_D3=self.documents_D3 + other.documents_D3)


def document_losses(
    evaluator: Evaluator,
    windows: Windows,
    *,
    samples: int,
    num_windows: int | None = None,
    number: int = 0,
) -> Tally:
    """Nats and tokens of each document; the results of all shares have to be summed.

    The corruptions depend on the seed, the round, the window and the sample only: neither on the
    batch size nor on the share.

    Args:
        evaluator: of a bounded objective.
        samples: corruptions of each window.
        num_windows: evaluate only the first windows.
        number: of the round; rounds of as many samples are independent of one another.
    """
    objective, model, device = evaluator.objective, evaluator.model, evaluator.device
    assert isinstance(objective, Bounded)
    total = min(num_windows or len(windows), len(windows))
    draws = evaluator.draws(total * samples)
    start = _rotation(draws, number)
    sums = torch.zeros(windows.split.num_documents, 3, dtype=torch.float64)
    spread = torch.zeros(windows.split.num_documents, dtype=torch.float64)
    ids = torch.zeros(model.vocab_size, dtype=torch.float64)
    frame = torch.zeros(1, dtype=torch.float64)
    turns = evaluator.share.batches(_batches(windows, total, evaluator.batch))
    for turn, (first, part), mine in turns:
        document, scored = part["document"], part["scored"]
        given = {key: part[key].to(device) for key in SEEN if key in part}
        given["free"] = scored.to(device)
        counted = objective.counted(given, model).cpu()
        of_stream = document >= 0
        # What frames a text, such as the EOS behind a padded one, belongs to its last document.
        owner = torch.where(of_stream, document, document.amax(dim=1, keepdim=True))
        window = first + torch.arange(len(scored), device=device)
        for sample in range(samples):
            turned = (window * samples + sample + start) % draws.batch
            inputs = given | {"position": number * draws.batch + turned}
            noisy = objective.bound_corrupt(inputs, draws, model, evaluator.state)
            read = partial(objective.bound_losses, noisy=noisy)
            losses_M = evaluator.ask(noisy, read).double().cpu()
            if mine:
                row_M, column_M = noisy.predict_mask_BL.cpu().nonzero(as_tuple=True)
                # The network may read several copies of a text, one behind the other.
                owner_M = owner[row_M, column_M % owner.shape[1]]
                sums[:, 0].index_add_(0, owner_M, losses_M)
        if mine:
            for column, which in ((1, counted), (2, of_stream)):
                tokens = torch.full((int(which.sum()),), float(samples), dtype=torch.float64)
                sums[:, column].index_add_(0, owner[which], tokens)
            ids += torch.bincount(part["tokens"][counted & of_stream], minlength=len(ids))
            frame += (counted & ~of_stream).sum()
            if "ending" in part:
                spread += torch.bincount(document.amax(dim=1), minlength=len(spread))
        evaluator.on_batch(sum(len(part["scored"]) for _, part in turn))
    return Tally(documents_D3=sums, ids_R=ids, frame=frame, windows_D=spread)


def _rotation(draws: Draws, number: int) -> int:
    """The position of the first corruption of a round, uniform on 0 .. N - 1."""
    place, first = torch.tensor([number]), torch.tensor([0])
    return int(draws.uniform_at("rotation", place, first) * draws.batch)


def _batches(windows: Windows, total: int, batch: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The number of the first window, and the arrays of ``Windows.read`` as tensors."""
    for start in range(0, total, batch):
        first = start
        for part in windows.read(start, min(total, start + batch)):
            yield first, {key: torch.from_numpy(array) for key, array in part.items()}
            first += len(part["tokens"])
