"""Slow, dense, independent re-derivations. They share no code with the package; float64 unless said otherwise."""

import itertools
import math

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn


def large_weights(module: nn.Module, std: float = 0.4) -> nn.Module:
    """The module with normal weights of order one, so that nothing is small by accident; frozen."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
    return module.requires_grad_(False)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def _linear(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    """1x1 convolution of (B, C, H, W)."""
    weight, bias = _array(layer.weight)[:, :, 0, 0], _array(layer.bias)
    return np.einsum("oc,bchw->bohw", weight, x) + bias[None, :, None, None]


def channel_layer_norm(x: np.ndarray, norm: nn.Module) -> np.ndarray:
    """LayerNorm over the channels of (B, C, H, W)."""
    mean, variance = x.mean(1, keepdims=True), x.var(1, keepdims=True)
    normalised = (x - mean) / np.sqrt(variance + 1e-6)
    return normalised * _array(norm.weight)[:, None, None] + _array(norm.bias)[:, None, None]


def depthwise_conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """Depthwise convolution (cross-correlation) with zeros outside the map, cell by cell."""
    H, W = x.shape[-2:]
    K = weight.shape[-1]
    r = K // 2
    out = np.zeros_like(x)
    for i, j in itertools.product(range(H), range(W)):
        for a, b in itertools.product(range(K), range(K)):
            u, v = i + a - r, j + b - r
            if 0 <= u < H and 0 <= v < W:
                out[:, :, i, j] += weight[:, 0, a, b] * x[:, :, u, v]
    return out if bias is None else out + bias[None, :, None, None]


def mean_pool(x: np.ndarray, size: int) -> np.ndarray:
    """Mean over the cells of a window that lie inside the map, cell by cell."""
    H, W = x.shape[-2:]
    r = size // 2
    out = np.zeros_like(x)
    for i, j in itertools.product(range(H), range(W)):
        window = x[:, :, max(0, i - r) : i + r + 1, max(0, j - r) : j + r + 1]
        out[:, :, i, j] = window.mean(axis=(2, 3))
    return out


def resized_plane(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear resizing of (h, w) with the corners aligned."""
    h, w = plane.shape
    out = np.empty((rows, columns))
    for i, j in itertools.product(range(rows), range(columns)):
        y = i * (h - 1) / (rows - 1) if rows > 1 else 0.0
        x = j * (w - 1) / (columns - 1) if columns > 1 else 0.0
        y0, x0 = int(np.floor(y)), int(np.floor(x))
        y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
        top = plane[y0, x0] * (1 - (x - x0)) + plane[y0, x1] * (x - x0)
        bottom = plane[y1, x0] * (1 - (x - x0)) + plane[y1, x1] * (x - x0)
        out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def global_local_filter(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    """GF with its global half as an explicit circular convolution in space: no transform of the map."""
    B, C, H, W = x.shape
    x = channel_layer_norm(x, layer.pre_norm)
    local = depthwise_conv(x[:, : C // 2], _array(layer.dw.weight), None)
    weight = _array(layer.complex_weight)
    spectral = np.zeros((B, C // 2, H, W))
    for c in range(C // 2):
        if weight.shape[1:3] == (H, W // 2 + 1):
            filter_c = weight[c, :, :, 0] + 1j * weight[c, :, :, 1]
        else:
            parts = [resized_plane(weight[c, :, :, part], H, W // 2 + 1) for part in range(2)]
            filter_c = parts[0] + 1j * parts[1]
        kernel = np.fft.irfft2(filter_c, s=(H, W))
        for a, b in itertools.product(range(H), range(W)):
            spectral[:, c] += kernel[a, b] * np.roll(x[:, C // 2 + c], (a, b), axis=(1, 2))
    out = np.empty_like(x)
    for m in range(C // 2):
        out[:, 2 * m], out[:, 2 * m + 1] = local[:, m], spectral[:, m]
    return channel_layer_norm(out, layer.post_norm)


def gnconv(x: Tensor, layer: nn.Module) -> np.ndarray:
    """Eq. 3.2-3.5, written out."""
    n = len(layer.pws) + 1
    C = layer.proj_in.weight.shape[0] // 2  # any number of channels may enter
    widths = [C // 2 ** (n - 1 - k) for k in range(n)]
    projected = _linear(_array(x), layer.proj_in)
    p, q = projected[:, : widths[0]], projected[:, widths[0] :]
    if isinstance(layer.dwconv, nn.Conv2d):
        f = depthwise_conv(q, _array(layer.dwconv.weight), _array(layer.dwconv.bias))
    elif isinstance(layer.dwconv, nn.AvgPool2d):
        f = mean_pool(q, layer.dwconv.kernel_size)
    else:
        f = global_local_filter(q, layer.dwconv)
    start = 0
    for k in range(n):
        g = p if k == 0 else _linear(p, layer.pws[k - 1])
        p = f[:, start : start + widths[k]] * g * layer.scale
        start += widths[k]
    return _linear(p, layer.proj_out)


class TangentNorm(nn.Module):
    """The tangent of a channel LayerNorm at recorded inputs, by its dense Jacobian at every cell."""

    def __init__(self, norm: nn.Module, operating_point: Tensor) -> None:
        super().__init__()
        z = operating_point.permute(0, 2, 3, 1).double()
        C = z.shape[-1]
        sigma = torch.sqrt(z.var(-1, correction=0) + norm.eps)
        hat = (z - z.mean(-1, keepdim=True)) / sigma[..., None]
        eye = torch.eye(C, dtype=torch.float64)
        centring = eye - torch.ones(C, C, dtype=torch.float64) / C
        J = centring - hat[..., :, None] * hat[..., None, :] / C
        self.J = norm.weight.detach().double()[:, None] * J / sigma[..., None, None]
        self.value = hat * norm.weight.detach().double() + norm.bias.detach().double()
        self.z = z

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        out = self.value + torch.einsum("bhwij,bhwj->bhwi", self.J, x - self.z)
        return out.permute(0, 3, 1, 2)


def mixed_differences(operator, x: Tensor, cells: Tensor, directions: Tensor, cotangents: Tensor) -> np.ndarray:
    """u·D_k for k = 0..K by central differences in every ε_t, extrapolated to step 0. (N, K + 1).

    For a polynomial of low degree three steps of Richardson extrapolation leave rounding only.
    """
    N, _, _, W = x.shape
    rows = torch.arange(N)
    result = np.zeros((N, directions.shape[1]))

    def value(eps: tuple[float, ...]) -> np.ndarray:
        moved = x.clone()
        for t, step in enumerate(eps):
            row, column = cells[:, t] // W, cells[:, t] % W
            moved[rows, :, row, column] += step * directions[:, t]
        output = operator(moved)
        at = output[rows, :, cells[:, 0] // W, cells[:, 0] % W]
        return (at * cotangents).sum(1).detach().numpy()

    for k in range(directions.shape[1]):

        def difference(h: float, k: int = k) -> np.ndarray:
            total = np.zeros(N)
            for signs in itertools.product((1, -1), repeat=k + 1):
                total += np.prod(signs) * value(tuple(h * sign for sign in signs))
            return total / (2 * h) ** (k + 1)

        table = [difference(h) for h in (1.0, 0.5, 0.25)]
        first = [(4 * b - a) / 3 for a, b in itertools.pairwise(table)]
        result[:, k] = (16 * first[1] - first[0]) / 15
    return result


def nested_jvp(operator, x: Tensor, cells: Tensor, directions: Tensor, cotangents: Tensor) -> np.ndarray:
    """u·D_k for k = 0..K by nested forward mode. (N, K + 1)."""
    N, _, _, W = x.shape
    rows = torch.arange(N)
    result = np.zeros((N, directions.shape[1]))
    tangents = []
    for t in range(directions.shape[1]):
        v = torch.zeros_like(x)
        v[rows, :, cells[:, t] // W, cells[:, t] % W] = directions[:, t]
        tangents.append(v)

    def scalar(z: Tensor) -> Tensor:
        output = operator(z)
        return (output[rows, :, cells[:, 0] // W, cells[:, 0] % W] * cotangents).sum(1)

    function = scalar
    for k, v in enumerate(tangents):

        def function(z: Tensor, inner=function, v=v) -> Tensor:
            return torch.func.jvp(inner, (z,), (v,))[1]

        result[:, k] = function(x).detach().numpy()
    return result


def effect_interval(draws: list[float], images: list[int]) -> tuple[float, float]:
    """95 % interval of the root of a mean of squares at given images, formula by formula on plain numbers."""
    if not any(draws):
        return 0.0, 0.0
    N = len(draws)
    if N == 1:
        return math.nan, math.nan
    names = sorted(set(images))
    parts = [[d * d for d, b in zip(draws, images, strict=True) if b == name] for name in names]
    if len(names) == N:
        parts = [[d * d for d in draws]]
    B = len(parts)
    mu_b = [sum(part) / len(part) for part in parts]
    mu = sum(mu_b) / B
    rest = [y - m for part, m in zip(parts, mu_b, strict=True) for y in part]
    if max(abs(r) for r in rest) <= 1e-13 * mu:
        return math.sqrt(mu), math.sqrt(mu)
    m2, m3, m4 = (sum(r**power for r in rest) / N for power in (2, 3, 4))
    v = m2 * N / (N - B)
    gamma, kappa, cv2 = m3 / m2**1.5, m4 / m2**2, v / mu**2
    df = min(max(2 * N / (kappa - 1) if kappa > 1 else math.inf, 1), N - B)
    q = stats.t.ppf(0.975, df)

    squares, weights, shares = 0.0, 0.0, []
    for part in parts:
        alive = [y for y in part if y > 0]
        w = [y**0.25 for y in alive]
        if not alive:
            shares.append(0.0)
            continue
        centre = sum(a * math.log(y) for a, y in zip(w, alive, strict=True)) / sum(w)
        for a, y in zip(w, alive, strict=True):
            if math.log(y) > centre + 1e-9:
                squares += a / sum(w) * (math.log(y) - centre) ** 2
                weights += a / sum(w)
        shares.append(sum(w) ** 2 / (len(part) * sum(a * a for a in w)))
    tau2 = squares / weights * (1 + 4 / N) if weights else 0.0
    share = min(max(sum(shares) / B * math.exp(tau2 / 16), 1 / N), 1)
    tail = (math.exp(tau2) / share - 1) * sum(m * m for m in mu_b) / B / mu**2
    s2 = math.log(1 + max(cv2, math.sqrt(cv2 * tail)) / N)
    ends = [mu * math.exp(s2 / 2 - q * math.sqrt(s2)), mu * math.exp(s2 / 2 + q * math.sqrt(s2))]

    se = math.sqrt(v / N)
    a, b = gamma / (3 * math.sqrt(N)), gamma / (6 * math.sqrt(N))
    if abs(a) < 1e-9:
        hall = mu + (q + b) * se
    else:
        inside = 1 + 3 * a * (-q - b)
        root = math.copysign(abs(inside) ** (1 / 3), inside)
        hall = mu - (root - 1) / a * se
    low = min(ends[0], mu * math.exp(-q * se / mu))
    return math.sqrt(low), math.sqrt(max(ends[1], hall))


def mean_square_over_tuples(operator, x: Tensor, sigma: Tensor, k: int) -> float:
    """E[|D_k|² / C'] at one image (1, C, H, W): every cell, every tuple of k distinct neighbours, every channel.

    Of an operator that is a polynomial, or of tangents: each entry of the (k + 1)-th derivative by nested forward mode.
    Neighbours are those that the output depends on, to first order; tuples of more than there are count as zero.
    """
    _, C, H, W = x.shape
    P, total = H * W, 0.0

    def derivative(i: int, cells: list[int], order: int) -> Tensor:
        """(C', C, J C, …, J C): at cell i, along its own channels and those of the cells given, `order` times."""

        def function(own: Tensor, moved: Tensor) -> Tensor:
            z = x.flatten(2)[0].clone()
            z = z.index_add(1, torch.tensor([i]), own[:, None]).index_add(1, torch.tensor(cells), moved.T)
            return operator(z.view(1, C, H, W)).flatten(2)[0, :, i]

        function = torch.func.jacfwd(function, argnums=0)
        for _ in range(order):
            function = torch.func.jacfwd(function, argnums=1)
        return function(x.new_zeros(C), x.new_zeros(len(cells), C)) * sigma.view(1, C, *[1] * (2 * order))

    every = list(range(P))
    for i in every:
        output = torch.func.jacfwd(lambda z, i=i: operator(z.view(1, C, H, W)).flatten(2)[0, :, i])(x.flatten())
        field = [j for j in every if j != i and bool((output.unflatten(-1, (C, P))[..., j] != 0).any())]
        if len(field) < k:
            continue
        entries = derivative(i, field, k)
        for t in range(k):
            entries = entries * sigma.view([C if axis == 3 + 2 * t else 1 for axis in range(entries.ndim)])
        squares = entries.square().sum([0, 1, *(3 + 2 * t for t in range(k))])  # (J, …, J)
        tuples = list(itertools.permutations(range(len(field)), k))
        squares = torch.stack([squares[one] for one in tuples]) if k else squares
        total += float(squares.mean()) / len(output)
    return total / P


def mean_square_by_chains(mixed, fields: list[list[int]], sigma: Tensor, k: int) -> float:
    """The same from `mixed`: (T, k + 1) cells, (T, k + 1, C) directions → the vectors D_k, (T, C')."""
    C, total = len(sigma), 0.0
    channels = torch.tensor(list(itertools.product(range(C), repeat=k + 1)))
    directions = torch.diag(sigma)[channels]
    for i, field in enumerate(fields):
        tuples = [(i, *others) for others in itertools.permutations(field, k)]
        if tuples:
            cells = torch.tensor(tuples).repeat_interleave(len(channels), 0)
            D = mixed(cells, directions.repeat(len(tuples), 1, 1))
            total += float(D.square().mean(1).sum()) / len(tuples)
    return total / len(fields)


def influence(operator, x: Tensor, *, channels: int = 0, output_channels: int | None = None) -> np.ndarray:
    """I_ij from the whole Jacobian of each image: (B, *output positions, *input positions).

    Args:
        operator: any function of a batch.
        x: float64.
        channels: axis of the channels, without the batch.
        output_channels: the same of the output, where it is another one.
    """
    found = []
    for image in x:
        jacobian = torch.autograd.functional.jacobian(lambda z: operator(z[None])[0], image)
        across = channels if output_channels is None else output_channels
        first = jacobian.ndim - image.ndim  # axes of the output come first
        both = (across % first, first + channels % image.ndim)
        found.append(jacobian.square().mean(both).sqrt().numpy())
    return np.stack(found)
