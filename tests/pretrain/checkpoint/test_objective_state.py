"""What an objective learns of its own losses travels with the weights, bit for bit."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_runs import reseal
from torch import Tensor

from configs.errors import UserError
from model.categorical import Categorical
from model.draws import Draws
from model.facts import Facts
from model.objectives import NO_STATE, Noisy, State
from model.objectives.genie import Genie
from model.objectives.mdlm import Mdlm
from model.prediction import Ask, Prediction
from pretrain.checkpoint import store
from pretrain.checkpoint.objective_tensors import NAME
from pretrain.checkpoint.reader import Reader
from pretrain.checkpoint.saver import Saver
from pretrain.checkpoint.weights import load_denoiser
from pretrain.data import open_corpus
from pretrain.evaluation.bound import document_losses
from pretrain.evaluation.evaluator import Evaluator
from pretrain.evaluation.losses import mean_losses
from pretrain.launch.pool import RankError
from pretrain.parallel.ranges import FlatRange, OwnedRange
from pretrain.trial import SyntheticStream, SyntheticWindows, batch, run_config
from tools.convert.average import average
from tools.convert.from_hf import from_hf
from tools.convert.strip import strip_checkpoint
from tools.convert.to_hf import to_hf
from tools.verify.reference_loop import PlainLoop

STEPS = 30_000
"""Indices of the process: the state is losses [30000, 10] float64, and seen [30000] int64."""

RUN = (
    "precision=fp32", "eval.every=0", "model.name=encoder_decoder", "model.num_encoder_layers=1",
    "model.embedding_width=16", "objective.name=genie", f"objective.num_steps={STEPS}",
    "objective.times=loss_second_moment", "data.packing=paragraphs", "data.source_length=48",
    "data.sequence_length=16",
)  # fmt: skip
ODD: dict[str, Tensor] = {
    "warp": torch.rand(50, 7, dtype=torch.float64) ** 9,
    "counts": torch.randint(2**62, (STEPS,)),
    "seen": torch.tensor([True, False]),
    "half": torch.rand(3).bfloat16(),
    "strided": torch.arange(12.0).view(3, 4).t(),
    "step": torch.tensor(3, dtype=torch.int32),
    "none": torch.zeros(0, 2),
}


def same(one: State, other: State) -> bool:
    """Names, dtypes and every bit."""
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and torch.equal(value, other[name])
        for name, value in one.items()
    )


def save(directory: Path, objective_state: State) -> Path:
    """A checkpoint of two ranks, of which the second one's state is of no account."""
    store.fence(directory, 1)
    ranks = [Saver(directory, rank=rank, size=2, attempt=1) for rank in range(2)]
    for rank, saver in enumerate(ranks):
        half = FlatRange(name="w", shape=(2,), corner=(0,), sizes=(2,), start=rank, num=1)
        own = objective_state if rank == 0 else {"other": torch.zeros(1)}
        owned_range = OwnedRange(range=half, group=0, offset=0)
        saver.begin({"step": 1}, {"master": [torch.ones(1)]}, [owned_range], own)
        for value in own.values() if rank == 0 else ():
            value.zero_()  # what is saved is what was there when it began
    for _ in range(2):
        for saver in ranks:
            saver.wait()
        sums = [sum(column) for column in zip(*(s.report() for s in ranks), strict=True)]
        assert not any(saver.settle(*sums) for saver in ranks)
    return store.path_of(directory, 1)


def test_tensors_of_every_dtype_come_back_as_they_were(tmp_path: Path) -> None:
    path = save(tmp_path, {name: value.clone() for name, value in ODD.items()})
    reader = Reader(path)
    assert same(reader.objective_state(), ODD)
    assert reader.files[NAME]["sha256"] == store.sha256(path / NAME)
    assert "objective" not in reader.state
    data = bytearray((path / NAME).read_bytes())
    data[-1] ^= 1
    (path / NAME).write_bytes(data)
    assert "does not have the checksum" in str(store.damage(path))
    with pytest.raises(UserError, match=r"is damaged: objective\.safetensors does not have the"):
        Reader(path).objective_state()


def test_where_nothing_is_learnt_there_is_no_file(tmp_path: Path) -> None:
    path = save(tmp_path, NO_STATE)
    assert not (path / NAME).exists()
    assert Reader(path).objective_state() == {}


def newest(run: Path) -> Path:
    return store.committed(run / "checkpoints")[-1]


def learnt_at(run: Path, step: int) -> State:
    return Reader(store.path_of(run / "checkpoints", step)).objective_state()


def added(before: State, after: State) -> int:
    """How many losses came to those of ``before``, all of which are still there."""
    old = before["seen"]
    untouched = old == after["seen"]
    assert torch.equal(before["losses"][untouched], after["losses"][untouched])
    assert (after["seen"] >= old).all()
    kept = before["losses"] != 0
    assert torch.equal(before["losses"][kept], after["losses"][kept])
    return int((after["seen"] - old).sum())


