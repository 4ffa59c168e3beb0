"""Whatever scikit-learn's parameters are, the estimators behave as scikit-learn's do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import datasets, neural_network, preprocessing

from gpubackprop import sklearn as ours

hypothesis = pytest.importorskip("hypothesis", reason="configurations are drawn by hypothesis - pip install hypothesis")
st = hypothesis.strategies
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:Got `batch_size` less than 1"),
]

X, LABELS = datasets.load_iris(return_X_y=True)
X = preprocessing.scale(X)
VALUES = X @ [1.0, -2.0, 0.5, 0.3]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    parameters=st.fixed_dictionaries(
        {
            "hidden_layer_sizes": st.sampled_from([(), 3, (7,), [4, 2], (5, 5, 5)]),
            "activation": st.sampled_from(["identity", "logistic", "tanh", "relu"]),
            "solver": st.sampled_from(["sgd", "adam"]),
            "alpha": st.sampled_from([0.0, 1e-4, 2.0]),
            "batch_size": st.sampled_from(["auto", 17, 100]),
            "learning_rate": st.sampled_from(["constant", "invscaling", "adaptive"]),
            "learning_rate_init": st.sampled_from([1e-3, 0.05]),
            "power_t": st.sampled_from([0.0, 0.3]),
            "max_iter": st.integers(1, 8),
            "shuffle": st.booleans(),
            "random_state": st.integers(0, 9),
            "tol": st.sampled_from([0.0, 1e-4, 0.1]),
            "momentum": st.sampled_from([0.0, 0.9]),
            "nesterovs_momentum": st.booleans(),
            "early_stopping": st.booleans(),
            "validation_fraction": st.sampled_from([0.1, 0.5]),
            "beta_1": st.sampled_from([0.0, 0.9]),
            "beta_2": st.sampled_from([0.5, 0.999]),
            "epsilon": st.sampled_from([1e-8, 1e-2]),
            "n_iter_no_change": st.sampled_from([1, 3, np.inf]),
        }
    ),
    classifies=st.booleans(),
    weighted=st.booleans(),
)
def test_random_configurations_behave_alike(parameters: dict[str, Any], classifies: bool, weighted: bool) -> None:
    name, y = ("MLPClassifier", LABELS) if classifies else ("MLPRegressor", VALUES)
    weight = np.arange(1.0, 151.0) if weighted else None
    own, theirs = (getattr(module, name)(**parameters).fit(X, y, weight) for module in (ours, neural_network))
    for record in ("loss_curve_", "n_iter_", "t_", "best_loss_", "best_validation_score_", "validation_scores_"):
        a, b = (np.asarray(getattr(estimator, record), "float64") for estimator in (own, theirs))  # None as NaN
        np.testing.assert_allclose(a, b, rtol=1e-8, err_msg=record)
    outputs = [e.predict_proba(X) if classifies else e.predict(X) for e in (own, theirs)]
    np.testing.assert_allclose(*outputs, rtol=1e-8, atol=1e-10)
