"""The signatures of the raw operators, by name.

Without torch, since the build reads them too: the compiled library defines the operators in a process that has not
this package. A shape may be None, which stands for (): AOTInductor passes an empty list so.
"""

_NOISE = "SymInt seed, Tensor? seed_tensor, SymInt offset, SymInt first_sample"
_SCALE = "int param, float param_eps, float low, float high"
_DENSITY = "int event_ndim, int reduction, float scale"
_MOMENTS = "Tensor mu, Tensor logvar, SymInt[]? sample_shape"
_KL = "Tensor mu, Tensor logvar, Tensor? prior_mu, Tensor? prior_logvar, Tensor? weight"
_KL_NEEDS = "bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar"
_KL_GRADS = "Tensor dmu, Tensor dlogvar, Tensor dprior_mu, Tensor dprior_logvar"
_BERNOULLI = f"Tensor logits, Tensor x, Tensor? weight, {_DENSITY}, float x_scale, int param"
_GAUSSIAN = f"Tensor mean, Tensor logvar, Tensor x, Tensor? weight, {_DENSITY}, float x_scale, {_SCALE}"
_GAUSSIAN_NEEDS = "bool need_dmean, bool need_dlogvar, bool need_dx"
_PACKED = "Tensor? packed=None, int packed_dim=0"

SCHEMAS = {
    "standard_normal_fwd": (
        f"(SymInt[]? sample_shape, SymInt[]? shape, {_NOISE}, ScalarType dtype, Device device) -> Tensor"
    ),
    "rsample_fwd": f"({_MOMENTS}, {_NOISE}, {_SCALE}) -> Tensor",
    "rsample_bwd": (
        f"(Tensor dz, {_MOMENTS}, {_NOISE}, {_SCALE}, bool need_dmu, bool need_dlogvar, {_PACKED})"
        " -> (Tensor dmu, Tensor dlogvar)"
    ),
    "rsample_kl_fwd": (
        f"({_MOMENTS}, {_NOISE}, int event_ndim, float? free_bits, {_SCALE}) -> (Tensor z, Tensor kl)"
    ),
    "rsample_kl_bwd": (
        f"(Tensor? dz, Tensor? dkl, {_MOMENTS}, {_NOISE}, int event_ndim, float? free_bits, {_SCALE},"
        f" bool need_dmu, bool need_dlogvar, {_PACKED}) -> (Tensor dmu, Tensor dlogvar)"
    ),
    "gaussian_kl_fwd": (
        f"({_KL}, {_DENSITY}, float? free_bits, {_SCALE}, {_KL_NEEDS}) -> (Tensor kl, {_KL_GRADS})"
    ),
    "gaussian_kl_bwd": (
        f"(Tensor dkl, {_KL}, {_DENSITY}, float? free_bits, {_SCALE}, {_KL_NEEDS}, bool need_dweight, {_PACKED})"
        f" -> ({_KL_GRADS}, Tensor dweight)"
    ),
    "bernoulli_log_prob_fwd": (
        f"({_BERNOULLI}, bool need_dlogits, bool need_dx) -> (Tensor log_prob, Tensor dlogits, Tensor dx)"
    ),
    "bernoulli_log_prob_bwd": (
        f"(Tensor dlog_prob, {_BERNOULLI}, bool need_dlogits, bool need_dx, bool need_dweight)"
        " -> (Tensor dlogits, Tensor dx, Tensor dweight)"
    ),
    "gaussian_log_prob_fwd": (
        f"({_GAUSSIAN}, {_GAUSSIAN_NEEDS}) -> (Tensor log_prob, Tensor dmean, Tensor dlogvar, Tensor dx)"
    ),
    "gaussian_log_prob_bwd": (
        f"(Tensor dlog_prob, {_GAUSSIAN}, {_GAUSSIAN_NEEDS}, bool need_dweight, {_PACKED})"
        " -> (Tensor dmean, Tensor dlogvar, Tensor dx, Tensor dweight)"
    ),
}

# The reference's noise as one operator of its own, so that it stays the reference's when a backend serves
# standard_normal_fwd.
NORMALS = f"(SymInt[]? sample_shape, SymInt[]? shape, {_NOISE}, Device device) -> Tensor"

# Those whose overload "autograd" has a gradient, for graphs made of operators; the default one has none.
DIFFERENTIABLE = tuple(f"{name.removesuffix('_bwd')}_fwd" for name in SCHEMAS if name.endswith("_bwd"))

# What is defined: every operator and overload with its signature.
DEFINITIONS = (
    *(name + schema for name, schema in SCHEMAS.items()),
    *(f"{name}.autograd{SCHEMAS[name]}" for name in DIFFERENTIABLE),
    f"reference_normals{NORMALS}",
)
