"""Binomial and hypergeometric tail probabilities, in numpy."""

import numpy as np


def binomial_tail(k, n, p):
    """Probability of k or more out of n events with probability p, 0 < p < 1."""
    logs = log_factorials(n)
    i = np.arange(k, n + 1)
    terms = logs[n] - logs[i] - logs[n - i] + i * np.log(p) + (n - i) * np.log1p(-p)
    return float(np.exp(terms).sum())


def chance_of_fewer(right, n, promised_right, promised_n):
    """Probability of so few right answers for two equally good sets.

    Arguments are whole numbers (Fisher's exact test), or one number per class. Then both sets are
    equally good in each class, with any mix of classes, and the right answers of all classes are
    summed (the exact Cochran-Mantel-Haenszel test).
    """
    counts = np.atleast_1d(right, n, promised_right, promised_n)
    total, least = np.ones(1), 0
    for right_of, n_of, promised_right_of, promised_n_of in zip(*map(np.ndarray.tolist, counts)):
        pmf, start = shares(n_of, promised_n_of, right_of + promised_right_of)
        total, least = np.convolve(total, pmf), least + start
    return float(total[: int(counts[0].sum()) - least + 1].sum())


def shares(n, others, right):
    """Distribution of the right answers among n, if `right` of n + others answers are right.

    Returns the probabilities of least, least + 1, ... right answers, and least, the smallest
    possible number.
    """
    logs = log_factorials(n + others)
    least = max(0, right - others)
    i = np.arange(least, min(n, right) + 1)

    def log_ways(count, picked):
        return logs[count] - logs[picked] - logs[count - picked]

    terms = log_ways(n, i) + log_ways(others, right - i) - log_ways(n + others, right)
    return np.exp(terms), least


def standard_error(share, n):
    """Standard error of a share of n independent images.

    The share is kept half an image away from 0 and 1, where the formula would claim certainty.
    """
    p = min(max(share, 0.5 / n), 1 - 0.5 / n)
    return (p * (1 - p) / n) ** 0.5


def log_factorials(n):
    """log i! for i = 0..n."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
