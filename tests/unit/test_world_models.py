"""World models: what their state promises, rollouts, sizes, options, changes to a base, and losses by hand."""

from __future__ import annotations

import dataclasses
import json
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.errors import ConfigError, InputError
from pipelines.world.losses import LossWeights, frame_loss, gradient_loss, variance_loss, window_loss
from pipelines.world.models import CONFIGS, NETS, WorldNet, build_world
from pipelines.world.models.belief import Fatigue, inhibited
from pipelines.world.models.decoder import GroupNorm

SMALL: dict[str, dict[str, Any]] = {
    "fluidworld": {"dim": 16, "layers": 1, "steps": 3},
    "transformer": {"dim": 16, "heads": 2, "hidden": 32},
    "convlstm": {"dim": 16, "hidden": 8, "bottleneck": 8},
}


def _net(name: str, **options: Any) -> WorldNet:
    torch.manual_seed(0)
    return build_world(name, **{"height": 16, "width": 24, **SMALL[name], **options}).eval()


def _frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def _actions(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", NETS)
class TestState:
    def test_nothing_is_kept_between_calls(self, name: str) -> None:
        net = _net(name)
        before = {key: value.clone() for key, value in net.state_dict().items()}
        for training in (False, True):
            net.train(training)
            x = _frames(2, 3, 16, 24)
            first, again = net(x), net(x)
            assert torch.equal(first["x_recon"], again["x_recon"])
            assert torch.equal(first["x_pred"], again["x_pred"])
        assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())

    def test_a_sample_does_not_see_the_batch(self, name: str) -> None:
        options = {"tolerance": 0.05} if name == "fluidworld" else {}
        net = _net(name, stimulus=2, **options)
        context, actions = _frames(3, 2, 3, 16, 24), _actions(3, 4, 2)
        whole = net.rollout(context, actions, horizon=3)
        for row in range(3):
            alone = net.rollout(context[row : row + 1], actions[row : row + 1], horizon=3)
            assert (whole[row] - alone[0]).abs().max() < 1e-4

    def test_a_rollout_is_its_steps(self, name: str) -> None:
        net = _net(name, stimulus=2)
        context, actions = _frames(2, 3, 3, 16, 24), _actions(2, 2 + 4, 2)
        with torch.no_grad():
            features = net.encode(context[:, 0])
            state = net.write(net.start(features), features)
            for time in (0, 1):
                state = net.evolve(state, actions[:, time])
                state = net.write(state, net.encode(context[:, time + 1]))
            expected = []
            for time in range(2, 6):
                state = net.evolve(state, actions[:, time])
                expected.append(net.decode(net.read(state)))
        found = net.rollout(context, actions, horizon=4)
        assert torch.equal(found, torch.stack(expected, 1))
        assert torch.equal(found[:, 2], list(net.rollout_iter(context, actions, horizon=4))[2])
        assert found.min() >= 0
        assert found.max() <= 1

    def test_the_past_and_the_actions_matter(self, name: str) -> None:
        net = _net(name, stimulus=2)
        context, actions = _frames(1, 3, 3, 16, 24), _actions(1, 4, 2)
        usual = net.rollout(context, actions, horizon=2)
        for time in range(3):
            changed = context.clone()
            changed[:, time] = 1 - changed[:, time]
            assert (net.rollout(changed, actions, horizon=2) - usual).abs().max() > 1e-4, time
        for time in range(4):
            pushed = actions.clone()
            pushed[:, time] += 1
            moved = (net.rollout(context, pushed, horizon=2) - usual).abs().amax((0, 2, 3, 4))
            assert moved[1] > 1e-5, time
            if time == 3:
                assert moved[0] == 0
        assert torch.equal(net.rollout(context, None, horizon=2), net.rollout(context, actions * 0, horizon=2))

    def test_states_repeat_and_are_taken_like_batches(self, name: str) -> None:
        net = _net(name, stimulus=1)
        x = _frames(2, 3, 16, 24)
        with torch.no_grad():
            state = net.watch(x[:, None])
            push = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
            many = net.decode(net.read(net.evolve(state.repeat(2), push)))
            one = net.decode(net.read(net.evolve(state.take(torch.tensor([1])), push[3:])))
        assert (many[3:] - one).abs().max() < 1e-4
        assert all(part is None or part.shape[0] == 2 for part in state)

    def test_gradients_reach_every_parameter(self, name: str) -> None:
        net = _net(name, stimulus=1).train()
        total, _, _ = window_loss(net, _frames(2, 4, 3, 16, 24), _actions(2, 3, 1), teacher=2, free=2)
        total.backward()
        unused = {key for key, value in net.named_parameters() if value.grad is None}
        # The vector of the whole field is read by nobody while training, as published.
        assert all(key.startswith("belief_field.read_proj") for key in unused), unused
        assert all(torch.isfinite(value.grad).all() for value in net.parameters() if value.grad is not None)

    def test_float64_agrees(self, name: str) -> None:
        net = _net(name)
        x = _frames(2, 3, 16, 24)
        single = net(x)["pred_logits"]
        double = net.double()(x.double())["pred_logits"]
        assert (single - double).abs().max() < 1e-3
        assert double.dtype == torch.float64

    def test_config_goes_through_json(self, name: str) -> None:
        net = _net(name, base="mean", stimulus=3)
        told = json.loads(json.dumps(dataclasses.asdict(net.config)))
        assert CONFIGS[name](**told) == net.config
        build_world(name, **told).load_state_dict(net.state_dict())

    def test_wrong_input_is_said(self, name: str) -> None:
        net = _net(name, stimulus=2)
        x = _frames(2, 3, 16, 24)
        cases: list[tuple[str, Any]] = [
            ("not frames", lambda: net(x[:, :1])),
            ("not frames", lambda: net((x * 255).to(torch.uint8))),
            ("read.size: 16", lambda: net(x[:, :, :15])),
            ("not a stimulus", lambda: net(x, torch.zeros(2, 3))),
            ("no frames to predict", lambda: net.rollout(x[:, None], None, horizon=0)),
            ("no frames to predict", lambda: net.rollout_iter(x[:, None], None, horizon=True)),
            ("not a context", lambda: net.rollout(x, None, horizon=1)),
            ("not the actions", lambda: net.rollout(x[:, None], torch.zeros(2, 3, 2), horizon=2)),
        ]
        for message, call in cases:
            with pytest.raises(InputError, match=message):
                call()

    def test_a_stimulus_is_refused_where_there_are_no_actions(self, name: str) -> None:
        with pytest.raises(InputError, match="not a stimulus"):
            _net(name)(_frames(2, 3, 16, 24), torch.zeros(2, 2))


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("options", [{"channels": 1}, {"patch": 2}, {"patch": 8, "height": 64, "width": 64}])
def test_channels_and_patches(name: str, options: dict[str, Any]) -> None:
    net = _net(name, **options)
    c = net.config
    x = _frames(2, c.channels, c.height, c.width)
    assert net.encode(x).shape == (2, c.dim, c.height // c.patch, c.width // c.patch)
    assert net(x)["x_pred"].shape == x.shape


@pytest.mark.parametrize("name", ["fluidworld", "convlstm"])
def test_any_size_of_frames(name: str) -> None:
    net = _net(name, **({"bottleneck": 16} if name == "convlstm" else {}))
    for size in ((4, 4), (256, 256), (40, 12)):
        assert net(_frames(1, 3, *size))["x_pred"].shape == (1, 3, *size)


def test_transformer_positions_are_of_one_size_unless_interpolated() -> None:
    x = _frames(1, 3, 32, 32)
    with pytest.raises(InputError, match="interpolate"):
        _net("transformer")(x)
    assert _net("transformer", interpolate=True)(x)["x_pred"].shape == x.shape


@pytest.mark.parametrize("attention", ["softmax", "window_nd", "large_kernel", "selective_ssm", "reaction_diffusion"])
@pytest.mark.parametrize("name", ["fluidworld", "transformer"])
def test_other_mechanisms(name: str, attention: str) -> None:
    net = _net(name, attention=attention)
    x = _frames(2, 3, 16, 24).requires_grad_()
    net(x)["x_pred"].sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_mechanisms_that_do_not_fit_are_refused() -> None:
    for name, attention in (("fluidworld", "nothing"), ("transformer", "low_rank"), ("convlstm", "softmax")):
        with pytest.raises(ConfigError):
            _net(name, attention=attention)


def test_bad_options_are_refused_by_name() -> None:
    for options in ({"dim": 0}, {"patch": 3}, {"height": 18}, {"base": "first"}, {"stimulus": -1}, {"dimm": 3}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            build_world("fluidworld", **options)
    for options in ({"variant": "old"}, {"legacy": True}, {"tolerance": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            build_world("fluidworld", **options)
    with pytest.raises(ConfigError, match="heads"):
        build_world("transformer", heads=7)
    with pytest.raises(ConfigError, match="bottleneck"):
        build_world("convlstm", bottleneck=12)
    with pytest.raises(ConfigError, match="no such model"):
        build_world("fluid")


class TestBase:
    @pytest.mark.parametrize("name", NETS)
    def test_starts_as_the_last_frame(self, name: str) -> None:
        net = _net(name, base="last")
        context = _frames(2, 3, 3, 16, 24)
        assert torch.equal(net.rollout(context, None, 3), context[:, -1:].expand(-1, 3, -1, -1, -1))
        found = net(context[:, 0])
        assert torch.equal(found["x_pred"], context[:, 0])
        assert not torch.equal(found["x_recon"], context[:, 0])

    @pytest.mark.parametrize("name", NETS)
    def test_starts_as_the_mean_frame(self, name: str) -> None:
        net = _net(name, base="mean")
        net.mean_frame.copy_(_frames(3, 16, 24, seed=7))
        found = net(_frames(2, 3, 16, 24))
        for key in ("x_recon", "x_pred"):
            assert torch.equal(found[key], net.mean_frame.expand(2, -1, -1, -1))
        with pytest.raises(InputError, match="mean frame"):
            net(_frames(2, 3, 16, 16))

    def test_no_pixel_is_out_of_reach(self) -> None:
        """White pixels of the base that are to become black, and the reverse, both have a gradient at the start."""
        net = _net("convlstm", base="last").train()
        frames = torch.zeros(2, 2, 3, 16, 24)
        frames[0, 0], frames[1, 1] = 1.0, 1.0
        total, _, _ = window_loss(
            net, frames, teacher=1, free=1, weights=LossWeights(rebuild=0, gradient=0, variance=0)
        )
        total.backward()
        change = net.decoder.change
        assert change is not None
        assert change.weight.grad is not None
        assert change.weight.grad.abs().sum() > 0
        assert net.decoder.decoder[-1].weight.grad is None

    def test_values_stay_frames(self) -> None:
        net = _net("convlstm", base="mean")
        with torch.no_grad():
            net.decoder.decoder[-1].weight.normal_(0, 3)
        found = net(_frames(2, 3, 16, 24))["x_pred"]
        assert found.min() == 0
        assert found.max() == 1

    def test_wrong_bases(self) -> None:
        net = _net("convlstm", base="last")
        with pytest.raises(InputError, match="base"):
            net.decode(torch.zeros(1, 16, 4, 6), torch.zeros(1, 3, 16, 16))
        with pytest.raises(ConfigError, match="cross-entropy"):
            window_loss(net, _frames(1, 2, 3, 16, 24), teacher=1, free=1, weights=LossWeights(kind="bce"))


class TestLosses:
    def test_gradient_by_hand(self) -> None:
        x = torch.tensor([[0.0, 1.0], [3.0, 3.0]]).view(1, 1, 2, 2)
        assert gradient_loss(x, torch.zeros_like(x)).item() == pytest.approx((1 + 0) / 2 + (3 + 2) / 2)
        assert gradient_loss(torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item() == 0

    def test_variance_by_hand(self) -> None:
        z = torch.randn(3, 4, 5, 5) * torch.tensor([0.1, 0.5, 2.0, 3.0]).view(1, 4, 1, 1)
        spread = torch.stack([z[:, c].reshape(-1).std() for c in range(4)])
        assert variance_loss(z).item() == pytest.approx((1 - spread).clamp(min=0).mean().item(), rel=1e-5)
        both = variance_loss(torch.stack([z, z * 10], 1))
        assert both.item() == pytest.approx((variance_loss(z) + variance_loss(z * 10)).item() / 2, rel=1e-5)

    @pytest.mark.parametrize("name", NETS)
    @pytest.mark.parametrize("channels", [1, 3])
    def test_a_window_is_its_frames_one_by_one(self, name: str, channels: int) -> None:
        """Encoding and decoding together changes nothing: the same loss from single calls of the shell."""
        net = _net(name, channels=channels, stimulus=1).train()
        frames, actions = _frames(2, 7, channels, 16, 24), _actions(2, 6, 1)
        weights = LossWeights(rebuild=0.5, predict=2.0, rollout=3.0, gradient=0.7, variance=0.3, alive=0.1)
        total, count, parts = window_loss(net, frames, actions, teacher=3, free=4, at=(4, 1, 2), weights=weights)

        def wrong(logits: Tensor, target: Tensor) -> Tensor:
            if channels == 1:
                return F.binary_cross_entropy_with_logits(logits, target)
            return F.mse_loss(logits.sigmoid(), target)

        rebuilt, ahead, later, seen, energies = [], [], [], [], []
        state = None
        for time in range(3):
            z, told = net.encode_with(frames[:, time])
            state, z = net.observe(net.start(z) if state is None else state, z)
            energies += [told["energy"].mean()] if "energy" in told else []
            seen.append(z)
            rebuilt.append((net.decode(z, logits=True), frames[:, time]))
            state = net.evolve(state, actions[:, time])
            ahead.append((net.decode(net.read(state), logits=True), frames[:, time + 1]))
        for horizon in (2, 3, 4):
            assert state is not None
            state = net.evolve(state, actions[:, 1 + horizon])
            if horizon != 3:
                later.append((net.decode(net.read(state), logits=True), frames[:, 2 + horizon]))

        def mean(values: list[Tensor]) -> Tensor:
            return torch.stack(values).mean()

        edges = [mean([gradient_loss(a.sigmoid(), b) for a, b in group]) for group in (rebuilt, ahead + later)]
        expected = 0.5 * mean([wrong(*p) for p in rebuilt]) + 2 * mean([wrong(*p) for p in ahead])
        expected = expected + 3 * mean([wrong(*p) for p in later]) + 0.7 * mean(edges)
        expected = expected + 0.3 * mean([variance_loss(z) for z in seen])
        if energies:
            expected = expected + 0.1 * (mean(energies) - 1.2) ** 2
        assert count == 2
        assert (total / 2).item() == pytest.approx(expected.item(), rel=1e-4)
        assert parts["rollout"].item() == pytest.approx(mean([wrong(*p) for p in later]).item(), rel=1e-4)

    def test_one_pair_is_the_loss_of_a_call(self) -> None:
        for channels in (1, 3):
            net = _net("fluidworld", channels=channels)
            x = _frames(2, 2, channels, 16, 24)
            found = net(x[:, 0], None, x[:, 1])
            total, _, _ = window_loss(net, x, teacher=1, free=1)
            assert (total / 2).item() == pytest.approx(found["loss"].item(), rel=1e-4)
            assert found["loss"] == frame_loss(found, x[:, 0], x[:, 1])

    @pytest.mark.parametrize("name", NETS)
    def test_gradients_cross_frames_unless_cut(self, name: str) -> None:
        net = _net(name)
        only = LossWeights(rebuild=0, gradient=0, variance=0)
        for cut in (False, True):
            frames = _frames(1, 3, 3, 16, 24).requires_grad_()
            # Frames 0 and 1 are seen; what counts is frame 2 alone, so frame 0 matters through the state only.
            window_loss(net, frames, teacher=2, free=1, detach=cut, weights=only)[0].backward()
            through = frames.grad
            assert through is not None
            assert through[:, 1].abs().max() > 0
            again = _frames(1, 3, 3, 16, 24)[:, :2].requires_grad_()
            window_loss(net, again, teacher=2, free=0, detach=cut, weights=only)[0].backward()
            near = again.grad
            assert near is not None
            # Of two predictions the mean is taken, of which the first is the one measured again.
            carried = (2 * through[:, 0] - near[:, 0]).abs().max() > 1e-3 * near.abs().max()
            assert bool(carried) != cut

    def test_parts_that_are_not_there(self) -> None:
        net = _net("convlstm")
        frames = _frames(2, 4, 3, 16, 24)
        assert set(window_loss(net, frames, teacher=1, free=0)[2]) == {"rebuild", "gradient", "variance"}
        found = window_loss(net, frames, teacher=2, free=2, at=(2,), weights=LossWeights(rebuild=0))[2]
        assert set(found) == {"predict", "rollout", "gradient", "variance"}
        assert set(window_loss(net, frames, teacher=1, free=3, at=(3,))[2]) == {
            "rebuild",
            "rollout",
            "gradient",
            "variance",
        }

    def test_bases_of_windows(self) -> None:
        """A net that has learned nothing gives the base: the frame before, or in rollouts the last one seen."""
        net = _net("convlstm", base="last")
        frames = _frames(2, 5, 3, 16, 24)
        parts = window_loss(net, frames, teacher=2, free=3)[2]
        ahead = [(frames[:, t + 1] - frames[:, t]).square().mean() for t in (0, 1)]
        later = [(frames[:, 1 + h] - frames[:, 1]).square().mean() for h in (2, 3)]
        assert parts["predict"].item() == pytest.approx(torch.stack(ahead).mean().item(), rel=1e-5)
        assert parts["rollout"].item() == pytest.approx(torch.stack(later).mean().item(), rel=1e-5)
        own = torch.full((1, 3, 16, 24), 0.5)
        parts = window_loss(net, frames, teacher=2, free=3, base=own)[2]
        assert parts["rebuild"].item() == pytest.approx((frames[:, :2] - 0.5).square().mean().item(), rel=1e-5)

    def test_windows_that_do_not_fit(self) -> None:
        net, frames = _net("convlstm", stimulus=1), _frames(2, 4, 3, 16, 24)
        for options in ({"teacher": 3, "free": 2}, {"teacher": 0, "free": 2}, {"teacher": 1, "free": 2, "at": (3,)}):
            with pytest.raises(InputError):
                window_loss(net, frames, **options)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="actions"):
            window_loss(net, frames, torch.zeros(2, 1, 1), teacher=2, free=2)
        with pytest.raises(ConfigError, match="alive"):
            LossWeights(alive=-1.0)


def test_fatigue_and_inhibition_by_hand() -> None:
    z = torch.randn(2, 3, 4, 4)
    health = torch.tensor([[1.0, 0.5, 0.11], [0.9, 1.0, 0.2]])
    out, after = Fatigue(3)(health, z)
    assert torch.equal(out, z * health[..., None, None])
    expected = (health - 0.1 * z.abs().mean((2, 3)) + 0.02).clamp(0.1, 1.0)
    assert (after - expected).abs().max() < 1e-6
    strong = z.abs() == z.abs().max(1, keepdim=True).values
    assert torch.allclose(inhibited(z)[strong], z[strong], atol=1e-5)
    assert (inhibited(z).abs() >= 0.7 * z.abs() - 1e-6).all()


def test_group_norm_of_large_images_is_exact() -> None:
    """torch's sums over channels-last images lose digits; values and gradients against float64."""
    x = (torch.randn(2, 16, 128, 130, generator=torch.Generator().manual_seed(0)) + 2).contiguous(
        memory_format=torch.channels_last
    )
    norm, weight = GroupNorm(8, 16), torch.randn(2, 16, 128, 130)
    torch.nn.init.normal_(norm.weight)
    exact = torch.nn.GroupNorm(8, 16).double()
    exact.load_state_dict(norm.state_dict())
    a, b = x.clone().requires_grad_(), x.double().requires_grad_()
    (norm(a) * weight).sum().backward()
    (exact(b) * weight.double()).sum().backward()
    assert (norm(a) - exact(b)).abs().max() < 3e-6
    assert a.grad is not None
    assert b.grad is not None
    assert (a.grad - b.grad).abs().max() < 1e-5
    assert norm.weight.grad is not None
    assert exact.weight.grad is not None
    assert (norm.weight.grad - exact.weight.grad).abs().max() < 1e-4 * exact.weight.grad.abs().max()


def test_rollout_iter_keeps_no_frames_and_no_graph() -> None:
    net = _net("convlstm")
    context = _frames(1, 2, 3, 16, 24)
    old: list[weakref.ref[Tensor]] = []
    for frame in net.rollout_iter(context, None, 20):
        assert not frame.requires_grad
        assert torch.is_grad_enabled()
        assert sum(reference() is not None for reference in old) <= 1
        old.append(weakref.ref(frame))
    assert len(old) == 20
