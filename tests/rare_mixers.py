"""Mixers from papers that neither timm nor torchvision has, written as their authors would: path and kind of each."""

import torch
import torch.nn.functional as F
import torchvision
from foreign_networks import C, Network, Tokens
from torch import Tensor, nn


class CrossScan(nn.Module):
    """VMamba's selective scan in four directions (arXiv 2401.10166), one step after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.delta, self.write, self.read = (nn.Conv2d(C, C, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        delta, write, read = (
            torch.stack((y.flatten(2), y.mT.flatten(2)), 1) for y in (self.delta(x), self.write(x), self.read(x))
        )
        delta, write, read = (torch.cat((y, y.flip(-1)), 1) for y in (delta, write, read))
        keep, state, states = torch.exp(-F.softplus(delta)), torch.zeros(len(x), 4, C), []
        for t in range(keep.shape[-1]):
            state = keep[..., t] * state + write[..., t]
            states.append(state * read[..., t])
        y = torch.stack(states, -1)
        y = y[:, :2] + y[:, 2:].flip(-1)
        H, W = x.shape[-2:]
        return y[:, 0].unflatten(-1, (H, W)) + y[:, 1].unflatten(-1, (W, H)).mT


class TimeMix(nn.Module):
    """RWKV's time mixing (arXiv 2305.13048): a token shift, and a decaying average of values."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value, self.receptance = (nn.Linear(C, C, bias=False) for _ in range(3))
        self.share, self.decay = nn.Parameter(torch.rand(C)), nn.Parameter(torch.rand(C))

    def forward(self, x: Tensor) -> Tensor:
        before = F.pad(x, (0, 0, 1, -1))
        mixed = x * self.share + before * (1 - self.share)
        k, v, r = self.key(mixed).exp(), self.value(mixed), self.receptance(mixed).sigmoid()
        top, bottom, out = torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            top, bottom = self.decay * top + k[:, t] * v[:, t], self.decay * bottom + k[:, t]
            out.append(top / bottom)
        return r * torch.stack(out, 1)


class Hyena(nn.Module):
    """A long convolution by FFT between two gates (arXiv 2302.10866)."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.filter = nn.Linear(C, 3 * C), nn.Parameter(torch.randn(36, C) / 6)

    def forward(self, x: Tensor) -> Tensor:
        a, b, v = self.project(x).chunk(3, -1)
        N = x.shape[1]
        spectrum = torch.fft.rfft(a * v, n=2 * N, dim=1) * torch.fft.rfft(self.filter, n=2 * N, dim=0)
        return b * torch.fft.irfft(spectrum, n=2 * N, dim=1)[:, :N]


class Afno(nn.Module):
    """A complex MLP of the spectrum, shrunk (arXiv 2111.13587)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(2, C, C) / C) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        z = torch.fft.rfft2(x.permute(0, 2, 3, 1), dim=(1, 2), norm="ortho")
        z = torch.complex(z.real @ self.first[0], z.imag @ self.first[1])
        z = torch.view_as_complex(F.softshrink(torch.stack((z.real.relu(), z.imag.relu()), -1), 0.01))
        z = torch.complex(z.real @ self.second[0], z.imag @ self.second[1])
        return x + torch.fft.irfft2(z, s=x.shape[-2:], dim=(1, 2), norm="ortho").permute(0, 3, 1, 2)


