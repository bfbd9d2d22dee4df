"""GPU kernels where there is no GPU: what imports, what is refused, what compiles, and what the interpreter computes.

Interpreted tests live in ``tests/interpreted`` and run in a process of their own: Triton decides at its first import
whether kernels are interpreted, and everything else in this process would get the decision too.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from revelm.kernels.availability import is_available
from revelm.kernels.block_attention import splits_that_fill, supports, tile_shape
from revelm.kernels.sampler import draw_tokens
from tests.kernel_reference import attention_case, sampler_keys
from tests.tiny_checkpoint import save_tiny

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import torch
from revelm.kernels.availability import is_available
from revelm.kernels.block_attention import block_attention
from revelm.kernels.sampler import Keys, draw_tokens
assert not is_available()
number, page = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 1, 1, 16)
for call in (
    lambda: draw_tokens(torch.zeros(1, 4), torch.ones(1), Keys(number, number, number)),
    lambda: block_attention(torch.zeros(1, 1, 16), page, page, table=number[None], limit=number[None]),
):
    try:
        call()
    except ValueError as error:
        assert "triton" in str(error), error
    else:
        raise SystemExit("ran without triton")
from revelm.models.load import load_model
model = load_model(sys.argv[1])
model(torch.zeros(1, 4, dtype=torch.int64))
heavy = {"torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "datasets"} & set(sys.modules)
assert not heavy, heavy
"""


def run(*arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_models_and_kernels_import_little(tmp_path: Path) -> None:
    """Catches an import of triton at the top of a file, which would break every machine with a CPU build of torch; and
    torch's compiler in every process that loads a model, which costs it seconds."""
    run("-c", WITHOUT_TRITON, str(save_tiny(tmp_path)))


@needs_triton
@pytest.mark.slow
def test_interpreted_kernels_compute_what_they_must() -> None:
    """Runs every test of ``tests/interpreted``; what each catches is said there."""
    files = sorted(path.as_posix() for path in (ROOT / "tests" / "interpreted").glob("*.py"))
    assert len(files) == 4
    run("-m", "pytest", "-q", "-p", "no:cacheprovider", *files, TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_cpu_is_refused() -> None:
    """Catches a launch on CPU tensors, which Triton answers with the lack of a driver, and a wrong is_available()."""
    assert not is_available()
    case = attention_case([[4]], page_size=4)
    with pytest.raises(ValueError, match=r"query.device is cpu, must be a CUDA device"):
        case.run()
    with pytest.raises(ValueError, match=r"logits.device is cpu, must be a CUDA device"):
        draw_tokens(torch.zeros(1, 4), torch.ones(1), sampler_keys(1))


@needs_triton
def test_an_old_triton_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a compiler's complaint about our kernels where the fallback would have worked."""
    import triton

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for installed, is_enough in (("3.3.1", False), ("3.4.0", True), ("3.10.0+gitabc", True), ("4.0", True)):
        monkeypatch.setattr(triton, "__version__", installed)
        assert is_available() is is_enough
    monkeypatch.setattr(triton, "__version__", "3.3.1")
    with pytest.raises(ValueError, match=r"'triton', 3\.4 or newer"):
        draw_tokens(torch.zeros(1, 4), torch.ones(1), sampler_keys(1))


def test_only_what_was_built_is_supported() -> None:
    """Catches a head size or dtype that the engine would hand to the kernel instead of to its fallback."""
    assert all(supports(torch.bfloat16, size) for size in (16, 32, 64, 128, 256))
    assert not any(supports(torch.bfloat16, size) for size in (8, 24, 80, 96, 512))
    assert not supports(torch.float64, 128)


def test_tiles_hold_a_segment_and_fit() -> None:
    """Catches rows of fp32 heads that take more shared memory than a multiprocessor has."""
    narrow, wide = torch.empty(1, 1, 128, dtype=torch.bfloat16), torch.empty(1, 1, 128)
    assert tile_shape(16, narrow) == (16, 64)
    assert tile_shape(17, narrow) == (32, 64)
    assert tile_shape(1, narrow) == (16, 64)
    assert tile_shape(1000, narrow) == (128, 64)
    assert tile_shape(1000, wide) == (64, 32)
    assert splits_that_fill(1, torch.device("cpu")) == 1


@needs_triton
@pytest.mark.parametrize(("dtype", "head_dim", "num_rows"), [("bf16", 128, 16), ("bf16", 128, 999), ("fp32", 64, 999)])
def test_attention_compiles_for_a_gpu(
    dtype: str, head_dim: int, num_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches what the interpreter lets pass: types, names and shapes that only a compiler refuses, lost tensor cores,
    tiles that overflow the 99 KiB of shared memory of the smallest GPUs."""
    from revelm.kernels import block_attention_triton as device_code

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    query = torch.empty(1, 1, head_dim, dtype={"bf16": torch.bfloat16, "fp32": torch.float32}[dtype])
    rows = device_code.Rows(f"*{dtype}", f"*{dtype}", "*fp32", "*fp32", "*fp32")
    pages = device_code.Pages(f"*{dtype}", f"*{dtype}", "*i32", "*i32")
    sizes = device_code.Sizes(*["i32"] * (len(device_code.Sizes._fields) - 1), "fp32")
    is_small = num_rows < 128
    tile = device_code.Tile(*tile_shape(num_rows, query), head_dim, 2, 3 if is_small else 1, not is_small)
    types = {"rows": rows, "pages": pages, "sizes": sizes, "tile": "constexpr"}
    options = {"num_warps": device_code.num_warps(tile.rows), "num_stages": device_code.NUM_STAGES}
    built = compiled(device_code.attend_kernel, types, {"tile": tile}, **options)
    assert "mma" in built.asm["ptx"] or dtype == "fp32"
    assert built.metadata.shared <= 99 * 1024
    types = {"rows": rows, "sizes": sizes, "tile": "constexpr", "width": "constexpr"}
    compiled(device_code.combine_kernel, types, {"tile": tile, "width": 4}, num_warps=4)


@needs_triton
def test_sampler_compiles_for_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches what the interpreter lets pass: types, names and shapes that only a compiler refuses."""
    from revelm.kernels import sampler_triton as device_code

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    inputs = device_code.Inputs("*bf16", "*fp32", "*i64", "*i64", "*i64", "*i64")
    parts = device_code.Parts(*["*fp32"] * 6, "*i32")
    out = device_code.Outputs("*i64", *["*fp32"] * 5)
    sizes = device_code.Sizes(*["i32"] * 4)
    types = {"inputs": inputs, "parts": parts, "sizes": sizes, "part_size": "constexpr"}
    compiled(device_code.part_kernel, types, {"part_size": 4096}, num_warps=4)
    types = {"inputs": inputs, "results": (parts, out), "sizes": sizes, "width": "constexpr"}
    compiled(device_code.combine_kernel, types, {"width": 64}, num_warps=1)


def compiled(kernel, types, constants, **options):
    """``kernel`` compiled for an H100 or H200, down to machine code; no device is needed for it."""
    import triton
    from triton.backends.compiler import GPUTarget

    source = triton.compiler.ASTSource(fn=kernel, signature=types, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
