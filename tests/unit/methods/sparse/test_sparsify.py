from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import billhook
from billhook import sparsify, sparsifying_callback
from billhook.errors import InputError, NameNotFoundError, ScopeError
from billhook.graph import Plan, Scope
from billhook.methods.sparse import Sparsified
from billhook.sparse.holding import holds
from billhook.train import CallbackDriver, FitConfig, fit
from tests.networks import batches, build
from tests.unit.sparse.mapping.made_layers import table

LAYERS = ("conv1", "conv2", "conv3", "head")


def _sparse(**changes: Any) -> Sparsified:
    model, inputs = build("plain")
    return sparsify(model, inputs, **{"sparsity": 0.5, "pattern": "unstructured"} | changes)


def _patterns(sparse: Sparsified) -> dict[str, str]:
    return {name.removesuffix(".weight"): str(s.pattern) for name, s in sparse.plan.patterns.items()}


def test_one_call_is_enough() -> None:
    model, inputs = build("plain")
    sparse = sparsify(model, inputs, sparsity=0.5)
    assert _patterns(sparse) == dict.fromkeys(LAYERS, "4x1")
    assert sparse.weight_sparsity == pytest.approx(0.5, abs=0.02)
    zeros = sum(int((p == 0).sum()) for p in sparse.network.parameters())
    assert zeros == round(sparse.weight_sparsity * sum(s.mask.numel() for s in sparse.plan.patterns.values()))
    assert sparse.plan.made_by["billhook"] == billhook.__version__
    assert sparse.plan.made_by["sparse_method"] == "magnitude"
    assert sparse.history == ()


def test_the_plan_knows_its_graph_and_asks_for_no_channel_to_leave() -> None:
    sparse = _sparse()
    assert sparse.plan.graph is not None
    assert sparse.plan.removed == {}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (
            "kernel_pattern|4x1|dense",
            {n: "kernel_pattern" if n in ("conv1", "conv2") else "4x1" for n in LAYERS},
        ),
        ("kernel_pattern|dense", {"conv1": "kernel_pattern", "conv2": "kernel_pattern"}),
        (
            {"conv2": "unstructured", "head.weight": "1x4"},
            {"conv2": "unstructured", "head": "1x4"},
        ),
        # The name of the weight says more than that of its layer.
        ({"conv2": "dense", "conv2.weight": "unstructured"}, {"conv2": "unstructured"}),
    ],
)
def test_the_first_pattern_that_fits_a_layer_is_taken(pattern: Any, expected: dict[str, str]) -> None:
    assert _patterns(_sparse(pattern=pattern, sparsity=0.6)) == expected


