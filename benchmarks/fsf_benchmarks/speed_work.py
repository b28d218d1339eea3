"""Worker process of `fsf bench speed`: for each line of input, run a method of `Work` and print its result as JSON.

    python -m fsf_benchmarks.speed_work '{"way": "ours", "size": 64, "width": 0.5, "batch": 24, ...}'

Each implementation runs in a separate process, with separate peak memory and allocator. The file uses only the
interfaces of components, so that `--against` can run it on the code of another commit.
"""

import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fsframework.core.part import part
from fsframework.core.swapper import Swapper
from fsframework.core.types import FaceBatch, SwapBatch, SwapResult
from fsframework.data.collate import collate
from fsframework.faces.align import align
from fsframework.faces.paste import paste, soft_mask

LOSSES = ("hinge-gan", "attribute", "identity", "reconstruction")
REPEATS = 4  # repetitions of a task on a GPU, whose work overlaps with Python's
IMAGES = 16  # images with one face for detection, alignment and pasting


class Work:
    """Tasks of one implementation.

    Parameters
    ----------
    way:
        "ours", or "plain": the reference generator and torch's convolutions.
    size, width, batch:
        Side of the crops, factor of the channels, pairs per batch.
    bf16:
        Whether networks run under bfloat16 autocast.
    activation_checkpointing:
        Whether the generator's activations are recomputed in the backward pass.
    optimizer_in_backward:
        Whether weights are updated in the backward pass.
    compiled:
        Whether both networks are compiled by torch.compile.
    cuda_graph:
        Whether a step is recorded as CUDA graph and replayed, on GPUs.
    without:
        Optimisation to disable in "ours", see `Speed.Options`; "" for none.
    device:
        Device in torch's notation.
    threads:
        Number of CPU threads.
    """

    def __init__(
        self,
        way: str,
        size: int,
        width: float,
        batch: int,
        bf16: bool,
        activation_checkpointing: bool,
        optimizer_in_backward: bool,
        compiled: bool,
        cuda_graph: bool,
        without: str,
        device: str,
        threads: int,
    ) -> None:
        torch.set_num_threads(threads)
        self.keeps = False  # whether transformed weights are cached
        self.way, self.size, self.width, self.batch_size, self.device = way, size, width, batch, torch.device(device)
        self.activation_checkpointing, self.optimizer_in_backward = activation_checkpointing, optimizer_in_backward
        self.compiled, self.cuda_graph, self.without = compiled, cuda_graph, without
        self.precision = torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()
        torch.backends.cudnn.allow_tf32 = (
            way != "plain"
        )  # torch's default; the plain reference computes in fp32 without TF32
        if without in ("winograd", "aad", "instance_norm", "triton"):
            os.environ["FSF_BLOCK_KERNELS"] = without
        if without != "memory":
            self._keep_memory()

    @staticmethod
    def _keep_memory() -> None:
        try:
            from fsframework.ops.allocator import retain_freed_memory
        except ImportError:  # an older commit
            return
        retain_freed_memory()

    @cached_property
    def networks(self) -> tuple[Swapper, list[Any], list[torch.optim.Adam]]:
        """Swapper, losses, and optimizers of the networks and of the discriminator."""
        torch.manual_seed(0)
        identity = part("identity-encoders", "dlib-resnet").build()
        identity.load()
        attributes = part("attribute-encoders", "aei-attributes", width=self.width).build(self.size)
        more = {"activation_checkpointing": True} if self.activation_checkpointing else {}
        options = part("generators", "aad-generator", width=self.width, **more)
        generator = options.build(self.size, identity.dim, attributes.channels)
        if self.way == "plain":
            from fsf_benchmarks.plain_aei_net import PlainGenerator, plain_layers

            generator, attributes = PlainGenerator(generator), plain_layers(attributes)
        swapper = Swapper(identity, attributes, generator).to(self.device)
        losses = [part("losses", kind).build().to(self.device) for kind in LOSSES]
        if self.way == "plain":
            for module in (identity, *losses):
                plain_layers(module)
        for module in (swapper, *losses):
            module.to(memory_format=self._order)
        if self.compiled:
            for module in (swapper.identity, swapper.attributes, swapper.generator):
                module.compile()
        trained = nn.ModuleList([swapper.attributes, swapper.generator])
        optimizers = [self._adam(each) for each in (trained, losses[0])]
        return swapper, losses, optimizers

    def _adam(self, module: nn.Module) -> torch.optim.Adam:
        settings: dict[str, Any] = {"lr": 4e-4, "betas": (0.0, 0.999)}
        try:
            from fsframework.training.optim import Adam
        except ImportError:  # an older commit
            return torch.optim.Adam(module.parameters(), fused=True, **settings)
        if self.way == "plain" or self.without == "adam":
            return torch.optim.Adam(module.parameters(), fused=True, **settings)
        return Adam(module.parameters(), **settings)

    @property
    def _order(self) -> torch.memory_format:
        return torch.contiguous_format if self.way == "plain" else torch.channels_last

    @cached_property
    def pairs(self) -> tuple[SwapBatch, Tensor]:
        """Pairs of random images, and their embeddings."""
        numbers = torch.Generator().manual_seed(0)
        image = torch.rand(self.batch_size, 3, self.size, self.size, generator=numbers) * 2 - 1
        source, target = (
            FaceBatch.of(each.to(self.device).contiguous(memory_format=self._order)) for each in (image, image.flip(0))
        )
        z_id = F.normalize(torch.randn(self.batch_size, 128, generator=numbers)).to(self.device)
        return SwapBatch.of(source, target), z_id

    def step(self) -> int:
        """Run a training step of both networks with four losses, and of the discriminator; return the batch size."""
        self.work()
        return self.batch_size

    @cached_property
    def work(self) -> Callable[[], Tensor]:
        """Function that runs a step, or replays its CUDA graph."""
        if not self.cuda_graph:
            return self._step
        from fsframework.training.cuda_graph import Recorded, recordable

        for optimizer in self.networks[2]:
            recordable(optimizer)
        return Recorded(self._step, self.device)

    def _step(self) -> Tensor:
        swapper, losses, optimizers = self.networks
        self._keep_weights(False)
        batch, z_id = self.pairs
        swapper.attributes.train(), swapper.generator.train()
        losses[0].requires_grad_(False)
        optimizers[0].zero_grad(set_to_none=True)
        with self.precision:
            output = swapper(batch, z_id)
            total = torch.stack([loss(batch, output, swapper) for loss in losses]).sum()
        self._descend(optimizers[0], total)
        losses[0].requires_grad_(True)
        optimizers[1].zero_grad(set_to_none=True)
        with self.precision:
            fake = SwapResult(output.image.detach(), output.image.detach(), output.z_id)
            critic = losses[0].critic(batch, fake)
        self._descend(optimizers[1], critic)
        return torch.stack([total.detach(), critic.detach()])

    def _keep_weights(self, keep: bool) -> None:
        """Switch the cache of transformed weights on or off, as in inference."""
        if keep == self.keeps:
            return
        self.keeps = keep
        try:
            from fsframework.ops.conv import cache_weights
        except ImportError:  # an older commit
            return
        cache_weights(self.networks[0], keep)

    def _descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        if self.optimizer_in_backward:
            from fsframework.training.optim import stepping

            with stepping(optimizer):
                loss.backward()
            return
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def swap(self) -> int:
        """Swap with given embeddings, as for frames of a video; return the batch size."""
        swapper, _, _ = self.networks
        self._keep_weights(True)
        batch, z_id = self.pairs
        with self.precision:
            self.swapped = swapper.eval()(batch, z_id).image
        return self.batch_size

    @cached_property
    def frames(self) -> list[np.ndarray]:
        """Image of an astronaut (512, 512, 3) uint8 at different shifts."""
        from skimage.data import astronaut

        return [np.roll(astronaut(), 8 * index, axis=1) for index in range(IMAGES)]

    @cached_property
    def detector(self) -> Any:
        """Detector mtcnn with weights."""
        detector = part("detectors", "mtcnn").build().to(self.device)
        detector.load()
        return detector

    @cached_property
    def crops(self) -> list[Any]:
        """Aligned crop of the largest face of each frame."""
        return [
            align(frame, faces[0], self.size)
            for frame, faces in zip(self.frames, self.detector(self.frames), strict=True)
        ]

    def detection(self) -> int:
        """Detect faces in images of 512x512 pixels, one at a time; return the number of images."""
        for frame in self.frames:
            self.detector([frame])
        return IMAGES

    def alignment(self) -> int:
        """Align the faces of images of 512x512 pixels; return the number of images."""
        for frame, crop in zip(self.frames, self.crops, strict=True):
            align(frame, crop.face, self.size)
        return IMAGES

    def pasting(self) -> int:
        """Paste crops into images of 512x512 pixels; return the number of images."""
        mask = soft_mask(self.size)
        for frame, crop in zip(self.frames, self.crops, strict=True):
            paste(frame, crop.image, crop.matrix, mask)
        return IMAGES

    @cached_property
    def faces(self) -> tuple[Any, np.ndarray]:
        """ORL training faces and the numbers of their people."""
        dataset = part("datasets", "orl").build(self.size, part("detectors", "mtcnn"), "train")
        dataset.load()
        return dataset, dataset.persons()

    def data(self) -> int:
        """Load batches of sources and targets from the cache of aligned crops to the device; return the batch size."""
        dataset, persons = self.faces
        for start in (0, 1):
            indices = [(start + 2 * k) % len(dataset) for k in range(self.batch_size)]
            collate([dataset[index] for index in indices], indices, persons).to(self.device)
        return self.batch_size

    def start(self) -> int:
        """Run `fsf swap` up to its first error, after imports of torch and plugins; return 1."""
        with tempfile.TemporaryDirectory() as folder:
            Image.new("RGB", (8, 8)).save(Path(folder) / "a.png")  # a missing file would be an earlier error
            command = [sys.executable, "-m", "fsframework", "swap", "a.png", "a.png", "b.png", "--model", "none"]
            process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        assert "none: no such model" in process.stderr, process.stderr
        return 1

    def seconds(self, task: str) -> tuple[float, int]:
        """Return the duration of a task in seconds, and its number of images.

        On a GPU, tasks of networks are repeated after a warm-up, and the memory is released afterwards.
        """
        task_function, times = getattr(self, task), 1
        if self.device.type == "cuda":
            times = REPEATS if task in ("step", "swap") else 1
            task_function()
            torch.cuda.synchronize()
        started = time.perf_counter()
        count = sum(task_function() for _ in range(times))
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return seconds, count

    def flops(self, task: str) -> int:
        """Return the floating-point operations of convolutions and matrix products of one call."""
        do = self._step if task == "step" else getattr(self, task)  # a CUDA graph runs no Python
        product = getattr(torch.ops.mkldnn, "_linear_pointwise", None)  # absent in torch without oneDNN
        counter = FlopCounterMode(display=False, custom_mapping={product: _linear_flops} if product else {})
        with counter, _winograds_products() as counted, torch.compiler.set_stance("force_eager"):
            do()
        return counter.get_total_flops() + sum(counted)

    def pixels(self) -> list[float]:
        """Return at most 100 thousand evenly spaced values of the last swaps, to compare implementations."""
        numbers = self.swapped.float().flatten()
        return numbers[:: -(-len(numbers) // 100_000)].tolist()

    def memory(self) -> int:
        """Return the peak memory of this process in bytes.

        On Linux, getrusage also includes the parent's memory before the start, so /proc is read instead.
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status")
        if status.is_file():
            (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def copy(self) -> float:
        """Return the bytes/s that a copy of 256 MB reads and writes, the best of ten."""
        data = torch.ones(1 << 26, device=self.device)
        other = torch.empty_like(data)
        return 2 * 4 * len(data) / min(self._timed(lambda: other.copy_(data)) for _ in range(10))

    def peak(self, kind: str) -> float:
        """Return the FLOP/s of a large matrix product, the best of ten; on GPUs fp32 is without TF32.

        On CPUs, a 1x1 convolution, which uses another library, is measured too, and the faster one counts.
        """
        side = 8192 if self.device.type == "cuda" else 2048
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[kind]
        a, b = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
        products: list[Callable[[], Tensor]] = [lambda: a @ b]
        if self.device.type == "cpu":
            image = a.view(1, 32, side // 32, side).permute(0, 3, 1, 2)  # its pixels are the rows of a
            products.append(lambda: F.conv2d(image, b[:, :, None, None]))
        with torch.no_grad():
            return 2 * side**3 / min(self._timed(product) for product in products for _ in range(10))

    def _timed(self, work: Callable[[], Any]) -> float:
        started = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started


@contextmanager
def _winograds_products() -> Iterator[list[int]]:
    """Count the operations of Winograd convolutions in C, which torch does not count."""
    winograd: Any = import_module("fsframework.ops.winograd")  # not part of the public API
    counted: list[int] = []
    if not hasattr(winograd, "PANEL"):  # an older commit, without products in C
        yield counted
        return
    convolve, gradient_of_weight = winograd._convolve, winograd.gradient_of_weight

    def count(images: Tensor, outputs: int) -> None:
        counted.append(2 * winograd.NUM_POINTS * winograd.tile_count(images) * images.shape[1] * outputs)

    def convolved(images: Tensor, *others: Any) -> Any:
        result = convolve(images, *others)
        count(images, result.shape[1])
        return result

    def to_weight(images: Tensor, gradient: Tensor) -> Any:
        count(images, gradient.shape[1])
        return gradient_of_weight(images, gradient)

    with mock.patch.multiple(winograd, _convolve=convolved, gradient_of_weight=to_weight):
        yield counted


def _linear_flops(left: torch.Size, right: torch.Size, *others: Any, **more: Any) -> int:
    """Return the operations of a product by oneDNN, (M, K) by (N, K), which torch does not count."""
    return 2 * left[0] * left[1] * right[0]


def main() -> None:
    """Read calls, a JSON list [method, arguments...] per line, and print each result as a line of JSON."""
    work = Work(**json.loads(sys.argv[1]))
    answers = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
    sys.stdout = sys.stderr  # other prints must not mix with results
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answers.write(json.dumps(getattr(work, name)(*arguments)) + "\n")


if __name__ == "__main__":
    main()
