"""Three small nets that no part of the search was tuned on, trained here in seconds: a builder as in `_compress_models`.

    lstm       which of five movements six channels show over 40 readings; one LSTM layer
    depthwise  which of eight textures a colour image shows; depthwise convolutions with hard-swish
    finder     squares and discs in an image, as boxes: a trunk, two heads, joined and decoded in the graph; judged by how well the
               boxes agree with the original's

Run as `python -m tests.bench._compress_small CACHE OUT`; OUT/<name>/ gets what a single model's OUT has.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from wavegate_server.adapters.files.bundles import write_bundle

NAMES = ("lstm", "depthwise", "finder")
SIZES = {"calib": 96, "golden": 200, "eval": 800}
UNSEEN = 1000
CELLS = 12


def main(_: Path, out: Path) -> None:
    """Write `out`/<name>/bundle and `out`/<name>/unseen.npz for each of `NAMES`."""
    import torch

    torch.manual_seed(17)
    torch.set_num_threads(2)
    makers = {"lstm": (_movements, _lstm), "depthwise": (_textures, _depthwise), "finder": (_shapes, _finder)}
    for name, (samples, build) in makers.items():
        sys.stderr.write(f"{name}: training\n")
        net = build()
        _fit(net, samples, name)
        _write(out / name, name, net.eval(), samples)


# --- data ----------------------------------------------------------------------------------------------------------------
def _movements(count: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 5, count)
    time = np.linspace(0, 4, 40)
    rate = (1.0 + 0.45 * label + rng.normal(scale=0.05, size=count))[:, None, None]
    shift = rng.uniform(0, 6.3, (count, 1, 6)) + np.arange(6) * (0.3 + 0.15 * label[:, None, None])
    signal = np.sin(rate * time[None, :, None] * 2 + shift) + 0.3 * np.sin(
        2 * rate * time[None, :, None] + label[:, None, None]
    )
    drift = rng.normal(scale=0.04, size=(count, 40, 6)).cumsum(axis=1)
    return (signal + drift + rng.normal(scale=0.25, size=signal.shape)).astype(np.float32), label.astype(np.int64)


def _textures(count: int, seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 8, count)
    rows, columns = np.mgrid[0:32, 0:32] / 32
    angle = (label % 4 * np.pi / 4 + rng.normal(scale=0.12, size=count))[:, None, None]
    pitch = np.where(label < 4, 18, 30)[:, None, None] + rng.normal(scale=1.5, size=(count, 1, 1))
    wave = np.sin(pitch * (np.cos(angle) * rows + np.sin(angle) * columns) + rng.uniform(0, 6.3, (count, 1, 1)))
    tint = rng.uniform(0.2, 1.0, (count, 3, 1, 1))
    images = wave[:, None] * tint + rng.normal(scale=1.1, size=(count, 3, 32, 32))
    return images.astype(np.float32), label.astype(np.int64)


def _shapes(count: int, seed: int) -> tuple[Any, Any]:
    """Images (n, 1, 48, 48); wanted by cell: left, top, right, bottom in cells from its middle, there (0 or 1), disc (0 or 1)."""
    rng = np.random.default_rng(seed)
    images = rng.normal(scale=0.25, size=(count, 1, 48, 48))
    wanted = np.zeros((count, 6, CELLS, CELLS))
    rows, columns = np.mgrid[0:48, 0:48]
    for at in range(count):
        for _ in range(rng.integers(1, 4)):
            half, disc = rng.uniform(3, 7), int(rng.integers(0, 2))
            y, x = rng.uniform(half, 48 - half, 2)
            away = np.hypot(rows - y, columns - x) if disc else np.maximum(abs(rows - y), abs(columns - x))
            images[at, 0] += (away <= half) * rng.uniform(0.7, 1.3)
            i, j = int(y // 4), int(x // 4)
            middle = np.array([x, y, x, y]) / 4 - np.array([j, i, j, i]) - 0.5
            wanted[at, :, i, j] = [*(middle + np.array([-half, -half, half, half]) / 4), 1, disc]
    return images.astype(np.float32), wanted.astype(np.float32)


# --- nets ----------------------------------------------------------------------------------------------------------------
def _lstm() -> Any:
    import torch

    class Lstm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.LSTM(6, 96, batch_first=True)
            self.head = torch.nn.Linear(96, 5)

        def forward(self, x: Any) -> Any:
            return self.head(self.body(x)[0].mean(dim=1))

    return Lstm()


def _depthwise() -> Any:
    from torch import nn

    layers: list[Any] = [nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.Hardswish()]
    for into, out, stride in ((24, 48, 2), (48, 64, 1), (64, 96, 2), (96, 128, 1)):
        layers += [nn.Conv2d(into, into, 3, stride, 1, groups=into, bias=False), nn.BatchNorm2d(into), nn.Hardswish()]
        layers += [nn.Conv2d(into, out, 1, bias=False), nn.BatchNorm2d(out), nn.Hardswish()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 8))


def _finder() -> Any:
    import torch
    from torch import nn

    class Finder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes = ((1, 16, 2), (16, 32, 2), (32, 64, 1), (64, 64, 1))
            trunk = [nn.Sequential(nn.Conv2d(a, b, 3, s, 1), nn.BatchNorm2d(b), nn.ReLU()) for a, b, s in sizes]
            self.trunk = nn.Sequential(*trunk)
            self.boxes, self.kinds = nn.Conv2d(64, 4, 1), nn.Conv2d(64, 3, 1)
            at = torch.arange(CELLS) + 0.5
            columns, rows = at[None].expand(CELLS, CELLS), at[:, None].expand(CELLS, CELLS)
            self.register_buffer("middle", torch.stack([columns, rows, columns, rows])[None])

        def raw(self, x: Any) -> tuple[Any, Any]:
            found = self.trunk(x)
            return self.boxes(found), self.kinds(found)

        def forward(self, x: Any) -> Any:
            boxes, kinds = self.raw(x)
            sure = torch.sigmoid(kinds[:, :1])
            disc = (kinds[:, 2:3] > kinds[:, 1:2]).float()
            return torch.cat([(boxes + self.middle) * 4, sure, disc], 1).flatten(2).transpose(1, 2)

    return Finder()


# --- training and bundles ------------------------------------------------------------------------------------------------
def _fit(net: Any, samples: Any, name: str) -> None:
    import torch
    from torch.nn import functional

    x, y = (torch.from_numpy(each) for each in samples(4000, 1))
    steps = 260 if name == "finder" else 220
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    net.train()
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        if name == "finder":
            boxes, kinds = net.raw(x[rows])
            want = y[rows]
            there = want[:, 4]
            loss = functional.binary_cross_entropy_with_logits(kinds[:, 0], there, weight=1 + 8 * there)
            apart = functional.smooth_l1_loss(boxes, want[:, :4], reduction="none").sum(1)
            which = functional.cross_entropy(kinds[:, 1:], want[:, 5].long(), reduction="none")
            loss = loss + ((apart + which) * there).sum() / there.sum()
        else:
            loss = functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def _write(out: Path, name: str, net: Any, samples: Any) -> None:
    import torch

    folder = out / "bundle"
    folder.mkdir(parents=True, exist_ok=True)
    first = torch.from_numpy(samples(1, 2)[0])
    names = {"input_names": ["x"], "output_names": ["y"]}
    torch.onnx.export(net, (first,), str(folder / "model.onnx"), dynamo=False, opset_version=17, **names)
    for seed, (each, count) in enumerate({**SIZES, "unseen": UNSEEN}.items(), 10):
        x, y = samples(count, seed)
        if name == "finder":  # the truth is what the original finds
            with torch.no_grad():
                y = net(torch.from_numpy(x)).flatten(1).numpy()
        held = {"input.x": x} if each == "calib" else {"input.x": x, "label": y}
        np.savez((out if each == "unseen" else folder) / f"{each}.npz", allow_pickle=False, **held)
    shape = [-1, *first.shape[1:]]
    document: dict[str, object] = {
        "schema": 1,
        "model": f"bench-{name}",
        "task": "detection" if name == "finder" else "classification",
        "licence": "Apache-2.0",
        "model_file": "model.onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": shape}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, CELLS**2, 6] if name == "finder" else [-1, -1]}],
        "metric": {
            "name": "detection_agreement" if name == "finder" else "accuracy",
            "unit": "share",
            "direction": "up",
        },
        "golden": {"file": "golden.npz", "floor": 0.5},
        "calib": {"file": "calib.npz"},
        "eval": {"file": "eval.npz"},
    }
    files = ("model.onnx", "calib.npz", "golden.npz", "eval.npz")
    write_bundle(folder, document, {each: folder / each for each in files})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
