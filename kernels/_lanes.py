"""Eight float32 numbers that compiled loops treat as one: vector instructions by construction, not by luck.

LLVM gives up on a loop with many arrays, because each might overlap each other, and on short ones. With ``Lanes`` the
loop says what it wants: load eight neighbours, compute, store eight. Eight is AVX2's width; where a chip is narrower or
wider LLVM takes two instructions or half of one.

    total = fma(load(x, i), splat(w), total)      # total[j] += x[i + j] w
    store(y, i, total)

Arrays are one-dimensional, contiguous and float32; an index is an element's number and is not checked.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, overload, register_model

from core_attention.kernels._numba import inlined

__all__ = [
    "LANES",
    "Lanes",
    "exp",
    "exp_held",
    "fma",
    "load",
    "load_bfloat16",
    "pick",
    "sigmoid",
    "softplus",
    "splat",
    "spread",
    "store",
    "total",
]

LANES = 8
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)


class Lanes(types.Type):
    """The compiled type of eight float32 numbers."""

    def __init__(self) -> None:
        super().__init__(name="Lanes8")


LANES_TYPE = Lanes()


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, owner: Any) -> None:
        super().__init__(manager, owner, _FLOATS)


def _require(kind: Any, wanted: type, what: str) -> None:
    if not isinstance(kind, wanted):
        raise TypingError(f"expected {what}, found {kind}")


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [index])


def _call(builder: Any, name: str, arguments: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments))
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The eight numbers from array[index] on."""
    _require(array, types.Array, "a float32 array")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, array, *arguments)
        return builder.load(builder.bitcast(place, _FLOATS.as_pointer()), align=4)

    return LANES_TYPE(array, types.intp), code


@intrinsic
def load_bfloat16(typing: Any, array: Any, index: Any) -> Any:
    """Eight bfloat16 numbers, given as int16 bits, from array[index] on: the upper halves of eight float32."""
    _require(array, types.Array, "an int16 array")
    shorts = ir.VectorType(ir.IntType(16), LANES)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, array, *arguments)
        bits = builder.zext(builder.load(builder.bitcast(place, shorts.as_pointer()), align=2), _INTS)
        return builder.bitcast(builder.shl(bits, ir.Constant(_INTS, [16] * LANES)), _FLOATS)

    return LANES_TYPE(array, types.intp), code


@intrinsic
def store(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Write the eight numbers to array[index] and its seven successors."""
    _require(array, types.Array, "a float32 array")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, array, arguments[0], arguments[1])
        builder.store(arguments[2], builder.bitcast(place, _FLOATS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES_TYPE), code


@intrinsic
def splat(typing: Any, number: Any) -> Any:
    """The same number eight times."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), arguments[0], _INT(0))
        return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * LANES))

    return LANES_TYPE(types.float32), code


@intrinsic
def spread(typing: Any, array: Any, index: Any) -> Any:
    """The number array[index] eight times."""
    _require(array, types.Array, "a float32 array")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = builder.load(_address(context, builder, array, *arguments))
        one = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), number, _INT(0))
        return builder.shuffle_vector(one, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * LANES))

    return LANES_TYPE(array, types.intp), code


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.fma.v8f32", arguments)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE), code


@intrinsic
def total(typing: Any, lanes: Any) -> Any:
    """The sum of the eight, in halves: (0 + 4) + (2 + 6) and so on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left = arguments[0]
        for half in (4, 2, 1):
            order = [(i + half) % LANES for i in range(LANES)]
            left = builder.fadd(left, builder.shuffle_vector(left, left, ir.Constant(_INTS, order)))
        return builder.extract_element(left, _INT(0))

    return types.float32(LANES_TYPE), code


@intrinsic
def pick(typing: Any, left: Any, right: Any, smaller: Any, other: Any) -> Any:
    """smaller where left < right, other elsewhere, also where a NaN is compared."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", arguments[0], arguments[1]), arguments[2], arguments[3])

    return LANES_TYPE(LANES_TYPE, LANES_TYPE, LANES_TYPE, LANES_TYPE), code


