"""Eighteen hand-written networks for sound, sensors, text, tables, graphs, points and control."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .fifth import Network, finished

__all__ = [
    "ad_click",
    "birdsong",
    "crop_yield",
    "ecg_beats",
    "glucose_alarm",
    "keyword_spot",
    "lidar_points",
    "load_forecast",
    "molecule_energy",
    "next_item",
    "pump_vibration",
    "quad_policy",
    "sleep_stages",
    "ticket_router",
    "tiny_vocoder",
    "traffic_graph",
    "wave_denoise",
    "wrist_gesture",
]


def keyword_spot() -> Network:
    """Twelve spoken commands from MFCC frames, for a microcontroller."""
    torch.manual_seed(201)
    layers: list[nn.Module] = [nn.Conv2d(1, 64, (10, 4), (2, 2), (4, 1)), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(4):
        layers += [
            nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Conv2d(64, 64, 1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
        ]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 12), nn.Softmax(dim=-1)]
    return finished(nn.Sequential(*layers), torch.randn(1, 1, 49, 10))


class WristGesture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(nn.Conv1d(6, 24, 7, stride=3, padding=3), nn.GroupNorm(4, 24), nn.SELU())
        self.gru = nn.GRU(24, 40, batch_first=True)
        self.score, self.out = nn.Linear(40, 1), nn.Linear(40, 9)

    def forward(self, imu: Tensor) -> Tensor:
        steps, _ = self.gru(self.front(imu).transpose(1, 2))
        return self.out((steps * self.score(torch.tanh(steps)).softmax(dim=1)).sum(dim=1))


def wrist_gesture() -> Network:
    """Gestures from a watch's accelerometer and gyroscope."""
    torch.manual_seed(202)
    return finished(WristGesture(), torch.randn(1, 6, 96))


class LoadForecast(nn.Module):
    def __init__(self, past: int = 168, ahead: int = 24) -> None:
        super().__init__()
        self.trend = nn.Linear(past, ahead)
        self.daily = nn.Sequential(nn.Linear(past, 256), nn.ReLU(), nn.Linear(256, ahead))

    def forward(self, history: Tensor) -> Tensor:
        level = history.mean(dim=-1, keepdim=True)
        x = history - level
        slow = functional.avg_pool1d(functional.pad(x.unsqueeze(1), (12, 12), mode="replicate"), 25, stride=1).squeeze(
            1
        )
        return self.trend(slow) + self.daily(x - slow) + level


def load_forecast() -> Network:
    """Next day's electric load of four substations from the week before."""
    torch.manual_seed(203)
    return finished(LoadForecast(), torch.rand(4, 168) + 0.5)


