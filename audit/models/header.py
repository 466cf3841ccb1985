"""What a checkpoint says of itself, without its tensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

DATA_KEY = "poison_audit.data"
"""The header's key for the digest of the samples that a model was trained on."""
WITHOUT_KEY = "poison_audit.without"
"""For the SHA-256 of the forget.csv that it was trained without."""
METHOD_KEY = "poison_audit.method"
"""For the method that made it from another model."""
ANEW_KEY = "poison_audit.anew"
"""Whether that method trained it anew, on what is retained alone."""
OF_KEY = "poison_audit.of"
"""For the digests of the models that it was made of, the first one first."""


def header_of(path: Path) -> dict[str, str]:
    """Return the strings of a checkpoint's header; of shards, those of the first. Empty: none."""
    files = [path]
    if path.is_dir() or path.suffix == ".json":
        files = sorted((path if path.is_dir() else path.parent).glob("*.safetensors"))
    try:
        with safe_open(files[0], framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError, IndexError):
        return {}
