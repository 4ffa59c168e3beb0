"""scikit-learn's pipelines and estimators, trained by this package: a classifier and a regressor.

    python examples/scikit_learn.py
    python examples/scikit_learn.py --backend cuda

Needs the extra `sklearn` (scikit-learn 1.9).
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from sklearn.datasets import load_breast_cancer, make_friedman1
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gpubackprop.sklearn import MLPClassifier, MLPRegressor


def breast_cancer() -> tuple[Any, Any]:
    """Return 569 tumours, 30 measurements of each, and whether they are benign."""
    return load_breast_cancer(return_X_y=True)


def california_sized() -> tuple[Any, Any]:
    """Return made-up values that depend on 8 numbers, 20,640 rows: as many as the California housing data has."""
    return make_friedman1(n_samples=20_640, n_features=8, noise=1.0, random_state=0)


def main() -> None:
    """Train both on three quarters of their data, and print their scores on the rest."""
    parser = argparse.ArgumentParser(description="Train a classifier and a regressor in scikit-learn's pipelines.")
    parser.add_argument("--backend", help="auto, numpy, cuda or cuda:N; default: CUDA where it is usable")
    backend = parser.parse_args().backend

    classifier = MLPClassifier(
        (64,), learning_rate_init=0.01, dropout=0.1, early_stopping=True, random_state=0, backend=backend
    )
    regressor = MLPRegressor(
        hidden_layer_sizes=(64, 64), learning_rate_init=0.005, early_stopping=True, random_state=0, backend=backend
    )
    for title, score, (X, y), estimator in (
        ("breast cancer", "accuracy", breast_cancer(), classifier),
        ("california-sized", "R²", california_sized(), regressor),
    ):
        X_train, X_test, y_train, y_test = train_test_split(X.astype("float32"), y, random_state=0)
        start = time.perf_counter()
        model = make_pipeline(StandardScaler(), estimator).fit(X_train, y_train)
        seconds = time.perf_counter() - start
        print(f"{title}: {score} {model.score(X_test, y_test):.3f} on {len(X_test):,} rows that it has not seen")
        print(f"  {estimator.n_iter_} epochs on {len(X_train):,} rows in {seconds:.2f} s, on {estimator.device_}")


if __name__ == "__main__":
    main()
