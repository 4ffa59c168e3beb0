"""scikit-learn's own checks of estimators: none fails, and none is expected to."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from gpubackprop.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CONFIGURATIONS: list[dict[str, Any]] = [
    {},
    {"solver": "lbfgs", "activation": "tanh"},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.05, "hidden_layer_sizes": (20, 10)},
    {"activation": "tanh", "shuffle": False, "learning_rate_init": 0.02, "hidden_layer_sizes": 30},
]


@parametrize_with_checks(
    [kind(max_iter=100, **configuration) for kind in (MLPClassifier, MLPRegressor) for configuration in CONFIGURATIONS]
)
def test_check(estimator: Any, check: Any) -> None:
    check(estimator)
