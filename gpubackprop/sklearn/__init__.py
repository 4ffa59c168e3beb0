"""scikit-learn's MLPClassifier and MLPRegressor, trained by this package: on an NVIDIA GPU or on the CPU."""

from ..errors import MissingDependency

try:
    from .classifier import MLPClassifier
    from .onnx import register_onnx_converters
    from .regressor import MLPRegressor
except ImportError as error:
    raise MissingDependency(
        f"gpubackprop.sklearn needs scikit-learn 1.9: pip install 'gpubackprop[sklearn]'. The import failed: {error}"
    ) from error

__all__ = ["MLPClassifier", "MLPRegressor", "register_onnx_converters"]


def __dir__() -> list[str]:
    return __all__
