"""Forecasting models behind their common forward: options, covariates, baselines, gradients, messages."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
import torch

from pipelines.errors import ConfigError
from pipelines.forecast.models import ForecastModule, build_model
from pipelines.forecast.models.baselines import Drift, SeasonalNaive
from pipelines.forecast.options import MODELS, ArchOptions, architecture, model_info

SMALL = {"autoformer": ArchOptions(d_model=16, n_heads=4, d_ff=32), "transformer": ArchOptions(d_model=16, d_ff=32)}
TRAINED = [name for name, info in MODELS.items() if not info.baseline]
L, H, C = 24, 8, 3


def make(name: str, past: int = 2, marks: int = 6, calendar: int = 4, **options) -> ForecastModule:
    torch.manual_seed(0)
    options = {"arch": SMALL.get(name), "season": 6, **options}
    return build_model(name, context=L, horizon=H, targets=C, past=past, marks=marks, calendar=calendar, **options)


def batch(past: int = 2, marks: int = 6, size: int = 5) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((L, C), (L, marks), (H, marks), (L, past))
    return tuple(torch.randn(size, *shape, generator=generator) for shape in shapes)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("past", "marks", "calendar"), [(2, 6, 4), (0, 0, 0), (0, 4, 4), (1, 0, 0), (0, 5, 4)])
def test_every_model_takes_every_kind_of_covariates(name: str, past: int, marks: int, calendar: int) -> None:
    model = make(name, past, marks, calendar).eval()
    inputs = batch(past, marks)
    out = model(*inputs)
    assert out.shape == (5, H, C)
    assert out.isfinite().all()
    alone = model(*(tensor[2:3] for tensor in inputs))
    torch.testing.assert_close(alone, out[2:3], rtol=1e-4, atol=1e-5)  # a forecast does not depend on its batch


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("covariates", [True, False])
def test_a_step_of_training_gives_every_parameter_a_gradient(name: str, covariates: bool) -> None:
    sizes = (2, 6) if covariates else (0, 0)
    model = make(name, *sizes, calendar=4 if covariates else 0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    target = torch.randn(5, H, C)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(*batch(*sizes)), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    without = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not without
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["linear", "nlinear", "dlinear"])
@pytest.mark.parametrize("individual", [False, True])
def test_linear_models_start_as_the_papers_and_learn_from_covariates(name: str, individual: bool) -> None:
    arch = ArchOptions(individual=individual)
    model, inputs = make(name, arch=arch), batch()
    torch.testing.assert_close(model(*inputs), model.official()(inputs[0]), rtol=1e-5, atol=1e-6)
    target = inputs[0][:, :H] + inputs[2][..., 4:5] - inputs[3][:, -H:, :1]
    torch.nn.functional.mse_loss(model(*inputs), target).backward()
    assert model.covariates.known.grad.abs().sum() > 0  # pyright: ignore
    assert model.covariates.mix.grad.abs().sum() > 0  # pyright: ignore


def test_a_series_that_is_its_known_covariate_is_forecast_exactly() -> None:
    model = make("linear", past=0, marks=1, calendar=0)
    with torch.no_grad():
        model.covariates.known.fill_(2.0)  # pyright: ignore
        model.official().Linear.bias.zero_()  # pyright: ignore
    z = torch.randn(4, L + H, 1)
    x = (2.0 * z[:, :L]).expand(-1, -1, C)
    out = model(x, z[:, :L], z[:, L:], x[..., :0])
    torch.testing.assert_close(out, (2.0 * z[:, L:]).expand(-1, -1, C), rtol=1e-5, atol=1e-5)


def test_linear_models_pass_over_the_calendar_unless_asked() -> None:
    assert make("dlinear", past=0, marks=4).covariates is None
    asked = make("dlinear", past=0, marks=4, arch=ArchOptions(calendar=True))
    assert asked.covariates.known.shape == (C, 4)  # pyright: ignore


@pytest.mark.parametrize("name", ["autoformer", "transformer"])
def test_models_with_a_mixer_read_every_input(name: str) -> None:
    model, inputs = make(name).eval(), batch()
    base = model(*inputs)
    for index in range(4):
        changed = [tensor + 1.0 * (i == index) * torch.randn_like(tensor) for i, tensor in enumerate(inputs)]
        assert (model(*changed) - base).abs().max() > 1e-4


@pytest.mark.parametrize(("name", "attention"), [("transformer", "auto_correlation"), ("autoformer", "softmax")])
def test_attention_swaps_the_mixer(name: str, attention: str) -> None:
    model = make(name, attention=attention)
    found = {module.spec.name for module in model.modules() if hasattr(module, "spec")}
    assert found == {attention}
    assert model(*batch()).shape == (5, H, C)


@pytest.mark.parametrize("normalise", ["last", "window"])
def test_transformer_is_shift_equivariant_when_normalised(normalise: str) -> None:
    model = make("transformer", arch=ArchOptions(d_model=16, d_ff=32, normalise=normalise)).eval()  # type: ignore
    x, *rest = batch()
    torch.testing.assert_close(model(x + 7.0, *rest), model(x, *rest) + 7.0, rtol=1e-4, atol=1e-4)


def test_baselines() -> None:
    x = torch.arange(6.0).view(1, 6, 1)
    assert SeasonalNaive(6, 5, season=4)(x).flatten().tolist() == [2, 3, 4, 5, 2]
    assert Drift(6, 2)(x).flatten().tolist() == [6, 7]
    assert Drift(1, 2)(x[:, :1]).flatten().tolist() == [0, 0]
    last = make("repeat_last")(*batch())
    assert torch.equal(last, batch()[0][:, -1:].expand(-1, H, -1))


def test_a_season_longer_than_the_context_is_said() -> None:
    model = make("seasonal_naive", season=L + 1)
    assert "longer than the context" in model.notes[0]
    assert torch.equal(model(*batch()), batch()[0][:, -1:].expand(-1, H, -1))
    with pytest.raises(ConfigError, match="season"):
        SeasonalNaive(6, 5, season=7)


@pytest.mark.parametrize("name", MODELS)
def test_models_copy_pickle_and_reload(name: str) -> None:
    model, inputs = make(name).eval(), batch()
    expected = model(*inputs)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(*inputs), expected)
    fresh = make(name)
    for parameter in fresh.parameters():
        torch.nn.init.zeros_(parameter)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(*inputs), expected)


@pytest.mark.parametrize("name", TRAINED)
def test_models_export_with_any_batch_size(name: str) -> None:
    model, inputs = make(name).eval(), batch()
    dynamic = tuple({0: torch.export.Dim("batch", min=1, max=4096)} for _ in inputs)
    program = torch.export.export(model, inputs, dynamic_shapes=dynamic).module()
    for size in (1, 3):
        other = batch(size=size)
        torch.testing.assert_close(program(*other), model(*other), rtol=1e-4, atol=1e-4)


def test_a_tensor_of_another_width_is_named() -> None:
    x, x_mark, y_mark, past = batch()
    with pytest.raises(ConfigError, match=r"^y_mark: .*\(batch, 8, 6\)"):
        make("dlinear")(x, x_mark, y_mark[:, :-1], past)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"arch": ArchOptions(individual=True), "name": "autoformer"}, "arch.individual"),
        ({"arch": ArchOptions(d_model=8), "name": "dlinear"}, "arch.d_model"),
        ({"arch": ArchOptions(moving_avg=24), "name": "dlinear"}, "arch.moving_avg"),
        ({"arch": ArchOptions(d_model=10, n_heads=4), "name": "transformer"}, "arch.n_heads"),
        ({"arch": ArchOptions(dropout=1.5), "name": "transformer"}, "arch.dropout"),
        ({"arch": ArchOptions(e_layers=0), "name": "transformer"}, "arch.e_layers"),
        ({"arch": ArchOptions(factor=0.0), "name": "autoformer"}, "arch.factor"),
        ({"arch": ArchOptions(label_len=-1), "name": "autoformer"}, "arch.label_len"),
        ({"arch": ArchOptions(label_len=L + 1), "name": "autoformer"}, "arch.label_len"),
        ({"arch": ArchOptions(normalise="first"), "name": "transformer"}, "arch.normalise"),  # type: ignore
        ({"arch": ArchOptions(d_ff=8), "name": "drift"}, "arch.d_ff"),
        ({"attention": "softmax", "name": "dlinear"}, "attention"),
        ({"attention": "softmix", "name": "transformer"}, "attention"),
        ({"calendar": 7, "name": "dlinear"}, "calendar"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_model_cannot_have_is_refused(options: dict, where: str) -> None:
    name = options.pop("name")
    with pytest.raises(ConfigError, match=f"^{where}: "):
        make(name, **options)


@pytest.mark.parametrize("size", ["context", "horizon", "targets"])
def test_impossible_sizes_are_refused(size: str) -> None:
    with pytest.raises(ConfigError, match=f"^{size}: "):
        build_model("linear", **{"context": 8, "horizon": 2, "targets": 1, size: 0})


@pytest.mark.parametrize(
    ("typed", "meant"), [("dlinaer", "dlinear"), ("Auto-former", "autoformer"), ("drfit", "drift")]
)
def test_an_unknown_model_names_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {meant}"):
        model_info(typed)


def test_every_option_of_the_command_line_belongs_to_a_model() -> None:
    owned = {key for name in MODELS for key in architecture(name)}
    assert owned == set(ArchOptions.__dataclass_fields__)


def test_options_load_no_torch() -> None:
    code = "import sys, pipelines.forecast.options; sys.exit(bool({'torch', 'pandas', 'lightning'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
