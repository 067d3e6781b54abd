"""Random calls of the raw operators, of which most have one fault: each with arguments that must be refused."""

import math
import random
from dataclasses import dataclass
from typing import Any

import torch

from helpers.hostile_counts import CountCalls
from vae_fast import schemas
from vae_fast.operators import SIGNATURES

OPS = torch.ops.vae_fast
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
TARGETS = (*FLOATS, torch.uint8, torch.bool)
NEITHER = (torch.int8, torch.complex64)
UPSTREAM = ("dz", "dkl", "dlog_q", "dlog_p", "dlog_prob")
INF = math.inf


@dataclass
class RawCall:
    """Arguments of a raw operator by name, and what is wrong with them ("" where nothing is)."""

    name: str
    args: dict[str, Any]
    fault: str = ""
    native_only: bool = False
    """Faults that PyTorch's own operations, of which the reference is made, do not see."""

    def __call__(self, operator):
        out = operator(*self.args.values())
        return out if isinstance(out, (tuple, list)) else (out,)

    def __str__(self):
        def short(value):
            if not isinstance(value, torch.Tensor):
                return repr(value)
            return f"{value.dtype}{tuple(value.shape)}".removeprefix("torch.")

        return f"{self.fault or 'sound'}: {self.name}({', '.join(f'{k}={short(v)}' for k, v in self.args.items())})"


