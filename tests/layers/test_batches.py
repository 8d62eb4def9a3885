"""Batch statistics of whole models: taken anew as torch's update_bn does, averaged over all batches, synchronized."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

import evonorm
from evonorm import NormActivation
from evonorm.layers.statistics import Statistics
from evonorm.layers.table import TABLE
from tests.tensors import noise

BATCHED = [row.name for row in TABLE if row.running]


def batches(count: int = 4) -> list[torch.Tensor]:
    """Batches that differ in spread and in mean, so that any other weight than 1 / count shows."""
    return [noise(3, 8, 4, 4, seed=i) * (i + 1) + i for i in range(count)]


def expected(layer: str, inputs: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """The plain average of the batches' own moments; torch's norms take the unbiased variance."""
    unbiased = layer.startswith("bn")
    found = {"running_var": torch.stack([x.double().var((0, 2, 3), unbiased=unbiased) for x in inputs]).mean(0).float()}
    if unbiased:
        found["running_mean"] = torch.stack([x.double().mean((0, 2, 3)) for x in inputs]).mean(0).float()
    return found


def assert_buffers(layer: nn.Module, wanted: dict[str, torch.Tensor]) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(getattr(layer, name), value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layer", BATCHED)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
@pytest.mark.parametrize(
    "kind", [lambda x: x, lambda x: (x, 1), lambda x: [x, "label", None]], ids=["x", "pair", "list"]
)
def test_update_statistics_is_the_average_over_batches(layer: str, backend, momentum, kind) -> None:
    model = NormActivation(8, layer, backend=backend, momentum=momentum)
    model(noise(3, 8, 4, 4) * 50)  # what was there is forgotten
    evonorm.update_statistics((kind(x) for x in batches()), model)
    assert_buffers(model, expected(layer, batches()))
    assert model.momentum == momentum
    if momentum is None:
        assert model.num_batches_tracked == 4
    assert not model._forward_pre_hooks


class Mixed(nn.Module):
    """torch's norms and ours, one of them called twice, and one frozen by its user."""

    def __init__(self) -> None:
        super().__init__()
        self.theirs, self.instance = nn.BatchNorm2d(8), nn.InstanceNorm2d(8, track_running_stats=True)
        self.ours = NormActivation(8, "evonorm-b0")
        self.shared = NormActivation(8, "bn-relu", backend="reference")
        self.free, self.none = NormActivation(8, groups=4), nn.BatchNorm2d(8, track_running_stats=False)
        self.dropout = nn.Dropout(0.5)
        self.theirs.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.shared(self.shared(self.ours(self.theirs(x))))
        return self.dropout(self.none(self.free(self.instance(x))))


def test_torchs_norms_and_ours_in_one_pass() -> None:
    """Each as update_bn, which knows torch's alone, and the modes and momenta as they were, module by module."""
    model = Mixed()
    modes = {name: module.training for name, module in model.named_modules()}
    evonorm.update_statistics(batches(), model)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert not model.theirs.training
    assert (model.theirs.momentum, model.ours.momentum) == (0.1, 0.1)
    assert_buffers(model.theirs, expected("bn", batches()))
    assert model.theirs.num_batches_tracked == 4

    theirs = nn.BatchNorm2d(8)
    update_bn(batches(), theirs)
    assert torch.equal(theirs.running_var, model.theirs.running_var)
    assert torch.equal(theirs.running_mean, model.theirs.running_mean)
    inside = [theirs.train()(x) for x in batches()]
    assert_buffers(model.ours, expected("evonorm-b0", inside))

    # The one called twice averages over its eight calls.
    twice = nn.BatchNorm2d(8, momentum=None)
    ours = NormActivation(8, "evonorm-b0")
    for x in inside:
        twice(twice(ours(x)).relu())
    assert_buffers(model.shared, {"running_mean": twice.running_mean, "running_var": twice.running_var})


def test_after_averaging_weights() -> None:
    model = nn.Sequential(nn.Conv2d(8, 8, 1), NormActivation(8, "evonorm-b0"))
    averaged = AveragedModel(model)
    with torch.no_grad():
        model[0].weight.mul_(3)
    averaged.update_parameters(model)
    evonorm.update_statistics(batches(), averaged)
    inside = [averaged.module[0](x).detach() for x in batches()]
    assert_buffers(averaged.module[1], expected("evonorm-b0", inside))


def test_a_compiled_model_runs_eagerly_and_stays_compiled() -> None:
    torch.compiler.reset()
    model = nn.Sequential(nn.Conv2d(8, 8, 1), NormActivation(8, "evonorm-b0"))
    compiled = torch.compile(model, backend="aot_eager")
    compiled(batches()[0])
    evonorm.update_statistics([x for _ in range(5) for x in batches()], compiled)
    assert_buffers(model[1], expected("evonorm-b0", [model[0](x).detach() for x in batches()]))
    compiled.eval()
    torch.testing.assert_close(compiled(batches()[0]), model.eval()(batches()[0]))


