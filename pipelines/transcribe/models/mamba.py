"""The public Mamba block and language model of arXiv 2312.00752, by their released names, on any device.

`MambaBlock` and `MambaLM` have the released state-dict names and forward signatures, on the mechanism `selective_ssm`.
Nothing trained is shipped; `mamba_weights.from_official` opens released weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_attention.mechanisms.selective_ssm import SelectiveSSM, SelectiveState
from pipelines.errors import ConfigError, InputError

__all__ = ["LMOutput", "MambaBlock", "MambaLM", "rounded_up"]

#: Released names of a block's tensors -> their names in the mechanism.
_NAMES = {
    **{f"{part}.{kind}": f"ssm.{part}.{kind}" for part in ("in_proj", "out_proj") for kind in ("weight", "bias")},
    **{f"{part}.{kind}": f"ssm.ahead.{part}.{kind}" for part in ("conv1d", "dt_proj") for kind in ("weight", "bias")},
    **{name: f"ssm.ahead.{name}" for name in ("x_proj.weight", "A_log", "D")},
}


class MambaBlock(nn.Module):
    """The Mamba block: hidden_states (B, L, d_model) -> (B, L, d_model), each token after those before it.

    The mechanism `selective_ssm`, causal, below the released constructor's arguments and tensor names: ``state_dict``
    writes them and ``load_state_dict`` reads them. Steps, decay rates and memory stay in float32 under half precision.

    Args:
        d_model: channels.
        d_state: numbers that each inner channel remembers.
        d_conv: tokens under the convolution.
        expand: inner channels, in multiples of d_model.
        dt_rank: numbers that set the step; "auto" is d_model / 16, rounded up.
        conv_bias: whether the convolution has a bias.
        bias: whether the projections in and out have one.

    Raises:
        ConfigError: a size that is not a positive whole number.

    Time O(L d_model (d_model + d_state) expand), memory O(L d_model expand).
    Source: Mamba (arXiv 2312.00752), section 3.4, figure 3; 437,760, 1,694,720 and 3,770,880 parameters for d_model
    256, 512 and 768.

    Example:
        >>> block = MambaBlock(256)
        >>> sum(p.numel() for p in block.parameters())
        437760
        >>> block(torch.zeros(2, 5, 256)).shape, "dt_proj.bias" in block.state_dict()
        (torch.Size([2, 5, 256]), True)
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | str = "auto",
        *,
        conv_bias: bool = True,
        bias: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand": expand}
        _check_sizes(**sizes, **({} if dt_rank == "auto" else {"dt_rank": dt_rank}))
        rank = None if isinstance(dt_rank, str) else dt_rank
        self.ssm = SelectiveSSM(d_model, causal=True, state=d_state, width=d_conv, expand=expand, rank=rank)
        self.inner, self.d_state, self.d_conv = expand * d_model, d_state, d_conv
        if bias:
            self.ssm.in_proj = nn.Linear(d_model, 2 * self.inner)
            self.ssm.out_proj = nn.Linear(self.inner, d_model)
        if not conv_bias:
            self.ssm.ahead.conv1d.bias = None
        self.register_state_dict_post_hook(_write_released_names)
        self.register_load_state_dict_pre_hook(_read_released_names)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Mix hidden_states (B, L, d_model) to the same shape.

        Raises:
            MechanismError: another number of axes or channels, or an empty axis.
        """
        return self.ssm(hidden_states).y

    def step(self, hidden_states: Tensor, conv_state: Tensor, ssm_state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One more token; the released signature, but the states given are left as they are.

        Args:
            hidden_states: (B, 1, d_model).
            conv_state: (B, E, d_conv), the last inputs of the convolution, newest last; E = expand * d_model.
            ssm_state: (B, E, d_state).

        Returns:
            the mixed token (B, 1, d_model), and both states after it.

        Raises:
            InputError: more than one token, or states of other shapes.

        Complexity: O(B d_model (d_model + d_state) expand), whatever came before.
        """
        rows, state = len(hidden_states), (self.inner, self.d_state)
        shapes = {
            "hidden_states": (hidden_states, (rows, 1, self.ssm.dim)),
            "conv_state": (conv_state, (rows, self.inner, self.d_conv)),
            "ssm_state": (ssm_state, (rows, *state)),
        }
        for name, (tensor, shape) in shapes.items():
            if tensor.shape != shape:
                raise InputError("not of this block", where=name, found=tuple(tensor.shape), expected=shape)
        out = self.ssm(hidden_states, state=SelectiveState(conv_state[..., 1:], ssm_state))
        if self.d_conv == 1:  # nothing is remembered, and the released state holds the newest input all the same
            newest = self.ssm.in_proj(hidden_states).chunk(2, dim=-1)[0].transpose(1, 2)
            return out.y, newest.to(conv_state.dtype), out.state.memory
        conv_state = torch.cat([conv_state[..., 1:2], out.state.inputs.to(conv_state.dtype)], dim=-1)
        return out.y, conv_state, out.state.memory

    def allocate_inference_cache(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Both states of `step` before the first token, zeros: (batch_size, E, d_conv) and (batch_size, E, d_state)."""
        weight = self.ssm.in_proj.weight
        memory = torch.float64 if weight.dtype == torch.float64 else torch.float32
        conv_state = weight.new_zeros(batch_size, self.inner, self.d_conv)
        return conv_state, weight.new_zeros(batch_size, self.inner, self.d_state, dtype=memory)


def _write_released_names(block: nn.Module, state_dict: dict[str, Any], prefix: str, metadata: object) -> None:
    del block, metadata
    for released, own in _NAMES.items():
        if prefix + own in state_dict:
            state_dict[prefix + released] = state_dict.pop(prefix + own)


def _read_released_names(block: nn.Module, state_dict: dict[str, Any], prefix: str, *_: object) -> None:
    del block
    for released, own in _NAMES.items():
        if prefix + released in state_dict:
            state_dict[prefix + own] = state_dict.pop(prefix + released)


class LMOutput(NamedTuple):
    """What the released language model returns.

    Attributes:
        logits: (B, L, vocabulary), scores of the token that follows each one.
    """

    logits: Tensor


class _Layer(nn.Module):
    """RMSNorm and a block, both around a residual that the caller keeps."""

    def __init__(self, d_model: int, epsilon: float, **block: Any) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(d_model, eps=epsilon)
        self.mixer = MambaBlock(d_model, **block)


class _Backbone(nn.Module):
    """Embedding, layers and the last norm, by the released names."""

    def __init__(
        self, d_model: int, n_layer: int, rows: int, epsilon: float, wide_residual: bool, **block: Any
    ) -> None:
        super().__init__()
        self.wide_residual = wide_residual
        self.embedding = nn.Embedding(rows, d_model)
        self.layers = nn.ModuleList(_Layer(d_model, epsilon, **block) for _ in range(n_layer))
        self.norm_f = nn.RMSNorm(d_model, eps=epsilon)

    def forward(
        self, input_ids: Tensor, states: Sequence[SelectiveState | None]
    ) -> tuple[Tensor, tuple[SelectiveState, ...]]:
        """Tokens (B, L) after what left ``states``, one a layer: normed features (B, L, d_model) and the states."""
        residual, after = self._wide(self.embedding(input_ids)), []
        for layer, state in zip(self.layers, states, strict=True):
            layer = cast(_Layer, layer)
            out = layer.mixer.ssm(_normed(layer.norm, residual), state=state)
            residual = self._wide(residual + out.y)
            after.append(out.state)
        return _normed(self.norm_f, residual), tuple(after)

    def _wide(self, residual: Tensor) -> Tensor:
        half = residual.dtype in (torch.float16, torch.bfloat16)
        return residual.float() if half and self.wide_residual else residual


def _normed(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """The norm in the width of the residual, its result in that of the weights."""
    weight = norm.weight
    return F.rms_norm(x, norm.normalized_shape, weight.to(x.dtype), norm.eps).to(weight.dtype)


class MambaLM(nn.Module):
    """The released Mamba language model: input_ids (B, L), whole numbers, to scores of the next token.

    Embedding; layers that add mixer(RMSNorm(residual)) to a residual kept in float32; a last RMSNorm; a linear map to
    the vocabulary, which shares the embedding's weights where ``tie_embeddings``. No weights are shipped.

    Args:
        d_model: channels.
        n_layer: layers.
        vocab_size: kinds of tokens; the table has as many rows, rounded up to a multiple.
        pad_vocab_size_multiple: of this.
        tie_embeddings: whether the map to the vocabulary is the embedding.
        norm_epsilon: what the norms add to the mean square.
        residual_in_fp32: whether the residual of a half-precision model is float32.
        block: further arguments of `MambaBlock`.

    Raises:
        ConfigError: a size that is not a positive whole number.

    Time O(L (n_layer d_model^2 + d_model vocab_size)). Source: Mamba (arXiv 2312.00752), section 4.2 and the released
    model; the residual layers' last maps start smaller by sqrt(n_layer), the embedding as N(0, 0.02^2).

    Example:
        >>> model = MambaLM(16, 2, 30).eval()
        >>> ids = torch.arange(7).view(1, 7)
        >>> model(ids).logits.shape
        torch.Size([1, 7, 32])
        >>> _, state = model.step(ids[:, :6])
        >>> logits, state = model.step(ids[:, 6:], state)
        >>> bool((logits - model(ids).logits[:, 6:]).abs().max() < 1e-5)
        True
    """

    def __init__(
        self,
        d_model: int = 768,
        n_layer: int = 24,
        vocab_size: int = 50277,
        *,
        pad_vocab_size_multiple: int = 8,
        tie_embeddings: bool = True,
        norm_epsilon: float = 1e-5,
        residual_in_fp32: bool = True,
        **block: Any,
    ) -> None:
        super().__init__()
        _check_sizes(
            d_model=d_model, n_layer=n_layer, vocab_size=vocab_size, pad_vocab_size_multiple=pad_vocab_size_multiple
        )
        rows = rounded_up(vocab_size, pad_vocab_size_multiple)
        self.tie_embeddings = tie_embeddings
        self.backbone = _Backbone(d_model, n_layer, rows, norm_epsilon, residual_in_fp32, **block)
        self.lm_head = nn.Linear(d_model, rows, bias=False)
        self._start()
        self.tie_weights()

    @torch.no_grad()
    def _start(self) -> None:
        nn.init.normal_(self.backbone.embedding.weight, std=0.02)
        for module in self.backbone.modules():
            if isinstance(module, MambaBlock):
                nn.init.kaiming_uniform_(module.ssm.out_proj.weight, a=math.sqrt(5))
                module.ssm.out_proj.weight.div_(math.sqrt(len(self.backbone.layers)))
                for map_ in (module.ssm.in_proj, module.ssm.out_proj):
                    if isinstance(map_.bias, Tensor):
                        nn.init.zeros_(map_.bias)

    def tie_weights(self) -> None:
        """Share the embedding's weights with the map to the vocabulary, where the model is tied."""
        if self.tie_embeddings:
            self.lm_head.weight = self.backbone.embedding.weight

    def forward(self, input_ids: Tensor, *, num_last_tokens: int = 0) -> LMOutput:
        """Scores (B, L, vocabulary) after each of the tokens input_ids (B, L); only after the last few where given.

        Raises:
            InputError: not two axes of whole numbers below the vocabulary, or an empty axis.
        """
        self._check_ids(input_ids)
        hidden = self.backbone(input_ids, [None] * len(self.backbone.layers))[0]
        return LMOutput(self.lm_head(hidden[:, -num_last_tokens:] if num_last_tokens > 0 else hidden))

    def step(
        self, input_ids: Tensor, state: Sequence[SelectiveState] | None = None
    ) -> tuple[Tensor, tuple[SelectiveState, ...]]:
        """Go on by one token or several (a prompt): scores after each of them, and the state to go on from.

        Args:
            input_ids: (B, L), L = 1 while decoding.
            state: what the call before returned; None at the beginning.

        Returns:
            scores (B, L, vocabulary) and the state, whose size does not grow.

        Raises:
            InputError: as of ``forward``, or a state of another number of layers.
        """
        self._check_ids(input_ids)
        layers = len(self.backbone.layers)
        if state is not None and len(state) != layers:
            raise InputError("not a state of this model", where="state", found=len(state), expected=f"{layers} layers")
        hidden, after = self.backbone(input_ids, [None] * layers if state is None else state)
        return self.lm_head(hidden), after

    def _check_ids(self, input_ids: Tensor) -> None:
        rows = self.backbone.embedding.num_embeddings
        whole = input_ids.dtype in (torch.int32, torch.int64)
        if input_ids.dim() != 2 or not input_ids.numel() or not whole:
            found = f"{tuple(input_ids.shape)} of {input_ids.dtype}"
            raise InputError("not tokens", where="input_ids", found=found, expected="(batch, tokens), whole numbers")
        if input_ids.is_meta:
            return
        low, high = (int(value) for value in input_ids.aminmax())
        if low < 0 or high >= rows:
            found, expected = low if low < 0 else high, f"whole numbers from 0 to {rows - 1}"
            raise InputError("not a token of this vocabulary", where="input_ids", found=found, expected=expected)


def rounded_up(size: int, multiple: int) -> int:
    """The next multiple from ``size`` on: the rows of a table.

    Example:
        >>> rounded_up(50277, 8)
        50280
    """
    return -(-size // multiple) * multiple


def _check_sizes(**sizes: object) -> None:
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError("not a size", where=name, found=value, expected="a positive whole number")
