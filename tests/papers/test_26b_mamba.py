"""Mamba (arXiv:2312.00752): scan, block and language model against outputs of the released code; names and counts.

With the environment variable MAMBA_REPOSITORY (a checkout of state-spaces/mamba) and einops installed, the released
classes are run beside ours on random weights, with the released reference scan, the way that needs no CUDA.
"""

from __future__ import annotations

import importlib
import os
import pathlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.kernels import selective_scan
from pipelines.errors import ConfigError, InputError, WeightsError
from pipelines.official import detect, load_official
from pipelines.transcribe.models.mamba import MambaBlock, MambaLM
from pipelines.transcribe.models.mamba_weights import from_official

GOLDEN = pathlib.Path(__file__).parent / "golden"
LEAVES = ("in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias")


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())


def _golden(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights by the released names, and the rest."""
    stored = {key: torch.from_numpy(values) for key, values in np.load(GOLDEN / f"mamba_{name}.npz").items()}
    weights = {key.removeprefix("state."): value for key, value in stored.items() if key.startswith("state.")}
    return weights, {key: value for key, value in stored.items() if not key.startswith("state.")}


@pytest.mark.parametrize("backend", ["reference", "eager", "cpu"])
def test_golden_vectors(backend: str) -> None:
    given = {name: torch.from_numpy(values) for name, values in np.load(GOLDEN / "mamba_selective_scan.npz").items()}
    expected, bias = given.pop("out"), given.pop("bias")
    found = selective_scan(**given, delta_bias=bias, delta_softplus=True, backend=backend)
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["block", "block_odd"])
def test_block_equals_the_released_one(name: str) -> None:
    weights, golden = _golden(name)
    block = load_official("mamba", weights)
    assert isinstance(block, MambaBlock)
    x = golden["x"].requires_grad_()
    y = block(x)
    assert _gap(y, golden["y"]) <= 1e-5
    (y * golden["cotangent"]).sum().backward()
    assert x.grad is not None
    assert _gap(x.grad, golden["grad.x"]) <= 1e-5 * float(golden["grad.x"].abs().max())
    own = {key: value.grad for key, value in _by_released_names(block).items()}
    for key, value in golden.items():
        if key.startswith("grad.") and key != "grad.x":
            gradient = own[key.removeprefix("grad.")]
            assert gradient is not None
            assert _gap(gradient, value) <= 1e-5 * float(value.abs().max()), key


def _by_released_names(block: nn.Module) -> dict[str, Tensor]:
    """Parameters by released names: the state dict with its tensors replaced by the parameters behind them."""
    behind = {p.data_ptr(): p for p in block.parameters()}
    return {key: behind[value.data_ptr()] for key, value in block.state_dict().items()}


@pytest.mark.parametrize("name", ["block", "block_odd"])
def test_block_steps_equal_the_released_steps(name: str) -> None:
    weights, golden = _golden(name)
    block: Any = from_official(weights)
    assert isinstance(block, MambaBlock)
    conv_state, ssm_state = block.allocate_inference_cache(len(golden["x"]))
    outputs = []
    with torch.no_grad():
        for token in golden["x"].unbind(1):
            y, conv_state, ssm_state = block.step(token.unsqueeze(1), conv_state, ssm_state)
            outputs.append(y)
    stepped = torch.cat(outputs, 1)
    assert _gap(stepped, golden["y"]) <= 1e-5
    assert _gap(stepped, golden["steps"]) <= 1e-5
    assert _gap(conv_state, golden["conv_state"]) <= 1e-5
    assert _gap(ssm_state, golden["ssm_state"]) <= 1e-5


@pytest.mark.parametrize("d_conv", [1, 2])
def test_steps_of_narrow_convolutions(d_conv: int) -> None:
    torch.manual_seed(0)
    block = MambaBlock(8, d_conv=d_conv)
    x, states, outputs = torch.randn(2, 6, 8), block.allocate_inference_cache(2), []
    for token in x.unbind(1):
        y, *states = block.step(token.unsqueeze(1), *states)
        outputs.append(y)
    assert _gap(torch.cat(outputs, 1), block(x)) <= 1e-6
    inputs = F.linear(x, block.state_dict()["in_proj.weight"])[..., :16].transpose(1, 2)
    assert _gap(states[0], inputs[..., -d_conv:]) <= 1e-6  # the newest inputs, newest last


@pytest.mark.parametrize("name", ["lm", "lm_untied"])
def test_language_model_equals_the_released_one(name: str) -> None:
    weights, golden = _golden(name)
    model = load_official("mamba", weights)
    assert isinstance(model, MambaLM)
    assert model.tie_embeddings is (name == "lm")
    ids = golden["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits
        assert _gap(logits, golden["logits"]) <= 1e-5
        assert torch.equal(model(ids, num_last_tokens=3).logits, logits[:, -3:])
        first, state = model.step(ids[:, :5])
        pieces = [first]
        for token in ids[:, 5:].unbind(1):
            piece, state = model.step(token.unsqueeze(1), state)
            pieces.append(piece)
    assert _gap(torch.cat(pieces, 1), golden["logits"]) <= 1e-5


@pytest.mark.parametrize(("d_model", "count"), [(256, 437_760), (512, 1_694_720), (768, 3_770_880)])
def test_block_parameter_counts(d_model: int, count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in MambaBlock(d_model).parameters()) == count


def test_language_model_parameter_count_and_names() -> None:
    with torch.device("meta"):
        model = MambaLM(768, 24, 50277)
    assert sum(p.numel() for p in model.parameters()) == 129_135_360
    block = {
        "A_log": (1536, 16),
        "D": (1536,),
        "in_proj.weight": (3072, 768),
        "conv1d.weight": (1536, 1, 4),
        "conv1d.bias": (1536,),
        "x_proj.weight": (80, 1536),
        "dt_proj.weight": (1536, 48),
        "dt_proj.bias": (1536,),
        "out_proj.weight": (768, 1536),
    }
    expected = {f"backbone.layers.{i}.mixer.{key}": shape for i in range(24) for key, shape in block.items()}
    expected |= {f"backbone.layers.{i}.norm.weight": (768,) for i in range(24)}
    expected |= {"backbone.embedding.weight": (50280, 768), "lm_head.weight": (50280, 768)}
    expected["backbone.norm_f.weight"] = (768,)
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == expected


def test_initialisation() -> None:
    torch.manual_seed(0)
    model = MambaLM(64, 4, 1000)
    for layer in model.backbone.layers:
        block: Any = layer
        state = block.mixer.state_dict()
        steps = F.softplus(state["dt_proj.bias"])
        assert 1e-3 * 0.999 <= float(steps.min()) < 2e-3  # evenly on a logarithmic scale, 128 of them
        assert 0.05 < float(steps.max()) <= 0.1 * 1.001
        assert float(state["dt_proj.weight"].abs().max()) <= 4**-0.5
        expected = torch.arange(1.0, 17.0).log().expand(128, 16)
        assert torch.equal(state["A_log"], expected)
        assert torch.equal(state["D"], torch.ones(128))
        bound = 128**-0.5 / 2  # kaiming of 128 inputs, divided by sqrt(4 layers)
        assert 0.9 * bound < float(state["out_proj.weight"].abs().max()) <= bound
    assert float(model.backbone.embedding.weight.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert model.lm_head.weight is model.backbone.embedding.weight
    biased = MambaLM(16, 1, 8, bias=True, tie_embeddings=False)
    assert not biased.state_dict()["backbone.layers.0.mixer.in_proj.bias"].any()
    assert biased.lm_head.weight is not biased.backbone.embedding.weight


# Opening checkpoints: names, prefixes, arguments, damage.


def _port(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The Hugging Face port's names; a tied head is not stored."""
    renamed = {key.replace("backbone.embedding.", "backbone.embeddings."): value for key, value in state.items()}
    return {key: value for key, value in renamed.items() if key != "lm_head.weight"}


def test_names_of_the_port_and_prefixes_open() -> None:
    weights, golden = _golden("lm")
    port = _port(weights)
    forms: dict[str, dict[str, Tensor]] = {
        "port": port,
        "bare port": {key.removeprefix("backbone."): value for key, value in port.items()},
        "prefixed": {f"decoder.lm.{key}": value for key, value in weights.items()},
        "half": {key: value.half() for key, value in weights.items()},
    }
    for label, state in forms.items():
        assert detect(state) == "mamba", label
        model = load_official("mamba", state, tie_embeddings=True)
        gap = _gap(model(golden["input_ids"]).logits, golden["logits"])
        assert gap <= (1e-2 if label == "half" else 1e-5), label
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    block, rest = _golden("block")
    for prefix in ("", "backbone.layers.7.mixer.", "encoder.block."):
        model = load_official("mamba", {prefix + key: value for key, value in block.items()})
        assert _gap(model(rest["x"]), rest["y"]) <= 1e-5


def test_state_dict_goes_back_under_released_names() -> None:
    for name in ("block_odd", "lm_untied"):
        weights, _ = _golden(name)
        model = from_official(weights)
        again = model.state_dict()
        assert sorted(again) == sorted(weights)
        assert all(torch.equal(again[key], weights[key]) for key in weights)
        weights[next(iter(weights))].zero_()  # the model keeps copies, not the caller's tensors
        assert all(value.any() for value in model.state_dict().values())


def test_half_precision_keeps_decay_rates_wide() -> None:
    weights, golden = _golden("lm")
    model: Any = from_official(weights, dtype=torch.bfloat16, device="cpu")
    kinds = {key: value.dtype for key, value in model.state_dict().items()}
    assert {kind for key, kind in kinds.items() if key.endswith((".A_log", ".D"))} == {torch.float32}
    assert {kind for key, kind in kinds.items() if not key.endswith((".A_log", ".D"))} == {torch.bfloat16}
    largest = float(golden["logits"].abs().max())
    assert _gap(model(golden["input_ids"]).logits.float(), golden["logits"]) < 0.05 * largest
    _, state = model.step(golden["input_ids"])
    assert {item.memory.dtype for item in state} == {torch.float32}


def test_official_arguments_are_held_against_the_tensors() -> None:
    weights, _ = _golden("lm")
    right: dict[str, Any] = {"d_model": 16, "d_state": 16, "d_conv": 4, "expand": 2, "dt_rank": "auto", "bias": False}
    right |= {"conv_bias": True, "n_layer": 2, "vocab_size": 30, "tie_embeddings": True, "rms_norm": True}
    right |= {"d_intermediate": 0, "ssm_cfg": {"layer": "Mamba1", "dt_rank": 1, "dt_min": 0.01}, "attn_layer_idx": []}
    idle = {"attn_cfg": {}, "fused_add_norm": True, "dt_min": 0.001, "dt_init": "random", "use_fast_path": True}
    assert isinstance(load_official("mamba", weights, **right, **idle, norm_epsilon=1e-5), MambaLM)
    wrong: dict[str, Any] = {"d_model": 32, "d_state": 8, "d_conv": 3, "expand": 4, "dt_rank": 2, "bias": True}
    wrong |= {"conv_bias": False, "n_layer": 3, "vocab_size": 33, "tie_embeddings": False, "rms_norm": False}
    wrong |= {"d_intermediate": 64, "ssm_cfg": {"d_state": 32}, "attn_layer_idx": [1]}
    for name, value in wrong.items():
        with pytest.raises(WeightsError, match="d_state" if name == "ssm_cfg" else name):
            load_official("mamba", weights, **{name: value})
    with pytest.raises(WeightsError, match=r"ssm_cfg\.layer.*Mamba2"):
        load_official("mamba", weights, ssm_cfg={"layer": "Mamba2"})
    with pytest.raises(ConfigError, match="headdim"):
        load_official("mamba", weights, ssm_cfg={"headdim": 64})
    with pytest.raises(ConfigError, match="did you mean n_layer"):
        load_official("mamba", weights, n_layers=2)
    with pytest.raises(WeightsError, match="vocab_size"):
        load_official("mamba", weights, vocab_size=30, pad_vocab_size_multiple=1)


def test_foreign_and_damaged_state_dicts_are_refused() -> None:
    weights, _ = _golden("lm")
    first = "backbone.layers.0.mixer."
    without_embedding = {key: value for key, value in weights.items() if "embedding" not in key}
    narrow = {**weights, first + "A_log": torch.zeros(31, 16)}
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({}, "not a state dict of mamba"),
        ({"A_log": torch.zeros(3)}, "not a state dict of mamba"),
        (without_embedding, "2 blocks and no embedding"),
        (narrow, "not a state dict of mamba"),
        ({k: v for k, v in weights.items() if k != first + "D"}, "1 missing [(]backbone.layers.0.mixer.D"),
        ({**weights, "extra": torch.zeros(1)}, "1 unexpected [(]extra"),
        ({**weights, first + "D": torch.zeros(3)}, "of another shape"),
        ({**weights, "backbone.norm_f.bias": torch.zeros(16)}, "unexpected [(]backbone.norm_f.bias"),
        ({k: v for k, v in weights.items() if "layers.0" not in k}, "missing .backbone.layers.0"),
    ]
    for damaged, message in cases:
        with pytest.raises(WeightsError, match=message):
            from_official(damaged)
    ours = {f"encoder.layers.0.mixer.{k}": v for k, v in MambaBlock(8).ssm.state_dict().items()}
    assert detect(ours) is None  # blocks of our own recognisers are no released checkpoint