class Maker(CountCalls):
    """Makes calls from one seed."""

    float_dtypes, targets = FLOATS, TARGETS

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def shape(self):
        sizes = (1, 2, 3, 5, 8, 17, *((0,) if self.random.random() < 0.2 else ()))
        shape = [self.random.choice(sizes) for _ in range(self.random.randrange(5))]
        if shape and self.random.random() < 0.1:
            shape[self.random.randrange(len(shape))] = self.random.choice((300, 1100, 9000))
        while math.prod(shape) > 20_000:
            shape[shape.index(max(shape))] //= 8
        return shape

    def tensor(self, shape, dtype):
        """Values between 0.3 and 0.9, which every operand can have, at some strides."""
        value = torch.rand(shape, generator=self.generator, dtype=torch.float64) * 0.6 + 0.3
        if dtype == torch.bool:
            value = value < 0.5
        elif dtype == torch.uint8:
            value = value * 3
        return self.laid_out(value.to(dtype))

    def laid_out(self, value):
        kind = self.random.randrange(5)
        if kind == 0 and value.ndim:
            return torch.stack([value, value], -1)[..., 1]
        if kind == 1 and value.ndim > 1:
            return value.transpose(0, -1).contiguous().transpose(0, -1)
        if kind == 2 and value.ndim and value.shape[0]:
            return value[:1].expand(value.shape)
        return value

    def broadcastable(self, shape):
        own = [1 if self.random.random() < 0.2 else n for n in shape]
        return own[self.random.randrange(len(own) + 1) if self.random.random() < 0.2 else 0 :]

    def operand(self, shape, dtypes=FLOATS):
        return self.tensor(self.broadcastable(shape), self.random.choice(dtypes))

    def dtypes(self):
        """One for all operands, or any."""
        return (self.random.choice(FLOATS),) if self.random.random() < 0.6 else FLOATS

    def noise(self):
        seed_tensor = torch.tensor(self.random.choice((7, [7], [[-3]]))) if self.random.random() < 0.3 else None
        return {
            "seed": self.random.choice((0, 5, -1, 2**63 - 1)),
            "seed_tensor": seed_tensor,
            "offset": self.random.choice((0, 3, -5, 2**40)),
            "first_sample": self.random.choice((0, 1, -1)),
        }

    def draw(self, shape):
        """What a sampler draws from, or the noise itself."""
        given = self.random.random() < 0.3
        noise = {"noise": self.tensor(shape, self.random.choice(FLOATS)) if given else None}
        return self.noise() | noise | {"temperature": self.random.choice((1.0, 1.0, 0.0, 0.5))}

    def scale(self):
        return self.form() | {"bounds_grad": self.random.randrange(2)}

    def form(self, prefix=""):
        low, high = self.random.choice(((-INF, INF), (-INF, INF), (-1.0, 0.6), (0.5, 0.5)))
        form = {"param": self.random.randrange(5), "param_eps": self.random.choice((0.0, 0.1))}
        return {prefix + name: value for name, value in (form | {"low": low, "high": high}).items()}

    def two(self):
        """Mean and scale, at times the halves of a tensor along a dim."""
        shape, dtypes = self.shape(), self.dtypes()
        if shape and self.random.random() < 0.3:
            dim = self.random.randrange(len(shape))
            packed = self.tensor(
                [2 * n if d == dim else n for d, n in enumerate(shape)], self.random.choice(dtypes)
            )
            return shape, dtypes, packed.chunk(2, dim), (packed, self.random.choice((dim, dim - len(shape))))
        return shape, dtypes, [self.operand(shape, dtypes), self.operand(shape, dtypes)], (None, 0)

    def optional(self, make):
        return make() if self.random.random() < 0.5 else None

    def needs(self, backward, packed=None, **operands):
        """A need for each operand, none for bytes; both of those that are packed."""
        packs = packed is not None and backward
        return {
            f"need_d{name}": (k < 2 and packs)
            or ((t is None or t.is_floating_point()) and self.random.random() < 0.6)
            for k, (name, t) in enumerate(operands.items())
        }

    def density(self, operands, backward, least_event=0):
        shape = torch.broadcast_shapes(*(t.shape for t in operands.values() if t is not None))
        options = {
            "event_ndim": self.random.randrange(least_event, len(shape) + 1),
            "reduction": self.random.randrange(3),
            "scale": self.random.choice((1.0, -0.5)),
        }
        out = shape[: len(shape) - options["event_ndim"]] if options["reduction"] == 0 else ()
        return options, (self.tensor(out, self.random.choice(FLOATS)) if backward else None)

    # ---- sound calls ------------------------------------------------------------------------------------

    def bernoulli_log_prob(self, backward):
        shape, dtypes = self.shape(), self.dtypes()
        operands = {"logits": self.operand(shape, dtypes), "x": self.operand(shape, TARGETS)}
        for name in ("pos_weight", "weight"):
            operands[name] = self.optional(lambda: self.operand(shape, TARGETS))
        options, upstream = self.density(operands, backward)
        args = {"dlog_prob": upstream} if backward else {}
        args |= operands | options | {"x_scale": self.random.choice((1.0, 0.5))}
        args["param"] = self.random.randrange(2) if operands["pos_weight"] is None else 0
        del operands["pos_weight"]
        if not backward:
            del operands["weight"]
        return args | self.needs(backward, **operands)

    def of_engine(self, backward, *parameters):
        """Of a density with nothing of its own but a param."""
        shape, dtypes = self.shape(), self.dtypes()
        operands = {name: self.operand(shape, dtypes) for name in parameters}
        operands["x"] = self.operand(shape, TARGETS)
        operands["weight"] = self.optional(lambda: self.operand(shape, TARGETS))
        options, upstream = self.density(operands, backward)
        args = {"dlog_prob": upstream} if backward else {}
        args |= operands | options | {"x_scale": self.random.choice((1.0, 0.5))}
        if not backward:
            del operands["weight"]
        return args, self.needs(backward, **operands)

    def continuous_bernoulli_log_prob(self, backward):
        args, needs = self.of_engine(backward, "logits")
        return args | needs

    def laplace_log_prob(self, backward):
        args, needs = self.of_engine(backward, "loc", "b")
        return args | {"param": self.random.randrange(2)} | needs

    def student_t_log_prob(self, backward):
        args, needs = self.of_engine(backward, "loc", "sigma", "df")
        return args | {"param": self.random.randrange(2)} | needs

    def gaussian_log_prob(self, backward):
        shape, dtypes, (mean, logvar), packed = self.two()
        operands = {"mean": mean, "logvar": logvar, "x": self.operand(shape, TARGETS)}
        operands["weight"] = self.optional(lambda: self.operand(shape, TARGETS))
        options, upstream = self.density(operands, backward)
        args = {"dlog_prob": upstream} if backward else {}
        args |= operands | options | {"x_scale": self.random.choice((1.0, 0.5))} | self.scale()
        if not backward:
            del operands["weight"]
        args |= self.needs(backward, packed[0], **operands)
        return args | ({"packed": packed[0], "packed_dim": packed[1]} if backward else {})

    def gaussian_kl(self, backward):
        shape, dtypes, (mu, logvar), packed = self.two()
        operands = {"mu": mu, "logvar": logvar}
        for name in ("prior_mu", "prior_logvar"):
            operands[name] = self.optional(lambda: self.operand(shape, dtypes))
        operands["weight"] = self.optional(lambda: self.operand(shape, TARGETS))
        options, upstream = self.density(operands, backward)
        args = {"dkl": upstream} if backward else {}
        args |= operands | options | {"free_bits": self.random.choice((None, 0.2))}
        args |= self.scale() | self.form("prior_")
        if not backward:
            del operands["weight"]
        args |= self.needs(backward, packed[0], **operands)
        return args | ({"packed": packed[0], "packed_dim": packed[1]} if backward else {})

    def sampler(self, backward, with_kl):
        _, dtypes, (mu, logvar), packed = self.two()
        shape = torch.broadcast_shapes(mu.shape, logvar.shape)
        samples = self.random.choice(((), (), (1,), (3,), (2, 2), (0,)))
        args = {"mu": mu, "logvar": logvar}
        if with_kl:
            for name in ("prior_mu", "prior_logvar"):
                args[name] = self.optional(lambda: self.operand(shape, dtypes))
        operands = dict(args)
        if with_kl:
            event_ndim = self.random.randrange(len(shape) + 1)
            args |= {"event_ndim": event_ndim, "free_bits": self.random.choice((None, 0.2))} | self.form("prior_")
        if backward:
            args["dz"] = self.tensor((*samples, *shape), self.random.choice(FLOATS))
            if with_kl:
                data = shape[: len(shape) - event_ndim]
                args["dkl"] = self.optional(lambda: self.tensor(data, self.random.choice(FLOATS)))
                if self.random.random() < 0.2:
                    args["dz"] = None
        args |= {"sample_shape": list(samples)} | self.draw((*samples, *shape)) | self.scale()
        if not backward:
            return args
        args |= self.needs(True, packed[0], **operands)
        return args | {"packed": packed[0], "packed_dim": packed[1]}

    def rsample_log_prob(self, backward):
        shape, dtypes = self.shape(), self.dtypes()
        mu, logvar = self.operand(shape, dtypes), self.operand(shape, dtypes)
        shape = torch.broadcast_shapes(mu.shape, logvar.shape)
        samples = self.random.choice(((), (), (1,), (3,), (2, 2), (0,)))
        operands = {"mu": mu, "logvar": logvar}
        for name in ("prior_mu", "prior_logvar"):
            operands[name] = self.optional(lambda: self.operand(shape, dtypes))
        event_ndim = self.random.randrange(len(shape) + 1)
        args = operands | {
            "event_ndim": event_ndim,
            "q_grad": self.random.randrange(2),
            "sample_shape": list(samples),
        }
        args |= self.draw((*samples, *shape)) | self.scale() | self.form("prior_")
        del args["temperature"]
        if not backward:
            return args
        sums = (*samples, *shape[: len(shape) - event_ndim])
        for name, size in (("dz", (*samples, *shape)), ("dlog_q", sums), ("dlog_p", sums)):
            args[name] = self.optional(lambda size=size: self.tensor(size, self.random.choice(FLOATS)))
        return args | self.needs(True, None, **operands)

    def rsample(self, backward):
        return self.sampler(backward, False)

    def rsample_kl(self, backward):
        return self.sampler(backward, True)

    def standard_normal(self, backward):
        sizes = {"sample_shape": list(self.random.choice(((), (2,), (0,)))), "shape": self.shape()}
        dtype = self.random.choice(FLOATS)
        return sizes | self.noise() | {"dtype": dtype, "device": torch.device("cpu")}

    def sound(self, name):
        op, direction = name.rsplit("_", 1)
        args = getattr(self, op)(direction == "bwd")
        schema = getattr(OPS, name).default._schema
        return RawCall(name, {argument.name: args.pop(argument.name) for argument in schema.arguments})

    # ---- faults -----------------------------------------------------------------------------------------

    def faulty(self, name):
        """A call with one fault, or without, in a tenth of the cases."""
        call = self.sound(name)
        if self.random.random() < 0.1:
            return call
        faults = [getattr(self, f) for f in dir(self) if f.startswith("fault_")]
        self.random.shuffle(faults)
        # The first that such a call can have.
        call.fault = next(f.__name__.removeprefix("fault_") for f in faults if f(call) is not False)
        return call

    def pick(self, call, wanted):
        names = [k for k, v in call.args.items() if wanted(k, v)]
        return self.random.choice(names) if names else None

    def change(self, call, wanted, value):
        name = self.pick(call, wanted)
        if name is None:
            return False
        call.args[name] = value(call.args[name])
        return True

    @staticmethod
    def is_tensor(name, value):
        return isinstance(value, torch.Tensor) and name != "seed_tensor"

    def fault_shape_of_upstream(self, call):
        def other(t):
            shapes = [(*t.shape, 2), (3, *t.shape), (0,), (1,), (7, 3), (), t.shape[1:], (*t.shape, 1)]
            shapes += [(*t.shape[:k], n + 1, *t.shape[k + 1 :]) for k, n in enumerate(t.shape)]
            return torch.rand(self.random.choice([s for s in shapes if tuple(s) != tuple(t.shape)])).to(t.dtype)

        return self.change(call, lambda k, v: k in UPSTREAM and v is not None, other)

    def fault_shape_of_operand(self, call):
        """One that broadcasts with no other of more than one element along a dim."""
        operands = {k: v for k, v in call.args.items() if self.is_tensor(k, v) and k not in (*UPSTREAM, "packed")}
        wide = [k for k, v in operands.items() if any(n > 1 for n in v.shape)]
        if len(operands) < 2 or not wide:
            return False
        like = operands[self.random.choice(wide)]
        dim = self.random.choice([d for d, n in enumerate(like.shape) if n > 1])
        shape = [n + 1 if d == dim else n for d, n in enumerate(like.shape)]
        others = [k for k, v in operands.items() if v is not like]
        name = self.random.choice(others)
        call.args[name] = torch.rand(shape).to(call.args[name].dtype)
        return True

    def fault_shape_of_noise(self, call):
        """Where it would broadcast, too."""

        def other(t):
            shapes = [
                (1, *t.shape),
                (),
                t.shape[1:],
                *((*t.shape[:k], n + 1, *t.shape[k + 1 :]) for k, n in enumerate(t.shape)),
            ]
            return torch.rand(self.random.choice([s for s in shapes if tuple(s) != tuple(t.shape)]))

        return self.change(call, lambda k, v: k == "noise" and v is not None, other)

    def fault_pos_weight_of_probabilities(self, call):
        return call.args.get("pos_weight") is not None and self.change(call, lambda k, v: k == "param", lambda v: 1)

    def fault_prior_of_another_shape(self, call):
        """Larger than the moments, which a sample's shape is that of."""
        if "noise" not in call.args or "prior_mu" not in call.args:
            return False
        shape = torch.broadcast_shapes(call.args["mu"].shape, call.args["logvar"].shape)
        wrong = self.random.choice(
            [(2, *shape), *((*shape[:k], 3, *shape[k + 1 :]) for k, n in enumerate(shape) if n == 1)]
        )
        call.args[self.random.choice(("prior_mu", "prior_logvar"))] = torch.rand(wrong)
        return True

    def fault_dtype(self, call):
        return self.change(call, self.is_tensor, lambda t: torch.ones(t.shape, dtype=self.random.choice(NEITHER)))

    def fault_bytes(self, call):
        """Where a parameter or an upstream gradient belongs."""
        return self.change(
            call,
            lambda k, v: self.is_tensor(k, v) and k not in ("x", "pos_weight", "weight"),
            lambda t: torch.ones(t.shape, dtype=self.random.choice((torch.uint8, torch.bool))),
        )

    def fault_gradient_of_bytes(self, call):
        name = self.pick(
            call, lambda k, v: self.is_tensor(k, v) and f"need_d{k}" in call.args and k in ("x", "weight")
        )
        if name is None:
            return False
        call.args[name] = torch.ones(call.args[name].shape, dtype=self.random.choice((torch.uint8, torch.bool)))
        call.args[f"need_d{name}"] = True
        return True

    def fault_device(self, call):
        """Not of the first operand: beside one on a GPU, others of no dims may be on the CPU."""
        first = ("logits", "loc", "mean", "mu", "rate")
        return self.change(call, lambda k, v: self.is_tensor(k, v) and k not in first, lambda t: t.to("meta"))

    def fault_layout(self, call):
        return self.change(call, lambda k, v: self.is_tensor(k, v) and v.ndim > 0, lambda t: t.to_sparse())

    def fault_code(self, call):
        coded = {o.name: o.codes for o in SIGNATURES[call.name].operator.options if o.codes is not None}
        name = self.pick(call, lambda k, v: k in coded)
        if name is None:
            return False
        call.args[name] = self.random.choice((-1, len(coded[name]), 17, 2**31, 2**32, 2**40, -(2**63)))
        return True

    def fault_event_ndim(self, call):
        wrong = self.random.choice((-1, 65, 2**31, 2**32, -(2**63)))
        return self.change(call, lambda k, v: k == "event_ndim", lambda v: wrong)

    def fault_seed(self, call):
        wrong = self.random.choice(
            (
                torch.tensor([1, 2]),
                torch.tensor(1, dtype=torch.int32),
                torch.rand(1),
                torch.empty(0, dtype=torch.int64),
            )
        )
        return self.change(call, lambda k, v: k == "seed_tensor", lambda v: wrong)

    def fault_sizes(self, call):
        wrong = self.random.choice(([-1], [2**62], [2**31, 2**31], [2**40, 2**40], [2, -3], [-(2**63)], [0, 2**61]))
        return self.change(call, lambda k, v: k in ("sample_shape", "shape"), lambda v: wrong)

    def fault_too_many_elements(self, call):
        """2⁶⁴ of them together; each tensor has one in memory."""
        operands = [k for k, v in call.args.items() if self.is_tensor(k, v) and k not in (*UPSTREAM, "packed")]
        if len(operands) < 2 or call.args.get("packed") is not None:
            return False
        a, b = self.random.sample(operands, 2)
        big = self.random.choice((2**32, 2**40, 2**61))
        for name, shape in ((a, (big, 1)), (b, (1, big))):
            call.args[name] = torch.ones(1, 1).to(call.args[name].dtype).expand(shape)
        return True

    def fault_packed(self, call):
        packed = call.args.get("packed")
        if "packed" not in call.args:
            return False
        if packed is None or self.random.random() < 0.5:
            # No operand has a size of 7.
            shape = self.random.choice(((7,), (4, 7), (2, 3, 7), (0, 7)))
            call.args["packed"] = torch.rand(shape).to(self.random.choice(FLOATS))
            return True
        kind = self.random.randrange(3)
        if kind == 0:
            call.args["packed_dim"] = self.random.choice((packed.ndim, -packed.ndim - 1, 2**40, -(2**63)))
        elif kind == 1:
            call.args["packed"] = packed.to(torch.float64 if packed.dtype != torch.float64 else torch.float32)
        else:
            call.args[self.pick(call, lambda k, v: k in ("need_dmu", "need_dmean", "need_dlogvar"))] = False
        return True

    def fault_dtype_of_noise(self, call):
        wrong = self.random.choice((torch.uint8, torch.bool, torch.int64, torch.complex64, torch.float8_e5m2))
        return self.change(call, lambda k, v: k == "dtype", lambda v: wrong)

    def fault_freed_memory(self, call):
        def freed(t):
            t = t.clone()
            t.untyped_storage().resize_(self.random.choice((0, t.element_size() * (t.numel() - 1))))
            return t

        call.native_only = self.change(call, lambda k, v: self.is_tensor(k, v) and v.numel() > 0, freed)
        return call.native_only

    def fault_too_many_dims(self, call):
        call.native_only = self.change(
            call, lambda k, v: self.is_tensor(k, v) and k not in (*UPSTREAM, "packed"), lambda t: t[(None,) * 65]
        )
        return call.native_only


def random_calls(count, seed=0):
    """``count`` calls, of every raw operator in turn."""
    maker, names = Maker(seed), tuple(schemas.SCHEMAS)
    for k in range(count):
        yield maker.faulty(names[k % len(names)])
