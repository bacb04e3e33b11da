"""What only a GPU can show: streams, memory, errors, all colours. The kernels' bytes: test_cuda_kernels.py, on both."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from pass_loader import _C, normalize, recipes, render_plan
from pass_loader.gpu import cuda
from pass_loader.recipes import reference

from ..helpers.corpus import every_colour, noise
from ..helpers.plans import plan_of


pytestmark = pytest.mark.cuda
if not cuda.cuda_available():
    pytest.skip(f"no GPU: {cuda.cuda_reason()}", allow_module_level=True)
SECOND = 2_000_000_000  # cycles: about one second of a spinning kernel, or more


def batch_of(seed: int, views: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A picture and plans of 96 x 96 views with all steps."""
    recipe = recipes.dino()
    pixels = noise(300, 400, seed)
    plans = [_C.plan_views(recipe.rows(), seed=seed, epoch=e, record=0, height=300, width=400) for e in range(views)]
    return pixels, np.concatenate(plans).astype(_C.view_plan_dtype)


class Batches:
    """Renders batches into fresh memory, and says later whether they are right."""

    def __init__(self, renderer: cuda.PlanRenderer) -> None:
        self.renderer = renderer
        self.done: list[tuple[np.ndarray, np.ndarray, list[torch.Tensor]]] = []

    def render(self, pixels: np.ndarray, plans: np.ndarray) -> None:
        self.prepare(pixels, plans)()

    def prepare(self, pixels: np.ndarray, plans: np.ndarray) -> Callable[[], None]:
        """Return what renders the batch on the current stream. Its own memory is there already."""
        planar = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().cuda()
        views = [torch.full((int(p["out_height"]), int(p["out_width"]), 3), 0xA5, dtype=torch.uint8, device="cuda")
                 for p in plans]  # fmt: skip
        outs = np.array([view.data_ptr() for view in views])

        def render() -> None:
            self.renderer.render(cuda.picture_rows([planar]), plans, np.zeros(len(plans), np.int32), outs)
            planar.record_stream(torch.cuda.current_stream())
            self.done.append((pixels, plans, views))

        return render

    def check(self) -> None:
        torch.cuda.synchronize()
        for pixels, plans, views in self.done:
            for view, want in zip(views, render_plan(pixels, plans)):
                assert np.array_equal(view.cpu().numpy(), want)


def renderer(**options: object) -> cuda.PlanRenderer:
    return cuda.PlanRenderer(cuda.BYTES, torch.uint8, channels_last=True, **options)


def test_a_slow_stream() -> None:
    """More batches than slots wait for a slow kernel. Kills: tables overwritten before they were copied."""
    batches = Batches(renderer())
    work = [batch_of(seed, 2) for seed in range(10)]
    torch.cuda._sleep(SECOND)
    for pixels, plans in work:
        batches.render(pixels, plans)
    batches.check()


