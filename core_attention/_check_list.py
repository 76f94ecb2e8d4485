"""The checks themselves: each takes a ``Subject``, raises where a claim fails, and returns what it found."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from core_attention._check_inputs import BATCH, DIM, HEADS, CheckFailed, LargestTensor, Subject, require, require_close
from core_attention.contract import MechanismError, TokenMixer

Check = Callable[[Subject], str]


def checks_for(subject: Subject) -> list[tuple[str, Check]]:
    """The labelled checks that apply to the subject's kind and flags."""
    spec, sequence = subject.spec, subject.spec.kind != "pool"
    listed: list[tuple[str, Check, bool]] = [
        ("output shape", output_shape, True),
        ("every parameter gets a gradient", parameter_gradients, True),
        ("float64 gradients", gradients_against_differences, True),
        ("batch independence", batch_independence, True),
        ("padding invariance", padding_invariance, spec.mask),
        ("context", context_is_used, subject.contextual),
        ("no look-ahead", no_look_ahead, spec.causal and sequence),
        ("pieces equal the whole", pieces_equal_whole, spec.streaming and sequence),
        ("bf16 accuracy", half_width_accuracy, True),
        ("export with dynamic batch", export_dynamic_batch, spec.export),
        (f"memory grows as {spec.memory}", memory_growth, spec.memory != "L^2" and not spec.fixed_length),
        ("same seed, same result", determinism, True),
        ("state dict round trip", state_dict_round_trip, True),
        ("dropout in training only", dropout_in_training_only, "dropout" in subject.option_names),
        ("wrong inputs refused", wrong_inputs_refused, True),
        ("other lengths refused", other_lengths_refused, spec.fixed_length),
        ("deepcopy and pickle", copies, True),
        ("nothing kept on the module", nothing_kept, True),
    ]
    return [(label, check) for label, check, applies in listed if applies]


def output_shape(subject: Subject) -> str:
    """The shape and dtype of x (B, C for a pool) on several grids and batch 1, all finite, in both modes."""
    tried = []
    for grid in subject.grids:
        for batch in (BATCH, 1):
            x = subject.tokens(grid, batch=batch)
            expected = (batch, DIM) if subject.spec.kind == "pool" else tuple(x.shape)
            for mode, mixer in subject.modes(subject.build(grid)):
                y = subject.call(mixer, x).y
                where = f"{mode}, x {tuple(x.shape)}"
                require(tuple(y.shape) == expected, f"{where}: y is {tuple(y.shape)}, expected {expected}")
                require(y.dtype == x.dtype, f"{where}: y is {y.dtype}, expected {x.dtype}")
                require(bool(y.isfinite().all()), f"{where}: y holds {int((~y.isfinite()).sum())} values not finite")
        tried.append(grid)
    return f"grids {', '.join(str(grid) for grid in tried)}; batches {BATCH} and 1"


def parameter_gradients(subject: Subject) -> str:
    """Each parameter that can learn receives a finite gradient, where chance decides in one of its branches."""
    count = 0
    for mode, mixer in subject.modes(subject.build()):
        mixer.zero_grad()
        # A mechanism without parameters still has to let gradients through to x.
        x = subject.tokens().requires_grad_()
        for seed in subject.branch_seeds(lambda seed, mixer=mixer, x=x: _seeded(subject, mixer, x, seed)):
            y = _seeded(subject, mixer, x, seed)
            (y * torch.randn_like(y)).sum().backward()
        wanted = [(name, p) for name, p in mixer.named_parameters() if p.requires_grad]
        without = [name for name, p in wanted if p.grad is None]
        require(not without, f"{mode}: no gradient for {', '.join(without)}")
        bad = [name for name, p in wanted if p.grad is not None and not bool(p.grad.isfinite().all())]
        require(not bad, f"{mode}: gradient not finite for {', '.join(bad)}")
        count = len(wanted)
    return f"{count} parameters, training and evaluation"