@intrinsic
def _rounded(typing: Any, lanes: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, "llvm.rint.v8f32", arguments)

    return LANES_TYPE(LANES_TYPE), code


@intrinsic
def _times_power(typing: Any, lanes: Any, exponents: Any) -> Any:
    """lanes 2^exponents for whole exponents, added to the exponent bits; lanes in [0.5, 2]."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole = builder.shl(builder.fptosi(arguments[1], _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], _INTS), whole), _FLOATS)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), code


def _arithmetic(sign: Any, method: str) -> None:
    @intrinsic
    def compute(typing: Any, left: Any, right: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, method)(*arguments)

        return LANES_TYPE(LANES_TYPE, LANES_TYPE), code

    @overload(sign)
    def operation(left, right):  # numba compares the names of both signatures, annotations included
        if isinstance(left, Lanes) and isinstance(right, Lanes):
            return lambda left, right: compute(left, right)
        return None


_METHODS = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}
for _sign, _method in _METHODS.items():
    _arithmetic(_sign, _method)


@inlined
def exp_held(x):
    """exp(x), one unit in the last place, with x held to [-87.3, 88.0]: never zero, never infinite; NaN stays.

    x is reduced by a whole number n of ln 2 (in two parts, for exactness), exp of the rest is a polynomial of degree 6
    (Cephes' coefficients), and n is added to the exponent's bits.
    """
    low, high = splat(np.float32(-87.33654)), splat(np.float32(88.02969))
    x = pick(x, low, low, x)
    x = pick(high, x, high, x)
    n = _rounded(x * splat(np.float32(1.4426950408889634)))
    r = fma(n, splat(np.float32(-0.693359375)), x)
    r = fma(n, splat(np.float32(2.12194440e-4)), r)
    p = splat(np.float32(1.9875691500e-4))
    p = fma(p, r, splat(np.float32(1.3981999507e-3)))
    p = fma(p, r, splat(np.float32(8.3334519073e-3)))
    p = fma(p, r, splat(np.float32(4.1665795894e-2)))
    p = fma(p, r, splat(np.float32(1.6666665459e-1)))
    p = fma(p, r, splat(np.float32(5.0000001201e-1)))
    return _times_power(fma(p, r * r, r + splat(np.float32(1.0))), n)


@inlined
def exp(x):
    """exp(x), one unit in the last place; 0 below -87.3, so also of minus infinity; about 2e38 above 88; NaN stays."""
    return pick(x, splat(np.float32(-87.33654)), splat(np.float32(0.0)), exp_held(x))


@inlined
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    one = splat(np.float32(1.0))
    return one / (one + exp(splat(np.float32(0.0)) - x))


@inlined
def log1p_of_fraction(y):
    """ln(1 + y) for y in [0, 1], two units in the last place, as 2 artanh(y / (2 + y)): no term of it cancels."""
    s = y / (y + splat(np.float32(2.0)))
    w = s * s
    p = splat(np.float32(2.0 / 17.0))
    p = fma(p, w, splat(np.float32(2.0 / 15.0)))
    p = fma(p, w, splat(np.float32(2.0 / 13.0)))
    p = fma(p, w, splat(np.float32(2.0 / 11.0)))
    p = fma(p, w, splat(np.float32(2.0 / 9.0)))
    p = fma(p, w, splat(np.float32(2.0 / 7.0)))
    p = fma(p, w, splat(np.float32(2.0 / 5.0)))
    p = fma(p, w, splat(np.float32(2.0 / 3.0)))
    return fma(p * w, s, s + s)


@inlined
def softplus(x):
    """ln(1 + exp(x)) for every x, as max(x, 0) + ln(1 + exp(-|x|))."""
    zero = splat(np.float32(0.0))
    size = pick(x, zero, zero - x, x)
    return pick(x, zero, zero, x) + log1p_of_fraction(exp(zero - size))