class CropYield(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.region, self.crop = nn.Embedding(60, 8), nn.Embedding(12, 4)
        self.weather = nn.LSTM(7, 32, num_layers=2, batch_first=True)
        self.soil = nn.Sequential(nn.BatchNorm1d(11), nn.Linear(11, 32), nn.GELU(), nn.Dropout(0.1))
        self.mix = nn.Sequential(nn.Linear(76, 64), nn.LayerNorm(64), nn.GELU())
        self.mean, self.spread = nn.Linear(64, 1), nn.Linear(64, 1)

    def forward(self, weather: Tensor, soil: Tensor, region: Tensor, crop: Tensor) -> tuple[Tensor, Tensor]:
        _, (hidden, _) = self.weather(weather)
        x = self.mix(torch.cat([hidden[-1], self.soil(soil), self.region(region), self.crop(crop)], dim=-1))
        return self.mean(x), functional.softplus(self.spread(x)) + 0.01


def crop_yield() -> Network:
    """Field yields with uncertainty from 30 weeks of weather, soil, region and crop."""
    torch.manual_seed(204)
    return finished(CropYield(), torch.randn(2, 30, 7), torch.randn(2, 11), torch.tensor([3, 41]), torch.tensor([0, 7]))


class AdClick(nn.Module):
    def __init__(self, fields: int = 14, rows: int = 4000, dim: int = 12) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(rows, dim), nn.Embedding(rows, 1)
        self.dense = nn.Linear(6, dim)
        width = (fields + 1) * dim
        self.cross = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.deep = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        self.out = nn.Linear(width + 64, 1)

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        vectors = torch.cat([self.table(ids), self.dense(torch.log1p(counts)).unsqueeze(1)], dim=1)
        pairs = 0.5 * (vectors.sum(dim=1).square() - vectors.square().sum(dim=1)).sum(dim=-1, keepdim=True)
        x0 = x = vectors.flatten(1)
        for layer in self.cross:
            x = x0 * layer(x) + x
        logit = self.out(torch.cat([x, self.deep(x0)], dim=1)) + pairs + self.linear(ids).sum(dim=1)
        return torch.sigmoid(logit).squeeze(-1)


def ad_click() -> Network:
    """Click probability of eight candidate adverts: crossed features, pairs and a deep part."""
    torch.manual_seed(205)
    return finished(AdClick(), torch.randint(0, 4000, (8, 14)), torch.rand(8, 6) * 20)


class MoleculeEnergy(nn.Module):
    def __init__(self, dim: int = 40) -> None:
        super().__init__()
        self.kinds = nn.Embedding(20, dim)
        self.register_buffer("centres", torch.linspace(0.0, 5.0, 16))
        self.filters = nn.ModuleList(self.two(16, dim) for _ in range(3))
        self.sends = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.updates = nn.ModuleList(self.two(dim, dim) for _ in range(3))
        self.readout = nn.Sequential(nn.Linear(dim, 20), nn.SiLU(), nn.Linear(20, 1))

    @staticmethod
    def two(inp: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inp, out), nn.Softplus(), nn.Linear(out, out))

    def forward(self, kinds: Tensor, places: Tensor) -> Tensor:
        distance = ((places.unsqueeze(2) - places.unsqueeze(1)).square().sum(dim=-1) + 1e-6).sqrt()
        radial = torch.exp(-4.0 * (distance.unsqueeze(-1) - self.centres).pow(2))
        reach = 0.5 * (torch.cos(distance.clamp(max=5.0) * (math.pi / 5.0)) + 1.0).unsqueeze(-1)
        h = self.kinds(kinds)
        for weigh, send, update in zip(self.filters, self.sends, self.updates, strict=False):
            h = h + update((weigh(radial) * reach * send(h).unsqueeze(1)).sum(dim=2))
        return self.readout(h).sum(dim=1)


def molecule_energy() -> Network:
    """Energy of a molecule of 18 atoms from continuous distance filters."""
    torch.manual_seed(206)
    return finished(MoleculeEnergy(), torch.randint(1, 20, (1, 18)), torch.randn(1, 18, 3) * 2.0)