def gradients_against_differences(subject: Subject) -> str:
    """Gradients of x, the context and every parameter agree with finite differences in float64."""
    small, dim = tuple(min(size, 5) for size in subject.grid), 2 * HEADS
    mixer = subject.build(small, dim=dim).double()
    names = [name for name, _ in mixer.named_parameters()]
    tensors = [p.detach().clone().requires_grad_() for p in mixer.parameters()]
    x = subject.tokens(small, batch=2, dim=dim).double().requires_grad_()
    extras = mixer.example_extras(x.detach())

    def without_context(seed: int, x: Tensor, *tensors: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return torch.func.functional_call(mixer, dict(zip(names, tensors, strict=True)), (x,), extras).y

    def with_context(seed: int, x: Tensor, context: Tensor, *tensors: Tensor) -> Tensor:
        torch.manual_seed(seed)
        given = {**extras, "context": context}
        return torch.func.functional_call(mixer, dict(zip(names, tensors, strict=True)), (x,), given).y

    cases: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [(without_context, (x, *tensors))]
    if subject.contextual:
        context = subject.tokens((4,), batch=2, dim=dim, seed=3).double().requires_grad_()
        cases.append((with_context, (x, context, *tensors)))
    for mode, _ in subject.modes(mixer):
        for function, inputs in cases:
            for seed in subject.branch_seeds(lambda seed, f=function, i=inputs: f(seed, *i)):
                _check_gradients(mode, functools.partial(function, seed), inputs)
    return f"x and {len(names)} parameters"


def batch_independence(subject: Subject) -> str:
    """In evaluation mode a sample's result does not depend on the others."""
    mixer = subject.build().eval()
    x = subject.tokens()
    together = subject.call(mixer, x).y
    extras = mixer.example_extras(x)
    for i in range(BATCH):
        one = {name: value[i : i + 1] if value.shape[:1] == x.shape[:1] else value for name, value in extras.items()}
        require_close(mixer(x[i : i + 1], **one).y, together[i : i + 1], f"sample {i} alone against in a batch")
    return f"{BATCH} samples alone and together"


def padding_invariance(subject: Subject) -> str:
    """What stands in padded places changes nothing elsewhere; a padded sequence equals the bare one."""
    mixer = subject.build().eval()
    x, keep = subject.tokens(), max(subject.grid[-1] - 3, 1)
    mask = torch.ones(x.shape[:-1], dtype=torch.bool)
    mask[0, ..., keep:] = False
    noisy = torch.where(mask[..., None], x, 100 * subject.tokens(seed=7))
    clean, other = (_valid(subject, subject.call(mixer, given, mask=mask).y, mask) for given in (x, noisy))
    require_close(other, clean, "other values in padded places")
    if len(subject.grid) == 1 and not subject.spec.fixed_length:
        bare = subject.call(mixer, x[:1, :keep]).y
        padded = subject.call(mixer, x, mask=mask).y[:1]
        require_close(padded if subject.spec.kind == "pool" else padded[:, :keep], bare, "padded against bare")
    if subject.contextual:
        context, valid = subject.tokens((7,), seed=5), torch.ones(BATCH, 7, dtype=torch.bool)
        valid[:, 4:] = False
        padded = subject.call(mixer, x, context=context, context_mask=valid).y
        require_close(padded, subject.call(mixer, x, context=context[:, :4]).y, "padded against bare context")
    return f"{x.shape[1:-1].numel()} places, {int((~mask).sum())} padded"


def context_is_used(subject: Subject) -> str:
    """Keys and values come from the context, whether longer or shorter than x."""
    mixer = subject.build().eval()
    x = subject.tokens()
    for size in (5, 20):
        y = subject.call(mixer, x, context=subject.tokens((size,), seed=5)).y
        require(y.shape == x.shape, f"context of {size}: y is {tuple(y.shape)}, expected {tuple(x.shape)}")
        other = subject.call(mixer, x, context=subject.tokens((size,), seed=6)).y
        require(not torch.equal(y, other), f"context of {size}: another context changes nothing")
    return "contexts of 5 and 20 tokens"


def no_look_ahead(subject: Subject) -> str:
    """With ``causal=True`` a token's result does not depend on later tokens."""
    mixer = subject.build(causal=True).eval()
    x, length = subject.tokens(), subject.grid[0]
    y = subject.call(mixer, x).y
    for cut in range(1, length):
        other = torch.cat([x[:, :cut], 10 * subject.tokens(seed=8)[:, cut:]], dim=1)
        require_close(subject.call(mixer, other).y[:, :cut], y[:, :cut], f"later tokens changed from {cut} on")
    return f"{length - 1} cuts"


def pieces_equal_whole(subject: Subject) -> str:
    """A sequence in pieces, with the state carried on, gives what it gives at once."""
    mixer = (subject.build(causal=True) if subject.spec.causal else subject.build()).eval()
    x, length = subject.tokens(), subject.grid[0]
    whole = subject.call(mixer, x).y
    for sizes in ([1] * length, [length // 2, length - length // 2], [3, 1, length - 4]):
        state, pieces = None, []
        for piece in x.split(sizes, dim=1):
            out = subject.call(mixer, piece, state=state)
            require(out.state is not None, "no state came back")
            pieces.append(out.y)
            state = out.state
        require_close(torch.cat(pieces, dim=1), whole, f"pieces of {sizes}")
    return "token by token, halves, and uneven pieces"


def half_width_accuracy(subject: Subject) -> str:
    """In bf16 the error against float64 is at most twice that of the same mechanism on plain torch operators."""
    mixer, x = subject.build().bfloat16().eval(), subject.tokens().bfloat16()
    exact = subject.call(copy.deepcopy(mixer).double(), x.double()).y
    error = _error(subject.call(mixer, x).y, exact)
    with _plain_backend():
        plain = _error(subject.call(mixer, x).y, exact)
    # One unit in the last place of bf16 (2^-8) is the floor: both may round the same result differently.
    floor = 2**-8 * float(exact.detach().abs().max())
    require(error <= 2 * plain + floor, f"error {error:.2e}, plain torch {plain:.2e}")
    return f"error {error:.1e}, plain torch {plain:.1e}"


def export_dynamic_batch(subject: Subject) -> str:
    """``torch.export`` with a free batch gives the eager results on another batch size."""
    mixer = subject.build().eval()
    module, x = _OutputOnly(mixer), subject.tokens()
    extras = mixer.example_extras(x)
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = ({0: batch}, {name: {0: batch} for name in extras})
    with torch.no_grad():
        program = torch.export.export(module, (x, extras), dynamic_shapes=shapes)
        other = subject.tokens(batch=BATCH + 2, seed=9)
        inputs = (other, mixer.example_extras(other))
        require_close(program.module()(*inputs), module(*inputs), "exported against eager")
    return f"exported with batch {BATCH}, run with {BATCH + 2}"


def memory_growth(subject: Subject) -> str:
    """The largest tensor of a forward and backward pass grows no faster than declared from one length to four."""
    axes = subject.spec.grid[0]
    sizes = [tuple([base] * axes) for base in {1: (256, 1024), 2: (16, 32), 3: (6, 10), 4: (4, 6)}[axes]]
    largest, tokens = [], []
    for grid in sizes:
        mixer, x = subject.build(dim=2 * HEADS), subject.tokens(grid, batch=1, dim=2 * HEADS).requires_grad_()
        with LargestTensor() as seen:
            subject.call(mixer, x).y.sum().backward()
        largest.append(seen.elements)
        tokens.append(torch.Size(grid).numel())
    growth, lengths = largest[1] / largest[0], tokens[1] / tokens[0]
    allowed = lengths * (1.25 if subject.spec.memory == "L" else 1.6)
    found = f"{largest[0]} to {largest[1]} elements ({growth:.1f}x) from {tokens[0]} to {tokens[1]} tokens"
    require(growth <= allowed, f"{found}, declared {subject.spec.memory}")
    return found


def determinism(subject: Subject) -> str:
    """The same seed gives the same weights and, also in training mode, the same results."""
    first, second, x = subject.build(seed=5), subject.build(seed=5), subject.tokens()
    for (name, a), (_, b) in zip(first.state_dict().items(), second.state_dict().items(), strict=True):
        require(torch.equal(a, b), f"{name} differs between two builds with one seed")
    for (mode, a), (_, b) in zip(subject.modes(first), subject.modes(second), strict=True):
        torch.manual_seed(6)
        one = subject.call(a, x).y
        torch.manual_seed(6)
        require(torch.equal(one, subject.call(b, x).y), f"{mode}: results differ under one seed")
    return "weights and results, training and evaluation"


def state_dict_round_trip(subject: Subject) -> str:
    """Loading the state dict of one into another makes them equal."""
    first, second, x = subject.build(seed=5).eval(), subject.build(seed=6).eval(), subject.tokens()
    second.load_state_dict(first.state_dict(), strict=True)
    require_close(subject.call(second, x).y, subject.call(first, x).y, "after loading", 0.0)
    return f"{len(first.state_dict())} tensors"


def dropout_in_training_only(subject: Subject) -> str:
    """Dropout changes results while training, and nothing in evaluation."""
    x = subject.tokens()
    with_it, without = subject.build(dropout=0.5), subject.build(dropout=0.0)
    require(not torch.equal(subject.call(with_it, x).y, subject.call(with_it, x).y), "training: nothing is dropped")
    evaluated = [subject.call(mixer.eval(), x).y for mixer in (with_it, without)]
    require_close(evaluated[0], evaluated[1], "evaluation with dropout 0.5 against 0")
    return "0.5 against 0"


def wrong_inputs_refused(subject: Subject) -> str:
    """Wrong shapes, dtypes and inputs that the flags do not allow end in a ``MechanismError`` saying what was found."""
    mixer, x, spec = subject.build(), subject.tokens(), subject.spec
    extras = mixer.example_extras(x)
    wrong: dict[str, tuple[Tensor, dict[str, Any]]] = {
        "other channels": (subject.tokens(dim=DIM + 1), {}),
        "an axis too many": (x[None, None], {}),
        "whole numbers": (x.long(), {}),
        "mask of another shape": (x, {"mask": torch.ones(BATCH, 99, dtype=torch.bool)}),
        "mask of numbers": (x, {"mask": torch.ones(x.shape[:-1])}),
        "context of other channels": (x, {"context": torch.zeros(BATCH, 5, DIM + 1)}),
    }
    forbidden = {
        "mask": (spec.mask, torch.ones(x.shape[:-1], dtype=torch.bool)),
        "context": (spec.context, torch.zeros(BATCH, 5, DIM)),
        "state": (spec.streaming, torch.zeros(1)),
    }
    wrong |= {f"undeclared {name}": (x, {name: value}) for name, (on, value) in forbidden.items() if not on}
    for label, (tokens, inputs) in wrong.items():
        _refused(label, lambda m=mixer, t=tokens, i=inputs: m(t, **extras, **i))
    for name in spec.extras:
        _refused(f"without {name}", lambda m=mixer, n=name: m(x, **{k: v for k, v in extras.items() if k != n}))
    _refused("dim 0", lambda: subject.build(dim=0))
    return f"{len(wrong) + len(spec.extras) + 1} wrong uses"


def other_lengths_refused(subject: Subject) -> str:
    """A mechanism for one length needs ``length=`` and refuses others."""
    from core_attention import registry

    _refused("no length given", lambda: registry.build(subject.spec.name, DIM))
    longer = (subject.grid[0] + 1, *subject.grid[1:])
    _refused("another length", lambda: subject.call(subject.build(), subject.tokens(longer)))
    return f"built for {subject.grid}, refused {longer}"


def copies(subject: Subject) -> str:
    """A deep copy and a pickled one give the same results."""
    mixer, x = subject.build().eval(), subject.tokens()
    expected = subject.call(mixer, x).y
    require_close(subject.call(copy.deepcopy(mixer), x).y, expected, "deep copy", 0.0)
    # A class made inside a function has no name that pickle could write, whatever the mechanism does.
    if "<locals>" in type(mixer).__qualname__:
        return "deep copy only: the class is local to a function"
    restored = pickle.loads(pickle.dumps(mixer))  # noqa: S301 - what this line itself made
    require_close(subject.call(restored, x).y, expected, "pickled copy", 0.0)
    return "both give the same result"


def nothing_kept(subject: Subject) -> str:
    """A forward pass leaves no tensor and no new attribute on the module."""
    for mode, mixer in subject.modes(subject.build()):
        before = _attributes(mixer)
        subject.call(mixer, subject.tokens().requires_grad_())
        after = _attributes(mixer)
        new = sorted(name for name in after if after[name] != before.get(name))
        require(not new, f"{mode}: {', '.join(new)} holds something new after a forward pass")
    return "training and evaluation"


class _OutputOnly(nn.Module):
    """The mechanism as a function of tensors to a tensor, for the exporter."""

    def __init__(self, mixer: TokenMixer) -> None:
        super().__init__()
        self.mixer = mixer

    def forward(self, x: Tensor, extras: dict[str, Tensor]) -> Tensor:
        return self.mixer(x, **extras).y


def _seeded(subject: Subject, mixer: TokenMixer, x: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return subject.call(mixer, x).y


def _check_gradients(mode: str, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    try:
        torch.autograd.gradcheck(function, inputs, eps=1e-6, atol=1e-5, rtol=1e-3, fast_mode=True)
    except RuntimeError as error:
        raise CheckFailed(f"{mode}: {str(error).splitlines()[0]}") from error


def _valid(subject: Subject, y: Tensor, mask: Tensor) -> Tensor:
    return y if subject.spec.kind == "pool" else y[mask]


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.detach().double() - exact.detach()).abs().max())


def _refused(label: str, call: Callable[[], Any]) -> None:
    try:
        call()
    except MechanismError as error:
        require(len(str(error)) > 20, f"{label}: the message says nothing: {error}")
        return
    except Exception as error:
        raise CheckFailed(f"{label}: {type(error).__name__} instead of MechanismError: {error}") from error
    raise CheckFailed(f"{label}: accepted")


@contextlib.contextmanager
def _plain_backend() -> Iterator[None]:
    """Every kernel's reference, plain torch, instead of what dispatch would choose."""
    before = os.environ.get("PIPELINES_BACKEND")
    os.environ["PIPELINES_BACKEND"] = "reference"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PIPELINES_BACKEND"]
        else:
            os.environ["PIPELINES_BACKEND"] = before


def _attributes(module: nn.Module) -> dict[str, list[int]]:
    """Identities of the tensors in each attribute of each submodule, parameters and buffers by name."""
    found: dict[str, list[int]] = {}
    for prefix, part in module.named_modules():
        registered = {**part._parameters, **part._buffers}
        plain = {k: v for k, v in vars(part).items() if k not in ("_parameters", "_buffers", "_modules")}
        for name, value in {**plain, **registered}.items():
            tensors = [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
            found[f"{prefix}.{name}".lstrip(".")] = [id(leaf) for leaf in tensors]
    return found
