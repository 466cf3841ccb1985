"""`doctor`: what this installation has. Works without torch, and says so."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

NEEDED = ("torch", "torchvision", "transformers", "safetensors", "numpy", "scipy")
"""Of an audit; a report is rendered, verified and decided again without the first four."""


def describe_installation() -> str:
    """Return the versions and devices that an audit would use, a line each."""
    lines = [f"poison-audit {version('poison-audit')}", f"python {platform.python_version()}"]
    for package in NEEDED:
        found = _version(package)
        lines.append(f"{package} {found or f'missing: audits need pip install {package}'}")
    parquet = _version("pyarrow")
    lines.append(
        f"pyarrow {parquet}: Parquet tables can be read"
        if parquet
        else "pyarrow missing: Parquet tables need pip install 'poison-audit[parquet]'"
    )
    return "\n".join([*lines, *_devices()])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    try:
        import torch
    except ImportError as error:
        return [f"torch cannot be imported ({error}): only reports can be read here"]
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        return [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(count)]
    return [f"no CUDA device: audits run on the CPU, {torch.get_num_threads()} threads"]