def test_two_streams() -> None:
    """The second stream's batch waits for the first one's. Kills: a workspace that two batches write at once."""
    batches = Batches(renderer())
    work = [batch_of(seed, 2) for seed in range(4)]
    batches.render(*work[0])
    streams = [torch.cuda.Stream() for _ in range(2)]
    for stream, (pixels, plans) in zip(streams * 2, work):
        stream.wait_stream(torch.cuda.default_stream())
        with torch.cuda.stream(stream):
            torch.cuda._sleep(SECOND // 10)
            batches.render(pixels, plans)
    batches.check()


def test_a_workspace_that_grows() -> None:
    """What was allocated in one stream's order is not given out again there while another one uses it. Kills: a
    workspace that only the first stream is known to use."""
    batches = Batches(renderer())
    calls = [batches.prepare(*batch_of(seed, views)) for seed, views in ((1, 1), (2, 1), (3, 3))]
    torch.cuda.synchronize()
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(first):
        calls[0]()
    torch.cuda.synchronize()
    workspace = batches.renderer._workspace
    assert workspace is not None
    place, bytes = workspace.data_ptr(), len(workspace)
    del workspace
    with torch.cuda.stream(second):
        torch.cuda._sleep(SECOND // 4)
        calls[1]()
        calls[2]()  # for which it is too small
    assert batches.renderer.device_bytes > bytes
    with torch.cuda.stream(first):
        others = [torch.empty(bytes, dtype=torch.uint8, device="cuda") for _ in range(3)]
    assert all(abs(other.data_ptr() - place) >= bytes for other in others)
    batches.check()


def test_steady_state() -> None:
    """No allocation after the largest batch, and no memory lost in 10,000 batches."""
    ours = renderer()
    pixels, plans = batch_of(1, 1)
    planar = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().cuda()
    views = [torch.empty(int(p["out_height"]), int(p["out_width"]), 3, dtype=torch.uint8, device="cuda") for p in plans]
    outs, rows = np.array([view.data_ptr() for view in views]), cuda.picture_rows([planar])
    numbers = np.zeros(len(plans), np.int32)
    free = []
    for number in range(10_001):
        ours.render(rows, plans, numbers, outs)
        if number in (100, 10_000):
            torch.cuda.synchronize()
            free.append((torch.cuda.mem_get_info()[0], ours.allocations, ours.device_bytes))
    assert free[0] == free[1]
    for view, want in zip(views, render_plan(pixels, plans)):
        assert np.array_equal(view.cpu().numpy(), want)


def test_renderers_give_their_memory_back() -> None:
    """Kills: a table, a workspace or pinned slots that outlive their renderer."""
    batch = noise(64, 64), plan_of(64, 64)
    seen = []
    for number in range(30):
        batches = Batches(renderer())
        batches.render(*batch)
        batches.check()
        del batches
        torch.cuda.empty_cache()
        if number in (5, 29):
            seen.append(torch.cuda.mem_get_info()[0])
    assert seen[0] == seen[1]


def test_out_of_memory() -> None:
    """A clear error, and a renderer that works again when there is memory."""
    batches = Batches(renderer())
    big = plan_of(2000, 2000, resize_height=12000, resize_width=12000, interpolation=3)
    small = batch_of(1, 1)
    batches.render(*small)
    torch.cuda.synchronize()
    free, _ = torch.cuda.mem_get_info()
    hog = [torch.empty(max(free - (600 << 20), 0), dtype=torch.uint8, device="cuda")]
    with pytest.raises(torch.OutOfMemoryError):
        batches.render(noise(2000, 2000), big)
    batches.render(*small)  # what is left is enough for it
    hog.clear()
    torch.cuda.empty_cache()
    batches.render(*small)
    batches.check()


def test_refused() -> None:
    with pytest.raises(ValueError, match="there are"):
        renderer(device=torch.cuda.device_count())
    with pytest.raises(ValueError, match="crop box"):
        cuda.render_plan(torch.zeros(4, 4, 3, dtype=torch.uint8, device="cuda"), plan_of(5, 4))


def test_all_colours() -> None:
    """Hue and luma of all 2^24 colours against Pillow. Kills: a division that is not the IEEE one."""
    pixels = every_colour()
    on_device = torch.from_numpy(pixels).cuda()
    for fields in ({"jitter_order": [3, -1, -1, -1], "hue": 0.07}, {"jitter_order": [3, -1, -1, -1], "hue": -0.5},
                   {"grayscale": True}, {"jitter_order": [2, -1, -1, -1], "saturation": 1.3}):  # fmt: skip
        plan = plan_of(4096, 4096, **fields)
        want = reference.render(Image.fromarray(pixels), plan[0])
        assert np.array_equal(cuda.render_plan(on_device, plan)[0].cpu().numpy(), want), fields


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_element_types(dtype: torch.dtype) -> None:
    recipe = recipes.dino()
    pixels, plans = noise(64, 64), plan_of(64, 64)
    out = torch.empty(3, 64, 64, dtype=dtype, device="cuda")
    planar = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().cuda()
    ours = cuda.PlanRenderer(cuda.normalize_table(recipe, dtype), dtype)
    ours.render(cuda.picture_rows([planar]), plans, np.zeros(1, np.int32), np.array([out.data_ptr()]))
    want = planar if dtype == torch.uint8 else normalize(planar.cpu(), recipe, dtype).cuda()
    assert torch.equal(out, want)