def test_what_has_no_pattern_does_not_count_as_sparsity() -> None:
    sparse = _sparse(pattern={"conv2": "unstructured"}, sparsity=0.75)
    assert sparse.weight_sparsity == 0.75
    assert int((sparse.network.conv2.weight == 0).sum()) == 0.75 * sparse.network.conv2.weight.numel()
    assert not bool((sparse.network.conv3.weight == 0).any())


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"method": "magnitud"},
            NameNotFoundError,
            "unknown sparse method 'magnitud'; did you mean 'magnitude'",
        ),
        (
            {"pattern": "unstructed"},
            NameNotFoundError,
            "unknown pattern 'unstructed'; did you mean 'unstructured'",
        ),
        ({"pattern": "unified:4x4,row=3"}, InputError, "has no option 'row'; did you mean 'rows'"),
        ({"pattern": {"konv1": "4x1"}}, NameNotFoundError, "unknown weight 'konv1'; did you mean 'conv1'"),
        ({"pattern": {}}, InputError, "no layer in scope has a pattern"),
        ({"pattern": "dense"}, InputError, "no layer in scope has a pattern"),
        (
            {"pattern": "kernel_pattern"},
            InputError,
            r"every layer in scope: conv3\.weight \[32, 24, 1, 1\] .*; head\.weight .* or leave",
        ),
        (
            {"scope": Scope(include=("konv1",))},
            ScopeError,
            "'konv1' matches no layer or weight; did you mean 'conv1",
        ),
        ({"allocation": "lamb"}, InputError, "allocation='lamb': expected one of uniform, global, lamp, erk"),
        (
            {"sparsity": None, "sparsities": {"conv1.weight": 0.5}},
            InputError,
            "'conv2.weight' has a pattern but no sparsity",
        ),
        (
            {"sparsity": None, "sparsities": {f"{n}.weight": 1.0 for n in LAYERS}},
            InputError,
            "that of 'conv1.weight'.* must be at least 0 and below 1",
        ),
        ({"sparsities": {"conv1": 0.5}}, InputError, "leave sparsity and allocation out"),
        (
            {"sparsity": None, "sparsities": {"konv1": 0.5}},
            NameNotFoundError,
            "unknown weight with a pattern 'konv1'; did you mean 'conv1'",
        ),
        (
            {"sparsity": None, "pattern": "2:4|dense", "sparsities": {"conv2": 0.9}},
            InputError,
            r"that of 'conv2' is 0\.9, but its pattern leaves 0\.5000 to 0\.5000 at zero",
        ),
        ({"sparsity": None}, InputError, "how many weights shall be zero"),
        ({"pattern": "rules:latency=0.9"}, InputError, "decides .* leave"),
        ({"pattern": {"conv1": "rules"}}, InputError, "'rules' maps a pattern to each layer: give it alone"),
        ({"pattern": None}, InputError, "expected a text such as '4x1'"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _sparse(**changes)


def test_rules_that_leave_every_layer_dense_are_no_answer(tmp_path: Path) -> None:
    never = table(rows_1=[1, 1, 1], rows_4=[1, 1, 1], coarse=[1, 1, 1], kernel=[1, 1, 1])
    path = tmp_path / "never.json"
    path.write_text(json.dumps(never.to_dict()))
    with pytest.raises(InputError, match="leaves every layer dense"):
        _sparse(pattern=f"rules:times={path}")


def test_zeros_are_shared_out_the_methods_own_way_unless_somebody_says_how() -> None:
    def shares(**changes: Any) -> list[float]:
        return [s.sparsity for s in _sparse(sparsity=0.7, **changes).plan.patterns.values()]

    data = {"data": batches("plain")}
    assert shares() == shares(allocation="lamp")
    assert shares() != shares(allocation="global")
    assert shares(method="snip", **data) == shares(method="snip", allocation="global", **data)
    assert shares(method="snip", **data) != shares(method="snip", allocation="uniform", **data)
    assert shares(allocation="uniform") == pytest.approx([0.7] * 4, abs=0.01)


def _loop(model: nn.Module, callback: Any, steps: int) -> Any:
    """Train as anybody would, with a callback of ours."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    driver = CallbackDriver([callback], model, optimizer, total_steps=steps)
    data = batches("plain")
    model.train()
    with driver.attached():
        for step in range(steps):
            inputs, targets = data[step % 2]
            driver.before_step(inputs, targets)
            loss = driver.add_terms(nn.functional.cross_entropy(model(inputs), targets))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return driver.finish()[0]


@pytest.mark.parametrize("method", ["gradual", "admm", "reweighted"])
@pytest.mark.parametrize("pattern", ["4x1", "unified:4x4"])
def test_a_loop_of_ones_own_makes_the_network_sparse(method: str, pattern: str) -> None:
    model, inputs = build("plain")
    callback = sparsifying_callback(model, inputs, sparsity=0.5, method=method, pattern=pattern)
    before = model.conv3.bias.detach().clone()
    plan = _loop(model, callback, 20)
    assert set(plan.patterns) == {f"{name}.weight" for name in LAYERS}
    assert holds(model, plan.patterns) is None
    assert not torch.equal(model.conv3.bias, before)
    structures = plan.patterns.values()
    zeros = sum(s.mask.numel() - s.nonzeros for s in structures)
    assert zeros / sum(s.mask.numel() for s in structures) == pytest.approx(0.5, abs=0.03)
    untrained, _ = build("plain")
    assert billhook.verify(untrained, plan, inputs).exact


def test_the_callback_does_in_fit_what_sparsify_does() -> None:
    training = FitConfig(steps=12, lr=0.02, precision="32-true")
    settings = {"sparsity": 0.5, "method": "gradual", "pattern": "unstructured"}
    model, inputs = build("plain")
    expected = sparsify(model, inputs, data=batches("plain"), training=training, **settings)
    assert len(expected.history) == 6
    callback = sparsifying_callback(model, inputs, **settings)
    plan = fit(model, batches("plain"), config=training, loss=None, callbacks=[callback], progress=False).plan
    assert plan.patterns == dict(expected.plan.patterns)
    for name, tensor in expected.network.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


@pytest.mark.parametrize("method", ["magnitude", "snip", "lottery"])
def test_methods_that_do_not_act_during_training_have_no_callback(method: str) -> None:
    with pytest.raises(InputError, match=f"sparse method '{method}' is no callback"):
        sparsifying_callback(*build("plain"), sparsity=0.5, method=method)


def test_a_callback_belongs_to_its_network() -> None:
    callback = sparsifying_callback(*build("plain"), sparsity=0.5, method="gradual")
    with pytest.raises(InputError, match="made for another network"):
        _loop(build("plain")[0], callback, 2)


def test_a_weight_of_nan_is_named() -> None:
    model, inputs = build("plain")
    with torch.no_grad():
        model.conv2.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"'conv2\.weight' holds NaN or infinity"):
        sparsify(model, inputs, sparsity=0.5)


@pytest.mark.parametrize("method", ["magnitude", "gradual", "admm", "reweighted", "lottery", "snip"])
def test_patterns_that_a_network_has_already_are_kept(method: str) -> None:
    model, inputs = build("plain")
    given = sparsify(model, inputs, sparsity=0.5, pattern={"conv1": "4x1"})
    training = FitConfig(steps=6, lr=0.02, precision="32-true")
    more = {"data": batches("plain"), "training": training}
    both = sparsify(
        model, inputs, sparsity=0.5, pattern={"conv2": "4x1"}, plan=given.plan, method=method, **more
    )
    assert set(both.plan.patterns) == {"conv1.weight", "conv2.weight"}
    assert both.plan.patterns["conv1.weight"] == given.plan.patterns["conv1.weight"]
    assert holds(both.network, both.plan.patterns) is None


@pytest.mark.parametrize("method", ["gradual", "admm", "reweighted"])
def test_a_checkpoint_of_other_settings_is_refused(method: str, tmp_path: Path) -> None:
    model, inputs = build("plain")
    more = {"data": batches("plain"), "method": method, "checkpoint_dir": tmp_path}
    training = FitConfig(steps=6, lr=0.02, precision="32-true")
    sparsify(model, inputs, sparsity=0.5, pattern="4x1", training=training, **more)
    with pytest.raises(InputError, match="other patterns, another sparsity or other options"):
        sparsify(model, inputs, sparsity=0.9, pattern="unstructured", training=training, resume=True, **more)


def test_zeros_are_as_many_as_asked_where_blocks_at_the_border_are_smaller() -> None:
    torch.manual_seed(0)
    model, x = torch.nn.Linear(64, 10), torch.randn(1, 64)
    for allocation in ("lamp", "global", "uniform", "erk"):
        for sparsity in (0.2, 0.5, 0.8):
            found = sparsify(model, x, pattern="8x1", sparsity=sparsity, allocation=allocation)
            assert abs(found.weight_sparsity - sparsity) * 640 <= 2 * 8  # a block too few, at either rounding


def test_rules_keep_the_latency_they_were_made_for() -> None:
    model, inputs = build("residual")
    found = sparsify(model, inputs, sparsity=0.8, pattern="rules")
    shares = found.plan.made_by["mapping"]["sparsities"]
    assert shares
    for name, structure in found.plan.patterns.items():
        assert abs(structure.sparsity - shares[name]) < 0.03


def test_a_plan_is_plain_data_whatever_numbers_it_was_asked_with() -> None:
    found = sparsify(*build("plain"), sparsity=np.float32(0.5), seed=np.int64(3))
    assert Plan.from_json(found.plan.to_json()) == found.plan


def test_a_frozen_weight_is_not_trained_by_a_penalty() -> None:
    model, inputs = build("plain")
    model.conv2.weight.requires_grad_(False)
    before = model.conv2.weight.detach().clone()
    training = FitConfig(steps=6, lr=0.02, precision="32-true")
    found = sparsify(
        model, inputs, sparsity=0.5, method="reweighted", data=batches("plain"), training=training
    )
    after = found.network.conv2.weight.detach()
    kept = found.plan.patterns["conv2.weight"].mask
    assert torch.equal(after[kept], before[kept])


def test_a_weight_of_zeros_does_not_diverge() -> None:
    model, inputs = build("plain")
    torch.nn.init.zeros_(model.conv3.weight)
    training = FitConfig(steps=12, lr=0.02, precision="32-true")
    found = sparsify(model, inputs, sparsity=0.5, method="admm", data=batches("plain"), training=training)
    assert holds(found.network, found.plan.patterns) is None
