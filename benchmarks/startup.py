"""How long a new process takes to import the package, and from there to its first training step.

As a program it is such a process: it takes the backend, the units of the layers and N, and prints the seconds of both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ENVIRONMENT = ("CUPY_CACHE_DIR", "GPUBACKPROP_CACHE_DIR")  # of what is compiled and chosen


def seconds_of_a_new_process(
    backend: str, sizes: tuple[int, ...], rows: int, cache: Path | None = None
) -> dict[str, float]:
    """Return the seconds of the import, with all that it imports, and of what follows up to the end of a step.

    Args:
        backend: "numpy" or "cuda".
        sizes: units of every layer.
        rows: N.
        cache: folder of compiled kernels, or None for the user's.

    Returns:
        "import" and "first step".
    """
    import gpubackprop

    root = str(Path(gpubackprop.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, **(dict.fromkeys(ENVIRONMENT, str(cache)) if cache else {})}
    command = [sys.executable, __file__, backend, ",".join(map(str, sizes)), str(rows)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def main(backend: str, sizes: str, rows: str) -> dict[str, float]:
    """Import the package and take a step; return the seconds of both."""
    begin = time.perf_counter()
    import gpubackprop as gb

    imported = time.perf_counter()
    import numpy

    units, N = [int(n) for n in sizes.split(",")], int(rows)
    x, y = numpy.zeros((N, units[0]), "float32"), numpy.zeros(N, "int64")
    made = time.perf_counter()
    options: dict[str, Any] = {"output_activation": "softmax", "loss": "cross_entropy", "backend": backend}
    gb.fit(gb.Network(units, **options), x, y, epochs=1, batch_size=N, progress=False)
    return {"import": imported - begin, "first step": time.perf_counter() - made}


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: a new process of a user's does not have it
    print(json.dumps(main(*sys.argv[1:])))
