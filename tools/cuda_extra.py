"""Print the extra whose CUDA fits this machine's driver, or nothing, and on standard error why."""

from __future__ import annotations

import re
import subprocess
import sys

# Newer drivers write "CUDA UMD Version" (of the user-mode driver) where older ones write "CUDA Version".
VERSION = re.compile(r"CUDA (?:UMD )?Version\s*:\s*(\d+)\.(\d+)")
NONE = "no CUDA extra, the demo runs on the CPU"


def choose(report: str) -> tuple[str, str]:
    """Choose the extra for what nvidia-smi printed.

    Args:
        report: The standard output of `nvidia-smi`.

    Returns:
        The extra, "" where none fits, and a sentence that says why.
    """
    found = VERSION.search(report)
    if found is None:
        return "", f"nvidia-smi named no CUDA version: {NONE}"
    major, minor = map(int, found.groups())
    driver = f"the driver offers CUDA {major}.{minor}"
    if major < 12:
        return "", f"{driver}, CuPy needs 12 or newer: {NONE}; a newer driver would help"
    extra = "cuda13" if major >= 13 else "cuda12"
    return extra, f"{driver}: extra {extra}"


def ask() -> tuple[str, str]:
    """Ask nvidia-smi, and choose; a machine without a working one gets no extra."""
    try:
        answer = subprocess.run(["nvidia-smi"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"nvidia-smi did not run ({error}): {NONE}"
    if answer.returncode != 0:
        said = (answer.stdout + answer.stderr).strip().partition("\n")[0]
        return "", f"nvidia-smi failed ({said}): {NONE}"
    return choose(answer.stdout)


if __name__ == "__main__":
    extra, why = ask()
    print(extra)
    print(f"CUDA: {why}", file=sys.stderr)
