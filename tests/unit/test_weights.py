"""Weights: what is saved comes back, the configuration with it, and official files are told apart and converted."""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import subprocess
import sys
import textwrap
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pipelines import official
from pipelines.errors import ConfigError, WeightsError
from pipelines.official import agree, check_shapes, describe, detect, load_official, official_options
from pipelines.weights import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    is_ours,
    load_weights,
    read_config,
    read_state_dict,
    resolve,
    save_weights,
    shipped,
    shipped_folder,
)


def _tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(3, 4, generator=generator)
    return {
        "a.weight": shared,
        "a.tied": shared,
        "b.transposed": torch.randn(5, 2, generator=generator).T,
        "b.half": torch.randn(7, generator=generator).bfloat16(),
        "c.steps": torch.tensor(12),
        "c.mask": torch.tensor([True, False]),
        "d.empty": torch.zeros(0, 3),
        "e.parameter": nn.Parameter(torch.ones(2, dtype=torch.float64)),
    }


def test_round_trip_is_exact(tmp_path):
    tensors = _tensors()
    loaded, config = load_weights(save_weights(tmp_path / "new" / "run", tensors, {"model": "x"}))
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
        assert not loaded[name].requires_grad
    assert config["model"] == "x"
    assert config["format_version"] == 1
    assert config["library"].startswith("attention-pipelines ")
    assert datetime.datetime.fromisoformat(config["created"]).tzinfo is not None
    assert set(config["sha256"]) == {WEIGHTS_FILE, CONFIG_FILE}


def test_configuration_takes_ordinary_python(tmp_path):
    given = {
        "mean": np.array([1.5, 2.0]),
        "count": np.int64(3),
        "scale": torch.tensor(0.5),
        "path": pathlib.Path("a/b"),
        "day": datetime.date(2020, 2, 1),
        "names": ("b", "a"),
        "tags": {"y", "x"},
        "é": None,
    }
    save_weights(tmp_path, {}, given)
    read = read_config(tmp_path)
    assert {name: read[name] for name in given} == {
        "mean": [1.5, 2.0],
        "count": 3,
        "scale": 0.5,
        "path": "a/b",
        "day": "2020-02-01",
        "names": ["b", "a"],
        "tags": ["x", "y"],
        "é": None,
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), np.array([np.inf])])
def test_configuration_that_json_cannot_hold_is_refused_and_nothing_written(tmp_path, value):
    with pytest.raises(ConfigError, match="cannot be saved as JSON"):
        save_weights(tmp_path / "run", {"w": torch.ones(1)}, {"bad": value})
    assert list(tmp_path.iterdir()) == []


def test_saving_over_an_older_one_leaves_other_files(tmp_path):
    save_weights(tmp_path, {"w": torch.zeros(2)}, {})
    (tmp_path / "report.html").write_text("x")
    save_weights(tmp_path, {"w": torch.ones(2)}, {})
    assert load_weights(tmp_path)[0]["w"].tolist() == [1, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE, "report.html"]


def test_spacing_and_order_of_the_configuration_do_not_matter(tmp_path):
    save_weights(tmp_path, {}, {"b": 1, "a": {"y": 0.1, "x": 2}})
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    (tmp_path / CONFIG_FILE).write_text(json.dumps(dict(sorted(config.items())), separators=(",", ":")))
    assert read_config(tmp_path)["a"] == {"x": 2, "y": 0.1}