class Wave(nn.Module):
    """Wave-MLP's phase-aware mixing (arXiv 2111.12294), along the width, with a gate over two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.phase, self.amplitude, self.channels = (nn.Conv2d(C, C, 1) for _ in range(3))
        self.tokens = nn.Conv2d(2 * C, C, (1, 7), padding=(0, 3), groups=C)
        self.reweight = nn.Linear(C, 2 * C)

    def forward(self, x: Tensor) -> Tensor:
        theta, size = self.phase(x), self.amplitude(x)
        waves = torch.stack((size * theta.cos(), size * theta.sin()), 2).flatten(1, 2)
        w, c = self.tokens(waves), self.channels(x)
        a = self.reweight(F.adaptive_avg_pool2d(w + c, 1).flatten(1)).view(-1, 2, C).softmax(1)[..., None, None]
        return w * a[:, 0] + c * a[:, 1]


class AxialShift(nn.Module):
    """AS-MLP (arXiv 2107.08391): groups of channels shifted along each axis, read by 1 × 1 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns, self.out = (nn.Conv2d(C, C, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        parts = F.pad(x, (1, 1, 1, 1)).chunk(4, 1)

        def shifted(axis: int) -> Tensor:
            moved = torch.cat([part.roll(i - 1, axis) for i, part in enumerate(parts)], 1)
            return moved.narrow(2, 1, H).narrow(3, 1, W)

        return self.out(F.gelu(self.rows(shifted(2))) + F.gelu(self.columns(shifted(3))))


class CycleFc(nn.Module):
    """CycleMLP's fully connected layer (arXiv 2107.10224): a deformable 1 × 1 convolution with fixed offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(C, C, 1, 1) / C)
        offset = torch.zeros(1, 2 * C, 1, 1)
        offset[0, 1::2, 0, 0] = torch.arange(C) % 3 - 1.0
        self.register_buffer("offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.offset.expand(len(x), -1, *x.shape[-2:])
        return torchvision.ops.deform_conv2d(x, offset, self.weight)


class SpatialShift(nn.Module):
    """S²-MLP (arXiv 2106.07477): quarters of the channels written over by their neighbours, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.first(x.permute(0, 2, 3, 1)))
        q = C // 4
        y[:, 1:, :, :q] = y[:, :-1, :, :q].clone()
        y[:, :-1, :, q : 2 * q] = y[:, 1:, :, q : 2 * q].clone()
        y[:, :, 1:, 2 * q : 3 * q] = y[:, :, :-1, 2 * q : 3 * q].clone()
        y[:, :, :-1, 3 * q :] = y[:, :, 1:, 3 * q :].clone()
        return x + self.second(y).permute(0, 3, 1, 2)


class VisionPermutator(nn.Module):
    """Heights and segments of channels in one axis, a linear layer, and back (arXiv 2106.12368)."""

    def __init__(self) -> None:
        super().__init__()
        self.height, self.width, self.channels = nn.Linear(6 * 2, 6 * 2), nn.Linear(6 * 2, 6 * 2), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        y = x.permute(0, 2, 3, 1).reshape(B, H, W, 4, 2)
        h = self.height(y.permute(0, 2, 3, 1, 4).reshape(B, W, 4, H * 2))
        h = h.reshape(B, W, 4, H, 2).permute(0, 3, 1, 2, 4).reshape(B, H, W, C)
        w = self.width(y.permute(0, 1, 3, 2, 4).reshape(B, H, 4, W * 2))
        w = w.reshape(B, H, 4, W, 2).permute(0, 1, 3, 2, 4).reshape(B, H, W, C)
        return x + self.channels(h + w).permute(0, 3, 1, 2)


class Sequencer(nn.Module):
    """Recurrent networks along rows and along columns, joined (arXiv 2205.01972)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = (nn.LSTM(C, C // 2, bidirectional=True, batch_first=True) for _ in range(2))
        self.join = nn.Linear(2 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        y = x.permute(0, 2, 3, 1)
        rows = self.rows(y.reshape(B * H, W, C))[0].reshape(B, H, W, C)
        columns = self.columns(y.transpose(1, 2).reshape(B * W, H, C))[0].reshape(B, W, H, C).transpose(1, 2)
        return x + self.join(torch.cat((rows, columns), -1)).permute(0, 3, 1, 2)


class DeformableConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Conv2d(C, 18, 3, padding=1)
        self.conv = torchvision.ops.DeformConv2d(C, C, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x, 0.1 * self.offset(x))


class NonLocal(nn.Module):
    """The embedded Gaussian of arXiv 1711.07971, with keys and values of a pooled map."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.out = nn.Conv2d(C, 4, 1), nn.Conv2d(4, C, 1)
        self.phi = nn.Sequential(nn.Conv2d(C, 4, 1), nn.MaxPool2d(2))
        self.g = nn.Sequential(nn.Conv2d(C, 4, 1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.theta(x).flatten(2).mT @ self.phi(x).flatten(2)).softmax(-1)
        y = weights @ self.g(x).flatten(2).mT
        return x + self.out(y.mT.unflatten(-1, x.shape[-2:]))


class DoubleAttention(nn.Module):
    """Gathered by one softmax, distributed by another (arXiv 1810.11579)."""

    def __init__(self) -> None:
        super().__init__()
        self.feature, self.gather, self.spread = nn.Conv2d(C, C, 1), nn.Conv2d(C, 4, 1), nn.Conv2d(C, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        descriptors = self.feature(x).flatten(2) @ self.gather(x).flatten(2).softmax(-1).mT
        return x + (descriptors @ self.spread(x).flatten(2).softmax(1)).unflatten(-1, x.shape[-2:])


class ChannelGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(C, 4), nn.ReLU(), nn.Linear(4, C))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.mlp(x.mean((2, 3))) + self.mlp(x.amax((2, 3)))).sigmoid()[..., None, None]


class SpatialGate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)).sigmoid()


