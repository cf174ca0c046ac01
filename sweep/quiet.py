"""Libraries' noise is silenced before they are imported; the command line prints its own progress."""

from __future__ import annotations

import logging
import os
import secrets

SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the tracker retries by itself, off the trials' path
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # otherwise five files and 10 ms a trial
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the runner has its own
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the results store is the truth, not Tune's experiment state
    "TUNE_WARN_THRESHOLD_S": "60",
}
LOGGERS = ("alembic", "mlflow", "optuna", "ray", "ray.data", "sqlalchemy")


def silence(private: bool = True) -> None:
    """Set the switches (a user's own setting wins) and raise the loggers' levels to ERROR; before Ray is imported.

    Args:
        private: Ray will be a private one, so it gets a token of its own; a cluster has its own, or none.
    """
    for name, value in SWITCHES.items():
        os.environ.setdefault(name, value)
    if private and not any(name.startswith("RAY_AUTH") for name in os.environ):
        # known to this process and its children only
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # a failed batch is told as failed trials, with reasons
