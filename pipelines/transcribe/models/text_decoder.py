"""The text decoder: Mamba blocks over the tokens, which read the recording as a prefix of their own sequence."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core_attention import TokenMixer, build, spec
from core_attention.layers import FeedForward
from pipelines.errors import ConfigError

__all__ = ["DecoderState", "TextDecoder", "reads_recordings"]


class DecoderState(NamedTuple):
    """What K hypotheses have read so far: for each layer the states of its two mixers."""

    layers: list[tuple[Any, Any]]


def reads_recordings(name: str) -> bool:
    """Whether a mechanism can stand in the decoder: causal, from a state, with the recording as context.

    Example:
        >>> reads_recordings("selective_ssm"), reads_recordings("legendre")
        (True, False)
    """
    found = spec(name)
    return found.causal and found.streaming and found.context and found.mask and 1 in found.grid


class _Layer(nn.Module):
    """y + self(LN y); y + cross(LN y after the recording); y + FFN(LN y)."""

    def __init__(self, dim: int, mixers: tuple[TokenMixer, TokenMixer], ratio: int, dropout: float) -> None:
        super().__init__()
        self.self_norm, self.cross_norm, self.ffn_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.self_mixer, self.cross_mixer = mixers
        self.ffn = FeedForward(dim, ratio * dim, dropout=dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, y: Tensor, memory: Tensor, memory_mask: Tensor | None, state: tuple[Any, Any] | None
    ) -> tuple[Tensor, tuple[Any, Any]]:
        own, crossed = (None, None) if state is None else state
        out = self.self_mixer(self.self_norm(y), **_given(own))
        y = y + self.dropout(out.y)
        x = self.cross_norm(y)
        if self.carries_state:
            reading = _given(crossed) if crossed is not None else {"context": memory, "context_mask": memory_mask}
        else:
            reading = {"context": memory, "context_mask": memory_mask}
        read = self.cross_mixer(x, **reading)
        y = y + self.dropout(read.y)
        after = read.state if self.carries_state else None
        return y + self.dropout(self.ffn(self.ffn_norm(y))), (out.state, after)

    @property
    def carries_state(self) -> bool:
        """Whether the recording is read once, into a state; attention looks at all of it for every token."""
        return self.cross_mixer.spec.name == "selective_ssm"


class TextDecoder(nn.Module):
    """Next-token scores (B, U, V) of texts, given the frames of their recordings.

    With ``selective_ssm`` a token costs the same however long the recording and the text are: the recording is read
    once, into the states. Source: our reading of Samba-ASR (arXiv 2501.02832), whose "Mamba-cross-connection" is not
    written down; the form is that of the public Mamba recognisers, ``cross(cat[frames, LN(tokens)])``.

    Args:
        size: V, ids of the vocabulary.
        dim: channels of the frames and tokens.
        layers: how many.
        attention: mechanism of both mixers: causal, from a state, with context.
        heads: of it, where it has heads.
        ratio: inner channels of the feed-forward nets, in multiples of dim.
        dropout: of each branch while training.

    Raises:
        ConfigError: a mechanism that cannot read a recording.

    Example:
        >>> import torch
        >>> decoder = TextDecoder(7, 8, 1)
        >>> decoder(torch.tensor([[1, 4]]), torch.zeros(1, 5, 8), None).shape
        torch.Size([1, 2, 7])
    """

    def __init__(
        self,
        size: int,
        dim: int,
        layers: int,
        *,
        attention: str = "selective_ssm",
        heads: int = 4,
        ratio: int = 4,
        dropout: float = 0.0,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not reads_recordings(attention):
            raise ConfigError(
                "this mechanism cannot read a recording token by token", where="attention", found=attention
            )
        self.embedding = nn.Embedding(size, dim)
        nn.init.normal_(self.embedding.weight, std=dim**-0.5)
        # Attention in the cross place sees the whole recording, not what came before a token of it.
        crossing = attention == "selective_ssm"

        def mixers() -> tuple[TokenMixer, TokenMixer]:
            made = options or {}
            own = build(attention, dim, heads, causal=True, **made)
            return own, build(attention, dim, heads, causal=crossing, **made)

        self.layers = nn.ModuleList(_Layer(dim, mixers(), ratio, dropout) for _ in range(layers))
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, memory: Tensor, memory_mask: Tensor | None) -> Tensor:
        """Scores (B, U, V) of what follows each of the tokens (B, U), of which the first is id 1."""
        return self._run(tokens, memory, memory_mask, None)[0]

    def step(self, tokens: Tensor, memory: Tensor, state: DecoderState | None) -> tuple[Tensor, DecoderState]:
        """Scores (K, V) after the last token (K,) of each hypothesis; memory (1, S, dim) or (K, S, dim)."""
        if memory.shape[0] != len(tokens):
            memory = memory.expand(len(tokens), -1, -1)
        scores, after = self._run(tokens.unsqueeze(1), memory, None, state)
        return scores.squeeze(1), after

    def _run(
        self, tokens: Tensor, memory: Tensor, mask: Tensor | None, state: DecoderState | None
    ) -> tuple[Tensor, DecoderState]:
        y = self.dropout(self.embedding(tokens))
        states = []
        for index, layer in enumerate(self.layers):
            y, after = layer(y, memory, mask, None if state is None else state.layers[index])
            states.append(after)
        return self.out(self.norm(y)), DecoderState(states)

    @staticmethod
    def pick(state: DecoderState, rows: Tensor) -> DecoderState:
        """The states of the hypotheses with these numbers (K,); a number may come more than once."""
        return pytree.tree_map_only(Tensor, lambda tensor: tensor.index_select(0, rows), state)


def _given(state: Any) -> dict[str, Any]:
    return {} if state is None else {"state": state}
