"""The fourth set, its networks for sound, text, series, tables and points, and those that make pictures or act."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from .blocks import (
    Act,
    Added,
    Apply,
    FusedAttention,
    Network,
    Recurrent,
    Residual,
    SelfAttention,
    basic_block,
    chain,
    conv_norm_act,
    conv_norm_act_1d,
    doubled,
    perceptron,
    swapped,
    transformer_block,
    waves,
)

__all__ = (  # noqa: RUF022 - in the order in which they stand below
    "tasnet_separator", "speech_features", "sound_events", "llama_mini", "bert_intents", "patch_forecaster",
    "lstm_forecaster", "ft_transformer", "dlrm_clicks", "point_parts", "eegnet", "face_vae", "diffusion_step",
    "bev_views", "robot_policy",
)  # fmt: skip


class Separator(nn.Module):
    """A mask for each speaker over a learned spectrogram."""

    def __init__(self, speakers: int) -> None:
        super().__init__()

        def block(width: int, hidden: int, dilation: int) -> nn.Module:
            over_time = nn.Conv1d(hidden, hidden, 3, 1, dilation, dilation, groups=hidden)
            first = (nn.Conv1d(width, hidden, 1), nn.PReLU(), nn.GroupNorm(1, hidden))
            return Residual(*first, over_time, nn.PReLU(), nn.GroupNorm(1, hidden), nn.Conv1d(hidden, width, 1))

        blocks = [block(64, 192, 2**i) for _ in range(2) for i in range(5)]
        last = (nn.PReLU(), nn.Conv1d(64, speakers * 128, 1), nn.Sigmoid(), nn.Unflatten(1, (speakers, 128)))
        self.encode = nn.Sequential(nn.Conv1d(1, 128, 16, 8, bias=False), nn.ReLU())
        self.masks = nn.Sequential(nn.GroupNorm(1, 128), nn.Conv1d(128, 64, 1), *blocks, *last)
        self.decode = nn.ConvTranspose1d(128, 1, 16, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.encode(x)
        return torch.cat([self.decode(y * mask) for mask in self.masks(y).unbind(1)], 1)


def tasnet_separator() -> Network:
    """Two speakers from one second of their mixture, by a Conv-TasNet."""
    return Separator(2), (torch.randn(1, 1, 8000),)


def speech_features() -> Network:
    """Features of one second of raw speech, like wav2vec 2.0: strided convolutions, then a transformer."""
    rows = ((1, 10, 5), *[(144, 3, 2)] * 4, *[(144, 2, 2)] * 2)
    layers = [layer for c, kernel, by in rows for layer in (nn.Conv1d(c, 144, kernel, by, bias=False), nn.GELU())]
    layers.insert(1, nn.GroupNorm(144, 144))
    places = Residual(swapped(), nn.Conv1d(192, 192, 31, 1, 15, groups=8), nn.GELU(), swapped())
    blocks = [transformer_block(FusedAttention(192, 6), 192, 768) for _ in range(4)]
    between = (swapped(), nn.LayerNorm(144), nn.Linear(144, 192), places, nn.LayerNorm(192))
    return nn.Sequential(*layers, *between, *blocks), (torch.randn(1, 1, 16000),)


class Occurring(nn.Module):
    """Each event's likelihood at every step, and over all of them by attention."""

    def __init__(self, width: int, events: int) -> None:
        super().__init__()
        self.events, self.weights = nn.Linear(width, events), nn.Linear(width, events)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        strong = self.events(x).sigmoid()
        return strong, (strong * self.weights(x).softmax(1)).sum(1)


def sound_events() -> Network:
    """When which sounds occur in a mel spectrogram: gated convolutions, and a GRU in both directions."""
    layers: list[nn.Module] = []
    for c_in, c_out, pool in ((1, 16, 2), (16, 32, 2), (32, 64, (1, 4)), (64, 96, (1, 4))):
        layers += [nn.Conv2d(c_in, 2 * c_out, 3, 1, 1), nn.BatchNorm2d(2 * c_out), nn.GLU(1), nn.AvgPool2d(pool)]
    reader = Recurrent(nn.GRU(96, 96, batch_first=True, bidirectional=True))
    return nn.Sequential(*layers, nn.Flatten(2), swapped(), reader, Occurring(192, 10)), (torch.randn(1, 1, 312, 64),)


