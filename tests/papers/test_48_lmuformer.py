"""LMUFormer (arXiv 2402.04882): parity with the released code, the memory's own promises, streaming and padding."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import cont2discrete
from scipy.special import eval_sh_legendre

from core_attention.mechanisms.legendre import Legendre, LegendreState, legendre_system
from pipelines.classify.models.lmuformer import LMUFormer, from_official
from pipelines.errors import ConfigError, InputError, WeightsError

GOLDEN = pathlib.Path(__file__).parent / "golden" / "lmuformer.npz"
STORED = (".A", ".B", ".H", ".fft_H")


def _golden() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    with np.load(GOLDEN) as file:
        given = {key: torch.from_numpy(file[key]) for key in file}
    state = {key.removeprefix("state."): value for key, value in given.items() if key.startswith("state.")}
    return state, {key: value for key, value in given.items() if not key.startswith("state.")}


def _without_system(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in state.items() if not key.endswith(STORED)}


def _model(causal: bool = False, **sizes: Any) -> LMUFormer:
    """A small model whose normalisation and head are far from where they start, so that differences show."""
    torch.manual_seed(0)
    model = LMUFormer(5, 3, **{"dim": 16, "depth": 2, "theta": 20.0, "order": 9, **sizes}, causal=causal)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 2.0)
                module.bias.normal_(0, 0.5)
            if isinstance(module, torch.nn.Linear):
                module.weight.normal_(0, module.in_features**-0.5)
    return model.eval()


def test_forward_anytime_and_training_equal_released_code() -> None:
    state, other = _golden()
    model = from_official(state)
    with torch.no_grad():
        assert (model(other["x"]) - other["logits"]).abs().max() < 1e-5
        assert (model.anytime(other["x"]) - other["anytime"]).abs().max() < 1e-5
        assert (model.train()(other["x"]) - other["training"]).abs().max() < 1e-5


def test_every_released_tensor_is_read_and_none_is_missing() -> None:
    state, other = _golden()
    plain = _without_system(state)
    assert len(plain) == len(from_official(plain).state_dict())
    with torch.no_grad():
        assert torch.equal(from_official(plain)(other["x"]), from_official(state)(other["x"]))
    for key in plain:
        with pytest.raises(WeightsError):
            from_official({name: value for name, value in state.items() if name != key})
    with pytest.raises(WeightsError, match=r"extra\.weight"):
        from_official({**state, "extra.weight": torch.zeros(1)})


def test_sizes_are_read_off_the_tensors_and_arguments_are_held_against_them() -> None:
    state, _ = _golden()
    right = {"seq_len": 128, "theta": 128, "num_classes": 5, "embed_dims": 32, "in_channels": 16, "depths": 2}
    model = from_official(state, **right, mlp_ratios=4)
    assert (model.channels, model.classes, model.dim, len(model.blocks)) == (16, 5, 32, 2)
    for key, value in right.items():
        with pytest.raises(WeightsError, match=key):
            from_official(state, **{key: value // 2})
    with pytest.raises(WeightsError, match=r"^mlp_ratios:"):
        from_official(state, mlp_ratios=2)


@pytest.mark.parametrize("theta", [64.0, 200.0, 128.0, 50.5])
def test_theta_is_read_off_the_stored_system(theta: float) -> None:
    state, _ = _golden()
    A, B = (torch.from_numpy(part).float() for part in legendre_system(32, theta))
    state |= {f"block.{i}.attn.lmu.{key}": value for i in (0, 1) for key, value in (("A", A), ("B", B[:, None]))}
    given: dict[str, Any]
    for given in ({}, {"seq_len": 128}, {"theta": theta}):
        assert from_official(state, **given).blocks[0].mixer.theta == pytest.approx(theta, rel=1e-5)
    with pytest.raises(WeightsError, match=rf"another theta.*Expected: theta={theta:g}\."):
        from_official(state, theta=100)


def test_theta_without_a_stored_system_is_what_is_given() -> None:
    plain = _without_system(_golden()[0])
    for given, theta in (({}, 128), ({"seq_len": 300}, 300), ({"theta": 99}, 99), ({"seq_len": 300, "theta": 99}, 99)):
        assert from_official(plain, **given).blocks[0].mixer.theta == theta


@pytest.mark.parametrize("bad", ["transposed", "flat", "empty", "nan"])
@pytest.mark.parametrize("block", [0, 1])
def test_a_stored_system_that_is_no_legendre_memory_is_refused(block: int, bad: str) -> None:
    state, key = _golden()[0], f"block.{block}.attn.lmu.A"
    A = state[key]
    state[key] = {"transposed": A.T, "flat": A[0], "empty": A[:0], "nan": A * torch.nan}[bad]
    with pytest.raises(WeightsError, match="the stored tensor is not of a Legendre memory"):
        from_official(state)


def test_tensors_of_another_model_are_refused() -> None:
    state, _ = _golden()
    narrow = {**state, "block.0.attn.lmu.W_h.weight": torch.zeros(32, 32)}
    spiking = {key.replace("conv_layers.0.0", "proj_conv"): value for key, value in state.items()}
    for other in (narrow, spiking, {}):
        with pytest.raises(WeightsError, match="not a state dict of lmuformer"):
            from_official(other)
    with pytest.raises(ConfigError, match=r"^theta:"):
        from_official(state, theta=0)


def test_parameter_count() -> None:
    assert sum(p.numel() for p in LMUFormer(128, 35, dim=256, depth=1).parameters()) == 1_621_796


def test_linear_maps_start_as_released() -> None:
    model = LMUFormer(8, 35, dim=128)
    mixer = model.blocks[0].mixer
    for linear in (model.head, mixer.write, mixer.read):
        assert 0.01 < linear.weight.std() < 0.03
        assert not linear.bias.any()
    assert mixer.out.weight.std() > 0.04, "the maps that the released code writes as convolutions start as torch does"


@pytest.mark.parametrize("length", [16, 128, 500])
def test_parallel_equals_recurrent(length: int) -> None:
    torch.manual_seed(length)
    mixer, x = Legendre(64, theta=128.0).eval(), torch.randn(2, length, 64)
    with torch.no_grad():
        at_once, one_by_one = mixer(x), mixer(x, state=LegendreState(torch.zeros(2, 64)))
    assert (at_once.y - one_by_one.y).abs().max() < 1e-5
    assert (at_once.state.memory - one_by_one.state.memory).abs().max() < 1e-5


@pytest.mark.parametrize(("order", "theta"), [(256, 128.0), (468, 784.0), (6, 20.0)])
def test_the_system_equals_scipys_zero_order_hold(order: int, theta: float) -> None:
    i, j = np.meshgrid(np.arange(order), np.arange(order), indexing="ij")
    A = (2 * i + 1) / theta * np.where(i < j, -1.0, (-1.0) ** (i - j + 1))
    B = (2 * i[:, :1] + 1) / theta * (-1.0) ** i[:, :1]
    held: Any = cont2discrete((A, B, np.ones((1, order)), np.zeros((1, 1))), dt=1.0, method="zoh")
    ours = legendre_system(order, theta)
    assert np.abs(ours[0] - held[0]).max() < 1e-6
    assert np.abs(ours[1] - held[1][:, 0]).max() < 1e-6


def test_the_memory_holds_the_past_as_shifted_legendre_polynomials() -> None:
    """A held input is constant over the step before its frame, so that frame t - k lies k + 1/2 steps back."""
    theta, order, length = 128.0, 32, 400
    t = torch.arange(length, dtype=torch.float32)
    signal = 2.0 + torch.sin(2 * torch.pi * t / 47) + 0.5 * torch.cos(2 * torch.pi * t / 31 + 1.0)
    mixer = Legendre(1, theta=theta, order=order).eval()
    with torch.no_grad():
        mixer.write.weight.fill_(1.0)
        mixer.write.bias.zero_()
        memory = mixer(signal[None, :, None]).state.memory[0].double().numpy()
    back = np.arange(2, 125)
    decoded = sum(value * eval_sh_legendre(i, (back + 0.5) / theta) for i, value in enumerate(memory))
    past = signal.numpy()[length - 1 - back]
    assert np.sqrt(np.mean((decoded - past) ** 2) / np.mean((past - past.mean()) ** 2)) < 0.01


@pytest.mark.parametrize("causal", [True, False])
def test_a_later_frame_reaches_back_no_further_than_it_may(causal: bool) -> None:
    model, x = _model(causal).double(), torch.randn(2, 40, 5, dtype=torch.float64)
    changed, reach = x.clone(), 0 if causal else 5
    changed[:, 25:] += 10.0
    with torch.no_grad():
        difference = (model.anytime(x) - model.anytime(changed)).abs().amax((0, 2))
    # Not exactly zero: the memory of a whole series goes through an FFT, where every frame rounds every other.
    assert difference[: 25 - reach].max() < 1e-12
    assert difference[25 - reach] > 1e-5


@pytest.mark.parametrize("causal", [True, False])
def test_anytime_is_the_running_mean_of_the_offline_features(causal: bool) -> None:
    model, x, seen = _model(causal), torch.randn(2, 30, 5), []
    model.blocks[-1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.no_grad():
        anytime, whole = model.anytime(x), model(x)
        for t in (0, 7, 29):
            expected = model.head(seen[0][:, : t + 1]).mean(1)
            assert (anytime[:, t] - expected).abs().max() < 1e-5
    assert (anytime[:, -1] - whole).abs().max() < 1e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("length", [1, 3, 5, 6, 60])
def test_step_equals_anytime(length: int, causal: bool) -> None:
    model, x, state, answers, sizes = _model(causal), torch.randn(2, length, 5), None, [], set()
    with torch.no_grad():
        anytime = model.anytime(x)
        for x_t in x.unbind(1):
            logits, state = model.step(x_t, state)
            answers.append(logits)
            sizes.add(sum(part.numel() for part in (*state.inputs, *(m.memory for m in state.memories), state.total)))
        steps, delay = torch.stack(answers, 1), 0 if causal else 5
        assert steps[:, :delay].isnan().all()
        torch.testing.assert_close(steps[:, delay:], anytime[:, : max(0, length - delay)], rtol=0, atol=1e-5)
        assert state is not None
        for _ in range(2):  # to finish leaves the state as it was
            assert (model.finish(state) - model(x)).abs().max() < 1e-5
    assert len(sizes) == 1


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_padding_changes_nothing(causal: bool, training: bool) -> None:
    x, padded = torch.randn(3, 20, 5), torch.full((3, 33, 5), float("nan"))
    padded[:, :20] = x
    mask = (torch.arange(33) < 20).expand(3, 33)
    first, second = (_model(causal).train(training) for _ in range(2))
    expected, found = first(x), second(padded, mask)
    assert (expected - found).abs().max() < 1e-5
    assert (first.anytime(x) - second.anytime(padded, mask)[:, :20]).abs().max() < 1e-5
    for (key, ours), other in zip(second.state_dict().items(), first.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, other, rtol=0, atol=1e-5, msg=key)
    expected.square().sum().backward()
    found.square().sum().backward()
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4)


def test_unequal_lengths_share_a_batch() -> None:
    model, lengths, x = _model(), (4, 20, 11), torch.randn(3, 20, 5)
    mask = torch.arange(20) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        together = model(x, mask)
        for row, length in enumerate(lengths):
            assert (together[row] - model(x[row : row + 1, :length])[0]).abs().max() < 1e-5


def test_one_valid_frame_can_be_trained_on() -> None:
    assert _model().train()(torch.randn(1, 1, 5)).isfinite().all()


@pytest.mark.parametrize(
    "sizes",
    [{"channels": 0}, {"classes": -1}, {"dim": 2.0}, {"depth": 0}, {"hidden": 0}, {"order": True}, {"theta": 0.5}],
    ids=str,
)
def test_bad_sizes_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(sizes))):
        LMUFormer(**{"channels": 4, "classes": 2, "dim": 8, **sizes})


def test_bad_input_is_refused() -> None:
    model, x = _model(), torch.randn(2, 9, 5)
    for bad in (x[0], x[..., :4], x[:, :0]):
        with pytest.raises(InputError, match=r"^x:"):
            model(bad)
    for mask in (torch.ones(2, 9), torch.ones(2, 8, dtype=torch.bool)):
        with pytest.raises(InputError, match=r"^mask:"):
            model(x, mask)
    with pytest.raises(InputError, match=r"^x_t:"):
        model.step(x)
    with pytest.raises(InputError, match="another batch"):
        model.step(x[:1, 0], model.step(x[:, 0])[1])
    with pytest.raises(ConfigError, match=r"model\.eval"):
        model.train().step(x[:, 0])
