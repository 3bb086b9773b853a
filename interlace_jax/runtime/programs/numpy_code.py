"""A traced JAX program (a jaxpr) written out as NumPy source: the same operations, one a line, to
be run at once.

Calls are written out, constants folded, equal lines shared, what a loop does not change moved
before it, and lines that no result needs left out. Big arrays are forgotten after their last use,
and written in place where nothing else sees them. Shapes may be symbolic
(`jax.export.symbolic_shape`): the program takes these sizes by keyword.

An operation that is not known here raises `NotWritten`, and the program is left to XLA.
"""

import math
import re
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, Literal

from . import operations

MOST_FOLDED = 4096  # numbers of a constant that is computed when the program is written
MOST_CONSTANTS = 65_536  # numbers that a program may hold: with more it would hold data
BIG = 256  # numbers of an array worth forgetting
NAME = re.compile(r"\b[vc]\d+\b")

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "add_any": "+",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "and": "&", "or": "|", "xor": "^",
}  # fmt: skip
NUMPY = {
    "sqrt": "sqrt", "log": "log", "exp": "exp", "exp2": "exp2", "abs": "abs", "sign": "sign",
    "max": "maximum", "min": "minimum", "is_finite": "isfinite", "floor": "floor", "ceil": "ceil",
    "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "atan2": "arctan2", "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh",
    "acosh": "arccosh", "atanh": "arctanh", "log1p": "log1p", "expm1": "expm1", "cbrt": "cbrt",
    "rem": "fmod", "nextafter": "nextafter", "neg": "negative", "not": "invert", "square": "square",
}  # fmt: skip
SPECIAL = {
    "erf": "erf", "erfc": "erfc", "erf_inv": "erfinv", "lgamma": "gammaln", "digamma": "digamma",
    "logistic": "expit", "polygamma": "polygamma", "igamma": "gammainc", "igammac": "gammaincc",
    "regularized_incomplete_beta": "betainc", "bessel_i0e": "i0e", "bessel_i1e": "i1e",
    "zeta": "zeta",
}  # fmt: skip
REDUCE = {
    "reduce_sum": "add", "reduce_prod": "multiply", "reduce_max": "maximum",
    "reduce_min": "minimum", "reduce_and": "logical_and", "reduce_or": "logical_or",
}  # fmt: skip
OF_NOTHING = {"reduce_max": -np.inf, "reduce_min": np.inf}
ACCUMULATE = {"cumsum": "add", "cumprod": "multiply", "cummax": "maximum", "cummin": "minimum"}
SCATTER = {
    "scatter": "set",
    "scatter-add": "add",
    "scatter-mul": "mul",
    "scatter-min": "min",
    "scatter-max": "max",
}
SAME = ("copy", "copy_p", "optimization_barrier", "stop_gradient")
ELEMENTWISE = {*INFIX, *NUMPY, *SPECIAL, "select_n", "integer_pow", "pow", "rsqrt", "clamp"}


class NotWritten(NotImplementedError):
    """An operation that there is no NumPy source for."""


@dataclass
class Program:
    """A written program: its source, and the names of the sizes it takes by keyword."""

    source: str
    sizes: tuple[str, ...]

    def load(self, **objects):
        """The function of arrays (and sizes) that the source defines; objects: what it finds by
        these names.
        """
        space = {"__name__": "program", **objects}
        exec(compile(self.source, "<program>", "exec"), space)
        return space["program"]


@dataclass
class _Line:
    """`targets = code`, or with no targets a statement; new: the result shares memory with
    nothing.
    """

    targets: list[str]
    code: str
    new: bool = False
    # of a scatter: what may be written in place, where {fresh} stands in the code
    operand: str | None = None

    def names(self):
        return set(NAME.findall(self.code))


@dataclass
class _Nested:
    """A loop or choice: blocks, each under its opening line, that leave `targets`."""

    targets: list[str]
    first: list[str]
    parts: "list[tuple[str, _Block, list[str]]]"

    def names(self):
        lines = [*self.first, *(line for head, _, end in self.parts for line in (head, *end))]
        return set(NAME.findall("\n".join(lines))).union(
            *(block.names() for _, block, _ in self.parts)
        )


@dataclass
class _Block:
    depth: int
    is_loop: bool = False
    items: list = field(default_factory=list)
    known: dict = field(default_factory=dict)  # code -> name, of lines to share

    def names(self):
        return set().union(*(item.names() for item in self.items))


