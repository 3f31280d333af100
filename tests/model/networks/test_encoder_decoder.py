"""The encoder-decoder: what reads what, and the ways into it and out of it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.architectures.encoder_decoder import EncoderDecoder, EncoderDecoderNetwork
from model.categorical import Categorical
from model.draws import Draws
from model.networks.build import build
from model.networks.initialize import initial_value
from model.objectives.genie import Genie
from model.prediction import Answer, Prediction, Read, Table
from model.query import Query
from model.samplers import Job
from model.samplers.ddpm import Ddpm

SHAPES: dict[str, dict[str, Any]] = {
    "modern": {},
    "release": {
        "projection": "tanh",
        "time": "additive",
        "positions": "learned",
        "max_positions": 10,
    },
    "drafts": {"self_conditioning": True, "output": "mixture"},
}


def network(shape: str = "modern", **settings: Any) -> EncoderDecoderNetwork:
    config = EncoderDecoder(
        vocab_size=50,
        width=16,
        num_layers=2,
        num_heads=2,
        conditioning_width=8,
        mlp="geglu" if shape == "release" else "gelu",
        num_encoder_layers=2,
        embedding_width=6,
        **{**SHAPES[shape], **settings},
    )
    found = build(config)
    assert isinstance(found, EncoderDecoderNetwork)
    for parameter, name in found.parameter_names().items():
        noise = initial_value(f"noise.{name}.q.weight", parameter.shape, 1, 1.0)
        with torch.no_grad():
            parameter.add_(noise, alpha=0.3)
    return found


DRAWS = Draws(seed=0, split="test", batch=3)
POSITION = torch.arange(3)


def query(**changes: Any) -> Query:
    valid = torch.arange(7) < torch.tensor([[7], [4], [2]])
    ids = (DRAWS.uniform("ids", POSITION, 5) * 50).long()
    found = Query(
        ids_BL=ids,
        level_BK=torch.tensor([[0.2], [0.5], [0.9]]),
        predict_mask_BL=torch.ones_like(ids, dtype=torch.bool),
        signal_BK=torch.tensor([[0.9], [0.6], [0.1]]),
        noise_BLE=DRAWS.normal("noise", POSITION, 30).view(3, 5, 6),
        source_BS=(DRAWS.uniform("source", POSITION, 7) * 50).long(),
        source_valid_BS=valid,
    )
    return replace(found, **changes)


def output(model: EncoderDecoderNetwork, asked: Query) -> Tensor:
    return model(asked)["vector_ME"].detach()


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_remembered_answers_alike(shape: str) -> None:
    model, asked = network(shape), query()
    encoded = model.encode(asked)
    assert encoded.memory_BSD is not None
    assert torch.equal(output(model, encoded), output(model, asked))


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_levels_at_all_positions_are_one_level(shape: str) -> None:
    model, asked = network(shape), query()
    assert asked.signal_BK is not None
    spread = replace(
        asked, level_BK=asked.level_BK.expand(3, 5), signal_BK=asked.signal_BK.expand(3, 5)
    )
    torch.testing.assert_close(output(model, spread), output(model, asked), rtol=1e-5, atol=1e-6)
    found = output(model, replace(asked, signal_BK=asked.signal_BK.expand(3, 5)))
    assert torch.equal(found, output(model, asked))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_position_enters_and_leaves_at_its_own_level(shape: str) -> None:
    """Both ends work position by position: at each it is as if its level were that of all."""
    model = network(shape)
    level = DRAWS.uniform("level", POSITION, 5).float()
    asked = query(level_BK=level, signal_BK=(1 - level).sqrt())
    first, last = model.embedding, model.output
    h_BLD = DRAWS.normal("h", POSITION, 5 * 16).view(3, 5, 16)

    def ends(one: Query) -> tuple[Tensor, Tensor]:
        noise_BLE, signal_BK, level_BK, *self_cond, ids_BL, _, _ = model.inputs(one)
        h, *condition = first.target(
            noise_BLE, signal_BK, level_BK, self_cond[0] if self_cond else None, ids_BL
        )
        return h, last((h_BLD, *condition), one.predict_mask_BL)["vector_ME"].view(3, 5, 6)

    entered, left = ends(asked)
    for place in range(5):
        level_B1 = level[:, place : place + 1]
        alone = ends(replace(asked, level_BK=level_B1, signal_BK=(1 - level_B1).sqrt()))
        for found, wanted in zip((entered, left), alone, strict=True):
            torch.testing.assert_close(found[:, place], wanted[:, place], rtol=1e-5, atol=1e-6)
    other = query(level_BK=level.flip(1), signal_BK=(1 - level).sqrt())
    assert (output(model, asked) - output(model, other)).abs().max() > 1e-3


@pytest.mark.parametrize("prediction", ["x0", "eps", "v"])
def test_the_loss_of_a_position_is_that_of_its_level(prediction: Any) -> None:
    """Two corruptions of a batch, at index 0 and others, cut together position by position."""
    objective, model = Genie(num_steps=4, prediction=prediction), network()
    ids = query().ids_BL
    batch = {
        "tokens": ids,
        "valid": torch.ones_like(ids, dtype=torch.bool),
        "position": POSITION,
        "source": ids,
        "source_valid": torch.ones_like(ids, dtype=torch.bool),
    }
    one, other = (
        objective.corrupt(batch, Draws(seed=seed, split="test", batch=3), model.config)
        for seed in (0, 1)
    )
    weights = (torch.tensor([[1.0], [2.0], [0.5]]), torch.tensor([[3.0], [0.25], [1.0]]))
    one, other = (replace(x, weight_BK=w) for x, w in zip((one, other), weights, strict=True))
    assert one.level_BK.flatten().tolist() != other.level_BK.flatten().tolist()
    first_BL = (POSITION[:, None] + torch.arange(5)) % 2 == 0

    def cut(x_BK: Tensor, y_BK: Tensor) -> Tensor:
        return torch.where(first_BL, x_BK, y_BK)

    assert one.signal_BK is not None and other.signal_BK is not None  # noqa: PT018
    noises = {
        name: torch.where(first_BL[..., None], getattr(one, name), getattr(other, name))
        for name in ("noise_BLE", "x0_noise_BLE", "eps_BLE")
    }
    mixed = replace(
        one,
        level_BK=cut(one.level_BK, other.level_BK),
        signal_BK=cut(one.signal_BK, other.signal_BK),
        weight_BK=cut(one.weight_BK, other.weight_BK),
        **noises,
    )
    found = Prediction(
        vector_ME=DRAWS.normal("output", torch.arange(15), 6),
        clean_ME=model.embedding.weight.detach()[ids].flatten(0, 1),
        rounding=Categorical(DRAWS.normal("rounding", torch.arange(15), 51)),
    )
    of_one, of_other, of_mixed = (
        objective.losses(found, noisy)["loss"].view(3, 5) for noisy in (one, other, mixed)
    )
    assert torch.equal(of_mixed, torch.where(first_BL, of_one, of_other))
    seen = objective.seen({"loss": of_mixed.flatten()}, mixed)
    plain = torch.where(first_BL, of_one / one.weight_BK, of_other / other.weight_BK)
    torch.testing.assert_close(seen, plain.mean(dim=1, keepdim=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_memory_depends_on_the_source_alone(shape: str) -> None:
    model, asked = network(shape), query()
    memory = model.encode(asked).memory_BSD
    other = replace(
        asked, level_BK=1 - asked.level_BK, ids_BL=asked.ids_BL + 1, noise_BLE=torch.zeros(3, 5, 6)
    )
    again = model.encode(other).memory_BSD
    assert memory is not None and again is not None  # noqa: PT018
    assert torch.equal(memory, again)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["source_BS", "level_BK", "noise_BLE", "ids_BL", "signal_BK"])
def test_everything_that_is_given_is_read(shape: str, name: str) -> None:
    model, asked = network(shape), query()
    given = getattr(asked, name)
    changed = replace(asked, **{name: given + 1 if given.dtype == torch.int64 else given * 0.5})
    apart = (output(model, changed) - output(model, asked)).view(3, -1).abs().amax(dim=1)
    assert bool((apart > 1e-4).all())


def test_source_padding_is_not_seen_unless_the_release_is_reproduced() -> None:
    for ignored in (False, True):
        model, asked = network(ignore_source_padding=ignored), query()
        assert asked.source_BS is not None
        other = replace(
            asked,
            source_BS=torch.where(asked.source_valid_BS, asked.source_BS, 3),
            source_valid_BS=asked.source_valid_BS,
        )
        same = torch.allclose(output(model, other), output(model, asked), atol=1e-6)
        assert same is not ignored


def test_the_decoder_sees_all_of_the_target() -> None:
    model, asked = network(), query()
    assert asked.noise_BLE is not None
    noise = asked.noise_BLE.clone()
    noise[:, -1] += 1
    apart = output(model, replace(asked, noise_BLE=noise)) - output(model, asked)
    assert bool((apart.view(3, 5, 6).abs().amax(dim=2) > 1e-5).all())


def test_a_draft_is_read_and_none_is_zeros() -> None:
    model, asked = network("drafts"), query()
    zeros = replace(asked, self_cond_BLE=torch.zeros(3, 5, 6))
    assert torch.equal(output(model, asked), output(model, zeros))
    ones = replace(asked, self_cond_BLE=torch.ones(3, 5, 6))
    assert not torch.allclose(output(model, asked), output(model, ones), atol=1e-3)


def test_a_table_serves_both_ends() -> None:
    model = network()
    names = model.parameter_names()
    table = model.embedding.weight
    assert model.output.tokens.weight is model.output.head.weight is table
    assert names[table] == "layers.0.tokens.weight"
    assert len(set(names.values())) == len(names) == len(list(model.parameters()))


def test_rounding_and_clamping_find_the_tokens() -> None:
    model = network()
    ids = torch.randperm(50)[:20]
    vectors = model.embedding.weight.detach()[ids] + 0.01
    assert torch.equal(model.output.nearest(vectors), model.embedding.weight[ids])
    distance = torch.cdist(vectors, model.embedding.weight.detach()[:50])
    assert torch.equal(distance.argmin(dim=1), ids)
    with torch.no_grad():
        model.output.head.bias.zero_()
        likeliest = (vectors @ model.embedding.weight[:50].T).argmax(dim=1)
    assert torch.equal(model.output.round(vectors), likeliest)


def test_mask_and_padded_rows_are_never_rounded_to() -> None:
    model = network()
    far = model.embedding.weight.detach()[50:] * 100  # [MASK] and the padded rows
    nearest = model.output.nearest(far)
    assert all(bool((model.embedding.weight[:50] == row).all(dim=1).any()) for row in nearest)
    assert int(model.output.round(far).max()) < 50


def test_learned_positions_end_somewhere() -> None:
    with pytest.raises(ValueError, match="max_positions is 10"):
        output(
            network("release"),
            query(
                source_BS=torch.zeros(3, 11, dtype=torch.int64),
                source_valid_BS=torch.ones(3, 11, dtype=torch.bool),
            ),
        )


class Nearest(Table):
    """The way to ids by the distance alone."""

    def __init__(self, model: EncoderDecoderNetwork) -> None:
        self.weight = model.embedding.weight.detach()[:50]
        self.nearest = model.output.nearest

    def round(self, x_ME: Tensor) -> Tensor:
        return torch.cdist(x_ME, self.weight).argmin(dim=1)


class Telling:
    """A network that knows the target: its outputs are the embeddings of these ids."""

    def __init__(self, model: EncoderDecoderNetwork, ids_BL: Tensor) -> None:
        self.model, self.ids_BL, self.config = model, ids_BL, model.config
        self.levels: list[float] = []

    def encode(self, query: Query) -> Query:
        return query

    def ask(self, query: Query, read: Read[Answer]) -> Answer:
        self.levels.append(float(query.level_BK[0, 0]))
        known_ME = self.model.embedding.weight.detach()[self.ids_BL].flatten(0, 1)
        return read(Prediction(vector_ME=known_ME, table=Nearest(self.model)))


def job(network: Any, objective: Genie, rows: list[int]) -> Job:
    """Targets of the sources of some rows of :func:`query`."""
    asked = query()
    assert asked.source_BS is not None
    assert asked.source_valid_BS is not None
    ids = asked.ids_BL[rows]
    return Job(
        ids_BL=ids,
        free_BL=torch.ones_like(ids, dtype=torch.bool),
        position_B=POSITION[rows],
        draws=DRAWS,
        objective=objective,
        model=network.config,
        network=network,
        source_BS=asked.source_BS[rows],
        source_valid_BS=asked.source_valid_BS[rows],
    )


def test_sampling_reaches_what_the_network_knows() -> None:
    ids = query().ids_BL
    told = Telling(network(), ids.flip(0))
    asked = job(told, Genie(num_steps=8), [0, 1, 2])
    assert torch.equal(Ddpm(steps=4).run(asked), ids.flip(0))
    assert torch.equal(asked.ids_BL, ids)
    assert told.levels == [1.0, 0.75, 0.5, 0.25]
    assert asked.evaluations == 4


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model, objective = network("drafts"), Genie(num_steps=50, self_conditioning=0.5)

    def drawn(rows: list[int]) -> Tensor:
        with torch.no_grad():
            return Ddpm(steps=5).run(job(model, objective, rows))

    together = drawn([0, 1, 2])
    assert torch.equal(drawn([1]), together[1:2])
    assert torch.equal(drawn([2, 0]), together[[2, 0]])
    assert not torch.equal(together[0], together[1])


def test_a_given_position_is_refused() -> None:
    asked = job(network(), Genie(num_steps=8), [0, 1])
    asked.free_BL[0, 0] = False
    with pytest.raises(ValueError, match="ddpm writes whole texts: leave every position free"):
        Ddpm(steps=4).run(asked)