class QuadPolicy(nn.Module):
    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(48, 32), nn.ELU(), nn.Linear(32, experts), nn.Softmax(dim=-1))
        self.w1 = nn.Parameter(torch.randn(experts, 48 + 60, 96) * 0.1)
        self.w2 = nn.Parameter(torch.randn(experts, 96, 12) * 0.1)

    def forward(self, state: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
        share = self.gate(state)
        x = torch.cat([state.clamp(-5.0, 5.0), history.flatten(1)], dim=-1)
        hidden = functional.elu(functional.layer_norm(torch.einsum("bi,eij->bej", x, self.w1), (96,)))
        return torch.tanh(torch.einsum("bej,ejk,be->bk", hidden, self.w2, share)) * 0.8, share


def quad_policy() -> Network:
    """Joint targets of a four-legged robot from a gated mixture of experts."""
    torch.manual_seed(207)
    return finished(QuadPolicy(), torch.randn(1, 48), torch.randn(1, 5, 12))


class GlucoseAlarm(nn.Module):
    def __init__(self, hidden: int = 24, quantiles: int = 5) -> None:
        super().__init__()
        self.gates, self.cand = nn.Linear(4 + hidden, 2 * hidden), nn.Linear(4 + hidden, hidden)
        self.first, self.steps = nn.Linear(hidden, 6), nn.Linear(hidden, 6 * (quantiles - 1))

    def forward(self, series: Tensor) -> Tensor:
        h = series.new_zeros(series.shape[0], self.first.in_features)
        for x in series.unbind(dim=1):
            reset, keep = torch.sigmoid(self.gates(torch.cat([x, h], dim=-1))).chunk(2, dim=-1)
            h = torch.lerp(torch.tanh(self.cand(torch.cat([x, reset * h], dim=-1))), h, keep)
        gaps = functional.softplus(self.steps(h).view(h.shape[0], 6, -1))
        return torch.cat([self.first(h).unsqueeze(-1), gaps], dim=-1).cumsum(dim=-1)


def glucose_alarm() -> Network:
    """Quantiles of the coming half hour's blood sugar, with a hand-written recurrent cell."""
    torch.manual_seed(208)
    return finished(GlucoseAlarm(), torch.randn(1, 24, 4))


class BeatBlock(nn.Module):
    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm1d(inp), nn.BatchNorm1d(out)
        self.conv1 = nn.Conv1d(inp, out, 11, stride=2, padding=5, bias=False)
        self.conv2 = nn.Conv1d(out, out, 11, padding=5)
        self.short = nn.Sequential(nn.MaxPool1d(2, ceil_mode=True), nn.Conv1d(inp, out, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.bn1(x)))
        return self.conv2(functional.relu(self.bn2(y))) + self.short(x)


def ecg_beats() -> Network:
    """Five rhythm findings from ten seconds of a twelve-lead heart recording."""
    torch.manual_seed(209)
    net = nn.Sequential(
        nn.Conv1d(12, 32, 15, padding=7),
        BeatBlock(32, 48),
        BeatBlock(48, 64),
        BeatBlock(64, 80),
        BeatBlock(80, 96),
        nn.BatchNorm1d(96),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(1),
        nn.Flatten(),
        nn.Linear(96, 5),
        nn.Sigmoid(),
    )
    return finished(net, torch.randn(1, 12, 1024))


class NextItem(nn.Module):
    def __init__(self, items: int = 3000, dim: int = 128, length: int = 64) -> None:
        super().__init__()
        self.items, self.gaps = nn.Embedding(items, dim), nn.Embedding(32, dim)
        self.place = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.layers = nn.ModuleList(nn.MultiheadAttention(dim, 4, batch_first=True) for _ in range(3))
        self.wide, self.back = (nn.ModuleList(nn.Linear(a, b) for _ in range(3)) for a, b in ((dim, 512), (512, dim)))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(6))
        self.register_buffer("future", torch.ones(length, length).triu(1).bool())

    def forward(self, bought: Tensor, gaps: Tensor) -> Tensor:
        x = self.items(bought) * math.sqrt(self.place.shape[1]) + self.gaps(gaps) + self.place
        for i, attend in enumerate(self.layers):
            mixed, _ = attend(x, x, x, attn_mask=self.future, need_weights=False)
            x = self.norms[2 * i](x + mixed)
            x = self.norms[2 * i + 1](x + self.back[i](functional.relu(self.wide[i](x))))
        return x[:, -1] @ self.items.weight.t()


def next_item() -> Network:
    """Scores of all shop items after a customer's last 64 purchases."""
    torch.manual_seed(210)
    return finished(NextItem(), torch.randint(0, 3000, (1, 64)), torch.randint(0, 32, (1, 64)))


class LidarPoints(nn.Module):
    def __init__(self, near: int = 8) -> None:
        super().__init__()
        self.near = near
        self.edge = nn.Sequential(nn.Conv2d(8, 32, 1), nn.BatchNorm2d(32), nn.LeakyReLU(0.2), nn.Conv2d(32, 48, 1))
        self.lift = nn.Sequential(nn.Conv1d(48, 96, 1), nn.BatchNorm1d(96), nn.ReLU(), nn.Conv1d(96, 256, 1))
        self.parts = nn.Sequential(nn.Conv1d(48 + 256, 96, 1), nn.BatchNorm1d(96), nn.ReLU(), nn.Conv1d(96, 7, 1))

    def forward(self, cloud: Tensor) -> Tensor:
        xyz = cloud[..., :3]
        squares = xyz.square().sum(dim=-1, keepdim=True)
        apart = squares + squares.transpose(1, 2) - 2.0 * xyz @ xyz.transpose(1, 2)
        index = apart.topk(self.near, dim=-1, largest=False).indices.flatten(1)
        around = torch.gather(cloud, 1, index.unsqueeze(-1).expand(-1, -1, 4)).unflatten(1, (-1, self.near))
        centre = cloud.unsqueeze(2).expand_as(around)
        local = self.edge(torch.cat([centre, around - centre], dim=-1).permute(0, 3, 1, 2)).amax(dim=-1)
        whole = self.lift(local).amax(dim=-1, keepdim=True).expand(-1, -1, cloud.shape[1])
        return self.parts(torch.cat([local, whole], dim=1)).transpose(1, 2)


