"""How likely chance is to explain a shortfall: binomial and hypergeometric tails. Numpy only."""

import numpy as np


def binomial_tail(k, n, p):
    """Probability of k or more of n events of probability p, 0 < p < 1."""
    logs = log_factorials(n)
    i = np.arange(k, n + 1)
    terms = logs[n] - logs[i] - logs[n - i] + i * np.log(p) + (n - i) * np.log1p(-p)
    return float(np.exp(terms).sum())


def chance_of_fewer(right, n, promised_right, promised_n):
    """Probability that of equally good sets one has so few right answers.

    Arguments are whole numbers, or one per class: then both sets are equally good in each class,
    whatever the mix of classes is, and the right answers of all classes are summed. Of one class
    it is Fisher's exact test, of several its stratified form (the exact Cochran-Mantel-Haenszel).
    """
    counts = np.atleast_1d(right, n, promised_right, promised_n)
    total, least = np.ones(1), 0
    for right_of, n_of, promised_right_of, promised_n_of in zip(*map(np.ndarray.tolist, counts)):
        pmf, start = shares(n_of, promised_n_of, right_of + promised_right_of)
        total, least = np.convolve(total, pmf), least + start
    return float(total[: int(counts[0].sum()) - least + 1].sum())


def shares(n, others, right):
    """Of n + others answers, `right` are right: probabilities that 0, 1, ... of the n are.

    From the least number that is possible on; also returns that number.
    """
    logs = log_factorials(n + others)
    least = max(0, right - others)
    i = np.arange(least, min(n, right) + 1)

    def log_ways(count, picked):
        return logs[count] - logs[picked] - logs[count - picked]

    terms = log_ways(n, i) + log_ways(others, right - i) - log_ways(n + others, right)
    return np.exp(terms), least


def log_factorials(n):
    """log i! for i = 0..n."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
