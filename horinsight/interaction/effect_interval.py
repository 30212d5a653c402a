"""95 % intervals of interaction effects, which are roots of means of heavy-tailed, non-negative draws.

The percentile bootstrap knows nothing but the draws: where none of them lies in the tail that carries the mean, its
interval is short and wrong. What is used here knows of squared derivatives that their logarithm is close to normal, and
how well their variance is known at all.
"""

import numpy as np

from horinsight.stats import student_quantile

MIN_LIKE_IMAGES = 8  # with fewer, how images differ is not known well enough to say anything of others
MAX_SPREAD = 300.0  # of the logarithm: e to the power of it is still a number
TILT = 1 / 4  # draws count by y to the power of it where the width of their logarithm is asked for
FEW_DRAWS = 4  # by a number of them over N the log-normal's width is too small in few draws


def effect_intervals(draws: np.ndarray, image_of_draw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r"""95 % interval of effect_k = sqrt(E[D_k²]) at these images: over what is drawn, images held fixed.

    With y = D², B images of m draws, N = B m, μ the mean of y and v, m_3, m_4 its central moments within images (v
    times m / (m - 1)), γ = m_3 / v^{3/2}, κ = m_4 / v²:

    - how well v is known: q = t_{.975}(df), df = 2 N / (κ - 1), between 1 and N - B (Satterthwaite 1946);
    - y is nearly log-normal where it matters: with the weights w = y^{1/4}, under which a log-normal y is a log-normal
      of the same τ², τ² is (1 + 4/N) times the mean of (log y - its mean)² above that mean. Draws at dead places, zeros
      or a millionth of the others, have little weight; what share p of draws is alive follows from (Σ w)² / (m Σ w²),
      which is p e^{-τ²/16}. With tail = (e^{τ²} / p - 1) mean_b(μ_b²) / μ² and
      s² = log(1 + max(v / μ², sqrt(tail v / μ²)) / N) the ends are μ exp(s²/2 ∓ q s) (Fenton 1960);
    - y is skew: high = μ - (((1 + 3 a (-q - b))^{1/3} - 1) / a) sqrt(v / N), a = γ / (3 √N), b = a / 2 (Hall 1992),
      and low = μ exp(-q sqrt(v / N) / μ).

    The smaller of the lows and the larger of the highs are taken, since each is too narrow somewhere.

    Args:
        draws: (N, K + 1), weighted D_k: the mean of their squares is what is estimated.
        image_of_draw: (N,) which image each draw belongs to; as many draws of each.

    Returns:
        Lower and upper ends of the effects, (K + 1,) each: 0 where every draw is 0, NaN where there is but one draw.

    Example:
        >>> low, high = effect_intervals(np.ones((16, 2)) * [1.0, 0.0], np.zeros(16))
        >>> low.tolist(), high.tolist()
        ([1.0, 0.0], [1.0, 0.0])
    """
    N = len(draws)
    if N == 1:  # one number tells nothing of its spread, unless it is an exact zero
        nothing = np.where(draws[0] == 0, 0.0, np.nan)
        return nothing, nothing.copy()
    peaks = np.abs(draws).max(axis=0)
    scale = np.where(peaks > 0, peaks, 1.0)  # D² of a high order can underflow
    _, image = np.unique(image_of_draw, return_inverse=True)
    if image.max() + 1 == N:
        image = np.zeros(N, int)  # one draw an image: what they differ by is counted as chance
    y = np.square(draws / scale)
    low, high = _mean_interval(y, image)
    return np.where(peaks > 0, scale * np.sqrt(low), 0.0), np.where(peaks > 0, scale * np.sqrt(high), 0.0)


def like_image_intervals(draws: np.ndarray, image_of_draw: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Approximate 95 % interval of effect_k for images like these, at fixed σ and std(F): `effect_intervals` of images.

    The root of the mean of D² over each image takes the place of a draw. Images that differ much in scale are covered
    less often than they should be: means over 8 images that spread by a factor of e^1.5 in .87 of repetitions. (A
    t-interval on the logarithm, with .79, is worse.)

    Args:
        draws: (N, K + 1), as in `effect_intervals`.
        image_of_draw: (N,) likewise.

    Returns:
        Lower and upper ends of the effects, (K + 1,) each; None with fewer than `MIN_LIKE_IMAGES` images.

    Example:
        >>> like_image_intervals(np.ones((4, 1)), np.arange(4)) is None
        True
    """
    images, image = np.unique(image_of_draw, return_inverse=True)
    if len(images) < MIN_LIKE_IMAGES:
        return None
    peaks = np.abs(draws).max(axis=0)
    scale = np.where(peaks > 0, peaks, 1.0)
    of_image = scale * np.sqrt(_image_means(np.square(draws / scale), image))
    return effect_intervals(of_image, np.zeros(len(images)))


def relative_half_width(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """log(high / low) / 2: about two relative standard errors of an effect; 0 for exact zeros, NaN without ends.

    Example:
        >>> relative_half_width(np.array([1.0, 0.0]), np.array([np.e, 0.0])).tolist()
        [0.5, 0.0]
    """
    alive = high != 0
    with np.errstate(divide="ignore"):
        widths: np.ndarray = np.log(np.where(alive, high, 1.0) / np.where(alive, low, 1.0)) / 2
    return widths


def _mean_interval(y: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of E[y], y ≥ 0: (N, K + 1) of images (N,), N ≥ 2; columns of zeros give no sense."""
    N, B = len(y), int(image.max()) + 1
    mu_b = _image_means(y, image)
    mu = mu_b.mean(axis=0)
    rest = y - mu_b[image]
    v = np.square(rest).mean(axis=0)
    spread = v > 1e-24 * np.square(mu)  # of this size it is rounding
    v_or_1 = np.where(spread, v, 1.0)
    gamma = np.where(spread, np.power(rest, 3).mean(axis=0) / v_or_1**1.5, 0.0)
    kappa = np.where(spread, np.power(rest, 4).mean(axis=0) / v_or_1**2, 1.0)
    v = v * N / (N - B)
    safe = np.where(mu > 0, mu, 1.0)
    cv2 = v / safe**2
    df = np.clip(2 * N / np.maximum(kappa - 1, 1e-9), 1, N - B)
    q = student_quantile(df)

    tau2, alive = _log_variance(y, image)
    heavy = np.exp(np.minimum(tau2, MAX_SPREAD)) / alive - 1
    tail = heavy * np.square(mu_b).mean(axis=0) / safe**2
    s = np.sqrt(np.log1p(np.maximum(cv2, np.sqrt(cv2 * tail)) / N))
    widest = MAX_SPREAD
    log_low, log_high = (np.clip(s**2 / 2 + sign * q * s, -widest, widest) for sign in (-1, 1))

    error = np.sqrt(v / N)
    a, b = gamma / (3 * N**0.5), gamma / (6 * N**0.5)
    flat = np.abs(a) < 1e-9
    a_or_1 = np.where(flat, 1.0, a)
    root = np.where(flat, -q - b, (np.cbrt(1 + 3 * a_or_1 * (-q - b)) - 1) / a_or_1)
    low = np.minimum(mu * np.exp(log_low), mu * np.exp(-np.minimum(q * error / safe, widest)))
    high = np.maximum(mu * np.exp(log_high), mu - root * error)
    return np.where(spread, low, mu), np.where(spread, high, mu)


def _log_variance(y: np.ndarray, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """τ² within images of a log-normal y with dead draws among it, and the share that is alive: (K + 1,) each."""
    with np.errstate(divide="ignore"):
        logarithm = np.where(y > 0, np.log(y), 0.0)
    w = np.power(y, TILT)
    sums = np.maximum(_image_sums(w, image), 1e-300)
    centre = _image_sums(w * logarithm, image) / sums
    above = np.where(y > 0, logarithm - centre[image], 0.0)
    above = np.where(above > 1e-9, above, 0.0)  # less is rounding
    squares, weights = (_image_sums(w * part, image) / sums for part in (np.square(above), above > 0))
    tau2: np.ndarray = squares.sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-300) * (1 + FEW_DRAWS / len(y))
    num_draws = np.bincount(image)[:, None]
    participation = np.square(sums) / (num_draws * np.maximum(_image_sums(np.square(w), image), 1e-300))
    alive = participation.mean(axis=0) * np.exp(np.minimum(TILT**2 * tau2, MAX_SPREAD))
    return tau2, np.clip(alive, 1 / len(y), 1.0)


def _image_sums(y: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(B, K + 1)."""
    sums = np.zeros((int(image.max()) + 1, y.shape[1]))
    np.add.at(sums, image, y)
    return sums


def _image_means(y: np.ndarray, image: np.ndarray) -> np.ndarray:
    """(B, K + 1)."""
    means: np.ndarray = _image_sums(y, image) / np.bincount(image)[:, None]
    return means
