"""Frozen networks that an objective names give the same numbers under every layout."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distilling import installed, run_on

from model.draws import Draws
from model.networks.build import build
from model.objectives import Noisy
from model.prediction import Networks, Prediction
from pretrain.checkpoint import frozen_networks
from pretrain.checkpoint.weights import load_denoiser
from pretrain.config import RunConfig
from pretrain.evaluation.evaluator import Evaluator
from pretrain.evaluation.losses import mean_losses
from pretrain.launch.local import World
from pretrain.launch.pool import Pool
from pretrain.parallel.mesh import Mesh
from pretrain.precision import DTYPES
from pretrain.trial import SyntheticStream, batch, run_config
from tools.convert import write
from tools.convert.tensors import of_dict
from tools.verify import layouts
from tools.verify.layouts import deviation
from tools.verify.reference_loop import PlainLoop

STEPS = 3

DRAWS = Draws(seed=0, split="train", batch=4)


@pytest.fixture(scope="module", autouse=True)
def method() -> Iterator[None]:
    with installed():
        yield


TEACHER = {"width": 16, "num_layers": 3, "num_heads": 2, "tied_head": True}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a network of another size, with weights that make it sure of things."""
    config = run_config("mdlm", model=TEACHER)
    generator = torch.Generator().manual_seed(1)
    values = {
        name: parameter.detach() + 0.3 * torch.randn(parameter.shape, generator=generator)
        for parameter, name in build(config.model).parameter_names().items()
    }
    path = tmp_path_factory.mktemp("teacher") / "checkpoint"
    state = write.state_of(config, step=7, tokens_seen=0, facts={})
    write.write_checkpoint(path, of_dict(values, "the test"), state, write.SHARD_BYTES)
    return path


def config_of(teacher: Path, **changes: Any) -> RunConfig:
    changes["objective"] = {"name": "distilled", "teacher": str(teacher)}
    return run_config("mdlm", **changes)


@pytest.fixture(scope="module")
def plain(teacher: Path) -> PlainLoop:
    loop = PlainLoop(config_of(teacher))
    for _ in range(STEPS):
        loop.step()
    return loop


CASES: list[tuple[int, dict[str, Any]]] = [
    (2, {"zero_stage": 1}),
    (2, {"zero_stage": 3}),
    (2, {"tensor": 2, "sequence_parallel": True}),
    (2, {"pipeline": 2}),
    (4, {"tensor": 2, "pipeline": 2, "micro_batch": 4}),
    (4, {"tensor": 2, "zero_stage": 3}),
]


@pytest.mark.parametrize(("size", "layout"), CASES)
def test_every_layout_learns_what_one_process_learns(
    pool: Pool, teacher: Path, plain: PlainLoop, size: int, layout: dict[str, Any]
) -> None:
    """Training and held-out losses, which both ask the teacher."""
    config = config_of(teacher, parallel=layout)
    first = run_on(pool, size, layouts.run, config, STEPS)[0]
    assert deviation(first.losses, plain.losses) < 1e-5
    assert deviation(first.grad_norms, plain.grad_norms) < 1e-4
    assert deviation(first.grad_norms[:1], plain.grad_norms[:1]) < 1e-6
    stream = SyntheticStream(config)
    evaluator = Evaluator(
        ask=plain.ask, objective=config.objective, model=config.model, seed=0, batch=2
    )
    with torch.no_grad():
        held_out = mean_losses(evaluator, stream, num=len(stream)).losses(config.objective)
    assert first.document_nats == pytest.approx(list(held_out.values()), rel=1e-4)


@dataclass(frozen=True)
class Asked:
    """Of a rank, once the teacher has been asked.

    Args:
        weights, values: elements of its weights, and of its exact values.
    """

    weights: int
    values: int
    logits: torch.Tensor


def asked(world: World, config: RunConfig) -> Asked:
    mesh = Mesh(world)
    torch.set_num_threads(1)
    network = frozen_networks.load(config, mesh)["teacher"]
    logits = network.ask(noisy_of(config), logits_of)
    parameters = network._forward._network.parameters()
    ((values,),) = network.flats.kinds.values()
    mesh.close()
    return Asked(sum(parameter.numel() for parameter in parameters), values.numel(), logits)


def noisy_of(config: RunConfig) -> Noisy:
    noisy: Noisy = config.objective.corrupt(batch(config, DRAWS, range(4)), DRAWS, config.model)
    return noisy


def logits_of(found: Prediction) -> torch.Tensor:
    assert found.logits is not None
    return found.logits.logits_MR


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_under_zero_3_no_rank_has_it_whole_and_it_answers_bit_by_bit_as_one_that_is(
    pool: Pool, teacher: Path, precision: str
) -> None:
    config = config_of(teacher, precision=precision)
    alone = load_denoiser(teacher, "ema").denoiser.to(DTYPES[precision])
    with torch.no_grad():
        truth = alone.ask(noisy_of(config), logits_of)
    total = sum(parameter.numel() for parameter in alone.parameters())
    for stage, weights in ((2, total), (3, 0)):
        parallel = replace(config.parallel, zero_stage=stage)
        ranks = run_on(pool, 2, asked, replace(config, parallel=parallel))
        assert [rank.weights for rank in ranks] == [weights, weights]
        assert sum(rank.values for rank in ranks) == total
        assert max(rank.values for rank in ranks) < 0.51 * total
        for rank in ranks:
            assert rank.logits.dtype == DTYPES[precision]
            assert torch.equal(rank.logits, truth)


def test_the_teacher_matters(plain: PlainLoop) -> None:
    """Or none of the above would say anything."""
    loop = PlainLoop(plain.config)
    loop.ask = Networks(loop.denoiser.ask, {"teacher": loop.denoiser.ask})
    loop.step()
    assert deviation(loop.losses, plain.losses[:1]) > 0.01


def test_a_name_that_is_unknown_is_told_with_those_that_are_known() -> None:
    def ask(query: Any, read: Any) -> Any:
        raise AssertionError("nobody was to be asked")

    networks: Any = Networks(ask, {"teacher": ask})
    with pytest.raises(ValueError, match="no network is called pupil, there are: own, teacher;"):
        networks(None, None, network="pupil")


def test_a_name_that_no_tensor_can_have_is_refused(teacher: Path) -> None:
    config = config_of(teacher)

    base: Any = type(config.objective)

    class Odd(base):
        @property
        def networks(self) -> dict[str, str]:
            return {"own": "x", "a/b": "y"}

    odd = Odd(teacher="z")
    with pytest.raises(ValueError, match=r"'own' is no name for a network.*\n.*'a/b' is no name"):
        replace(config, objective=odd)
