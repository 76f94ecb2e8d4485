"""Exported files: opened again they give what the model gives, at any batch size, or they are not there."""

from __future__ import annotations

import copy
import importlib.util
import json
import pathlib
import sys

import pytest
import torch
from torch import nn

from pipelines import exporting
from pipelines.errors import ConfigError, RunError
from pipelines.exporting import FORMATS, export_module


@pytest.fixture(params=FORMATS)
def kind(request) -> str:
    if request.param == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name)
    return request.param


class _Forecast(nn.Module):
    """The call of a forecasting model: a past that may be empty, an input that goes unused, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Linear(8, 3)
        self.mark = nn.Linear(5, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, x_mark: torch.Tensor, y_mark: torch.Tensor, past: torch.Tensor) -> torch.Tensor:
        return self.drop(self.time(x.transpose(1, 2))).transpose(1, 2) + self.mark(y_mark)


def _example(batch: int = 4) -> dict[str, torch.Tensor]:
    shapes = {"x": (8, 2), "x_mark": (8, 5), "y_mark": (3, 5), "past": (8, 0)}
    return {name: torch.randn(batch, *shape) for name, shape in shapes.items()}


def _open(path: pathlib.Path) -> tuple[dict, object]:
    """Metadata and a function, read by the formats' own libraries."""
    if path.suffix == ".pt2":
        extra = {exporting.METADATA: ""}
        program = torch.export.load(path, extra_files=extra).module()
        return json.loads(extra[exporting.METADATA]), lambda inputs: program(*inputs.values())
    import onnx
    import onnxruntime

    text = {entry.key: entry.value for entry in onnx.load(path).metadata_props}[exporting.METADATA]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}

    def run(inputs):
        fed = {name: value.numpy() for name, value in inputs.items() if name in names}
        return torch.from_numpy(session.run(["forecast"], fed)[0])

    return json.loads(text), run


@pytest.mark.parametrize("batch", [1, 4])
def test_the_file_gives_what_the_model_gives_at_any_batch(tmp_path, kind, batch, capfd):
    torch.manual_seed(0)
    model, path = _Forecast().train(), tmp_path / f"model.{kind}"
    units = {"units": {"forecast": "Wh"}}
    parity = export_module(model, _example(batch), path, kind, metadata=units)
    assert model.training
    assert (parity.format, parity.path) == (kind, path)
    assert parity.batches[0] == 1
    assert len(set(parity.batches)) == 3
    assert 0 <= parity.max_abs_error <= parity.tolerance < 1e-2
    metadata, run = _open(path)
    assert metadata["units"] == {"forecast": "Wh"}
    assert metadata["operators"] == []
    assert metadata["inputs"][0] == {"name": "x", "shape": ["batch", 8, 2], "dtype": "float32"}
    assert metadata["outputs"] == [{"name": "forecast", "shape": ["batch", 3, 2], "dtype": "float32"}]
    model.eval()
    for size in (1, 2, 9, 33):
        inputs = _example(size)
        torch.testing.assert_close(run(inputs), model(*inputs.values()), rtol=1e-5, atol=1e-5)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert capfd.readouterr() == ("", "")


class _Fixed(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1) * 2


class _Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class _Random(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


class _NaN(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(-x.abs() - 1)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (_Fixed(), "cannot be exported"),
        (_Branching(), "cannot be exported"),
        (_Random(), "differs from eager by"),
        (_NaN(), "differs from eager by inf"),
    ],
)
def test_what_does_not_agree_leaves_no_file_and_keeps_the_old_one(tmp_path, kind, model, match):
    path = tmp_path / f"model.{kind}"
    path.write_text("old")
    with pytest.raises(RunError, match=match) as caught:
        export_module(model, {"x": torch.ones(2, 3)}, path, kind)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_wrong_file_is_caught_by_reopening_it(tmp_path, kind, monkeypatch):
    """The check reads the written file, not the program in memory."""
    original = exporting._traced

    def other_weights(module, inputs):
        other = copy.deepcopy(module)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(1e-2)
        return original(other, inputs)

    monkeypatch.setattr(exporting, "_traced", other_weights)
    with pytest.raises(RunError, match="differs from eager"):
        export_module(nn.Linear(3, 2), {"x": torch.ones(2, 3)}, tmp_path / f"a.{kind}", kind)
    assert list(tmp_path.iterdir()) == []


@torch.library.custom_op("pipelines_test::twice", mutates_args=())
def _twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@_twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class _Own(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _twice(x)


def test_operators_of_ours_are_said_and_stored(tmp_path, caplog):
    path = tmp_path / "a.pt2"
    export_module(_Own(), {"x": torch.ones(2, 3)}, path)
    assert "opens only where these operators are registered: pipelines_test.twice.default" in caplog.text
    assert _open(path)[0]["operators"] == ["pipelines_test.twice.default"]


class _Two(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, x.sum(1)


def test_several_outputs(tmp_path, kind):
    export_module(_Two(), {"x": torch.ones(2, 3)}, tmp_path / f"a.{kind}", kind, output_name=("y", "total"))
    with pytest.raises(ConfigError, match="every output needs a name"):
        export_module(_Two(), {"x": torch.ones(2, 3)}, tmp_path / f"b.{kind}", kind)


def test_bad_use(tmp_path, monkeypatch):
    model, example = nn.Linear(3, 2), {"x": torch.ones(2, 3)}
    with pytest.raises(ConfigError, match=r"unknown export format.*Found: tflite\. Expected: pt2 or onnx"):
        export_module(model, example, tmp_path / "a", "tflite")
    with pytest.raises(ConfigError, match=r"name the file a\.pt2"):
        export_module(model, example, tmp_path / "a.onnx", "pt2")
    with pytest.raises(ConfigError, match="one common batch size"):
        export_module(_Two(), {"x": torch.ones(2, 3), "z": torch.ones(3, 3)}, tmp_path / "a.pt2")
    with pytest.raises(ConfigError, match="one common batch size"):
        export_module(model, {"x": torch.ones(0, 3)}, tmp_path / "a.pt2")
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    with pytest.raises(ConfigError, match=r"no onnxscript.*pip install 'attention-pipelines\[onnx\]'"):
        export_module(model, example, tmp_path / "a.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []
    assert "torch" in sys.modules