class RMSNorm(nn.Module):
    """Divides by the root of the mean square."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class RotaryAttention(nn.Module):
    """Attention to the tokens before, whose places rotate queries and keys; several queries share a key."""

    def __init__(self, width: int, heads: int, shared: int, tokens: int) -> None:
        super().__init__()
        self.shared, self.depth = shared, width // heads
        widths = (width, width // shared, width // shared)
        self.into = nn.ModuleList(nn.Linear(width, each, bias=False) for each in widths)
        self.out = nn.Linear(width, width, bias=False)
        sines, cosines = waves(torch.arange(tokens), self.depth).chunk(2, 1)
        self.register_buffer("sines", torch.cat([-sines, sines], 1))
        self.register_buffer("cosines", cosines.repeat(1, 2))

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return x * self.cosines + torch.cat([right, left], -1) * self.sines

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = [into(x).unflatten(2, (-1, self.depth)).transpose(1, 2) for into in self.into]
        k, v = self.rotated(k).repeat_interleave(self.shared, 1), v.repeat_interleave(self.shared, 1)
        y = nn.functional.scaled_dot_product_attention(self.rotated(q), k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class GatedPerceptron(nn.Module):
    """One linear layer's result times another's activation, projected."""

    def __init__(self, width: int, hidden: int, act: Act, bias: bool = False) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, hidden, bias) for _ in range(2))
        self.act, self.down = act(), nn.Linear(hidden, width, bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.act(self.gate(x)) * self.up(x))


def llama_mini() -> Network:
    """A decoder of text like a very small Llama; 48 tokens, and what comes after each."""

    def block(width: int) -> nn.Module:
        attention = Residual(RMSNorm(width), RotaryAttention(width, 8, 4, 48))
        return nn.Sequential(attention, Residual(RMSNorm(width), GatedPerceptron(width, 688, nn.SiLU)))

    first, last = nn.Embedding(6000, 256), (RMSNorm(256), nn.Linear(256, 6000, bias=False))
    return nn.Sequential(first, *[block(256) for _ in range(6)], *last), (torch.randint(6000, (1, 48)),)


class IntentsAndSlots(nn.Module):
    """A BERT's encoder that ignores padding; one label for a sentence and one for each word."""

    def __init__(self, words: int, tokens: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Embedding(words, width), Added(torch.randn(tokens, width)), nn.LayerNorm(width))
        act = partial(nn.functional.gelu, approximate="tanh")
        layer = partial(nn.TransformerEncoderLayer, width, 4, 4 * width, activation=act, batch_first=True)
        self.layers = nn.ModuleList(layer() for _ in range(3))
        self.pool = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Dropout(0.1), nn.Linear(width, 26))
        self.slots = nn.Linear(width, 80)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, padding = self.embed(x), mask == 0
        for layer in self.layers:
            y = layer(y, src_key_padding_mask=padding)
        return self.pool(y[:, 0]), self.slots(y)


def bert_intents() -> Network:
    """What four spoken requests want, from words' numbers and a mask of padding."""
    mask = (torch.arange(32) < torch.tensor([[32], [20], [9], [27]])).long()
    return IntentsAndSlots(8000, 32, 160), (torch.randint(8000, (4, 32)), mask)


