"""Short cuts of encoding give what the long way gives; the benchmark's peers are what they are said to be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pipelines.match.models import encoder as encoders
from pipelines.match.models.encoder import SentenceEncoder

sys.path.insert(0, str(Path(__file__).parents[1] / "performance"))
import bench_match

BLOCK = 9


def make(attention: str = "softmax", pooling: str = "cls", dropout: float = 0.0) -> SentenceEncoder:
    torch.manual_seed(1)
    sizes = {"layers": 2, "heads": 2, "hidden": 24, "positions": BLOCK, "block": BLOCK, "dropout": dropout}
    net = SentenceEncoder(40, 16, attention=attention, pooling=pooling, **sizes).eval()  # type: ignore[arg-type]
    for name, parameter in net.named_parameters():
        if name.endswith("weight") and parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.4)
    return net


def blocks(count: int = 75) -> Tensor:
    """Blocks of 1 to 9 tokens in no order, one with a hole."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(5, 40, (count, BLOCK), generator=generator)
    widths = torch.randint(1, BLOCK + 1, (count, 1), generator=generator)
    ids[torch.arange(BLOCK) >= widths] = 0
    ids[3] = torch.tensor([2, 7, 0, 0, 8, 0, 0, 0, 0])
    return ids


@pytest.mark.parametrize("attention", ["softmax", "selective_ssm", "legendre", "auto_correlation", "prior_enhanced"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_sorted_blocks_have_the_vectors_of_blocks_alone(attention: str, pooling: str) -> None:
    net, ids = make(attention, pooling), blocks()
    if attention not in ("softmax", "prior_enhanced"):  # they mix runs of equal length, and know no holes
        ids[3, 2:4] = 9
    with torch.inference_mode():
        found = net(ids)
        # A mask that is given takes the long way, all columns at once.
        long = net.pool(net.encoder(net.embed(ids), ids != 0), ids != 0)
    assert len(ids) > 2 * encoders._ROWS
    assert torch.allclose(found, long, atol=2e-6)


def test_pieces_are_cut_to_their_longest_block(monkeypatch: pytest.MonkeyPatch) -> None:
    net, ids, seen = make(), blocks(), []
    inner = net.embed

    def embed(piece: Tensor) -> Tensor:
        seen.append(tuple(piece.shape))
        return inner(piece)

    monkeypatch.setattr(net, "embed", embed)
    with torch.inference_mode():
        net(ids)
    widths = (ids != 0).long().mul(torch.arange(1, BLOCK + 1)).amax(1).sort().values
    assert seen == [(len(part), int(part[-1])) for part in widths.split(encoders._ROWS)]


def test_first_rows_are_the_first_of_all_rows() -> None:
    net, ids = make(), blocks()
    x, mask = net.embed(ids), ids != 0
    calls = []
    net.encoder.layers[-1].mixer.query_projection.register_forward_hook(lambda _m, given, _y: calls.append(given[0]))
    found = net.encoder.first_rows(x, mask)
    assert [tuple(given.shape) for given in calls] == [(75, 1, 16)]
    assert torch.allclose(found, net.encoder(x, mask)[:, :1], atol=2e-6)


def test_gradients_flow_through_the_first_rows_as_through_all() -> None:
    net, ids = make().double(), blocks(8)
    gradients = []
    for rows in (lambda x, m: net.encoder.first_rows(x, m), lambda x, m: net.encoder(x, m)[:, :1]):
        net.zero_grad()
        rows(net.embed(ids), ids != 0).square().mul(torch.arange(16)).sum().backward()
        gradients.append([p.grad.clone() for p in net.encoder.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*gradients, strict=True))


def test_training_draws_its_dropout_as_before() -> None:
    net, ids = make(dropout=0.3).train(), blocks(12)
    torch.manual_seed(5)
    found = net(ids)
    torch.manual_seed(5)
    long = net.pool(net.encoder(net.embed(ids), ids != 0), ids != 0)
    assert torch.equal(found, long)


def test_parity_of_the_benchmark() -> None:
    found = bench_match.parity()
    assert set(found) == {"smith", "4 layers", "7 layers", "pieces", "blocks that differ"}
    assert found["blocks that differ"] == 0
    assert max(found.values()) < bench_match.TOLERANCE


def test_exponent_is_the_slope_of_the_logarithms() -> None:
    assert bench_match.exponent([(n, 3 * n**1.7) for n in (2.0, 5.0, 9.0)]) == pytest.approx(1.7)
