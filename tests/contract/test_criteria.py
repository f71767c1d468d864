"""What holds for every criterion on every network."""

from __future__ import annotations

import copy
from dataclasses import fields
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from billhook.allocate.rounding import keep_best
from billhook.criteria import Calibration, ScoreContext, criteria, score
from billhook.errors import InputError
from billhook.graph import Groups, capture
from billhook.graph.groups import ChannelGroup, Role
from billhook.options import configure
from tests.contract.wrong_values import wrong_values
from tests.networks import NETWORKS, batches, build

BLIND = {"random"}  # sees no weights, so weights cannot move its scores
REDUNDANCY = {"fpgm"}  # asks which units are alike; a dead one is unlike the others
PARTIAL = {"bn_scale"}  # cannot judge every group
# A dead unit that somebody would read is not nothing: it has a norm, or gradients through those who read it.
READ = {"grasp", "group_norm"}
SIGNED = {"grasp"}  # scores below 0 are for units that do harm, and those go before the dead ones

every_criterion = pytest.mark.parametrize("name", criteria.names())
every_network = pytest.mark.parametrize("network", NETWORKS)


@cache
def _groups(network: str) -> Groups:
    return capture(*build(network)).groups


def _scores(name: str, network: str, model: nn.Module, groups: list[ChannelGroup]) -> dict[str, Tensor]:
    return score(criteria.get(name)(), model, groups, calibration=Calibration(batches(network)))


def _judged(name: str, network: str, model: nn.Module) -> list[ChannelGroup]:
    """Return the groups that the criterion can judge: all, for most."""
    criterion, context = criteria.get(name)(), ScoreContext.of(model)
    prunable = list(_groups(network).prunable)
    judged = [g for g in prunable if criterion.unsupported(g, context) is None]
    assert name in PARTIAL or judged == prunable
    return judged


@every_criterion
@every_network
def test_scores_are_finite_repeatable_and_independent_of_order(name: str, network: str) -> None:
    model, _ = build(network)
    groups = _judged(name, network, model)
    scores = _scores(name, network, model, groups)
    backwards = _scores(name, network, copy.deepcopy(model), groups[::-1])  # a duplicate scores the same
    for group in groups:
        assert scores[group.id].shape == (group.size,)
        assert scores[group.id].dtype == torch.float32
        assert torch.isfinite(scores[group.id]).all()
        assert torch.equal(scores[group.id], backwards[group.id])


@pytest.mark.parametrize("name", sorted({*criteria.names()} - BLIND))
@every_network
def test_permuting_units_permutes_scores(name: str, network: str) -> None:
    model, _ = build(network)
    groups = _judged(name, network, model)
    before = _scores(name, network, model, groups)
    order = {g.id: torch.randperm(g.size, generator=torch.Generator().manual_seed(g.size)) for g in groups}
    for group in groups:
        _permute(model, group, order[group.id])
    after = _scores(name, network, model, groups)
    for group in groups:
        expected = before[group.id][order[group.id]]
        torch.testing.assert_close(after[group.id], expected, rtol=2e-3, atol=2e-3 * float(expected.max()))


@every_criterion
@pytest.mark.parametrize("network", ["residual", "attention"])
def test_nothing_is_touched(name: str, network: str) -> None:
    model, _ = build(network)
    groups = _judged(name, network, model)
    model.train()
    first = next(model.parameters())
    first.grad = torch.ones_like(first)
    first.requires_grad_(False)
    weights = {n: t.clone() for n, t in model.state_dict().items()}
    random_state = torch.get_rng_state()
    _scores(name, network, model, groups)
    assert all(torch.equal(t, weights[n]) for n, t in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert [p.requires_grad for p in model.parameters()] == [p is not first for p in model.parameters()]
    assert [p.grad is not None for p in model.parameters()] == [p is first for p in model.parameters()]
    assert torch.equal(first.grad, torch.ones_like(first))
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("name", sorted({*criteria.names()} - BLIND - REDUNDANCY))
@every_network
def test_a_dead_unit_comes_last(name: str, network: str) -> None:
    model, _ = build(network)
    groups = _judged(name, network, model)
    for group in groups:
        _kill(model, group, unit=1, roles=("out", "through", "in") if name in READ else ("out", "through"))
    for group_id, scores in _scores(name, network, model, groups).items():
        assert scores[1] == 0, f"{group_id}: {scores.tolist()}"
        assert name in SIGNED or scores.min() == 0, f"{group_id}: {scores.tolist()}"


@pytest.mark.parametrize("name", sorted(READ - SIGNED))
@every_network
def test_a_dead_unit_that_is_read_comes_last_with_a_score_above_zero(name: str, network: str) -> None:
    model, _ = build(network)
    groups = _judged(name, network, model)
    for group in groups:
        _kill(model, group, unit=1)
    for group_id, scores in _scores(name, network, model, groups).items():
        assert scores[1] == scores.min() > 0, f"{group_id}: {scores.tolist()}"


@every_criterion
def test_the_best_units_are_selected_and_the_first_of_equals(name: str) -> None:
    model, _ = build("residual")
    for scores in _scores(name, "residual", model, _judged(name, "residual", model)).values():
        removed = int(0.3 * len(scores))
        keep = keep_best(scores.numpy(), len(scores) - removed)
        assert (~keep).sum() == removed
        assert scores[keep].min() >= scores[~keep].max()
        equal = keep_best(torch.zeros_like(scores).numpy(), len(scores) - removed)
        assert equal[: len(scores) - removed].all()


@every_criterion
def test_wrong_options_are_refused_with_the_valid_range(name: str) -> None:
    kind = criteria.get(name)
    for option, value, rule in wrong_values(kind):
        with pytest.raises(InputError) as caught:
            configure(kind, {option: value}, what=f"criterion {name!r}")
        assert option in str(caught.value)
        assert str(rule) in str(caught.value)
    with pytest.raises(InputError, match=f"criterion '{name}' has no option 'no_such_option'"):
        configure(kind, {"no_such_option": 1}, what=f"criterion {name!r}")


@every_criterion
def test_every_option_has_a_rule_and_a_valid_default(name: str) -> None:
    kind = criteria.get(name)
    assert all("rule" in f.metadata and f.metadata["help"] for f in fields(kind))
    kind()


def _permute(model: nn.Module, group: ChannelGroup, order: Tensor) -> None:
    """Put unit order[u] in the place of unit u, in all tensors of the group."""
    for tensor, axis, index in _axes(model, group):
        moved = tensor.index_select(axis, index[order].flatten())
        tensor.index_copy_(axis, index.flatten(), moved)


def _kill(
    model: nn.Module, group: ChannelGroup, unit: int, roles: tuple[Role, ...] = ("out", "through")
) -> None:
    """Zero everything that makes or passes on one unit; running variances stay positive."""
    for tensor, axis, index in _axes(model, group, roles):
        tensor.index_fill_(axis, index[unit], 0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.clamp_min_(0.5)


def _axes(
    model: nn.Module, group: ChannelGroup, roles: tuple[Role, ...] = ("out", "in", "through")
) -> list[tuple[Tensor, int, Tensor]]:
    tensors = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    chosen = [m for m in group.members if m.role in roles]
    return [(tensors[m.tensor].detach(), m.axis, torch.tensor(m.index)) for m in chosen]