def test_resumes_forks_and_exports_carry_it_on(train, tmp_path: Path) -> None:
    train(*RUN, "stop_after=2")
    run, size = tmp_path / "run", 8
    before = learnt_at(run, 2)
    assert before["losses"].dtype == torch.float64
    assert (before["losses"].shape, before["seen"].shape) == ((STEPS, 10), (STEPS,))
    assert int(before["seen"].sum()) == 2 * size

    train(*RUN, "stop_after=3", "parallel.tensor=2", "parallel.pipeline=2")
    assert added(before, learnt_at(run, 3)) == size
    loaded = load_denoiser(run, "ema")
    assert same(loaded.state, learnt_at(run, 3))

    begin = (f"fork_from={store.path_of(run / 'checkpoints', 2)}", "seed=5", "steps=1")
    train(*RUN, *begin, "parallel.data=2", run="same")
    assert added(before, learnt_at(tmp_path / "same", 1)) == size
    train(*RUN, *begin, "objective.schedule=cosine", run="other")
    assert int(learnt_at(tmp_path / "other", 1)["seen"].sum()) == size

    to_hf(newest(run), tmp_path / "out", no_tokenizer=True)
    from_hf(tmp_path / "out", tmp_path / "back")
    assert same(Reader(tmp_path / "back").objective_state(), learnt_at(run, 3))
    train(*RUN, f"fork_from={tmp_path / 'back'}", "fork_tokenizer=other", "steps=1", run="again")
    assert added(learnt_at(run, 3), learnt_at(tmp_path / "again", 1)) == size

    strip_checkpoint(newest(run), tmp_path / "bare")
    average([store.path_of(run / "checkpoints", 2), newest(run)], tmp_path / "mean")
    for name in ("bare", "mean"):
        assert same(Reader(tmp_path / name).objective_state(), learnt_at(run, 3))


def test_the_former_form_is_refused_by_name(train, tmp_path: Path) -> None:
    train("eval.every=0", "stop_after=1")
    path = newest(tmp_path / "run")
    reseal(path, objective={})  # of an objective that learns nothing: there is nothing to lose
    train("eval.every=0", "stop_after=2")
    path = newest(tmp_path / "run")
    reseal(path, objective={"seen": [1, 2]})
    message = "step-00000002 was saved by an older version, which kept the objective's state"
    with pytest.raises(RankError, match=message):
        train("eval.every=0", "stop_after=3")
    with pytest.raises(RankError, match=message):
        train("eval.every=0", "steps=1", f"fork_from={path}", run="fork")
    for use in (lambda: load_denoiser(path, "ema"), lambda: to_hf(path, tmp_path / "out")):
        with pytest.raises(UserError, match=message):
            use()


# -- what is given to an objective --------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting(Mdlm):
    """An objective that notes what it is given."""

    given: list[State] = dataclasses.field(default_factory=list)

    def init_state(self, facts: Facts) -> State:
        return {"counts": facts.counts_V, "lengths": facts.lengths_N}

    def corrupt(self, batch: Any, draws: Draws, model: Any, state: State = NO_STATE) -> Noisy:
        self.given.append(state)
        return super().corrupt(batch, draws, model)

    def refine(self, noisy: Noisy, ask: Ask, draws: Draws, state: State = NO_STATE) -> Noisy:
        self.given.append(state)
        return noisy

    def bound_corrupt(self, batch: Any, draws: Draws, model: Any, state: State = NO_STATE) -> Noisy:
        self.given.append(state)
        return super().bound_corrupt(batch, draws, model)


def test_an_objective_begins_with_facts_and_is_given_its_state() -> None:
    objective = Counting()
    config = dataclasses.replace(run_config("mdlm"), objective=objective)
    loop = PlainLoop(config)
    loop.step()
    draws = Draws(seed=config.seed, split="train", batch=16)
    texts = batch(config, draws, range(16))
    counts = np.bincount(texts["tokens"][texts["valid"]].numpy(), minlength=90)
    assert loop.state["counts"].tolist() == counts.tolist()
    assert loop.state["lengths"].tolist() == np.bincount(texts["valid"].sum(dim=1)).tolist()
    assert objective.given == [loop.state, loop.state]

    def ask(noisy: Any, read: Any) -> Any:
        rows = int(noisy.predict_mask_BL.sum())
        return read(Prediction(logits=Categorical(torch.zeros(rows, config.model.num_rows))))

    evaluator = Evaluator(
        ask=ask, objective=objective, model=config.model, seed=0, batch=4, state=loop.state
    )
    document_losses(evaluator, SyntheticWindows(config=config), samples=1)
    mean_losses(evaluator, SyntheticStream(config), num=7)
    assert len(objective.given) > 4
    assert all(given is loop.state for given in objective.given)


def test_the_facts_of_a_run_are_its_corpus_and_cost_nothing_unread(tiny_config) -> None:
    draws = Draws(seed=0, split="train", batch=8)
    facts = open_corpus(tiny_config, draws).facts
    train = open_corpus(tiny_config, draws).train
    assert facts.counts_V.tolist() == train.counts().tolist()
    assert facts.counts_V.dtype == facts.lengths_N.dtype == torch.int64
    assert int(facts.lengths_N.sum()) == train.num_documents
    assert int((facts.lengths_N * torch.arange(len(facts.lengths_N))).sum()) == train.num_tokens

    def unread() -> Tensor:
        raise AssertionError("nothing was to be counted")

    assert Mdlm().init_state(Facts(unread, unread)) == {}
    assert set(Genie(times="loss_second_moment").init_state(Facts(unread, unread))) == {
        "losses",
        "seen",
    }


def test_held_out_times_are_even_whatever_has_been_learnt() -> None:
    config = run_config("genie", objective={"num_steps": 4, "times": "loss_second_moment"})
    losses = torch.tensor([1.0, 2.0, 30.0, 4.0]).double()[:, None].expand(4, 10)
    objective_state = {"losses": losses, "seen": torch.full((4,), 10)}
    samples = batch(config, Draws(seed=1, split="windows", batch=16), range(16))
    for split, follows in (("valid", False), ("train", True)):
        draws = Draws(seed=0, split=split, batch=16)
        even = config.objective.corrupt(samples, draws, config.model)
        found = config.objective.corrupt(samples, draws, config.model, objective_state)
        assert torch.equal(even.level_BK, found.level_BK) != follows
        assert bool((found.weight_BK == 1).all()) != follows