def write(closed: ClosedJaxpr, sizes=(), returned=None, imports=()) -> Program:
    """Write a traced program; `sizes` names its symbolic sizes. Raises `NotWritten`.

    returned: the expression that is returned, from the names of the results; by default a list of
    them. imports: lines that this expression needs, known when it has been made.
    """
    writer = _Writer()
    names = [writer.name(v.aval) for v in closed.jaxpr.invars]
    found = writer.inline(closed.jaxpr, closed.consts, names)
    results = [writer.refer(v) for v in found]
    _drop_unused(writer.block, set(results))
    body = _Renderer(writer).render(writer.block, set(results), "    ")
    keywords = ["*", *sizes] if sizes else []
    result = f"[{', '.join(results)}]" if returned is None else returned(results)
    source = "\n".join([
        "import numpy as np",
        "from numpy import inf, nan",
        "from interlace_jax.runtime.programs.operations import *",
        *sorted(imports),
        "",
        *writer.constant_lines("\n".join([*body, *results])),
        "",
        f"def program({', '.join([*names, *keywords])}):",
        *body,
        f"    return {result}",
        "",
    ])  # fmt: skip
    return Program(source, tuple(sizes))


def _text(size) -> str:
    return str(size).replace("^", "**")


def _shape(shape) -> str:
    return "(" + "".join(f"{_text(d)}, " for d in shape) + ")"


def _fixed(shape) -> bool:
    return all(isinstance(d, int | np.integer) for d in shape)


def _concrete(x) -> bool:
    """Whether parameters of an equation hold no symbolic sizes."""
    if isinstance(x, tuple | list):
        return all(map(_concrete, x))
    return not jax.export.is_symbolic_dim(x)


def _is_big(aval) -> bool:
    return bool(aval.shape) and (not _fixed(aval.shape) or math.prod(aval.shape) >= BIG)


