"""What a formula tells of itself, text as a formula, and rows added to the table."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import evonorm
from evonorm import NormActivation
from evonorm.layers import reference, table
from evonorm.layers.formula import FUNCTIONS, parse, read
from evonorm.layers.row import NormAct
from evonorm.layers.symbols import Symbol
from evonorm.layers.table import TABLE, Setting
from tests.tensors import noise


@pytest.fixture(autouse=True)
def rows_of_this_test() -> Iterator[None]:
    with mock.patch.dict(table._ROWS):
        yield


def value(row: NormAct, x: torch.Tensor, *, activate: bool = True, **parameters: torch.Tensor | None) -> torch.Tensor:
    setting = Setting(groups=2 if row.grouped else 1, eps=row.eps, activate=activate)
    own = {name: torch.full((4,), 0.7, dtype=x.dtype) for name in row.parameters}
    return reference.evaluate(row, x, {**own, **parameters}, setting)


def some() -> torch.Tensor:
    return noise(3, 4, 5, 5, seed=0, dtype=torch.float64)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_a_rows_text_is_its_formula(row: NormAct) -> None:
    again = NormAct("again", parse(row.text), "", row.eps, row.initial, row.without)
    assert again.text == row.text
    assert (again.parameters, again.running, again.grouped, again.affine) == (
        *(row.parameters, row.running, row.grouped),
        row.affine,
    )
    assert again.native == row.native
    weight, bias = torch.linspace(0.5, 2, 4, dtype=torch.float64), torch.linspace(-1, 1, 4, dtype=torch.float64)
    affine = {"weight": weight, "bias": bias} if row.affine else {}
    for activate in (True, False):
        expected = value(row, some(), activate=activate, **affine)
        torch.testing.assert_close(value(again, some(), activate=activate, **affine), expected, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(
    ("formula", "text", "statistics", "parameters"),
    [
        (lambda x, s, p, affine: x - (x - (x - 1)), "x - (x - (x - 1))", (), ()),
        (lambda x, s, p, affine: x / (s.group_std() * 2) / 3, "x / (std_group * 2) / 3", ("group_std",), ()),
        (lambda x, s, p, affine: -(x**2), "-x**2", (), ()),
        (lambda x, s, p, affine: (-x) ** 2, "(-x)**2", (), ()),
        (lambda x, s, p, affine: torch.tanh(p.a * x) + p.b, "tanh(a * x) + b", (), ("a", "b")),
        (lambda x, s, p, affine: F.gelu(affine(x)), "gelu(x * weight + bias)", (), ()),
        (lambda x, s, p, affine: 1 - x.sigmoid(), "1 - sigmoid(x)", (), ()),
        (lambda x, s, p, affine: 2 / x.abs(), "2 / abs(x)", (), ()),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_reading(formula, text, statistics, parameters) -> None:
    found = read(formula)
    assert (found.text, found.statistics, found.parameters) == (text, statistics, parameters)
    assert read(parse(text)).text == text


_LEAVES = st.sampled_from(["x", "std_batch", "mean_instance", "rms_group", "v", "alpha", "2", "0.5"])
_EXPRESSIONS = st.recursive(
    _LEAVES,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")
        | st.tuples(st.sampled_from(["tanh", "sigmoid", "softplus", "abs"]), inner).map(lambda p: f"{p[0]}({p[1]})")
        | st.tuples(inner, inner).map(lambda parts: f"max(x, {parts[0]} + {parts[1]})")
        | inner.map(lambda one: f"(-{one})")
    ),
    max_leaves=8,
)


@given(_EXPRESSIONS)
@settings(deadline=None)
def test_text_comes_back_as_the_same_function(inner: str) -> None:
    text = f"x + {inner}"
    try:
        parse(text)
    except ValueError as error:  # tanh(2), 1 / (2 - 2)
        assume("of numbers alone" not in str(error) and "division by zero" not in str(error))
        raise
    written = read(parse(text)).text
    assert read(parse(written)).text == written  # as few brackets as it takes, and no fewer
    one, other = (NormAct("one", parse(each), "") for each in (text, written))
    torch.testing.assert_close(value(one, some()), value(other, some()), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        (lambda x, s, p, affine: affine(x) if x > 0 else x, "must not branch on values, as on x > 0"),
        (lambda x, s, p, affine: x.mul_(2.0), "must change nothing in place, as mul_"),
        (lambda x, s, p, affine: affine(x).relu_(), "must change nothing in place, as relu_"),
        (lambda x, s, p, affine: torch.relu_(x), "must change nothing in place, as relu_"),
        (lambda x, s, p, affine: x / s.group_std, "a function not called: write s.group_std\\(\\)"),
        (lambda x, s, p, affine: x * x.sigmoid, "a function not called"),
        (lambda x, s, p, affine: x * p._a, "a parameter cannot be called '_a', which begins with '_'"),
        (lambda x, s, p, affine: x / p.std_group, "called 'std_group', which is a statistic: write s.group_std\\(\\)"),
        (lambda x, s, p, affine: x / p.batch_std, "called 'batch_std', which is a statistic: write s.batch_std\\(\\)"),
        (lambda x, s, p, affine: x if bool(x) else -x, "must not branch on values, as on x"),
        (lambda x, s, p, affine: x / s.layer_std(), "there is no statistic 'layer_std'; there are batch_mean"),
        (lambda x, s, p, affine: F.relu(x, inplace=True), "must change nothing in place, as relu"),
        (lambda x, s, p, affine: 3.0, "must give an expression of x: got 3.0"),
    ],
)
def test_a_formula_that_cannot_be_followed(formula, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read(formula)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x +", "this is no formula: 'x \\+'"),
        ("weight * x", "weight stands alone; write t \\* weight \\+ bias"),
        ("swoosh(x)", "there is no function 'swoosh'; there are abs, exp"),
        ("__import__('os').system('true')", "has no place in a formula"),
        ("x.__class__", "has no place in a formula"),
        ("x[0]", "has no place in a formula"),
        ("x if x else x", "has no place in a formula"),
        ("relu(x, inplace=True)", "has no place in a formula"),
        ("x + True", "has no place in a formula"),
        ("x + 'a'", "has no place in a formula"),
        ("__builtins__ + x", "has no place in a formula"),
        ("(lambda: x)()", "has no place in a formula"),
        ("3", "must give an expression of x"),
        ("x / std_grp * weight + bias", "there is no statistic 'std_grp'; did you mean std_group\\?"),
        (
            "x / rms_batch",
            "there is no statistic 'rms_batch'; did you mean|there is no statistic 'rms_batch'; there are",
        ),
        ("x / var", "there is no statistic 'var'; there are mean_batch, std_batch"),
        ("x * sigmoid", "sigmoid is a function; write what it is of, as in sigmoid\\(x\\)"),
    ],
)
def test_text_that_is_no_formula(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_that_text_may_name_is_torchs(name: str) -> None:
    arguments = "x, 0.5 * x" if name in ("maximum", "minimum") else "x"
    assert value(NormAct("one", parse(f"{name}({arguments})"), ""), some()).shape == some().shape


def test_an_added_layer_is_a_layer() -> None:
    """A parameter that no other row has, an activation outside the affine, group and batch statistics."""
    row = evonorm.add_layer(
        "mine",
        lambda x, s, p, affine: F.softplus(affine(x / torch.maximum(s.batch_std(), p.alpha * s.group_rms()))),
        initial={"alpha": 1.5},
        source="this test",
    )
    assert evonorm.names()[-1] == "mine"
    assert row.text == "softplus(x / max(std_batch, alpha * rms_group) * weight + bias)"
    assert (row.parameters, row.running, row.grouped, row.affine) == ({"alpha": 1.5}, ("running_var",), True, True)
    layer = NormActivation(6, "mine", groups=2)
    assert {name: p[0].item() for name, p in layer.named_parameters()} == {"weight": 1.0, "bias": 0.0, "alpha": 1.5}
    x = noise(4, 6, 3, 3, seed=1)
    y = layer(x)
    y.square().mean().backward()
    assert layer.alpha.grad is not None
    assert layer.alpha.grad.abs().sum() > 0
    grouped = x.reshape(4, 2, 3, 9).square().mean((2, 3)).add(1e-5).sqrt().repeat_interleave(3, 1)[:, :, None, None]
    std = x.var((0, 2, 3), correction=0).add(1e-5).sqrt()[None, :, None, None]
    torch.testing.assert_close(y, F.softplus(x / torch.maximum(std, 1.5 * grouped)))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.var((0, 2, 3), correction=0))
    other = NormActivation(6, "mine", groups=2)
    other.load_state_dict(layer.state_dict())
    # With the activation off: what it was applied to.
    plain = NormActivation(6, "mine", groups=2, activate=False)
    torch.testing.assert_close(F.softplus(plain(x)), y)
    assert "alpha" in dict(plain.named_parameters())
    with pytest.raises(ValueError, match=r"mine needs alpha: pass parameters=\{'alpha': ...\}"):
        evonorm.norm_act(x, "mine", groups=2, training=True)
    with pytest.raises(ValueError, match="mine has no kernel"):
        evonorm.norm_act(x, "mine", parameters={"alpha": torch.ones(6)}, groups=2, training=True, backend="kernel")


def test_a_statistic_read_twice_is_blended_once() -> None:
    evonorm.add_layer("twice", lambda x, s, p, affine: affine(x / s.batch_std() + (x - s.batch_mean()) / s.batch_std()))
    layer, x = NormActivation(3, "twice"), torch.randn(5, 3, 4, 4) * 3 + 1
    layer(x)
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * x.var((0, 2, 3), correction=0))
    torch.testing.assert_close(layer.running_mean, 0.1 * x.mean((0, 2, 3)))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch 2.11's compiler asks
def test_an_added_layer_goes_into_any_model() -> None:
    evonorm.add_layer("rms-silu", "x * sigmoid(v * x) / rms_group * weight + bias", initial={"v": 1.0})
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4))
    converted = evonorm.convert(model, "rms-silu", groups=4)
    assert converted[1].layer == "rms-silu"
    assert converted(torch.randn(2, 3, 8, 8)).shape == (2, 4, 4, 4)
    assert torch.compile(converted, backend="eager")(torch.randn(2, 3, 8, 8)).shape == (2, 4, 4, 4)


def test_added_rows_pickle_by_their_text() -> None:
    row = evonorm.add_layer(
        "mine", lambda x, s, p, affine: affine(x * torch.tanh(p.a * x)), initial={"a": 2.0}, eps=1e-4
    )
    kept = pickle.dumps(row)
    assert pickle.loads(kept) is row
    program = (
        "import pickle, sys; row = pickle.load(sys.stdin.buffer); import evonorm;"
        "print(row.name, row.text, row.parameters, row.eps, evonorm.names()[-1])"
    )
    done = subprocess.run([sys.executable, "-c", program], input=kept, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "mine x * tanh(a * x) * weight + bias {'a': 2.0} 0.0001 mine"
    for built_in in TABLE:
        assert pickle.loads(pickle.dumps(built_in)) is built_in
    only_here = NormAct("only-here", lambda x, s, p, affine: F.gelu(x, approximate="tanh"), "")
    with pytest.raises(ValueError, match="has no place in a formula"):
        pickle.dumps(only_here)


@pytest.mark.parametrize(
    ("name", "formula", "options", "said"),
    [
        ("evonorm-s0", "x", {}, "a layer is called 'evonorm-s0' already: y = x \\* sigmoid"),
        ("", "x", {}, "a layer's name is of letters"),
        ("../up", "x", {}, "a layer's name is of letters"),
        ("mine", "x", {"initial": {"v": 1.0}}, "mine has no parameter 'v' to begin with a value; its formula has none"),
        ("mine", "x * running_var", {}, "a parameter cannot be called 'running_var'"),
        ("mine", "x * a", {"initial": {"a": [1.0, 2.0]}}, "a must be one finite number: got \\[1.0, 2.0\\]"),
        ("mine", "x * a", {"initial": {"a": float("nan")}}, "a must be one finite number: got nan"),
        ("mine", "x / std_group", {"eps": "small"}, "eps must be one finite number: got 'small'"),
        ("mine", "x / std_group", {"eps": -1e-5}, "eps must be 0 or above: got -1e-05"),
    ],
)
def test_what_cannot_be_added(name: str, formula: str, options, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        evonorm.add_layer(name, formula, **options)


def test_the_same_layer_may_be_added_again_and_a_modules_names_are_taken() -> None:
    first = evonorm.add_layer("mine", "x * forward")
    assert evonorm.add_layer("mine", "x * forward") is first
    with pytest.raises(ValueError, match="a parameter cannot be called 'forward', which every module has"):
        NormActivation(4, "mine")


def test_another_layer_without_activation_is_another_layer() -> None:
    first = evonorm.add_layer("mine", "relu(x * weight + bias)", without="x")
    assert evonorm.add_layer("mine", "relu(x * weight + bias)", without="x") is first
    for without in (None, "x * 2"):
        with pytest.raises(ValueError, match=r"'mine' already: y = relu\(.*\); without activation, y = x;"):
            evonorm.add_layer("mine", "relu(x * weight + bias)", without=without)


@pytest.mark.parametrize("statistic", ["group_std", "batch_mean", "instance_rms"])
def test_text_takes_statistics_by_both_names(statistic: str) -> None:
    assert read(parse(f"x / {statistic} * weight + bias")).statistics == (statistic,)
    assert read(parse(f"x / {statistic} * weight + bias")).parameters == ()


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (lambda x, s, p, affine: torch.where(x > 0, x, p.a * x), lambda x: torch.where(x > 0, x, 0.5 * x)),
        (lambda x, s, p, affine: affine(x) * (x >= p.a), lambda x: x * (x >= 0.5)),
        (lambda x, s, p, affine: x * (x > 0) - p.a * (x <= 1), lambda x: x * (x > 0) - 0.5 * (x <= 1)),
        (lambda x, s, p, affine: (p.a * x).clamp(min=-1, max=2), lambda x: (0.5 * x).clamp(-1, 2)),
        (lambda x, s, p, affine: abs(x) + 2.0**p.a, lambda x: x.abs() + 2**0.5),
    ],
)
def test_comparisons_options_and_powers(formula, expected) -> None:
    evonorm.add_layer("mine", formula, initial={"a": 0.5})
    torch.testing.assert_close(NormActivation(4, "mine")(some()), expected(some()))


@pytest.mark.parametrize(
    "inner",
    [lambda x: x.softmax(1), lambda x: torch.where(x > 0, x, -x / 2), lambda x: F.gelu(x, approximate="tanh")],
)
def test_what_text_may_not_name_stands_within_an_activation(inner) -> None:
    evonorm.add_layer("mine", lambda x, s, p, affine: F.relu(affine(inner(x))))
    torch.testing.assert_close(NormActivation(4, "mine")(some()), inner(some()).relu())
    torch.testing.assert_close(NormActivation(4, "mine", activate=False)(some()), inner(some()))


@pytest.mark.parametrize(
    "formula",
    [lambda x, s, p, affine: affine(x).mean(1), lambda x, s, p, affine: s.group_std(), lambda x, s, p, affine: p.a],
)
def test_a_formula_gives_one_value_for_each_of_x(formula) -> None:
    evonorm.add_layer("mine", formula)
    with pytest.raises(ValueError, match="mine must give one value for each of x: its formula gives \\("):
        NormActivation(4, "mine", groups=1)(some())


def test_a_symbol_says_what_it_is() -> None:
    assert Symbol("x").text == "x"
    with pytest.raises(AttributeError):
        _ = Symbol("x")._private