def test_wrong_inputs_are_refused() -> None:
    block, model = MambaBlock(8), MambaLM(8, 1, 10)
    conv_state, ssm_state = block.allocate_inference_cache(2)
    x, two = torch.zeros(2, 1, 8), torch.zeros(2, 2, 8)
    for name, given in {
        "hidden_states": (two, conv_state, ssm_state),
        "conv_state": (x, conv_state[..., 1:], ssm_state),
        "ssm_state": (x, conv_state, ssm_state[:1]),
    }.items():
        with pytest.raises(InputError, match=name):
            block.step(*given)
    for ids in (torch.zeros(3), torch.zeros(1, 3), torch.zeros(1, 0, dtype=torch.long)):
        with pytest.raises(InputError, match="not tokens"):
            model(ids)
    for ids, found in ((torch.tensor([[0, 16]]), 16), (torch.tensor([[-1, 3]]), -1)):
        with pytest.raises(InputError, match=f"Found: {found}. Expected: whole numbers from 0 to 15"):
            model(ids)
    with pytest.raises(InputError, match="1 layers"):
        model.step(torch.zeros(1, 1, dtype=torch.long), ())
    for arguments in ({"d_state": 0}, {"dt_rank": "half"}, {"expand": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(arguments))):
            MambaBlock(8, **arguments)  # pyright: ignore[reportArgumentType]