class Cbam(nn.Module):
    """A gate of channels, then one of positions (arXiv 1807.06521)."""

    def __init__(self) -> None:
        super().__init__()
        self.channel, self.spatial = ChannelGate(), SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.spatial(self.channel(x))


class CoordinateAttention(nn.Module):
    """Means of rows and of columns side by side through one layer, then two gates (arXiv 2103.02907)."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze, self.h, self.w = nn.Conv2d(C, 4, 1), nn.Conv2d(4, C, 1), nn.Conv2d(4, C, 1)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        y = torch.cat((x.mean(3, keepdim=True), x.mean(2, keepdim=True).mT), 2)
        h, w = F.hardswish(self.squeeze(y)).split([H, W], 2)
        return x * self.h(h).sigmoid() * self.w(w.mT).sigmoid()


class CrissCross(nn.Module):
    """Attention along a position's row and column with one softmax (arXiv 1811.11721)."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(C, C, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        H = x.shape[2]
        columns = torch.einsum("bchw,bcgw->bhwg", q, k)
        columns = columns.masked_fill(torch.eye(H, dtype=torch.bool)[:, None], -torch.inf)
        weights = torch.cat((columns, torch.einsum("bchw,bchg->bhwg", q, k)), -1).softmax(-1)
        y = torch.einsum("bhwg,bcgw->bchw", weights[..., :H], v)
        return x + y + torch.einsum("bhwg,bchg->bchw", weights[..., H:], v)


class ExternalAttention(nn.Module):
    """Two linear layers with a softmax over positions between them (arXiv 2105.02358)."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.values = nn.Linear(C, 4, bias=False), nn.Linear(4, C, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.keys(x).softmax(1)
        return x + self.values(weights / weights.sum(2, keepdim=True))


class Performer(nn.Module):
    """Positive random features (arXiv 2009.14794)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)
        self.register_buffer("features", torch.randn(C, 16))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)

        def phi(y: Tensor) -> Tensor:
            return torch.exp(y @ self.features - y.square().sum(-1, keepdim=True) / 2) / 4

        q, k = phi(q), phi(k)
        return x + torch.einsum("bnm,bmd->bnd", q, torch.einsum("bnm,bnd->bmd", k, v)) / (q @ k.sum(1, keepdim=True).mT)