def test_reading_a_configuration_loads_no_torch(tmp_path):
    save_weights(tmp_path, {}, {})
    code = """
        import sys
        import pipelines.exporting
        from pipelines.weights import read_config
        read_config(sys.argv[1])
        print([name for name in ("torch", "numpy", "pandas", "safetensors") if name in sys.modules])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip() == "[]"


@pytest.mark.parametrize("layout", ["plain", "state_dict", "model", "lightning", "legacy"])
def test_other_peoples_layouts(tmp_path, layout, caplog):
    state = {"a.weight": torch.randn(2, 3), "a.bias": torch.randn(2)}
    content: Any = {
        "plain": state,
        "legacy": state,
        "state_dict": {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        "model": {
            "model": {f"module.{name}": tensor for name, tensor in state.items()},
            "args": argparse.Namespace(lr=0.1),
        },
        "lightning": {
            "pytorch-lightning_version": "2.6.6",
            "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
            "hyper_parameters": {"lr": 0.1},
        },
    }[layout]
    path = tmp_path / ("a.ckpt" if layout == "lightning" else "a.pth")
    torch.save(content, path, _use_new_zipfile_serialization=layout != "legacy")
    with caplog.at_level("WARNING"):
        read = read_state_dict(path)
    assert list(read) == list(state)
    assert all(torch.equal(read[name], state[name]) for name in state)
    assert ("was taken off" in caplog.text) == (layout in ("model", "lightning"))


def test_mappings_and_our_own_folders(tmp_path):
    state = {"a": torch.ones(2)}
    assert list(read_state_dict(state)) == ["a"]
    save_weights(tmp_path, state, {})
    assert is_ours(tmp_path)
    assert not is_ours(tmp_path / WEIGHTS_FILE)
    assert not is_ours(state)
    for source in (tmp_path, tmp_path / WEIGHTS_FILE):
        assert read_state_dict(source)["a"].tolist() == [1, 1]


def test_a_prefix_of_some_names_only_is_kept():
    assert list(read_state_dict({"module.a": torch.ones(1), "b": torch.ones(1)})) == ["module.a", "b"]


def test_hub_addresses(tmp_path, monkeypatch):
    save_weights(tmp_path / "repo", {"w": torch.ones(1)}, {})
    calls = []

    def snapshot(name, *, revision, allow_patterns):
        calls.append((name, revision, sorted(allow_patterns)))
        return str(tmp_path / "repo")

    def download(name, file, *, revision):
        calls.append((name, file, revision))
        return str(tmp_path / "repo" / file)

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert load_weights("hf://org/repo@v1.0")[0]["w"].tolist() == [1]
    assert read_state_dict("hf://org/repo/model.safetensors")["w"].tolist() == [1]
    wanted = [CONFIG_FILE, WEIGHTS_FILE]
    assert calls == [("org/repo", "v1.0", wanted), ("org/repo", WEIGHTS_FILE, None)]
    with pytest.raises(WeightsError, match="not an address"):
        resolve("hf://only-one-part")


def test_hub_that_cannot_be_reached_is_one_message(monkeypatch):
    import huggingface_hub

    def offline(*args, **options):
        raise ConnectionError("a long story\nof several lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(WeightsError, match=r"hf://a/b: cannot be fetched .* \(ConnectionError\)") as caught:
        load_weights("hf://a/b")
    assert "\n" not in str(caught.value)


def test_shipped_weights_are_listed(tmp_path, monkeypatch):
    from pipelines import weights

    save_weights(tmp_path / "forecast" / "weights" / "demo", {}, {})
    monkeypatch.setattr(weights, "__file__", str(tmp_path / "weights.py"))
    assert shipped("forecast") == ["demo"]
    assert is_ours(shipped_folder("forecast", "demo"))
    with pytest.raises(WeightsError, match="Expected: demo"):
        shipped_folder("forecast", "dmeo")


# Official checkpoints, with a converter of the test's own.


def _convert(state: dict[str, torch.Tensor], *, seq_len: int | None = None, factor: int = 1) -> nn.Module:
    model = nn.Linear(state["Linear.weight"].shape[1], state["Linear.weight"].shape[0])
    agree("seq_len", seq_len, model.in_features)
    plain = {key.removeprefix("Linear."): value for key, value in state.items()}
    model.load_state_dict(check_shapes(model, plain, name="linear"))
    return model.train()


@pytest.fixture
def converter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(official.OFFICIAL, "linear", f"{__name__}:_convert")
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())


def _this_module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.__dict__["_convert"] = _convert
    return module


@pytest.mark.usefixtures("converter")
def test_official_file_becomes_a_model_in_eval_mode(tmp_path):
    state = {"Linear.weight": torch.randn(2, 3), "Linear.bias": torch.randn(2)}
    torch.save(state, tmp_path / "checkpoint.pth")
    for source in (state, tmp_path / "checkpoint.pth"):
        model = load_official("linear", source, seq_len=3)
        assert not model.training
        x = torch.randn(4, 3)
        torch.testing.assert_close(model(x), x @ state["Linear.weight"].T + state["Linear.bias"])


@pytest.mark.usefixtures("converter")
def test_options_are_checked():
    state = {"Linear.weight": torch.randn(2, 3), "Linear.bias": torch.randn(2)}
    assert official_options("linear") == ["seq_len", "factor"]
    with pytest.raises(WeightsError, match=r"seq_len: does not agree with the checkpoint. Found: 4. Expected: 3"):
        load_official("linear", state, seq_len=4)
    with pytest.raises(ConfigError, match=r"no such option. Found: seqlen.*did you mean seq_len"):
        load_official("linear", state, seqlen=4)


def test_unknown_model_says_which_there_are():
    with pytest.raises(ConfigError, match=r"did you mean autoformer\?"):
        load_official("autofomer", {})
    with pytest.raises(
        ConfigError,
        match="Expected: autoformer, cfsr, dlinear, fluidworld, fluidworld_convlstm, "
        "fluidworld_transformer, hsdt, linear, lmuformer, mamba, nlinear, ponet, smith, swift",
    ):
        load_official("zzz", {})


def test_registries_name_the_same_models():
    assert set(official.FINGERPRINTS) == set(official.OFFICIAL)


def _autoformer_keys() -> dict[str, int]:
    layers = [f"encoder.attn_layers.{i}.attention.query_projection.weight" for i in range(2)]
    return dict.fromkeys(
        ["enc_embedding.value_embedding.tokenConv.weight", *layers, "decoder.layers.0.projection.weight"], 0
    )


def test_models_are_told_by_their_keys():
    assert detect(_autoformer_keys()) == "autoformer"
    assert describe(_autoformer_keys()) == "autoformer (4 tensors, 2 encoder layers, 1 decoder layer)"
    assert detect({"Linear_Seasonal.0.weight": 0, "Linear_Trend.0.weight": 0}) == "dlinear"
    assert detect({"Linear.weight": 0, "Linear.bias": 0}) == "linear"
    assert detect({"Linear.weight": 0, "other.weight": 0}) is None
    assert detect({}) is None


@pytest.mark.parametrize(("asked", "shown"), [("dlinear", "linear or nlinear"), ("autoformer", "linear or nlinear")])
def test_a_checkpoint_of_another_model_is_named(asked, shown, monkeypatch):
    monkeypatch.setattr(official, "_converter", lambda name: _convert)
    state = {"Linear.weight": torch.zeros(2, 3), "Linear.bias": torch.zeros(2)}
    with pytest.raises(WeightsError, match=f"not a checkpoint of {asked}.*Found: {shown}"):
        load_official(asked, state)


def test_check_shapes_says_everything_at_once():
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    state = {"0.weight": torch.zeros(3, 9), "0.bias": torch.zeros(3), **{f"new.{i}": torch.zeros(1) for i in range(5)}}
    with pytest.raises(WeightsError) as caught:
        check_shapes(module, state, name="mlp")
    message = str(caught.value)
    assert "2 missing (1.weight, 1.bias)" in message
    assert "5 unexpected (new.0, new.1, new.2 and 2 more)" in message
    assert "1 of another shape (0.weight (3, 9) instead of (3, 2))" in message
    fitting = {**module.state_dict(), "table.pe": torch.zeros(1)}
    assert list(check_shapes(module, fitting, name="mlp", ignore=[r".*[.]pe"])) == list(module.state_dict())
