"""The report of one sweep, or of several side by side, as one HTML page that needs nothing from outside."""

from dashboards.report.page import make_page, write_page
from dashboards.report.source import Importance, Source

__all__ = ["Importance", "Source", "make_page", "write_page"]