def test_what_update_statistics_refuses_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(NormActivation(8, "evonorm-b0"), nn.BatchNorm2d(8))
    model(batches()[1])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="loader gave no batch"):
        evonorm.update_statistics([], model)
    for bad in ({"image": batches()[0]}, [], "x"):
        with pytest.raises(TypeError, match=f"list or tuple that begins with one: got {type(bad).__name__}; pass"):
            evonorm.update_statistics([bad], model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])

    def breaks() -> Iterator[torch.Tensor]:
        yield batches()[0]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        evonorm.update_statistics(breaks(), model.eval())
    assert not model.training
    assert not model[1].training
    assert (model[0].momentum, model[1].momentum) == (0.1, 0.1)
    assert not model[0]._forward_pre_hooks


def test_a_model_without_running_statistics_is_not_run() -> None:
    evonorm.update_statistics(iter([object()]), nn.Sequential(NormActivation(8, groups=4), nn.GroupNorm(2, 8)))


@pytest.mark.parametrize("layer", BATCHED)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_momentum_none_is_torchs_cumulative_average(layer: str, backend) -> None:
    ours = NormActivation(8, layer, momentum=None, backend=backend)
    for x in batches():
        ours(x)
    assert_buffers(ours, expected(layer, batches()))
    if layer.startswith("bn") and backend == "reference":
        theirs = nn.BatchNorm2d(8, momentum=None)
        for x in batches():
            theirs(x)
        for name, value in ours.named_buffers():
            assert torch.equal(value, getattr(theirs, name))
    ours.eval()(batches()[0])
    assert ours.num_batches_tracked == 4
    assert "momentum=None" in repr(ours)
    ours.reset_running_stats()
    assert ours.num_batches_tracked == 0
    assert_buffers(ours, {"running_var": torch.ones(8)})


@pytest.mark.parametrize("layer", BATCHED)
def test_checkpoints_with_and_without_a_count(layer: str) -> None:
    """An average goes on where it stopped; checkpoints from before, and those of a fixed momentum, have no count."""
    first, inputs = NormActivation(8, layer, momentum=None), batches()
    for x in inputs[:2]:
        first(x)
    second = NormActivation(8, layer, momentum=None)
    second.load_state_dict(first.state_dict())
    for x in inputs[2:]:
        second(x)
    assert_buffers(second, expected(layer, inputs))
    plain = NormActivation(8, layer)
    assert "num_batches_tracked" not in plain.state_dict()
    second.load_state_dict(plain.state_dict())
    plain.load_state_dict(first.state_dict())
    assert torch.equal(plain.running_var, first.running_var)


def test_a_module_pickled_before_there_was_a_count() -> None:
    layer = NormActivation(8, "evonorm-b0")
    expected = copy.deepcopy(layer)(batches()[0])
    del layer._buffers["num_batches_tracked"]
    assert torch.equal(pickle.loads(pickle.dumps(layer))(batches()[0]), expected)


def test_momentum_none_set_later_is_refused_with_the_remedy() -> None:
    layer = NormActivation(8, "evonorm-b0")
    layer.momentum = None
    with pytest.raises(ValueError, match=r"build the layer with momentum=None, or call evonorm\.update_st"):
        layer(batches()[0])
    layer.eval()(batches()[0])
    with pytest.raises(
        TypeError, match=r"momentum must be a number: got momentum=None; .* needs a count, which NormActivation"
    ):
        evonorm.norm_act(batches()[0], "evonorm-b1", momentum=None, training=True)


def test_convert_sync() -> None:
    model = nn.Sequential(
        NormActivation(8, "evonorm-b0"), nn.Sequential(NormActivation(8, groups=4), nn.BatchNorm2d(8))
    )
    state, first = model.state_dict(), model[0]
    with torch.no_grad():
        state["1.1.weight"].fill_(3)
    same = evonorm.convert_sync(model)
    assert same is model
    assert same[0] is first
    assert first.sync
    assert not same[1][0].sync  # it has no batch statistics
    assert type(same[1][1]) is nn.SyncBatchNorm
    assert same[1][1].weight.eq(3).all()
    assert same.state_dict().keys() == state.keys()
    assert isinstance(evonorm.convert_sync(nn.BatchNorm1d(4)), nn.SyncBatchNorm)
    layer = NormActivation(8, "bn-relu")
    assert evonorm.convert_sync(layer) is layer
    assert layer.sync


@pytest.mark.parametrize("norm", [nn.LazyBatchNorm2d, nn.LazyBatchNorm1d, nn.LazyInstanceNorm2d])
def test_lazy_norms_are_refused_until_they_know_their_channels(norm: type[nn.Module]) -> None:
    model = nn.Sequential(nn.ReLU(), norm(track_running_stats=True))
    for call in (evonorm.convert_sync, lambda model: evonorm.update_statistics(batches(), model)):
        with pytest.raises(
            ValueError, match=rf"1 is a {norm.__name__}, .*run the model once on a batch before evonorm"
        ):
            call(model)
    if norm is not nn.LazyBatchNorm1d:
        model(batches()[0])
        evonorm.update_statistics(batches(), model)
        mean = torch.stack([x.relu().mean((0, 2, 3)) for x in batches()]).mean(0)
        assert_buffers(model[1], {"running_mean": mean})


def test_the_statistics_of_one_batch() -> None:
    """What the averages above are averages of."""
    x = batches()[2]
    statistics = Statistics(x, eps=0.0)
    torch.testing.assert_close(statistics.batch_std().flatten(), x.var((0, 2, 3), unbiased=False).sqrt())