def lidar_points() -> Network:
    """A class for each of 768 laser points, from edges to the nearest neighbours."""
    torch.manual_seed(211)
    return finished(LidarPoints(), torch.randn(1, 768, 4))


class TicketLayer(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        b, n, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / math.sqrt(d // self.heads) + bias
        x = x + self.proj((scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(b, n, d))
        gate, value = self.up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(functional.silu(gate) * value)


class TicketRouter(nn.Module):
    def __init__(self, dim: int = 160) -> None:
        super().__init__()
        self.words, self.place = nn.Embedding(5000, dim, padding_idx=0), nn.Embedding(64, dim)
        self.layers = nn.ModuleList(TicketLayer(dim, 5) for _ in range(4))
        self.team, self.urgency = nn.Linear(dim, 23), nn.Linear(dim, 1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        real = (tokens != 0).float()
        bias = (1.0 - real)[:, None, None, :] * -1e4
        x = self.words(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            x = layer(x, bias)
        x = (x * real.unsqueeze(-1)).sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1.0)
        return self.team(x), torch.sigmoid(self.urgency(x))


def ticket_router() -> Network:
    """Team and urgency of a support ticket, by a gated transformer with padding."""
    torch.manual_seed(212)
    tokens = torch.randint(1, 5000, (1, 56))
    tokens[:, 43:] = 0
    return finished(TicketRouter(), tokens)


class TrafficGraph(nn.Module):
    def __init__(self, sensors: int = 80, width: int = 32) -> None:
        super().__init__()
        self.source, self.target = (nn.Parameter(torch.randn(sensors, 10)) for _ in range(2))
        self.start = nn.Conv2d(2, width, 1)
        self.times = nn.ModuleList(nn.Conv2d(width, 2 * width, (1, 2), dilation=(1, d)) for d in (1, 2, 4, 1, 2, 4))
        self.mixes = nn.ModuleList(nn.Conv2d(3 * width, width, 1) for _ in self.times)
        self.skips = nn.ModuleList(nn.Conv2d(width, 64, 1) for _ in self.times)
        self.end = nn.Sequential(nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 12, 1))

    def forward(self, speeds: Tensor) -> Tensor:
        adjacency = torch.softmax(functional.relu(self.source @ self.target.t()), dim=1)
        x, total = self.start(speeds), 0.0
        for time, mix, skip in zip(self.times, self.mixes, self.skips, strict=False):
            y = functional.glu(time(x), dim=1)
            once = torch.einsum("bcvt,vw->bcwt", y, adjacency)
            twice = torch.einsum("bcvt,vw->bcwt", once, adjacency)
            total = total + skip(y[..., -1:])
            x = mix(torch.cat([y, once, twice], dim=1)) + x[..., -y.shape[-1] :]
        return self.end(total).squeeze(-1)


def traffic_graph() -> Network:
    """Next hour's speeds at 80 road sensors over a learned graph."""
    torch.manual_seed(213)
    return finished(TrafficGraph(), torch.randn(1, 2, 80, 24))


def pump_vibration() -> Network:
    """Autoencoder of a pump's vibration; what it cannot rebuild is a fault."""
    torch.manual_seed(214)
    net = nn.Sequential(
        nn.Conv1d(3, 32, 16, 4, 6),
        nn.CELU(),
        nn.Conv1d(32, 64, 8, 2, 3),
        nn.CELU(),
        nn.Conv1d(64, 96, 8, 2, 3),
        nn.CELU(),
        nn.Conv1d(96, 16, 1),
        nn.Tanh(),
        nn.Conv1d(16, 96, 1),
        nn.Upsample(scale_factor=2, mode="linear"),
        nn.Conv1d(96, 64, 7, padding=3),
        nn.CELU(),
        nn.Upsample(scale_factor=2, mode="linear"),
        nn.Conv1d(64, 32, 7, padding=3),
        nn.CELU(),
        nn.ConvTranspose1d(32, 3, 8, stride=4, padding=2),
    )
    return finished(net, torch.randn(1, 3, 4096))


class Birdsong(nn.Module):
    def __init__(self, species: int = 80) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, padding=1),
                nn.BatchNorm2d(b),
                nn.GELU(),
                nn.Conv2d(b, b, 3, padding=1),
                nn.BatchNorm2d(b),
                nn.GELU(),
            )
            for a, b in ((1, 32), (32, 48), (48, 72), (72, 112))
        )
        self.attend, self.classify = nn.Conv1d(112, species, 1), nn.Conv1d(112, species, 1)

    def forward(self, mel: Tensor) -> Tensor:
        x = (mel - mel.mean(dim=3, keepdim=True)) / mel.std(dim=(2, 3), keepdim=True)
        for conv in self.convs:
            x = functional.avg_pool2d(conv(x), 2)
        x = x.mean(dim=2) + x.amax(dim=2)
        return (self.attend(x).tanh().softmax(dim=-1) * self.classify(x).sigmoid()).sum(dim=-1)


