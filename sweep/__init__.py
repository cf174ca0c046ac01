"""The shell around the core: command line, Ray Tune, Optuna, results store and MLflow."""

__version__ = "0.1.0"