class _Writer:
    """Source of one program as it grows. Values are names (str) or known arrays."""

    def __init__(self):
        self.block = _Block(0)
        self.stack = [self.block]
        self.depth: dict[str, int] = {}
        self.big: set[str] = set()
        self.constants: dict[str, np.ndarray] = {}
        self.by_value: dict = {}
        self.true: set[str] = set()  # what a loop goes on for
        # broadcast arrays: what they were made of, their shape
        self.thin: dict[str, tuple[str, tuple]] = {}

    # Names and constants

    def name(self, aval, depth=0) -> str:
        """A new name for an array."""
        name = f"v{len(self.depth)}"
        self.depth[name] = depth
        if _is_big(aval):
            self.big.add(name)
        return name

    def constant(self, value) -> str:
        """The name of a known array."""
        value = np.asarray(value)
        if value.dtype == jax.dtypes.float0:
            value = np.zeros(value.shape, bool)
        key = value.dtype.str, value.shape, value.tobytes()
        if key not in self.by_value:
            self.by_value[key] = name = f"c{len(self.by_value)}"
            self.constants[name] = value
        return self.by_value[key]

    def constant_lines(self, source: str) -> list[str]:
        """Assignments of the constants that the source uses."""
        used = {
            name: self.constants[name]
            for name in sorted(set(NAME.findall(source)) & set(self.constants))
        }
        if sum(value.size for value in used.values()) > MOST_CONSTANTS:
            raise NotWritten("the program holds data")
        lines = []
        for name, value in used.items():
            kind = value.dtype.name if value.dtype != bool else "bool_"
            if value.ndim == 0:
                lines.append(f"{name} = np.{kind}({value.item()!r})")
            else:
                lines.append(
                    f"{name} = np.array({value.tolist()!r}, "
                    f"'{value.dtype.name}').reshape({value.shape})"
                )
        return lines

    def refer(self, value) -> str:
        """A value as source."""
        return value if isinstance(value, str) else self.constant(value)

    # Lines

    def line(self, code: str, avals, new=False, operand=None, share=True) -> list[str]:
        """Names of the results of a line, which goes to the outermost block where all its
        operands are known.
        """
        level = max((self.depth.get(n, 0) for n in NAME.findall(code)), default=0)
        at = len(self.stack) - 1
        while self.stack[at].is_loop and level < self.stack[at].depth:
            at -= 1
        block = self.stack[at]
        if share:
            for outer in self.stack[: at + 1]:
                if code in outer.known:
                    return outer.known[code]
        names = [self.name(aval, block.depth) for aval in avals]
        block.items.append(_Line(names, code, new, operand))
        block.known[code] = names
        return names

    def enter(self, is_loop: bool) -> _Block:
        block = _Block(len(self.stack), is_loop)
        self.stack.append(block)
        return block

    def leave(self):
        self.stack.pop()

    # Programs

    def inline(self, jaxpr: Jaxpr, consts, values) -> list:
        """Write all equations; values: what its variables are. Returns the results' values."""
        env = dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))
        env |= dict(zip(jaxpr.invars, values, strict=True))

        def value(v):
            return np.asarray(v.val, v.aval.dtype) if isinstance(v, Literal) else env[v]

        for equation in jaxpr.eqns:
            found = self.equation(equation, [value(v) for v in equation.invars])
            env.update(zip(equation.outvars, found, strict=True))
        return [value(v) for v in jaxpr.outvars]

    def equation(self, e, values) -> list:
        """Write one equation, and return the values of its results."""
        name, params = e.primitive.name, e.params
        called = _called(name, params)
        if called is not None:
            return self.inline(called.jaxpr, called.consts, values)
        if name == "custom_linear_solve":
            solve, lengths = params["jaxprs"].solve, params["const_lengths"]
            first = lengths.matvec + lengths.vecmat
            given = values[first : first + lengths.solve] + values[sum(lengths) :]
            return self.inline(solve.jaxpr, solve.consts, given)
        if name == "platform_index":
            return [
                np.int32(
                    next(i for i, p in enumerate(params["platforms"]) if p is None or "cpu" in p)
                )
            ]
        if name == "cond" and not isinstance(values[0], str):
            branch = params["branches"][int(np.clip(values[0], 0, len(params["branches"]) - 1))]
            return self.inline(branch.jaxpr, branch.consts, values[1:])
        if name in ("while", "scan", "cond"):
            return getattr(self, f"_{name}")(e, values)
        if name in SAME:
            return values
        if name == "dim_as_value":
            return self.line(
                f"np.asarray({_text(params['dim'])}, '{e.outvars[0].aval.dtype}')",
                [e.outvars[0].aval],
            )
        return self.operation(e, values)

    def operation(self, e, values) -> list:
        """Write an equation that is one operation, or compute it where all is known."""
        avals = [v.aval for v in e.outvars]
        known = all(not isinstance(v, str) for v in values) and _concrete(tuple(e.params.values()))
        small = known and all(_fixed(a.shape) and math.prod(a.shape) <= MOST_FOLDED for a in avals)
        if small:
            values = [np.asarray(v) for v in values]
        text = _Operation(self, e, values, small)
        code = text.code()
        if not isinstance(code, list):
            code = [code]
        outs = [avals] if len(code) == 1 else [[aval] for aval in avals]
        if small:
            with np.errstate(all="ignore"):
                found = [eval(c, dict(vars(operations), np=np, **self._used(c))) for c in code]
            found = found[0] if len(code) == 1 and len(avals) > 1 else found
            return [np.asarray(f, a.dtype) for f, a in zip(found, avals, strict=True)]
        names = []
        for c, wanted in zip(code, outs, strict=True):
            if NAME.fullmatch(c):
                names.append(c)
                continue
            names += self.line(c, wanted, text.new, text.operand, share=text.operand is None)
        if text.thin is not None and names[0] != text.thin:
            self.thin.setdefault(names[0], (text.thin, avals[0].shape))
        return names

    def _used(self, code):
        return {name: self.constants[name][()] for name in NAME.findall(code)}

    # Control flow

    def _carried(self, names, depth):
        for name in names:
            self.depth[name] = depth

    def _outputs(self, e):
        return [self.name(v.aval, self.stack[-1].depth) for v in e.outvars]

    def _while(self, e, values):
        params = e.params
        a, b = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        outs = self._outputs(e)
        first = [f"{o} = {self.refer(i)}" for o, i in zip(outs, values[b:], strict=True)]
        outer = self.stack[-1].depth
        block = self.enter(True)
        self._carried(outs, block.depth)
        test, step = params["cond_jaxpr"], params["body_jaxpr"]
        (go,) = map(self.refer, self.inline(test.jaxpr, test.consts, values[:a] + outs))
        is_batch = bool(test.out_avals[0].shape)
        block.items.append(
            _Line([], f"if not {go}.any(): break" if is_batch else f"if not {go}: break")
        )
        if not is_batch:
            self.true.add(go)
        found = [self.refer(v) for v in self.inline(step.jaxpr, step.consts, values[a:b] + outs)]
        self.true.discard(go)
        if is_batch:  # lanes that have ended keep what they have
            found = [
                f if f == o else f"lanes({go}, {f}, {o})" for f, o in zip(found, outs, strict=True)
            ]
        end = _moved(outs, found)
        self.leave()
        self._carried(outs, outer)
        self.stack[-1].items.append(_Nested(outs, first, [("while True:", block, end)]))
        return outs

    def _scan(self, e, values):
        params = e.params
        a, b, length = (
            params["num_consts"],
            params["num_consts"] + params["num_carry"],
            params["length"],
        )
        outs = self._outputs(e)
        carry, stacked = outs[: b - a], outs[b - a :]
        carried = set(carry)
        first = [f"{o} = {self.refer(i)}" for o, i in zip(carry, values[a:b], strict=True)]
        for y, v in zip(stacked, e.outvars[b - a :], strict=True):
            first.append(f"{y} = np.empty({_shape(v.aval.shape)}, '{v.aval.dtype}')")
        outer = self.stack[-1].depth
        block = self.enter(True)
        self._carried(carried, block.depth)
        at = self.name(jax.core.ShapedArray((), np.int64), block.depth)
        slices = [
            self.line(
                f"{self.refer(x)}[{at}]", [jax.core.ShapedArray(v.aval.shape[1:], v.aval.dtype)]
            )[0]
            for x, v in zip(values[b:], e.invars[b:], strict=True)
        ]
        step = params["jaxpr"]
        found = [
            self.refer(v) for v in self.inline(step.jaxpr, step.consts, values[:a] + carry + slices)
        ]
        end = [f"{y}[{at}] = {f}" for y, f in zip(stacked, found[b - a :], strict=True)] + _moved(
            carry, found
        )
        self.leave()
        self._carried(carried, outer)
        count = f"range({_text(length)})"
        head = f"for {at} in {f'reversed({count})' if params['reverse'] else count}:"
        self.stack[-1].items.append(_Nested(outs, first, [(head, block, end)]))
        return outs

    def _cond(self, e, values):
        outs, parts = self._outputs(e), []
        which = self.refer(values[0])
        branches = e.params["branches"]
        for i, branch in enumerate(branches):
            block = self.enter(False)
            found = [self.refer(v) for v in self.inline(branch.jaxpr, branch.consts, values[1:])]
            self.leave()
            test = f"{which} <= 0" if i == 0 else f"{which} == {i}"
            head = "else:" if i == len(branches) - 1 else f"{'if' if i == 0 else 'elif'} {test}:"
            parts.append(
                (head, block, [f"{o} = {f}" for o, f in zip(outs, found, strict=True)] or ["pass"])
            )
        self.stack[-1].items.append(_Nested(outs, [], parts))
        return outs


