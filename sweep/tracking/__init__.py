"""MLflow as a view of the results store, written by one thread off the trials' path."""

from sweep.tracking.tracker import Tracker, TrackingReport
from sweep.tracking.uri import check_tracking, default_uri, redact

__all__ = ["Tracker", "TrackingReport", "check_tracking", "default_uri", "redact"]