# The released code itself.


@pytest.fixture(scope="module")
def released() -> Iterator[Any]:
    """The released classes, with what needs CUDA or Triton replaced: the scan by the released reference scan."""
    folder = os.environ.get("MAMBA_REPOSITORY")
    if not folder:
        pytest.skip("MAMBA_REPOSITORY is not set")
    pytest.importorskip("einops")
    with pytest.MonkeyPatch.context() as patch:
        yield _import_released(pathlib.Path(folder) / "mamba_ssm", patch)


def _import_released(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> Any:
    def stub(name: str, **contents: Any) -> None:
        module = types.ModuleType(f"mamba_ssm{name}")
        module.__dict__.update(contents)
        patch.setitem(sys.modules, module.__name__, module)

    for name in [key for key in sys.modules if key.split(".")[0] == "mamba_ssm"]:
        patch.delitem(sys.modules, name)
    # Packages without their __init__, which imports everything.
    for package in ("", ".ops", ".ops.triton", ".modules", ".models", ".utils"):
        stub(package, __path__=[str(folder.joinpath(*package.split(".")))])
    stub(".ops.triton.layer_norm", RMSNorm=nn.RMSNorm, layer_norm_fn=None, rms_norm_fn=None, _layer_norm_fwd=None)
    patch.setitem(sys.modules, "mamba_ssm.ops.triton.selective_state_update", None)
    unused = {"mamba2": "Mamba2", "mamba3": "Mamba3", "mha": "MHA", "mlp": "GatedMLP"}
    for module, kind in unused.items():
        stub(f".modules.{module}", **{kind: object})
    stub(".utils.generation", GenerationMixin=object)
    stub(".utils.hf", load_config_hf=None, load_state_dict_hf=None)
    scan = importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_ref
    block: Any = importlib.import_module("mamba_ssm.modules.mamba_simple")
    patch.setattr(block, "selective_scan_fn", scan)
    model: Any = importlib.import_module("mamba_ssm.models.mixer_seq_simple")
    return types.SimpleNamespace(Mamba=block.Mamba, LM=model.MambaLMHeadModel, Config=model.MambaConfig)


def shaken(model: nn.Module, by: float = 0.2) -> nn.Module:
    """Weights away from where they start, decay rates and skips too, so that no term can hide."""
    with torch.no_grad():
        for p in model.parameters():
            p.add_(by * torch.randn_like(p))
    return model


@pytest.mark.parametrize(
    "sizes", [{"d_model": 48}, {"d_model": 20, "d_state": 3, "d_conv": 2, "expand": 3, "dt_rank": 5, "bias": True}]
)
def test_released_block(released: Any, sizes: dict[str, Any]) -> None:
    torch.manual_seed(26)
    theirs = shaken(released.Mamba(**sizes))
    ours = load_official("mamba", theirs.state_dict(), **sizes)
    x = torch.randn(2, 37, sizes["d_model"])
    assert _gap(ours(x), theirs(x)) <= 1e-5


@pytest.mark.parametrize("tied", [True, False])
def test_released_language_model(released: Any, tied: bool, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(26)
    config = {"d_model": 32, "n_layer": 2, "vocab_size": 100, "fused_add_norm": False, "tie_embeddings": tied}
    theirs = shaken(released.LM(released.Config(**config)), 0.05)
    ours = load_official("mamba", theirs.state_dict(), **config)
    ids = torch.randint(0, 104, (2, 29))
    gap = _gap(ours(ids).logits, theirs(ids).logits)
    with capsys.disabled():
        sys.stdout.write(f"\nreleased language model, {'tied' if tied else 'untied'}: largest difference {gap:.1e}\n")
    assert gap <= 1e-5


def test_released_initialisation_has_the_same_spread(released: Any) -> None:
    torch.manual_seed(26)
    theirs = released.LM(released.Config(d_model=64, n_layer=4, vocab_size=400, fused_add_norm=False)).state_dict()
    ours = MambaLM(64, 4, 400).state_dict()
    assert sorted(ours) == sorted(theirs)
    for key, value in theirs.items():
        if value.std() == 0 or key.endswith("A_log"):
            assert torch.equal(ours[key], value), key
        else:  # a sample of n values has a spread within a few parts in sqrt(n)
            assert float(ours[key].std() / value.std()) == pytest.approx(1, abs=0.02 + 2.5 / value.numel() ** 0.5), key