def _called(name, params) -> ClosedJaxpr | None:
    """The program that an equation calls as it is."""
    key = {
        "jit": "jaxpr", "pjit": "jaxpr", "custom_jvp_call": "call_jaxpr",
        "custom_vjp_call": "call_jaxpr", "custom_vmap_call": "call", "closed_call": "call_jaxpr",
        "core_call": "call_jaxpr", "checkpoint": "jaxpr", "remat2": "jaxpr",
    }.get(name)  # fmt: skip
    if key is None:
        return None
    found = params[key]
    return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())


def _moved(targets, found) -> list[str]:
    """Assignments at the end of a step, all at once."""
    pairs = [(t, f) for t, f in zip(targets, found, strict=False) if t != f]
    if not pairs:
        return []
    return [f"{', '.join(t for t, _ in pairs)} = {', '.join(f for _, f in pairs)}"]


class _Operation:
    """The source of one operation on values, which are names or known arrays."""

    def __init__(self, writer: _Writer, e, values, at_once):
        self.writer, self.e, self.params, self.values = writer, e, e.params, values
        self.at_once = at_once  # to be computed now, not written
        self.name, self.out = e.primitive.name, e.outvars[0].aval
        self.new, self.operand, self.thin = False, None, None

    def code(self) -> str | list[str]:
        """One expression of all results, or one each."""
        name = self.name
        if name in ELEMENTWISE:
            self.new = True
            return self._elementwise()
        if name in REDUCE:
            return self._reduce()
        if name in ACCUMULATE:
            x, p = self._args()[0], self.params
            return f"cumulative(np.{ACCUMULATE[name]}.accumulate, {x}, {p['axis']}, {p['reverse']})"
        if name in SCATTER:
            return self._scatter()
        method = getattr(self, "_" + name, None)
        if method is None:
            raise NotWritten(f"{name} {self.params}")
        return method(*self._args())

    def _args(self):
        return [self.writer.refer(v) for v in self.values]

    def _aval(self, i):
        return self.e.invars[i].aval

    def _part(self, code, shape, dtype):
        """A line of its own for a part of the expression."""
        if self.at_once:
            return f"({code})"
        return self.writer.line(code, [jax.core.ShapedArray(tuple(shape), dtype)])[0]

    # Arithmetic

    def _light(self):
        """Operands that NumPy broadcasts by itself, as long as one has the shape of the result;
        numbers as such.
        """
        writer, shape = self.writer, self.out.shape
        args = self._args()
        shapes = [self._aval(i).shape for i in range(len(args))]
        thin = [
            a in writer.thin and writer.thin[a][1] == s for a, s in zip(args, shapes, strict=True)
        ]
        full = any(s == shape and not t for s, t in zip(shapes, thin, strict=True))
        if full or not shape:
            args = [writer.thin[a][0] if t else a for a, t in zip(args, thin, strict=True)]
        return args

    def _number(self, arg):
        """A known number as such: where it meets an array it takes its type."""
        value = self.writer.constants.get(arg)
        if value is None or value.ndim or value.dtype == bool or not np.isfinite(value):
            return arg
        text = repr(value.item())
        return f"({text})" if text.startswith("-") else text

    def _elementwise(self):
        name, args = self.name, self._light()
        numbered = [self._number(a) for a in args]
        if any(n == a for n, a in zip(numbered, args, strict=True)):  # not between two numbers
            plain = numbered
        else:
            plain = args
        integers = np.issubdtype(self.out.dtype, np.integer)
        if name == "div" and integers:
            return f"quotient({', '.join(args)})"
        if name in INFIX:
            return self._unchanged(args) or f"{plain[0]} {INFIX[name]} {plain[1]}"
        if name in ("max", "min"):
            return f"np.{NUMPY[name]}({', '.join(plain)})"
        if name in NUMPY:
            return f"np.{NUMPY[name]}({', '.join(args)})"
        if name in SPECIAL:
            return f"special.{SPECIAL[name]}({', '.join(args)})"
        if name == "rsqrt":
            return f"1.0 / np.sqrt({args[0]})"
        if name == "clamp":
            return f"np.minimum(np.maximum({args[1]}, {args[0]}), {args[2]})"
        if name == "integer_pow":
            return self._power(args[0], self.params["y"])
        if name == "pow":
            same = self._aval(0).dtype == self._aval(1).dtype
            return (
                f"np.power({args[0]}, "
                f"{args[1] if same else f'np.asarray({args[1]}, {str(self.out.dtype)!r})'})"
            )
        if self._aval(0).dtype == bool and not self._aval(0).shape:
            self.new, (which, otherwise, chosen) = False, self._args()
            return chosen if which in self.writer.true else f"{chosen} if {which} else {otherwise}"
        if self._aval(0).dtype == bool:
            return f"np.where({args[0]}, {args[2]}, {args[1]})"
        return f"select({', '.join(args)})"

    def _unchanged(self, args):
        """The operand that a sum with zero or a product with one leaves as it is; None for
        others.
        """
        neutral = {"add": 0.0, "sub": 0.0, "add_any": 0.0, "mul": 1.0, "div": 1.0}.get(self.name)
        for one, other in ((0, 1), (1, 0)):
            if one == 0 and self.name in ("sub", "div"):
                continue
            value = self.writer.constants.get(args[one])
            if value is None or value.ndim or value != neutral:
                continue
            if self._aval(other).shape == self.out.shape:
                self.new = False
                return self._args()[other]
        return None

    def _power(self, x, y):
        if y == 0:
            return f"np.ones_like({x})"
        product = " * ".join([x] * abs(y)) if abs(y) <= 4 else f"{x} ** {abs(y)}"
        return product if y > 0 else f"1.0 / ({product})"

    def _convert_element_type(self, x):
        if self._aval(0).dtype == self.out.dtype:
            return x
        return f"{x}.astype('{self.out.dtype}')"

    def _round(self, x):
        return f"rounded({x}, {int(self.params['rounding_method']) == 1})"

    # Reductions

    def _reduce(self):
        (x,), axes = self._args(), tuple(self.params["axes"])
        if not axes:
            return x
        self.new = True
        shape, dtype = self._aval(0).shape, self.out.dtype
        if self.name in OF_NOTHING and any(d == 0 for d in (shape[a] for a in axes)):
            return f"np.full({_shape(self.out.shape)}, {OF_NOTHING[self.name]!r}, '{dtype}')"
        over = f"{axes[0]}" if len(axes) == 1 else f"{axes}"
        summing = self.name in ("reduce_sum", "reduce_prod") and np.issubdtype(dtype, np.integer)
        kind = f", dtype={str(dtype)!r}" if summing else ""
        return f"np.{REDUCE[self.name]}.reduce({x}, {over}{kind})"

    def _argmax(self, x):
        return f"{x}.argmax({self.params['axes'][0]}).astype('{self.out.dtype}')"

    def _argmin(self, x):
        return f"{x}.argmin({self.params['axes'][0]}).astype('{self.out.dtype}')"

    def _sort(self, *args):
        found = f"sort(({', '.join(args)},), {self.params['dimension']}, {self.params['num_keys']})"
        return found + "[0]" if len(args) == 1 else found

    # Shapes

    def _reshaped(self, x, given, shape):
        if tuple(given) == tuple(shape):
            return x
        if x in self.writer.constants and not given:
            return f"np.full({_shape(shape)}, {x})"
        if not shape and given:
            return f"{x}[{', '.join('0' * len(given))}]"
        return f"{x}.reshape({_shape(shape)})"

    def _reshape(self, x):
        if self.params.get("dimensions") is not None:
            raise NotWritten("reshape with dimensions")
        return self._reshaped(x, self._aval(0).shape, self.out.shape)

    def _squeeze(self, x):
        return self._reshaped(x, self._aval(0).shape, self.out.shape)

    _expand_dims = _squeeze

    def _broadcast_in_dim(self, x, *_):
        given, shape = self._aval(0).shape, self.out.shape
        if given == shape:
            return x
        if not given:
            self.thin, self.new = x, True
            if all(size == 1 for size in shape):
                return f"np.array({x}, '{self.out.dtype}', ndmin={len(shape)})"
            return f"np.full({_shape(shape)}, {x}, '{self.out.dtype}')"
        full = [1] * len(shape)
        for d, size in zip(self.params["broadcast_dimensions"], given, strict=True):
            full[d] = size
        if tuple(full) == tuple(given):
            made = x
        else:
            made = self._part(self._reshaped(x, given, full), full, self.out.dtype)
        if tuple(full) == tuple(shape):
            return made
        self.thin = made
        return f"np.broadcast_to({made}, {_shape(shape)})"

    def _empty2(self, *_):
        """A number that nobody reads: what `cond` hands on in place of residuals of the branch
        not taken.
        """
        return f"np.zeros((), dtype='{self.out.dtype}')"

    def _iota(self, *_):
        shape, d = self.params["shape"], self.params["dimension"]
        counted = f"np.arange({_text(shape[d])}, dtype='{self.out.dtype}')"
        if len(shape) == 1:
            return counted
        full = [size if i == d else 1 for i, size in enumerate(shape)]
        self.thin = self._part(f"{counted}.reshape({_shape(full)})", full, self.out.dtype)
        return f"np.broadcast_to({self.thin}, {_shape(shape)})"

    def _transpose(self, x):
        return f"{x}.transpose({tuple(self.params['permutation'])})"

    def _rev(self, x):
        cut = [
            "::-1" if d in self.params["dimensions"] else ":" for d in range(len(self.out.shape))
        ]
        return f"{x}[{', '.join(cut)}]"

    def _slice(self, x):
        p, cuts = self.params, []
        strides = p["strides"] or [1] * len(p["start_indices"])
        sizes = self._aval(0).shape
        for start, limit, stride, size in zip(
            p["start_indices"], p["limit_indices"], strides, sizes, strict=True
        ):
            step = "" if stride == 1 else f":{_text(stride)}"
            cuts.append(
                ":"
                if (start == 0 and limit == size and not step)
                else f"{_text(start)}:{_text(limit)}{step}"
            )
        return f"{x}[{', '.join(cuts)}]"

    def _split(self, x):
        axis, start, found = self.params["axis"], 0, []
        for size in self.params["sizes"]:
            cut = [":"] * axis + [f"{_text(start)}:{_text(start + size)}"]
            found.append(f"{x}[{', '.join(cut)}]")
            start = start + size
        return found

    def _unstack(self, x):
        before = ":, " * self.params["axis"]
        return [f"{x}[{before}{i}]" for i in range(len(self.e.outvars))]

    def _concatenate(self, *args):
        if len(args) == 1:
            return args[0]
        self.new = True
        return f"np.concatenate(({', '.join(args)}), {self.params['dimension']})"

    def _stack(self, *args):
        self.new = True
        return f"np.stack(({', '.join(args)},), {self.params['axis']})"

    def _pad(self, x, value):
        if all(tuple(c) == (0, 0, 0) for c in self.params["padding_config"]):
            return x
        config = "".join(_shape(c) + ", " for c in self.params["padding_config"])
        return f"pad({x}, {value}, ({config}))"

    # Indexing

    def _gather(self, x, index):
        p, dn = self.params, self.params["dimension_numbers"]
        shape, window, fill = self._aval(0).shape, p["slice_sizes"], p["fill_value"]
        mode = _mode(p["mode"])
        if fill is None:
            fill = np.nan if np.issubdtype(self.out.dtype, np.inexact) else 0
        fill = self.writer.constant(np.asarray(fill, self.out.dtype))
        axis = self._taken(dn, shape, window)
        if axis is not None:
            lead = self._aval(1).shape[:-1]
            at = self._reshaped(index, self._aval(1).shape, lead)
            return f"take({x}, {at}, {axis}, {mode!r}, {fill})"
        dims = (
            dn.start_index_map, dn.collapsed_slice_dims, dn.offset_dims, dn.operand_batching_dims,
            dn.start_indices_batching_dims,
        )  # fmt: skip
        self.new = True
        known = self._known_places(shape, window, dims, self.out.shape, mode)
        if known is not None:
            return f"{x}.reshape(-1)[{known}]"
        places = self._flat_places(shape, index, window, dims, len(self.out.shape), mode)
        return f"gather({x}, {places}, {_shape(self.out.shape)}, {fill})"

    def _taken(self, dn, shape, window):
        """The one axis along which whole slices are taken, in order; None where the gather is
        another.
        """
        if (
            len(dn.start_index_map) != 1
            or dn.collapsed_slice_dims != dn.start_index_map
            or dn.operand_batching_dims
        ):
            return None
        (axis,), outer = dn.start_index_map, len(self._aval(1).shape) - 1
        rank = len(self.out.shape)
        whole = all(w == s for d, (w, s) in enumerate(zip(window, shape, strict=True)) if d != axis)
        expected = tuple(d for d in range(rank) if not axis <= d < axis + outer)
        return axis if whole and dn.offset_dims == expected and shape[axis] != 0 else None

    def _known_places(self, shape, window, dims, found, mode):
        """The name of constant places; None where they are not known, or not all inside."""
        index = self.values[1]
        if self.at_once or isinstance(index, str) or not _fixed((*shape, *window, *found)):
            return None
        flat, inside = operations.flat_places(shape, index, window, dims, len(found), mode)
        return self.writer.constant(np.broadcast_to(flat, found)) if inside is None else None

    def _flat_places(self, shape, index, window, dims, rank, mode):
        dims = "(" + "".join(f"{tuple(d)}, " for d in dims) + ")"
        code = f"flat_places({_shape(shape)}, {index}, {_shape(window)}, {dims}, {rank}, {mode!r})"
        return self._part(code, self.out.shape, np.int64)

    def _scatter(self):
        x, index, updates = self._args()
        p, dn, shape = self.params, self.params["dimension_numbers"], self._aval(0).shape
        dims = (
            dn.scatter_dims_to_operand_dims, dn.inserted_window_dims, dn.update_window_dims,
            dn.operand_batching_dims, dn.scatter_indices_batching_dims,
        )  # fmt: skip
        kept = [d for d in range(len(shape)) if d not in dims[1] and d not in dims[3]]
        window = [1] * len(shape)
        for o, d in zip(dn.update_window_dims, kept, strict=True):
            window[d] = self._aval(2).shape[o]
        mode, found = _mode(p["mode"]), self._aval(2).shape
        known = self._known_places(shape, window, dims, found, mode)
        places = (
            f"({known}, None)"
            if known
            else self._flat_places(shape, index, window, dims, len(found), mode)
        )
        combine, thin = SCATTER[self.name], self.writer.thin.get(x)
        self.new = True
        zero = (
            thin is not None
            and thin[0] in self.writer.constants
            and not self.writer.constants[thin[0]].any()
        )
        zero = zero or (x in self.writer.constants and not self.writer.constants[x].any())
        if combine == "add" and zero and self.out.dtype == np.float64:
            return f"summed({places}, {updates}, {_shape(shape)})"
        if not isinstance(self.values[0], str):
            return f"scatter({x}, {places}, {updates}, {combine!r}, False)"
        self.operand = x
        return f"scatter({x}, {places}, {updates}, {combine!r}, {{fresh}})"

    def _dynamic_slice(self, x, *starts):
        return f"dynamic_slice({x}, ({', '.join(starts)},), {_shape(self.params['slice_sizes'])})"

    def _dynamic_update_slice(self, x, update, *starts):
        self.new = True
        if not isinstance(self.values[0], str):
            return f"dynamic_update({x}, {update}, ({', '.join(starts)},), False)"
        self.operand = x
        return f"dynamic_update({x}, {update}, ({', '.join(starts)},), {{fresh}})"

    # Linear algebra

    def _dot_general(self, x, y):
        (ca, cb), (ba, bb) = self.params["dimension_numbers"]
        a, b = self._aval(0), self._aval(1)
        self.new = True
        if ba or not ca:
            return f"np.einsum('{_letters(len(a.shape), len(b.shape), ca, cb, ba, bb)}', {x}, {y})"
        left, rows = _matrix(x, a.shape, ca, last=True)
        right, columns = _matrix(y, b.shape, cb, last=False)
        product = f"{self._copied(left, a)} @ {self._copied(right, b)}"
        plain = len(rows) <= 1 and len(columns) <= 1
        return product if plain else f"({product}).reshape({_shape((*rows, *columns))})"

    def _copied(self, matrix, aval):
        """An operand that had to be copied into shape, under a name: others may need it too."""
        return self._part(matrix, aval.shape, aval.dtype) if "reshape" in matrix else matrix

    def _cholesky(self, x):
        self.new = True
        return f"cholesky({x})"

    def _eigh(self, x):
        if self.params["subset_by_index"] is not None:
            raise NotWritten("eigh of a subset")
        return f"eigh({x}, {self.params['lower']})"

    def _qr(self, x):
        if self.params["pivoting"]:
            raise NotWritten("qr with pivoting")
        if isinstance(self.e.outvars[0], DropVar):
            made = self._part(f"triangle({x})", self.e.outvars[1].aval.shape, self.out.dtype)
            return [made, made]
        return f"qr({x}, {self.params['full_matrices']})"

    def _lu(self, x):
        return f"lu({x})"

    def _lu_pivots_to_permutation(self, x):
        return f"permutation({x}, {_text(self.params['permutation_size'])})"

    def _triangular_solve(self, a, b):
        p = self.params
        options = p["left_side"], p["lower"], p["transpose_a"], p["unit_diagonal"]
        return f"triangular_solve({a}, {b}, {', '.join(map(str, options))})"