def birdsong() -> Network:
    """Bird species heard in a few seconds of log-mel spectrogram."""
    torch.manual_seed(215)
    return finished(Birdsong(), torch.randn(1, 1, 64, 224))


class SleepStages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv1d(2, 64, 50, stride=6),
            nn.ReLU(),
            nn.MaxPool1d(4),
            BeatBlock(64, 128),
            BeatBlock(128, 96),
            nn.AdaptiveAvgPool1d(8),
        )
        self.coarse = nn.Sequential(nn.Conv1d(2, 64, 400, 25), nn.ReLU(), BeatBlock(64, 64), nn.AdaptiveAvgPool1d(8))
        self.lstm = nn.LSTM(160 * 8, 96, batch_first=True, bidirectional=True)
        self.skip, self.out = nn.Linear(160 * 8, 192), nn.Linear(192, 5)

    def forward(self, night: Tensor) -> Tensor:
        epochs = night.flatten(0, 1)
        x = torch.cat([self.fine(epochs), self.coarse(epochs)], dim=1).reshape(night.shape[0], night.shape[1], -1)
        return self.out(self.lstm(x)[0] + self.skip(x)).log_softmax(dim=-1)


def sleep_stages() -> Network:
    """Sleep stage of eight half-minute epochs from two EEG channels."""
    torch.manual_seed(216)
    return finished(SleepStages(), torch.randn(1, 8, 2, 3000))


class WaveUp(nn.Module):
    def __init__(self, inp: int, out: int, times: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose1d(inp, out, 2 * times, stride=times, padding=times // 2)
        self.convs = nn.ModuleList(nn.Conv1d(out, out, 7, padding=3 * d, dilation=d) for d in (1, 3, 9))
        self.rates = nn.Parameter(torch.rand(3, out, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(functional.leaky_relu(x, 0.1))
        for conv, rate in zip(self.convs, self.rates, strict=False):
            x = x + conv(x + torch.sin(rate * x).square() / rate)
        return x


def tiny_vocoder() -> Network:
    """Speech waveform from mel frames, with periodic activations."""
    torch.manual_seed(217)
    net = nn.Sequential(
        nn.Conv1d(64, 128, 7, padding=3),
        WaveUp(128, 96, 8),
        WaveUp(96, 48, 4),
        WaveUp(48, 24, 4),
        nn.LeakyReLU(),
        nn.Conv1d(24, 1, 7, padding=3),
        nn.Tanh(),
    )
    return finished(net, torch.randn(1, 64, 72))


class WaveDenoise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        sizes = [(1, 64), (64, 128), (128, 224)]
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv1d(a, b, 8, 4, 2), nn.ReLU(), nn.Conv1d(b, 2 * b, 1), nn.GLU(1)) for a, b in sizes
        )
        self.lstm = nn.LSTM(224, 160, bidirectional=True)
        self.narrow = nn.Linear(320, 224)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv1d(b, 2 * b, 3, padding=1), nn.GLU(1), nn.ConvTranspose1d(b, a, 8, 4, 2))
            for a, b in reversed(sizes)
        )

    def forward(self, noisy: Tensor) -> Tensor:
        loudness = noisy.std(dim=-1, keepdim=True) + 1e-3
        x, skips = noisy / loudness, []
        for down in self.down:
            x = down(x)
            skips.append(x)
        x = self.narrow(self.lstm(x.permute(2, 0, 1))[0]).permute(1, 2, 0)
        for i, up in enumerate(self.up):
            x = up((x if i == 0 else functional.relu(x)) + skips.pop())
        return x * loudness


def wave_denoise() -> Network:
    """Half a second of a phone call cleaned on the waveform itself."""
    torch.manual_seed(218)
    return finished(WaveDenoise(), torch.randn(1, 1, 8192) * 0.1)