class EluAttention(nn.Module):
    """Linear attention with elu + 1 and its normaliser (arXiv 2006.16236)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        q, k = F.elu(q) + 1, F.elu(k) + 1
        norm = 1 / torch.einsum("bnd,bd->bn", q, k.sum(1))
        return x + torch.einsum("bnd,bde,bn->bne", q, torch.einsum("bnd,bne->bde", k, v), norm)


class Nystrom(nn.Module):
    """Attention through landmarks, which are means of segments (arXiv 2102.03902)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(C, 3 * C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        marks_q, marks_k = (y.unflatten(1, (6, -1)).mean(2) for y in (q, k))
        first, middle, last = (
            (a @ b.mT / C**0.5).softmax(-1) for a, b in ((q, marks_k), (marks_q, marks_k), (marks_q, k))
        )
        inverse = middle.mT / (middle.abs().sum(-1).amax() * middle.abs().sum(-2).amax())
        for _ in range(2):
            step = middle @ inverse
            inverse = (
                0.25 * inverse @ (13 * torch.eye(6) - step @ (15 * torch.eye(6) - step @ (7 * torch.eye(6) - step)))
            )
        return x + first @ (inverse @ (last @ v))


class OmniDynamic(nn.Module):
    """ODConv (arXiv 2209.07947): gates of channels, filters, places and kernels, all from the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Linear(C, 4)
        self.channels, self.filters, self.places, self.experts = (nn.Linear(4, n) for n in (C, C, 9, 3))
        self.weight = nn.Parameter(torch.randn(3, C, C, 3, 3) / C)

    def forward(self, x: Tensor) -> Tensor:
        z = self.squeeze(x.mean((2, 3))).relu()
        kernel = self.weight * self.experts(z).softmax(-1).view(3, 1, 1, 1, 1)
        kernel = (kernel * self.places(z).sigmoid().view(1, 1, 1, 3, 3)).sum(0)
        y = F.conv2d(x * self.channels(z).sigmoid()[..., None, None], kernel, padding=1)
        return x + y * self.filters(z).sigmoid()[..., None, None]


class VisionGraph(nn.Module):
    """ViG (arXiv 2206.00272): the nearest neighbours in feature space, and the largest difference to them."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(2 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        B, N, _ = x.shape
        nearest = torch.cdist(x, x).argsort(-1)[..., :9]
        neighbours = torch.gather(x, 1, nearest.reshape(B, -1, 1).expand(-1, -1, C)).view(B, N, 9, C)
        return x + self.mix(torch.cat((x, (neighbours - x[:, :, None]).amax(2)), -1))


class SetStatistics(nn.Module):
    """Deep sets (arXiv 1703.06114): the largest value over all positions is taken away."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.all = nn.Linear(C, C), nn.Linear(C, C)

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(self.own(x) - self.all(x.amax(1, keepdim=True)))


class Capsules(nn.Module):
    """Routing by agreement (arXiv 1710.09829): no position comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.votes = nn.Parameter(torch.randn(3, C, 4) / C)

    def forward(self, x: Tensor) -> Tensor:
        votes = torch.einsum("bnc,kcd->bnkd", x, self.votes)
        logits = torch.zeros(votes.shape[:3])
        for _ in range(2):
            s = (logits.softmax(2)[..., None] * votes).sum(1, keepdim=True)
            v = s * s.norm(dim=-1, keepdim=True) / (1 + s.square().sum(-1, keepdim=True))
            logits = logits + (votes * v).sum(-1)
        return v.flatten(1)


class CapsuleNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.primary, self.capsules = nn.Conv2d(3, C, 4, 4), nn.Conv2d(C, C, 3), Capsules()

    def forward(self, x: Tensor) -> Tensor:
        return self.capsules(self.primary(self.stem(x)).flatten(2).mT)


class LargeKernelAttention(nn.Module):
    """VAN (arXiv 2202.09741): a product with a large kernel made of small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.point = nn.Conv2d(C, C, 3, padding=1, groups=C), nn.Conv2d(C, C, 1)
        self.far = nn.Conv2d(C, C, 3, padding=3, dilation=3, groups=C)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.point(self.far(self.near(x)))


class StripPooling(nn.Module):
    """A gate from rows and columns, each after a convolution along the strip (arXiv 2003.13328)."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.columns = nn.Conv1d(C, C, 3, padding=1), nn.Conv1d(C, C, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.rows(x.mean(3))[..., None], self.columns(x.mean(2))[:, :, None]
        return x * (rows + columns).sigmoid()


class RandomMixing(nn.Module):
    """A frozen random matrix over tokens (arXiv 2210.13452)."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("matrix", torch.randn(36, 36).softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("mn,bnc->bmc", self.matrix, x)


class SpatialGatingByHand(nn.Module):
    """gMLP (arXiv 2105.08050) with the projection over tokens as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.out, self.norm = nn.Linear(C, 2 * C), nn.Linear(C, C), nn.LayerNorm(C)
        self.weight, self.bias = nn.Parameter(torch.randn(36, 36) / 6), nn.Parameter(torch.ones(36, 1))

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.expand(x).chunk(2, -1)
        return x + self.out(u * (self.weight @ self.norm(v) + self.bias))


class Lambda(nn.Module):
    """A lambda layer by hand (arXiv 2102.08602): keys with a softmax over positions, and embedded offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(C, C) for _ in range(3))
        self.embedding = nn.Parameter(torch.randn(36, 36, C) / 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x).softmax(1), self.v(x)
        content = torch.einsum("bmk,bmv->bkv", k, v)
        position = torch.einsum("nmk,bmv->bnkv", self.embedding, v)
        return x + torch.einsum("bnk,bkv->bnv", q, content) + torch.einsum("bnk,bnkv->bnv", q, position)


class DeformableAttention(nn.Module):
    """Keys and values are sampled at learned places (arXiv 2201.00520)."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.q, self.kv = nn.Conv2d(C, 2, 3, padding=1), nn.Conv2d(C, C, 1), nn.Conv2d(C, 2 * C, 1)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        y, z = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing="ij")
        places = torch.stack((z, y), -1) + 0.3 * self.offset(x).permute(0, 2, 3, 1).tanh()
        k, v = self.kv(F.grid_sample(x, places, align_corners=True)).flatten(2).mT.chunk(2, -1)
        weights = (self.q(x).flatten(2).mT @ k.mT / C**0.5).softmax(-1)
        return x + (weights @ v).mT.unflatten(-1, (H, W))


class Wavelet(nn.Module):
    """Haar's four bands in channels, mixed there, and back (WaveMix, arXiv 2203.03689)."""

    def __init__(self) -> None:
        super().__init__()
        haar = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).view(4, 1, 2, 2) / 2
        self.register_buffer("haar", haar.repeat(C, 1, 1, 1))
        self.mix = nn.Conv2d(4 * C, 4 * C, 1)

    def forward(self, x: Tensor) -> Tensor:
        bands = self.mix(F.conv2d(x, self.haar, stride=2, groups=C))
        return F.conv_transpose2d(bands, self.haar, stride=2, groups=C)