class PatchForecaster(nn.Module):
    """Each series for itself, normalised: overlapping patches, a transformer, and a linear layer to the future."""

    def __init__(self, steps: int, future: int, width: int) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.Sequential(swapped(), nn.BatchNorm1d(width), swapped())

        def block() -> nn.Module:
            body = perceptron(width, 2 * width, width, act=nn.GELU)
            return nn.Sequential(Residual(SelfAttention(width, 8)), norm(), Residual(body), norm())

        patches = (steps - 16) // 8 + 1
        first = (nn.Linear(16, width), Added(torch.randn(patches, width)))
        last = (nn.Flatten(1), nn.Linear(patches * width, future))
        self.body = nn.Sequential(*first, *[block() for _ in range(3)], *last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, deviation = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        series = ((x - mean) / deviation).transpose(1, 2).flatten(0, 1)
        future = self.body(series.unfold(1, 16, 8)).unflatten(0, (x.shape[0], -1))
        return future.transpose(1, 2) * deviation + mean


def patch_forecaster() -> Network:
    """Four days of seven meters, twice, to the next one: a PatchTST."""
    return PatchForecaster(384, 96, 64), (torch.randn(2, 384, 7),)


class Seasons(nn.Module):
    """An LSTM reads the past, another writes the future from what is known of it, looking back by attention."""

    def __init__(self, past: int, known: int, width: int) -> None:
        super().__init__()
        self.read, self.write = (nn.LSTM(values, width, batch_first=True) for values in (past, known))
        self.align, self.out = nn.Linear(width, width, bias=False), perceptron(2 * width, width, 3, act=nn.ELU)

    def forward(self, past: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        memory, state = self.read(past)
        y, _ = self.write(known, state)
        weights = torch.einsum("nfc,npc->nfp", self.align(y), memory).softmax(-1)
        return self.out(torch.cat([y, torch.einsum("nfp,npc->nfc", weights, memory)], -1))


def lstm_forecaster() -> Network:
    """Three quantiles of a day's demand from three days of sales and the calendar."""
    return Seasons(8, 5, 64), (torch.randn(1, 72, 8), torch.randn(1, 24, 5))


class TableTransformer(nn.Module):
    """A token for each column of a table and one more, through attention and gated perceptrons; the last tells."""

    def __init__(self, numbers: int, kinds: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.weight, self.last = nn.Parameter(torch.randn(numbers, width)), nn.Parameter(torch.randn(1, 1, width))
        self.kinds, self.bias = nn.Embedding(sum(kinds), width), nn.Parameter(torch.randn(numbers + len(kinds), width))
        self.register_buffer("starts", torch.tensor([0, *kinds[:-1]]).cumsum(0))
        makers = (partial(SelfAttention, width, 8), partial(GatedPerceptron, width, 128, nn.ReLU, True))
        blocks = [Residual(nn.LayerNorm(width), make()) for _ in range(3) for make in makers]
        last = (Apply(torch.select, dim=1, index=-1), nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, 2))
        self.body = nn.Sequential(*blocks, *last)

    def forward(self, numbers: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        columns = torch.cat([numbers.unsqueeze(2) * self.weight, self.kinds(kinds + self.starts)], 1) + self.bias
        return self.body(torch.cat([columns, self.last.expand(len(numbers), -1, -1)], 1))


def ft_transformer() -> Network:
    """Sixteen rows of a table with ten numbers and six kinds of things: an FT-Transformer."""
    return TableTransformer(10, (12, 7, 40, 2, 5, 300), 96), (torch.randn(16, 10), torch.randint(2, (16, 6)))


class Interactions(nn.Module):
    """Dot products of all pairs among the embeddings and what the numbers gave, under a perceptron."""

    def __init__(self, numbers: int, kinds: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(kind, width) for kind in kinds)
        self.bottom = nn.Sequential(perceptron(numbers, 128, 64, width), nn.ReLU())
        fields = len(kinds) + 1
        self.top = perceptron(width + fields * (fields - 1) // 2, 128, 64, 1)
        rows, columns = torch.tril_indices(fields, fields, -1)
        self.register_buffer("pairs", rows * fields + columns)

    def forward(self, numbers: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
        x = self.bottom(numbers)
        fields = torch.stack([x, *[table(kinds[:, i]) for i, table in enumerate(self.tables)]], 1)
        products = torch.bmm(fields, fields.transpose(1, 2)).flatten(1).index_select(1, self.pairs)
        return self.top(torch.cat([x, products], 1)).sigmoid()


def dlrm_clicks() -> Network:
    """How likely sixteen advertisements are clicked: a DLRM."""
    kinds = (1000, 20000, 300, 50, 8000, 24, 7, 2500)
    return Interactions(13, kinds, 32), (torch.randn(16, 13), torch.randint(7, (16, 8)))


class PointParts(nn.Module):
    """A PointNet that turns the cloud, and labels every point by its own features and the whole's."""

    def __init__(self, parts: int) -> None:
        super().__init__()
        self.turn = nn.Sequential(chain(conv_norm_act_1d, 3, (64, 1), (128, 1), (256, 1)), nn.AdaptiveMaxPool1d(1))
        self.angles = nn.Sequential(nn.Flatten(), perceptron(256, 128, 9), nn.Unflatten(1, (3, 3)))
        self.local = chain(conv_norm_act_1d, 3, (64, 1), (64, 1))
        self.whole = chain(conv_norm_act_1d, 64, (128, 1), (512, 1))
        self.label = nn.Sequential(chain(conv_norm_act_1d, 576, (256, 1), (128, 1)), nn.Conv1d(128, parts, 1))
        self.register_buffer("same", torch.eye(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        local = self.local(torch.bmm(self.angles(self.turn(x)) + self.same, x))
        whole = self.whole(local).max(2, keepdim=True).values
        return self.label(torch.cat([local, whole.expand(-1, -1, x.shape[2])], 1)).log_softmax(1)


def point_parts() -> Network:
    """The parts of two clouds of 1024 points."""
    return PointParts(12), (torch.randn(2, 3, 1024),)


def eegnet() -> Network:
    """Imagined movements from two seconds of 22 electrodes: an EEGNet."""
    first = (nn.Conv2d(1, 8, (1, 64), padding="same", bias=False), nn.BatchNorm2d(8))
    space = (nn.Conv2d(8, 16, (22, 1), groups=8, bias=False), nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 4)))
    over_time = (nn.Conv2d(16, 16, (1, 16), padding="same", groups=16), nn.Conv2d(16, 16, 1, bias=False))
    last = (nn.BatchNorm2d(16), nn.ELU(), nn.AvgPool2d((1, 8)), nn.Flatten(), nn.Linear(128, 4), nn.Softmax(1))
    return nn.Sequential(*first, *space, *over_time, *last), (torch.randn(1, 1, 22, 256),)


class Variational(nn.Module):
    """A variational autoencoder; the noise comes from outside."""

    def __init__(self, latent: int) -> None:
        super().__init__()
        conv, widths = partial(conv_norm_act, act=nn.LeakyReLU, bias=True), (32, 64, 128, 256)
        self.encode = nn.Sequential(chain(conv, 3, *[(c, 3, 2) for c in widths]), nn.Flatten())
        self.mean, self.spread = nn.Linear(256 * 16, latent), nn.Linear(256 * 16, latent)
        ups = [doubled(c, c_out, nn.BatchNorm2d(c_out), nn.LeakyReLU()) for c_out, c in pairwise((32, *widths))]
        first = (nn.Linear(latent, 256 * 16), nn.Unflatten(1, (256, 4, 4)))
        self.decode = nn.Sequential(*first, *reversed(ups), nn.Conv2d(32, 3, 3, 1, 1), nn.Tanh())

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = self.encode(x)
        mean, spread = self.mean(y), self.spread(y)
        return self.decode(mean + noise * (0.5 * spread).exp()), mean, spread


def face_vae() -> Network:
    """Eight small pictures of faces through a code and back."""
    return Variational(128), (torch.randn(8, 3, 64, 64), torch.randn(8, 128))


class TimedBlock(nn.Module):
    """Two convolutions after norms, with the time added between them, and a shortcut."""

    def __init__(self, c_in: int, c_out: int, time: int) -> None:
        super().__init__()

        def conv(a: int, b: int) -> nn.Module:
            return nn.Sequential(nn.GroupNorm(8, a), nn.SiLU(), nn.Conv2d(a, b, 3, 1, 1))

        self.first, self.second = conv(c_in, c_out), conv(c_out, c_out)
        self.time = nn.Sequential(nn.SiLU(), nn.Linear(time, c_out))
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) + self.time(time)[:, :, None, None]) + self.shortcut(x)


class Denoiser(nn.Module):
    """A U-Net of three levels that is told the time, with attention at the coarsest."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        steps = list(pairwise((widths[0], *widths)))
        time, last = 4 * widths[0], widths[-1]
        self.width, self.time = widths[0], perceptron(widths[0], time, time, act=nn.SiLU)
        self.into = nn.Conv2d(4, widths[0], 3, 1, 1)
        self.down = nn.ModuleList(TimedBlock(c_in, c, time) for c_in, c in steps)
        self.shrink = nn.ModuleList(nn.Conv2d(c, c, 3, 2, 1) for c in widths)
        attention = (nn.GroupNorm(8, last), nn.Flatten(2), swapped(), FusedAttention(last, 4), swapped())
        self.attend = Residual(*attention, nn.Unflatten(2, (4, 4)))
        self.before, self.after = TimedBlock(last, last, time), TimedBlock(last, last, time)
        self.grow = nn.ModuleList(nn.Conv2d(c, c, 3, 1, 1) for c in reversed(widths))
        self.up = nn.ModuleList(TimedBlock(2 * c, c_out, time) for c_out, c in reversed(steps))
        self.out = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU(), nn.Conv2d(widths[0], 4, 3, 1, 1))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        x, time, skipped = self.into(x), self.time(waves(time, self.width)), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            skipped.append(block(x, time))
            x = shrink(skipped[-1])
        x = self.after(self.attend(self.before(x, time)), time)
        for grow, block in zip(self.grow, self.up, strict=True):
            x = grow(nn.functional.interpolate(x, scale_factor=2.0))
            x = block(torch.cat([x, skipped.pop()], 1), time)
        return self.out(x)


def diffusion_step() -> Network:
    """One step of a latent diffusion, from latents and the time."""
    return Denoiser(64, 128, 192), (torch.randn(1, 4, 32, 32), torch.tensor([420.0]))


class CrossView(nn.Module):
    """A map from above asks all cameras' features, which know the rays they lie on."""

    def __init__(self, width: int, rows: int, columns: int) -> None:
        super().__init__()
        stem = (conv_norm_act(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1))
        self.encode = nn.Sequential(*stem, chain(basic_block, 32, (32,), (64, 2), (64,), (width, 2), (width,)))
        self.rays = nn.Sequential(nn.Conv1d(3, width, 1), nn.ReLU(), nn.Conv1d(width, width, 1))
        x, y = torch.meshgrid(torch.linspace(0, 1, columns), torch.linspace(0, 1, rows), indexing="xy")
        self.register_buffer("pixels", torch.stack([x.flatten(), y.flatten(), torch.ones(rows * columns)]))
        self.places = nn.Parameter(torch.randn(1, 400, width))
        self.attend = nn.MultiheadAttention(width, 4, batch_first=True)
        self.mlp = Residual(nn.LayerNorm(width), perceptron(width, 2 * width, width, act=nn.GELU))
        up = partial(nn.Upsample, scale_factor=2, mode="bilinear")
        middle = (basic_block(width, width), up(), conv_norm_act(width, 64), up(), conv_norm_act(64, 32))
        self.decode = nn.Sequential(nn.Unflatten(2, (20, 20)), *middle, nn.Conv2d(32, 4, 1))

    def forward(self, pictures: torch.Tensor, cameras: torch.Tensor) -> torch.Tensor:
        n, views = pictures.shape[:2]
        rays = nn.functional.normalize(cameras.flatten(0, 1) @ self.pixels, dim=1)
        features = self.encode(pictures.flatten(0, 1)).flatten(2) + self.rays(rays)
        tokens = features.transpose(1, 2).reshape(n, views * features.shape[2], -1)
        places = self.places.expand(n, -1, -1)
        seen = places + self.attend(places, tokens, tokens, need_weights=False)[0]
        return self.decode(self.mlp(seen).transpose(1, 2))


def bev_views() -> Network:
    """What lies around a car, seen from above, from four cameras and their geometry."""
    return CrossView(96, 8, 14), (torch.randn(1, 4, 3, 128, 224), torch.randn(1, 4, 3, 3))


class RobotPolicy(nn.Module):
    """How to move seven joints, and what that is worth, from a camera and the joints."""

    def __init__(self) -> None:
        super().__init__()

        def group(c_in: int, c_out: int) -> nn.Module:
            pairs = [(nn.ReLU(), nn.Conv2d(c_out, c_out, 3, 1, 1)) for _ in range(4)]
            residuals = [Residual(*pairs[i], *pairs[i + 1]) for i in (0, 2)]
            return nn.Sequential(nn.Conv2d(c_in, c_out, 3, 1, 1), nn.MaxPool2d(3, 2, 1), *residuals)

        groups = (chain(group, 3, (16,), (32,), (32,)), nn.ReLU(), nn.Flatten())
        self.see = nn.Sequential(*groups, nn.Linear(32 * 100, 256), nn.LayerNorm(256), nn.Tanh())
        self.feel = perceptron(14, 64, 64, act=nn.ELU)
        self.actor, self.critic = (perceptron(320, 256, values, act=nn.ELU) for values in (7, 1))

    def forward(self, picture: torch.Tensor, joints: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.cat([self.see(picture / 255.0 - 0.5), self.feel(joints)], 1)
        return self.actor(y).tanh(), self.critic(y)


def robot_policy() -> Network:
    """An actor and critic for an arm, two cameras' worth at once."""
    return RobotPolicy(), (torch.randn(2, 3, 80, 80), torch.randn(2, 14))