def _mode(mode) -> str:
    text = str(mode)
    if "CLIP" in text:
        return operations.CLIP
    return operations.PROMISED if "PROMISE" in text else operations.FILL


def _letters(a, b, ca, cb, ba, bb) -> str:
    """Subscripts of `numpy.einsum` for a product: contracted dimensions ca and cb, shared ones
    ba and bb.
    """
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left, right = [""] * a, [""] * b
    for i, j in (*zip(ba, bb, strict=True), *zip(ca, cb, strict=True)):
        left[i] = right[j] = next(letters)
    left, right = ([letter or next(letters) for letter in side] for side in (left, right))
    shared = [left[i] for i in ba]
    free = [left[i] for i in range(a) if i not in (*ba, *ca)] + [
        right[j] for j in range(b) if j not in (*bb, *cb)
    ]
    return f"{''.join(left)},{''.join(right)}->{''.join(shared + free)}"


def _matrix(x, shape, contracted, last):
    """An operand of a product as a matrix (or vector), and its other sizes; contracted
    dimensions last or first.
    """
    free = [d for d in range(len(shape)) if d not in contracted]
    order = [*free, *contracted] if last else [*contracted, *free]
    text = x if order == list(range(len(shape))) else f"{x}.transpose({tuple(order)})"
    sizes = [shape[d] for d in free]
    if len(free) > 1 or len(contracted) > 1:
        joined = math.prod(sizes) if free else None
        total = math.prod(shape[d] for d in contracted)
        both = [joined, total] if last else [total, joined]
        text = f"{text}.reshape({_shape([d for d in both if d is not None])})"
    return text, sizes


