"""The formulas as users write them in PyTorch: what every benchmark compares with."""

import math

import torch
import torch.nn.functional as F


def rsample_kl(mu, logvar):
    std = torch.exp(0.5 * logvar)
    return mu + torch.randn_like(std) * std, -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def gaussian_kl(mu, logvar):
    return -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


def bernoulli_log_prob(logits, x):
    x = x if x.dtype == logits.dtype else x.to(logits.dtype) / 255
    return -F.binary_cross_entropy_with_logits(logits, x, reduction="sum")


def gaussian_log_prob(mean, logvar, x):
    x = x if x.dtype == mean.dtype else x.to(mean.dtype) / 255
    return -0.5 * torch.sum(math.log(2 * math.pi) + logvar + (x - mean) ** 2 * torch.exp(-logvar))
