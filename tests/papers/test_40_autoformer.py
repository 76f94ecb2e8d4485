"""Autoformer (arXiv 2106.13008): names, sizes and forward of the released code, in training and in evaluation."""

from __future__ import annotations

import json
import logging
import pathlib

import numpy as np
import pytest
import torch

from pipelines.errors import ConfigError, WeightsError
from pipelines.forecast.models.autoformer import Autoformer, from_official
from pipelines.forecast.models.autoformer_layers import CircularConv, PointwiseConv

GOLDEN = pathlib.Path(__file__).parent / "golden"
RUNS = ("autoformer", "autoformer_odd", "autoformer_fixed", "autoformer_learned")

PROJECTIONS = [f"{p}_projection.{k}" for p in ("query", "key", "value", "out") for k in ("weight", "bias")]
EMBEDDING = [
    "value_embedding.tokenConv.weight",
    "position_embedding.pe",
    "temporal_embedding.embed.weight",
]
NAMES = [
    *(f"enc_embedding.{key}" for key in EMBEDDING),
    *(f"dec_embedding.{key}" for key in EMBEDDING),
    *(f"encoder.attn_layers.{i}.attention.{p}" for i in (0, 1) for p in PROJECTIONS),
    *(f"encoder.attn_layers.{i}.{k}.weight" for i in (0, 1) for k in ("conv1", "conv2")),
    "encoder.norm.layernorm.weight",
    "encoder.norm.layernorm.bias",
    *(f"decoder.layers.0.{side}_attention.{p}" for side in ("self", "cross") for p in PROJECTIONS),
    *(f"decoder.layers.0.{key}.weight" for key in ("conv1", "conv2", "projection")),
    "decoder.norm.layernorm.weight",
    "decoder.norm.layernorm.bias",
    "decoder.projection.weight",
    "decoder.projection.bias",
]  # fmt: skip


class Golden:
    """Inputs, weights and outputs of the released code."""

    def __init__(self, name: str) -> None:
        with np.load(GOLDEN / f"{name}.npz") as file:
            self.config = json.loads(str(file["meta"]))["config"]
            self.arrays = {key: torch.from_numpy(file[key]) for key in file if key != "meta"}
        self.state = self.group("state.")

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    def inputs(self) -> tuple[torch.Tensor, ...]:
        given = self.group("in.")
        x_dec = torch.zeros(given["x_enc"].shape[0], given["x_mark_dec"].shape[1], self.config["dec_in"])
        return given["x_enc"], given["x_mark_enc"], x_dec, given["x_mark_dec"]


@pytest.fixture(params=RUNS)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.fixture(scope="module")
def default() -> Autoformer:
    return Autoformer()


def small(**options) -> Autoformer:
    sizes = {"d_model": 16, "n_heads": 4, "d_ff": 32, "dropout": 0.0, **options}
    return Autoformer(24, 12, 12, **sizes)


def test_names_are_the_51_released_ones(default: Autoformer) -> None:
    state = default.official_state_dict()
    assert len(NAMES) == 51
    assert set(state) == set(NAMES)
    assert state["enc_embedding.position_embedding.pe"].shape == (1, 5000, 512)
    assert state["encoder.attn_layers.1.conv1.weight"].shape == (2048, 512, 1)
    assert state["decoder.layers.0.projection.weight"].shape == (7, 512, 3)


def test_our_own_state_leaves_the_unused_tables_out(default: Autoformer) -> None:
    assert set(NAMES) - set(default.state_dict()) == {
        "enc_embedding.position_embedding.pe",
        "dec_embedding.position_embedding.pe",
    }


@pytest.mark.parametrize(("channels", "parameters"), [(7, 10_535_943), (321, 12_143_937)])
def test_parameter_counts(channels: int, parameters: int) -> None:
    with torch.device("meta"):
        model = Autoformer(enc_in=channels, dec_in=channels, c_out=channels)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_forward_equals_released_code_in_both_modes(golden: Golden) -> None:
    model = from_official(golden.state, **golden.config)
    for mode in ("eval", "train"):
        out = model.train(mode == "train")(*golden.inputs())
        out = out[0] if golden.config["output_attention"] else out
        torch.testing.assert_close(out, golden.arrays[f"out.{mode}"], rtol=1e-5, atol=1e-5)
    assert (golden.arrays["out.eval"] - golden.arrays["out.train"]).abs().max() > 1e-2  # the modes really differ


def test_gradients_equal_released_code(golden: Golden) -> None:
    model = from_official(golden.state, **golden.config).train()
    out = model(*golden.inputs())
    (out[0] if golden.config["output_attention"] else out).square().mean().backward()
    parameters = dict(model.named_parameters())
    for name, expected in golden.group("grad.").items():
        gradient = parameters[name].grad
        assert gradient is not None
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=float(expected.abs().max()) * 1e-5)


def test_output_attention_is_the_released_correlation() -> None:
    golden = Golden("autoformer_odd")
    _, correlations = from_official(golden.state, **golden.config)(*golden.inputs())
    assert len(correlations) == golden.config["e_layers"]
    torch.testing.assert_close(correlations[0], golden.arrays["out.correlation"], rtol=1e-5, atol=1e-5)


def test_training_mode_at_batch_one_is_evaluation() -> None:
    model, golden = from_official(Golden("autoformer").state, **Golden("autoformer").config), Golden("autoformer")
    one = [tensor[:1] for tensor in golden.inputs()]
    torch.testing.assert_close(model.train()(*one), model.eval()(*one), rtol=1e-5, atol=1e-5)


