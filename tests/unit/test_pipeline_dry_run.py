"""Every pipeline's GPU path with a stand-in driver: its models run, and the kernels that a GPU would launch compile.

Models of each domain run forward and backward on CPU tensors that the dispatch sends to the Triton back end; nothing is
computed. A new domain adds its paths to ``PATHS``, a new model of a domain is asked for by name.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from core_attention.kernels import _inspect, ops
from pipelines.classify.models.transformer import SeriesTransformer
from pipelines.denoise.models.hsdt import make
from pipelines.domains import DOMAINS
from pipelines.fmri.models.swift import Swift, SwiftConfig, SwiftNet
from pipelines.forecast.models import build_model
from pipelines.forecast.options import MODELS, ArchOptions
from pipelines.match.models.smith import Smith, SmithConfig
from pipelines.pose.models.convformer import ConvFormer
from pipelines.superres.models.cfsr import CFSR
from pipelines.transcribe.models.recogniser import Recogniser
from pipelines.world.models import WorldNet, build_world

pytestmark = pytest.mark.skipif(_inspect.unavailable() is not None, reason=str(_inspect.unavailable()))

Made = tuple[nn.Module, tuple[Any, ...]]


@dataclass(frozen=True)
class Path:
    """A model on its way through the kernels.

    Attributes:
        name: of the model, and of the mechanism where it has a choice.
        make: the model and its inputs.
        training: kernels launched forward and backward in training, with how often.
        evaluation: kernels launched forward in evaluation.
    """

    name: str
    make: Callable[[], Made]
    training: dict[str, int]
    evaluation: dict[str, int]


def _forecaster(model: str, attention: str, **sizes: int) -> Callable[[], Made]:
    """A small model: 24 rows of 3 columns with 2 marks, 8 rows ahead."""

    def make() -> Made:
        arch = ArchOptions(d_model=16, n_heads=2, d_ff=32, e_layers=1, **sizes)
        shape = {"context": 24, "horizon": 8, "targets": 3, "marks": 2}
        made = build_model(model, attention=attention, arch=arch, **shape)
        return made, (torch.randn(4, 24, 3), torch.randn(4, 24, 2), torch.randn(4, 8, 2), torch.zeros(4, 24, 0))

    return make


def _classifier() -> Made:
    """A small classifier of series: 24 steps of 3 variables, two classes."""
    model = SeriesTransformer(3, 2, length=24, attention="auto_correlation", d_model=16, n_heads=2, d_ff=32, layers=1)
    return model, (torch.randn(4, 24, 3), torch.ones(4, 24, dtype=torch.bool))


class _BothFrames(nn.Module):
    """A world model as one tensor: the frame rebuilt and the next one."""

    def __init__(self, net: WorldNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        found = self.net(x, action)
        told = self.net.summary(found["state"]).sum() if hasattr(self.net, "summary") else 0.0
        return found["x_recon"] + found["x_pred"] + told


def _world(model: str, **sizes: Any) -> Callable[[], Made]:
    """A small world model of frames of 16 x 16 pixels with actions of two numbers."""

    def make() -> Made:
        net = build_world(model, height=16, width=16, dim=16, stimulus=2, **sizes)
        return _BothFrames(net), (torch.rand(2, 3, 16, 16), torch.rand(2, 2))

    return make


def _enlarger() -> Made:
    """A small CFSR in the training graph."""
    return CFSR(2, dim=8, depths=(1,)), (torch.rand(1, 3, 12, 10),)


def _denoiser() -> Made:
    """The smallest HSDT, with learned queries."""
    return make("hsdt_4", num_bands=6), (torch.rand(1, 1, 6, 8, 8), [True] * 11)


class _Both(nn.Module):
    """A recogniser whose two answers, of the frames and of the text, are one number."""

    def __init__(self, recogniser: Recogniser) -> None:
        super().__init__()
        self.recogniser = recogniser

    def forward(self, features: torch.Tensor, lengths: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        logp, _, scores = self.recogniser(features, lengths, tokens)
        return logp.sum() if scores is None else logp.sum() + scores.sum()


def _recogniser(**choices: Any) -> Callable[[], Made]:
    """A small recogniser: two recordings, 30 ids, texts of 5 tokens."""

    def make() -> Made:
        model = _Both(Recogniser(30, 40, dim=16, layers=1, channels=(8, 4), **choices))
        return model, (torch.randn(2, 40, 40), torch.tensor([40, 28]), torch.randint(2, 30, (2, 5)))

    return make


def _matcher(attention: str) -> Callable[[], Made]:
    """A small SMITH: two pairs of documents of four blocks."""

    def make() -> Made:
        config = SmithConfig(
            50, block=8, blocks=4, dim=16, heads=2, hidden=32, sentence_layers=1, document_layers=1, attention=attention
        )
        return Smith(config), (torch.randint(5, 50, (2, 4, 8)), torch.randint(5, 50, (2, 4, 8)))

    return make


def _brain(attention: str) -> Callable[[], Made]:
    """A small SwiFT of two stages: two windows of four volumes."""

    def make() -> Made:
        config = SwiftConfig(
            image=(8, 8, 4), frames=4, patch=(2, 2, 2, 1), dim=16, depths=(2, 1), heads=(2, 2), window=(2, 2, 2, 2),
            attention=attention,
        )  # fmt: skip
        model = SwiftNet(Swift(config))
        model.model.norm.requires_grad_(False)  # exists for the released layout, and is not applied
        return model, (torch.randn(2, 1, 8, 8, 4, 4),)

    return make


def _lifter(attention: str) -> Callable[[], Made]:
    """A small ConvFormer on windows of three frames."""

    def make() -> Made:
        model = ConvFormer(frames=3, dim=8, heads=2, kernels=(3,), attention=attention)
        return model, (torch.randn(2, 3, 17, 2),)

    return make


#: Domain -> paths. A mixer by auto-correlation launches the aggregate; its gradients are the aggregate again (values,
#: query, key) and one correlation (weights).
PATHS: dict[str, tuple[Path, ...]] = {
    "forecast": (
        Path(  # one mixer in the encoder, two in the decoder
            "autoformer",
            _forecaster("autoformer", "auto_correlation", d_layers=1),
            {"aggregate_kernel": 12, "correlation_kernel": 3},
            {"aggregate_kernel": 3},
        ),
        Path(
            "transformer, auto_correlation",
            _forecaster("transformer", "auto_correlation"),
            {"aggregate_kernel": 4, "correlation_kernel": 1},
            {"aggregate_kernel": 1},
        ),
    ),
    # Without gradients CFSR takes its path of row bands for CPU tensors, which these are: no kernel is asked for there.
    "superres": (Path("cfsr", _enlarger, {"convolution_kernel": 2, "correlation_kernel": 1}, {}),),
    # HSDT is torch's own operators throughout.
    "denoise": (Path("hsdt", _denoiser, {}, {}),),
    # Samba scans the frames (twice where both directions are read); its decoder scans the tokens, the recording, and
    # the tokens again from where the recording ended.
    "transcribe": (
        Path(
            "samba",
            _recogniser(decoder_layers=1),
            {"scan_kernel": 5, "scan_gradient_kernel": 5},
            {"scan_kernel": 5},
        ),
        Path(
            "samba, causal",
            _recogniser(decoder_layers=1, causal=True),
            {"scan_kernel": 4, "scan_gradient_kernel": 4},
            {"scan_kernel": 4},
        ),
        Path(
            "conformer, selective_ssm",
            _recogniser(kind="conformer", decoder_layers=0, attention="selective_ssm"),
            {"scan_kernel": 2, "scan_gradient_kernel": 2},
            {"scan_kernel": 2},
        ),
        # Without a mechanism on kernels the Conformer is torch's own operators throughout.
        Path("conformer, softmax", _recogniser(kind="conformer", decoder_layers=0, attention="softmax"), {}, {}),
    ),
    # Both documents go through both encoders.
    "match": (
        Path("smith", _matcher("softmax"), {}, {}),
        Path(
            "smith, selective_ssm",
            _matcher("selective_ssm"),
            {"scan_kernel": 8, "scan_gradient_kernel": 8},
            {"scan_kernel": 8},
        ),
    ),
    # One launch a block; the last stage is global in space and windowed in time.
    "fmri": (
        Path(
            "swift",
            _brain("window_nd"),
            {"window_kernel": 3, "window_dq_kernel": 3, "window_dkv_kernel": 3},
            {"window_kernel": 3},
        ),
        Path("swift, softmax", _brain("softmax"), {}, {}),
    ),
    # FluidWorld takes compiled steps for CPU tensors, which these are; the other two are torch's own operators.
    "world": (
        Path("fluidworld", _world("fluidworld", layers=1, steps=2), {}, {}),
        Path("transformer", _world("transformer", layers=1, heads=2), {}, {}),
        Path("convlstm", _world("convlstm", hidden=8), {}, {}),
    ),
    # ConvFormer is torch's own operators throughout.
    "pose": (Path("convformer", _lifter("dynamic_conv"), {}, {}),),
    # VSFormer and LMUFormer are torch's own operators throughout.
    "classify": (
        Path(
            "transformer, auto_correlation",
            _classifier,
            {"aggregate_kernel": 4, "correlation_kernel": 1},
            {"aggregate_kernel": 1},
        ),
    ),
}
EVERY = [pytest.param(path, id=f"{domain}-{path.name}") for domain, paths in PATHS.items() for path in paths]


def test_every_domain_has_a_path() -> None:
    missing = sorted(set(DOMAINS) - set(PATHS))
    assert not missing, f"add the GPU paths of {', '.join(missing)} to PATHS in {__file__}"
    assert set(PATHS) <= set(DOMAINS)


def test_every_forecasting_model_with_a_mixer_has_a_path() -> None:
    with_path = {path.name.partition(",")[0] for path in PATHS["forecast"]}
    assert {info.name for info in MODELS.values() if info.uses_attention} <= with_path


@pytest.mark.parametrize("path", EVERY)
def test_the_gpu_path_launches_its_kernels(path: Path) -> None:
    model, inputs = path.make()
    with _inspect.dry_run("sm_90") as (launches, compiled), _inspect.as_on_a_gpu():
        model.train()
        output = model(*inputs)
        output.sum().backward()
        training = collections.Counter(launch.kernel for launch in launches)
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
        launches.clear()
        model.eval()
        with torch.no_grad():
            model(*inputs)
        evaluation = collections.Counter(launch.kernel for launch in launches)
    assert (training, evaluation) == (path.training, path.evaluation)
    reports = [_inspect._report("sm_90", variant, kernel, _packages()) for variant, kernel in compiled.items()]
    assert [report for report in reports if not report.fits] == []


def test_without_the_stand_in_nothing_is_sent_to_the_gpu() -> None:
    model, inputs = PATHS["forecast"][0].make()
    assert torch.isfinite(model.eval()(*inputs)).all()


def _packages() -> set[str]:
    return {operation.package for operation in ops().values()}