class CausalAttention(nn.Module):
    """As in image GPT: heads by einsum, a mask, logits that are clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Parameter(torch.randn(3, 2, C, 4) / C), nn.Parameter(torch.randn(2, 4, C) / C)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.einsum("bnc,shcd->sbhnd", x, self.qkv)
        logits = torch.einsum("bhnd,bhmd->bhnm", q, k).tanh() * 5
        logits = torch.where(torch.ones(logits.shape[-2:]).tril() == 0, -torch.inf, logits)
        return x + torch.einsum("bhnm,bhmd,hdc->bnc", logits.softmax(-1), v, self.out)


class TalkingWindows(nn.Module):
    """Attention in windows, cut by einops' way of reshaping, with heads that are mixed before and after softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.before, self.after = nn.Linear(C, 3 * C), nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        B, _, H, W = x.shape
        y = x.reshape(B, C, 2, H // 2, 2, W // 2).permute(0, 2, 4, 3, 5, 1).reshape(B * 4, -1, C)
        q, k, v = self.qkv(y).view(B * 4, -1, 3, 2, C // 2).permute(2, 0, 3, 1, 4)
        weights = self.before((q @ k.mT).permute(0, 2, 3, 1)).softmax(2)
        y = (self.after(weights).permute(0, 3, 1, 2) @ v).transpose(1, 2).reshape(B, 2, 2, H // 2, W // 2, C)
        return x + y.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def on_tokens(body: nn.Module) -> nn.Module:
    return Network(Tokens(body))


torch.manual_seed(2)  # the same weights in every run
RARE: dict[str, tuple[nn.Module, list[tuple[str, str]]]] = {
    "cross scan": (Network(CrossScan()), [("body", "recurrence")]),
    "time mix": (on_tokens(TimeMix()), [("body.body", "recurrence")]),
    "hyena": (on_tokens(Hyena()), [("body.body", "gate")]),
    "afno": (Network(Afno()), [("body", "fft")]),
    "wave": (Network(Wave()), [("body", "gate")]),
    "axial shift": (Network(AxialShift()), [("body", "shift")]),
    "cycle fc": (Network(CycleFc()), [("body", "convolution")]),
    "spatial shift": (Network(SpatialShift()), [("body", "shift")]),
    "vision permutator": (Network(VisionPermutator()), [("body", "shift")]),
    "sequencer": (Network(Sequencer()), [("body.rows", "recurrence"), ("body.columns", "recurrence")]),
    "deformable convolution": (
        Network(DeformableConvolution()),
        [("body.offset", "convolution"), ("body.conv", "sampling")],
    ),
    "non-local": (Network(NonLocal()), [("body", "attention")]),
    "double attention": (Network(DoubleAttention()), [("body", "linear_attention")]),
    "cbam": (Network(Cbam()), [("body.channel", "gate"), ("body.spatial", "gate")]),
    "coordinate attention": (Network(CoordinateAttention()), [("body", "gate")]),
    "criss-cross": (Network(CrissCross()), [("body", "window_attention")]),
    "external attention": (on_tokens(ExternalAttention()), [("body.body", "gate")]),
    "performer": (on_tokens(Performer()), [("body.body", "linear_attention")]),
    "elu attention": (on_tokens(EluAttention()), [("body.body", "linear_attention")]),
    "nystrom": (on_tokens(Nystrom()), [("body.body", "attention")]),
    "omni-dynamic": (Network(OmniDynamic()), [("body", "gate")]),
    "vision graph": (on_tokens(VisionGraph()), [("body.body", "sampling")]),
    "set statistics": (on_tokens(SetStatistics()), [("body.body", "context")]),
    "capsules": (CapsuleNetwork(), [("primary", "convolution"), ("capsules", "gate")]),
    "large kernel attention": (Network(LargeKernelAttention()), [("body", "gate")]),
    "strip pooling": (Network(StripPooling()), [("body", "gate")]),
    "random mixing": (on_tokens(RandomMixing()), [("body.body", "token_mlp")]),
    "spatial gating": (on_tokens(SpatialGatingByHand()), [("body.body", "gate")]),
    "lambda": (on_tokens(Lambda()), [("body.body", "linear_attention")]),
    "deformable attention": (Network(DeformableAttention()), [("body", "attention")]),
    "wavelet": (Network(Wavelet()), [("body", "shift")]),
    "causal attention": (on_tokens(CausalAttention()), [("body.body", "attention")]),
    "talking windows": (Network(TalkingWindows()), [("body", "window_attention")]),
}
