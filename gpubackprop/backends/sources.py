"""Where the CUDA sources are."""

from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
# A wheel carries the folder inside the package; a checkout, or an editable install of one, has it beside.
KERNELS = next(folder for folder in (_PACKAGE / "kernels", _PACKAGE.parent / "kernels") if folder.is_dir())
