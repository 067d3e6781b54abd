"""The calls of the count densities among those of hostile_calls.py, and the faults that only they can have."""

import torch

MEAN, LOG_MEAN, SOFTMAX = range(3)
# What counts may be of, and what nothing else.
INTEGERS = (torch.int16, torch.int32, torch.int64)


class CountCalls:
    """What ``Maker`` has of them."""

    def counts(self, shape):
        """Of any dtype that they may have; floats have fractions at times."""
        floats, others = self.float_dtypes, (torch.uint8, torch.bool, *INTEGERS)
        dtype = self.random.choice(floats if self.random.random() < 0.4 else others)
        own = self.broadcastable(shape)
        if dtype.is_floating_point and self.random.random() < 0.3:
            return self.tensor(own, dtype)
        return self.laid_out(torch.randint(-6, 13, own, generator=self.generator).clamp(min=0).to(dtype))

    def counted(self, operands, options, upstream):
        """The arguments but the needs; a weight's need is of the backward operator alone."""
        backward = upstream is not None
        args = ({"dlog_prob": upstream} if backward else {}) | operands | options
        differentiable = {k: t for k, t in operands.items() if k != "x" and (backward or k != "weight")}
        return args | self.needs(backward, **differentiable)

    def negative_binomial_log_prob(self, backward):
        shape, dtypes = self.shape(), self.dtypes()
        softmax = bool(shape) and self.random.random() < 0.4
        mean = self.tensor(shape, self.random.choice(dtypes)) if softmax else self.operand(shape, dtypes)
        operands = {"mean": mean, "theta": self.operand(shape, dtypes)}
        operands["zero_logits"] = self.optional(lambda: self.operand(shape, dtypes))
        operands["log_library"] = self.optional(lambda: self.operand(shape, dtypes)) if softmax else None
        operands |= {"x": self.counts(shape), "weight": self.optional(lambda: self.operand(shape, self.targets))}
        options, upstream = self.density(operands, backward, 1 if softmax else 0)
        options["param"] = SOFTMAX if softmax else self.random.choice((MEAN, LOG_MEAN))
        options |= {"theta_param": self.random.randrange(2), "eps": self.random.choice((0.0, 0.01))}
        return self.counted(operands, options, upstream)

    def poisson_log_prob(self, backward):
        shape, dtypes = self.shape(), self.dtypes()
        operands = {"rate": self.operand(shape, dtypes), "x": self.counts(shape)}
        operands["weight"] = self.optional(lambda: self.operand(shape, self.targets))
        options, upstream = self.density(operands, backward)
        options |= {"param": self.random.randrange(2), "eps": self.random.choice((0.0, 0.01))}
        return self.counted(operands, options, upstream)

    # ---- faults -----------------------------------------------------------------------------------------

    def fault_integers(self, call):
        """Where no counts belong: parameters, weights, upstream gradients, the data of other operators."""
        counted = "theta" in call.args or "rate" in call.args
        return self.change(
            call,
            lambda k, v: self.is_tensor(k, v) and not (counted and k == "x"),
            lambda t: torch.ones(t.shape, dtype=self.random.choice(INTEGERS)),
        )

    def fault_library_without_softmax(self, call):
        if "log_library" not in call.args:
            return False
        call.args["param"] = self.random.choice((MEAN, LOG_MEAN))
        if call.args["log_library"] is None:
            call.args["log_library"] = torch.rand(())
        return True

    def fault_softmax_of_a_broadcast_mean(self, call):
        """The other operands have the shape that the mean has not."""
        if "log_library" not in call.args or call.args["event_ndim"] == 0:
            return False
        shape = self.together(call)
        dims = [d for d, n in enumerate(shape) if n != 1]
        smaller = [shape[1:], *((*shape[:d], 1, *shape[d + 1 :]) for d in dims)]
        call.args |= {"param": SOFTMAX, "mean": torch.rand(self.random.choice(smaller)), "theta": torch.ones(shape)}
        return True

    def fault_softmax_without_event(self, call):
        if "log_library" not in call.args or call.args["event_ndim"] != 0:
            return False
        call.args |= {"param": SOFTMAX, "mean": torch.rand(self.together(call))}
        return True

    @staticmethod
    def together(call):
        names = ("mean", "theta", "zero_logits", "log_library", "x", "weight")
        return torch.broadcast_shapes(*(call.args[k].shape for k in names if call.args[k] is not None))
