"""The reaction-diffusion mechanism against its equations written out, and what is known of diffusion."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from core_attention import MechanismError, build, check_mechanism, mechanism, names, unregister
from core_attention.kernels.stencil.reaction import compiled_serves, reaction_step
from core_attention.kernels.stencil.reaction import diffusion as diffusion_term
from core_attention.mechanisms.reaction_diffusion import Diffusion, ReactionDiffusion, euler_step, step_size

RELEASED = {"stable": False, "dt_limits": (0.005, 0.35)}


def _randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _mixer(dim: int = 8, *, spread: float = 0.3, **options: object) -> ReactionDiffusion:
    """A layer whose parameters have all left their first values."""
    torch.manual_seed(0)
    mixer = ReactionDiffusion(dim, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            if name != "log_dt":
                parameter.add_(spread * torch.randn_like(parameter))
    return mixer


def laplacian(u: Tensor, d: int) -> Tensor:
    """(B, C, H, W), edges repeated, one shifted copy after the other."""
    padded = F.pad(u, (d, d, d, d), mode="replicate")
    H, W = u.shape[2:]
    shifts = ((0, d), (2 * d, d), (d, 0), (d, 2 * d))
    return sum((padded[:, :, y : y + H, x : x + W] for y, x in shifts), -4 * u)


def written_out(m: ReactionDiffusion, x: Tensor, steps: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The layer's equations in the dtype of x (B, H, W, C): result, mean energies, fields before the norms."""
    u, h, energies, candidates = x.permute(0, 3, 1, 2), 0.0, [], []
    dt = m.log_dt.exp().clamp(*m.dt_limits)
    for step in range(steps):
        diffusion = sum(
            F.softplus(D)[:, None, None] * laplacian(u, d)
            for D, d in zip(m.diffusion.D, m.diffusion.dilations, strict=True)
        )
        if m.content_gate is not None:
            diffusion = (
                F.conv2d(u, m.content_gate.gate_conv.weight, m.content_gate.gate_conv.bias).sigmoid() * diffusion
            )
        change = diffusion + m.reaction.net(u.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        if m.memory is not None:
            mean = u.mean((2, 3))
            h = h + torch.sigmoid(m.memory.gate(mean)) * torch.tanh(m.memory.value(mean))
            change = change + F.softplus(m.alpha_global) * h[:, :, None, None]
        if m.local_proj is not None:
            areas = m.local_proj(F.adaptive_avg_pool2d(u, (4, 4)))
            spread = F.interpolate(areas, size=u.shape[2:], mode="bilinear", align_corners=False)
            change = change + F.softplus(m.alpha_local) * spread
        u = u + dt * change
        energies.append(change.abs().mean((1, 2, 3)))
        candidates.append(u)
        if step % 2 == 1:
            u = u / (u.square().mean(1, keepdim=True) + 1e-8).sqrt() * m.norm.weight[:, None, None]
    return u.permute(0, 2, 3, 1), torch.stack(energies).mean(0), candidates


OPTIONS = (
    {},
    {"anisotropic": False, "dilations": (1,), "steps": 3},
    {"pump": False, "dilations": (2, 5)},
    {"local": False, "steps": 2},
    {"anisotropic": False, "pump": False, "local": False},
)


@pytest.mark.parametrize("backend", ["auto", "eager"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("shape", [(2, 9, 13, 8), (2, 3, 2, 8), (3, 11, 8)])
def test_the_equations(shape: tuple, options: dict, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results, energy and every gradient, by the compiled loops and by plain operators, against float64."""
    monkeypatch.setenv("PIPELINES_BACKEND", backend)
    mixer = _mixer(**options, **RELEASED)
    x = _randn(*shape).requires_grad_()
    up = _randn(*shape, seed=1)
    out = mixer(x)
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    ours = torch.autograd.grad((out.y * up).sum() + (out.aux["energy"] - 1.2).square().sum(), (x, *parameters))
    exact, wide = _mixer(**options, **RELEASED).double(), x.detach().double().requires_grad_()
    y, energy, _ = written_out(exact, wide if x.dim() == 4 else wide[:, None], mixer.steps)
    total = (y.reshape(shape) * up.double()).sum() + (energy - 1.2).square().sum()
    theirs = torch.autograd.grad(total, (wide, *exact.parameters()))
    torch.testing.assert_close(out.y.double(), y.reshape(shape), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(out.aux["energy"].double(), energy, atol=1e-5, rtol=1e-5)
    assert out.aux["steps"].tolist() == [mixer.steps] * shape[0]
    for name, a, b in zip(("x", *names), ours, theirs, strict=True):
        assert (a.double() - b).abs().max() <= 2e-5 * max(1.0, float(b.abs().max())), name
    with torch.no_grad():
        torch.testing.assert_close(mixer(x).y, out.y, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_laplacian_of_constant_and_of_x_squared(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINES_BACKEND", backend)
    diffusion = Diffusion(2, (1, 3), stable=False)
    assert not diffusion(torch.full((1, 5, 7, 2), 1.5)).any()
    u = _randn(2, 7, 9, 2)
    planes = u.permute(0, 3, 1, 2)
    expected = F.softplus(diffusion.D[0, 0]) * (laplacian(planes, 1) + laplacian(planes, 3))
    torch.testing.assert_close(diffusion(u), expected.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(diffusion(u), expected.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    parabola = (torch.arange(12.0) ** 2)[None, None, :, None].expand(1, 10, 12, 2)
    with torch.no_grad():
        diffusion.D.copy_(torch.tensor([[1.0], [-200.0]]).log().nan_to_num(-200.0))
        diffusion.D[0] = torch.tensor(1.0).expm1().log()  # softplus gives 1
    torch.testing.assert_close(diffusion(parabola)[:, :, 1:-1], torch.full((1, 10, 10, 2), 2.0), atol=1e-4, rtol=0)


def test_diffusion_of_one_pixel_keeps_the_mean() -> None:
    """No flux crosses the border; longer arms see the edge more than once, so that they keep no mean."""
    u = _randn(2, 9, 11, 3)
    for _ in range(20):
        u = euler_step(u, torch.full((1, 3), 0.2), (1,))
    torch.testing.assert_close(u.mean((1, 2)), _randn(2, 9, 11, 3).mean((1, 2)), atol=1e-6, rtol=0)
    assert u.std() < 0.5


def _amplification(coefficients: Tensor, dilations: tuple[int, ...], n: int) -> float:
    """The largest absolute eigenvalue of a step's matrix on n x n pixels."""
    each = torch.eye(n * n).view(n * n, n, n, 1)
    matrix = euler_step(each, coefficients, dilations).reshape(n * n, n * n).double()
    return float(torch.linalg.eigvals(matrix).abs().max())


@pytest.mark.parametrize("dilations", [(1,), (1, 4, 16)])
@pytest.mark.parametrize("start", [0.1, 3.0, 40.0])
def test_the_largest_step_is_stable(start: float, dilations: tuple[int, ...]) -> None:
    diffusion = Diffusion(1, dilations)
    with torch.no_grad():
        diffusion.D.fill_(start)
    dt = step_size(torch.tensor(99.0), 0.005, 0.35)
    assert float(dt) == pytest.approx(0.35)
    coefficients = diffusion.coefficients(dt).detach()
    assert float(coefficients.sum()) <= 0.25 * (1 + 1e-6)
    assert _amplification(coefficients, dilations, 9) <= 1 + 1e-5
    # A checkerboard is the fastest field there is; no value may leave the range of its neighbours.
    board = (-1.0) ** (torch.arange(9)[:, None] + torch.arange(9))
    for u in (board[None, :, :, None], _randn(1, 9, 9, 1)):
        low, high = float(u.min()), float(u.max())
        for _ in range(50):
            u = euler_step(u, coefficients, dilations)
            assert low - 1e-5 <= float(u.min())
            assert float(u.max()) <= high + 1e-5


@pytest.mark.parametrize(("limit", "steps"), [(0.35, 20), (0.15, 80)])
def test_the_released_limits_of_the_step_can_blow_up(limit: float, steps: int) -> None:
    """Untouched diffusivities at the largest dt: sums of coefficients .78 and .33, over 1/4."""
    dt, released, ours = step_size(torch.tensor(99.0), 0.005, limit), Diffusion(1, stable=False), Diffusion(1)
    wild = calm = _randn(1, 32, 32, 1)
    with torch.no_grad():
        for _ in range(steps):
            wild = euler_step(wild, released.coefficients(dt), released.dilations)
            calm = euler_step(calm, ours.coefficients(dt), ours.dilations)
    assert float(wild.abs().max()) > 1e4
    assert float(calm.abs().max()) < 4


def test_stable_changes_nothing_at_the_start_and_keeps_shares() -> None:
    x = _randn(2, 6, 7, 8)
    assert torch.equal(_mixer(spread=0.0)(x).y, _mixer(spread=0.0, stable=False)(x).y)
    diffusion = Diffusion(2, (1, 4))
    with torch.no_grad():
        diffusion.D.copy_(torch.tensor([[3.0, -9.0], [6.0, -9.0]]))
    found, free = diffusion.coefficients(torch.tensor(0.1)), 0.1 * F.softplus(diffusion.D)
    torch.testing.assert_close(found[:, 0], free[:, 0] / free[:, 0].sum() / 4)
    torch.testing.assert_close(found[:, 1], free[:, 1])
    torch.testing.assert_close(diffusion.coefficients(torch.tensor(0.1), most=2.0)[:, 0], found[:, 0] / 2)
    large = _mixer(dt=0.35, dt_limits=(0.005, 0.35), spread=2.0)(1e3 * x).y
    assert bool(large.isfinite().all())


def _uneven() -> tuple[ReactionDiffusion, Tensor]:
    """A layer with a tolerance, and samples that settle at different times."""
    mixer = _mixer(spread=0.05, tolerance=0.08, anisotropic=False).eval()
    rough = _randn(5, 12, 10, 8)
    x = torch.stack([rough[0], 30 + rough[1], 3 + rough[2], 0.01 * rough[3], 5 + 3 * rough[4]])
    return mixer, x


def _turbulences(candidates: list[Tensor], x: Tensor) -> Tensor:
    """(steps, B) by the definition."""
    probes = [F.adaptive_avg_pool2d(u, (8, 8)) for u in (x.permute(0, 3, 1, 2), *candidates)]
    moved = [(b - a).abs().mean((1, 2, 3)) / (a.abs().mean((1, 2, 3)) + 1e-8) for a, b in itertools.pairwise(probes)]
    return torch.stack(moved)


def test_a_settled_sample_stops_alone() -> None:
    mixer, x = _uneven()
    with torch.no_grad():
        out = mixer(x)
        used = out.aux["steps"].tolist()
        assert len(set(used)) > 1
        assert min(used) >= 3
        assert max(used) == 6
        _, _, candidates = written_out(mixer, x, 6)
        calm = _turbulences(candidates, x) < 0.08
        for b, steps in enumerate(used):
            settled = [n for n in range(3, 7) if calm[n - 1, b] and calm[n - 2, b]]
            assert steps == (settled[0] if settled else 6)
            expected, energy, _ = written_out(mixer, x[b : b + 1], steps)
            torch.testing.assert_close(out.y[b : b + 1], expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(out.aux["energy"][b : b + 1], energy, atol=1e-5, rtol=1e-5)
            alone = mixer(x[b : b + 1])
            assert alone.aux["steps"].item() == steps
            torch.testing.assert_close(alone.y, out.y[b : b + 1], atol=1e-6, rtol=1e-6)
        backwards = mixer(x.flip(0))
        torch.testing.assert_close(backwards.y.flip(0), out.y, atol=1e-6, rtol=1e-6)
        assert mixer.train()(x).aux["steps"].tolist() == [6] * 5


def test_the_released_rule_stops_the_batch() -> None:
    mixer, x = _uneven()
    mixer.legacy = "batch"
    with torch.no_grad():
        out = mixer(x)
        _, _, candidates = written_out(mixer, x, 6)
        probes = [F.adaptive_avg_pool2d(u, (8, 8)) for u in (x.permute(0, 3, 1, 2), *candidates)]
        calm = [(b - a).abs().mean() / (a.abs().mean() + 1e-8) < 0.08 for a, b in itertools.pairwise(probes)]
        steps = next((n for n in range(3, 7) if calm[n - 1] and calm[n - 2]), 6)
        assert out.aux["steps"].tolist() == [steps] * 5
        torch.testing.assert_close(out.y, written_out(mixer, x, steps)[0], atol=1e-5, rtol=1e-5)
        # What one sample is given depends on the others: the reason for our own rule.
        assert {int(mixer(x[b : b + 1]).aux["steps"]) for b in range(5)} != {steps}


def test_names_and_number_of_parameters() -> None:
    released = {"alpha_global", "log_dt", "alpha_local", "norm.weight", "diffusion.D"} | {
        f"{part}.{kind}"
        for part in ("reaction.net.0", "reaction.net.2", "memory.gate", "memory.value", "local_proj")
        for kind in ("weight", "bias")
    }
    gate = {"content_gate.gate_conv.weight", "content_gate.gate_conv.bias"}
    state = ReactionDiffusion(128).state_dict()
    assert set(state) == released | gate
    assert sum(t.numel() for t in state.values()) == 132_483
    assert set(ReactionDiffusion(128, anisotropic=False).state_dict()) == released
    assert tuple(state["local_proj.weight"].shape) == (128, 128, 1, 1)
    assert tuple(state["diffusion.D"].shape) == (3, 128)
    assert float(state["diffusion.D"].mean()) == pytest.approx(0.1)
    assert float(state["log_dt"].exp()) == pytest.approx(0.1)
    assert (float(state["alpha_global"]), float(state["alpha_local"])) == pytest.approx((0.1, 0.05))
    assert not state["content_gate.gate_conv.weight"].any()
    assert bool((state["content_gate.gate_conv.bias"] == 2).all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.0}, "steps is 2.0"),
        ({"dilations": ()}, r"dilations is \(\)"),
        ({"dilations": (1, 0)}, r"dilations is \(1, 0\)"),
        ({"dilations": "14"}, "dilations is '14'"),
        ({"tolerance": -0.1}, "tolerance is -0.1"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"legacy": "all"}, "legacy is 'all', expected 'batch' or None"),
        ({"dt_limits": (0.2, 0.1)}, "dt_limits is"),
        ({"dt_limits": ("a", "b")}, "dt_limits is"),
        ({"dt": 0.5}, "dt is 0.5, expected a number from 0.005 to 0.15"),
        ({"dt": "1"}, "dt is '1'"),
    ],
)
def test_options_refused(options: dict, message: str) -> None:
    with pytest.raises(MechanismError, match=f"reaction_diffusion: {message}"):
        build("reaction_diffusion", 8, **options)


def test_the_contract_on_images() -> None:
    """`check_mechanism` takes the first number of axes; here it is two."""

    @mechanism(name="reaction_images", paper="none", year=2026, complexity="L", grid=(2,))
    class Images(ReactionDiffusion):
        """The same on images only."""

    try:
        assert all(result.passed for result in check_mechanism("reaction_images", steps=4, tolerance=0.3))
    finally:
        unregister("reaction_images")
    assert "reaction_diffusion" in names(grid=1)
    assert "reaction_diffusion" in names(grid=2)


TERMS = ("reaction", "gate", "push", "source", "factor", "norm")


@pytest.mark.parametrize("carry", [True, False])
@pytest.mark.parametrize("present", [(), ("reaction", "gate"), ("reaction", "source", "factor"), TERMS[2:], TERMS[:4]])
@pytest.mark.parametrize("shape", [(2, 9, 13, 5), (1, 1, 1, 4), (1, 18, 17, 3), (3, 1, 20, 4)])
def test_a_step_and_its_gradients(shape: tuple, present: tuple[str, ...], carry: bool) -> None:
    """Compiled loops against plain operators, every term there or not, on one thread and on three."""
    B, H, W, C = shape
    rows = 2 * C + (C if "gate" in present else 0)
    made = {
        "weight_in": 0.3 * _randn(rows, C, seed=1),
        "bias_in": _randn(rows, seed=2),
        "weight_out": 0.3 * _randn(C, 2 * C, seed=3),
        "push": _randn(B, 3, 3, C, seed=4),
        "source": _randn(*shape, seed=5),
        "factor": _randn(1, H, W, C, seed=6),
        "norm": _randn(C, seed=7),
    }
    wanted = {n: t for n, t in made.items() if n in present or ("reaction" in present and n in list(made)[:3])}
    tensors = {"u": _randn(*shape), "coefficients": 0.08 * _randn(2, C, seed=8).sigmoid(), **wanted}
    before = {name: t.clone() for name, t in tensors.items()}

    def run(backend: str | None) -> tuple[tuple, tuple]:
        leaves = {name: t.requires_grad_() for name, t in tensors.items()}
        given = {name: t for name, t in leaves.items() if name in wanted}
        step = reaction_step(
            leaves["u"], leaves["coefficients"], (1, 4), mean=True, bins=4, carry=carry, backend=backend, **given
        )
        loss = sum((t * _randn(*t.shape, seed=9)).sum() for t in step if t is not None)
        return step, torch.autograd.grad(loss, list(leaves.values()))

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        many = run(None)
        torch.set_num_threads(1)
        one, plain = run(None), run("eager")
    finally:
        torch.set_num_threads(threads)
    for found in (one, many):
        for a, b in zip((*found[0], *found[1]), (*plain[0], *plain[1]), strict=True):
            assert (a - b).abs().max() <= 2e-5 * max(1.0, float(b.detach().abs().max()))
    assert all(torch.equal(before[name], t.detach()) for name, t in tensors.items())


def test_steps_refused() -> None:
    u, c = _randn(2, 4, 5, 3), torch.full((1, 3), 0.1)
    weight = _randn(6, 3)
    for message, options in (
        ("weight_in, bias_in and weight_out: found one", {"weight_in": weight}),
        ("weight_out: found shape", {"weight_in": weight, "bias_in": weight[:, 0], "weight_out": _randn(4, 6)}),
        ("weight_in: found shape", {"weight_in": _randn(7, 3), "bias_in": _randn(7), "weight_out": _randn(3, 6)}),
        ("bias_in: found shape", {"weight_in": weight, "bias_in": _randn(5), "weight_out": _randn(3, 6)}),
        ("push: found shape", {"push": _randn(1, 2, 2, 3)}),
        ("source: found shape", {"source": _randn(1, 4, 5, 3)}),
        ("factor: found shape", {"factor": _randn(3, 4, 5, 3)}),
        ("norm: found shape", {"norm": _randn(2)}),
        ("backend='fast' is not a back end", {"backend": "fast"}),
    ):
        with pytest.raises(ValueError, match=message):
            reaction_step(u, c, (1,), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="coefficients: found shape"):
        reaction_step(u, c, (1, 2))
    with pytest.raises(ValueError, match="dilations: found"):
        reaction_step(u, c, (0,))
    with pytest.raises(ValueError, match="u: found shape"):
        reaction_step(u[0], c, (1,))
    with pytest.raises(ValueError, match="u: found shape"):
        diffusion_term(u[0], c, (1,))
    with pytest.raises(ValueError, match="coefficients: found shape"):
        diffusion_term(u, c[:, :2], (1,))


def test_where_the_loops_do_not_serve() -> None:
    """Half widths, autocast and function transforms take plain operators and agree."""
    mixer, x = _mixer().eval(), _randn(2, 6, 7, 8)
    assert compiled_serves(x)
    assert not compiled_serves(x.double())
    assert not compiled_serves(x, "eager")
    with torch.no_grad():
        expected = mixer(x).y
        with torch.autocast("cpu", torch.bfloat16):
            assert not compiled_serves(x)
            torch.testing.assert_close(mixer(x).y.float(), expected, atol=0.1, rtol=0.1)
        torch.testing.assert_close(mixer.double()(x.double()).y.float(), expected, atol=1e-5, rtol=1e-5)
    mixer.float()
    slope = torch.func.grad(lambda x: mixer(x).y.square().sum())(x)
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(slope, torch.autograd.grad(mixer(leaf).y.square().sum(), leaf)[0], atol=1e-5, rtol=1e-4)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    torch.testing.assert_close(mixer(strided).y, expected, atol=1e-6, rtol=1e-6)