# Liveness -----------------------------------------------------------------------------------------


def _drop_unused(block: _Block, live: set[str]) -> None:
    """Leave out lines without effect on `live`, which becomes what the block needs."""
    kept = []
    for item in reversed(block.items):
        if isinstance(item, _Nested):
            if not live.intersection(item.targets):
                continue
            _drop_inside(item, live)
        elif item.targets and not live.intersection(item.targets):
            continue
        kept.append(item)
        live |= item.names()
    block.items = kept[::-1]


def _drop_inside(item: _Nested, live: set[str]) -> None:
    for _, block, end in item.parts:
        needed = {*NAME.findall("\n".join(end)), *item.targets}
        _drop_unused(block, needed)


class _Renderer:
    """Lines of source from blocks without unused lines."""

    def __init__(self, writer: _Writer):
        self.big = writer.big
        self.uses: dict[str, int] = {}
        self.new: set[str] = set()
        self._survey(writer.block)

    def _survey(self, block):
        for item in block.items:
            if isinstance(item, _Nested):
                text = "\n".join(
                    [*item.first, *(line for head, _, end in item.parts for line in (head, *end))]
                )
                for _, inner, _ in item.parts:
                    self._survey(inner)
            else:
                text = item.code
                if item.new and len(item.targets) == 1:
                    self.new.update(item.targets)
            for name in NAME.findall(text):
                self.uses[name] = self.uses.get(name, 0) + 1

    def render(self, block: _Block, live: set[str], indent: str) -> list[str]:
        """Source of a block after which the names in `live` are still needed."""
        own = {name for item in block.items for name in item.targets}
        lines, live = [], set(live)
        for item in reversed(block.items):
            names = item.names()
            dying = sorted(n for n in names - live if n in own and n in self.big)
            if dying:
                lines.append(f"{indent}del {', '.join(dying)}")
            if isinstance(item, _Nested):
                lines += reversed(self._nested(item, live, indent))
            else:
                lines.append(indent + self._line(item, own, live))
            live = (live - set(item.targets)) | names
        return lines[::-1]

    def _line(self, item, own, live):
        code = item.code
        if item.operand is not None:
            x = item.operand
            fresh = x in own and x in self.new and self.uses[x] == 1 and x not in live
            code = code.replace("{fresh}", str(fresh))
        return code if not item.targets else f"{', '.join(item.targets)} = {code}"

    def _nested(self, item, live, indent):
        lines, inner = [indent + line for line in item.first], indent + "    "
        for head, block, end in item.parts:
            after = {*NAME.findall("\n".join(end)), *item.targets, *live}
            lines.append(indent + head)
            lines += self.render(block, after, inner)
            lines += [inner + line for line in end]
        return lines