def test_positional_tables_are_accepted_and_strictness_stays() -> None:
    model = small()
    state = model.official_state_dict()
    model.load_state_dict(state)
    state["enc_embedding.surplus"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="surplus"):
        model.load_state_dict(state)


def test_values_of_x_dec_are_not_read() -> None:
    model, golden = small(enc_in=3, dec_in=3, c_out=3).eval(), Golden("autoformer")
    x, marks, _, _ = golden.inputs()
    y_mark = torch.zeros(4, 24, 4)
    first = model(x, marks, torch.zeros(4, 24, 3), y_mark)
    assert torch.equal(first, model(x, marks, torch.full((4, 24, 3), torch.nan), y_mark))


def test_sizes_come_from_the_tensors_and_round_trip() -> None:
    ours = small(enc_in=5, dec_in=5, c_out=5, e_layers=1, d_layers=2, marks=6)
    again = from_official(
        ours.official_state_dict(), seq_len=24, label_len=12, pred_len=12, n_heads=4, factor=3, moving_avg=25
    )
    assert not again.training
    x, marks = torch.randn(2, 24, 5), torch.randn(2, 24, 6)
    assert torch.equal(ours.eval()(x, marks, x, marks), again(x, marks, x, marks))


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"d_model": 32}, "d_model"),
        ({"enc_in": 8}, "enc_in"),
        ({"dec_in": 8}, "dec_in"),
        ({"c_out": 1}, "c_out"),
        ({"d_ff": 64}, "d_ff"),
        ({"e_layers": 3}, "e_layers"),
        ({"d_layers": 2}, "d_layers"),
        ({"embed": "fixed"}, "embed"),
        ({"freq": "t"}, "freq"),
    ],
)
def test_an_argument_that_the_shapes_contradict_is_refused(given: dict, where: str) -> None:
    with pytest.raises(WeightsError, match=f"^{where}:"):
        from_official(small().state_dict(), seq_len=24, label_len=12, pred_len=12, n_heads=4, **given)


def test_arguments_that_agree_with_the_shapes_are_accepted() -> None:
    named = {"enc_in": 7, "dec_in": 7, "c_out": 7, "d_model": 16, "e_layers": 2, "d_layers": 1, "d_ff": 32}
    rest = {"embed": "timeF", "freq": "h", "dropout": 0.05, "activation": "gelu", "output_attention": False}
    model = from_official(small().state_dict(), seq_len=24, label_len=12, pred_len=12, n_heads=2, **named, **rest)
    assert model.n_heads == 2


def test_missing_and_surplus_tensors_are_refused() -> None:
    state = small().state_dict()
    del state["decoder.norm.layernorm.bias"]
    state["decoder.extra"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"layernorm\.bias.*decoder\.extra"):
        from_official(state, n_heads=4)


def test_an_unknown_embedding_of_time_is_refused() -> None:
    state = {key: value for key, value in small().state_dict().items() if "temporal_embedding" not in key}
    with pytest.raises(WeightsError, match="embedding of time"):
        from_official(state, n_heads=4)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_heads"):
        from_official(small().state_dict(), n_heads=3)


def test_what_shapes_cannot_tell_is_said_when_assumed(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        from_official(small().state_dict(), seq_len=24, label_len=12, pred_len=12, n_heads=4)
    assert "factor=3" in caplog.text
    assert "moving_avg=25" in caplog.text
    assert "n_heads" not in caplog.text


@pytest.mark.parametrize("options", [{"label_len": 30}, {"dec_in": 3}, {"c_out": 3}, {"freq": "x"}])
def test_impossible_sizes_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        Autoformer(**{"seq_len": 24, "label_len": 12, "pred_len": 12, "d_model": 16, "n_heads": 4, **options})


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 8), (8, 3)])
def test_circular_convolution_is_conv1d(inputs: int, outputs: int) -> None:
    conv = CircularConv(inputs, outputs).double()
    x = torch.randn(2, 9, inputs, dtype=torch.float64)
    padded = torch.nn.functional.pad(x.transpose(1, 2), (1, 1), mode="circular")
    expected = torch.nn.functional.conv1d(padded, conv.weight).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected)


def test_pointwise_convolution_is_conv1d() -> None:
    conv, x = PointwiseConv(4, 6).double(), torch.randn(2, 9, 4, dtype=torch.float64)
    expected = torch.nn.functional.conv1d(x.transpose(1, 2), conv.weight).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected)


def test_a_small_run_learns(etth1: pathlib.Path) -> None:
    """Width 32, 40 steps on ETTh1: the loss falls well below that of the untrained model."""
    import pandas as pd

    values = pd.read_csv(etth1, usecols=range(1, 8)).to_numpy(dtype=np.float32)[:8640]
    rows = torch.from_numpy((values - values.mean(0)) / values.std(0))
    torch.manual_seed(0)
    model = Autoformer(48, 24, 24, d_model=32, n_heads=4, d_ff=64, e_layers=1, marks=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(40):
        start = torch.randint(0, len(rows) - 72, (16,))
        window = rows[start[:, None] + torch.arange(72)]
        none = window[..., :0]
        out = model(window[:, :48], none[:, :48], window[:, :48], none[:, :48])
        loss = torch.nn.functional.mse_loss(out, window[:, 48:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:4])
