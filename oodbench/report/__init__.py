"""Rows → leaderboards, reports and figures: pure functions of what a results folder stores."""

from oodbench.report.leaderboard import (
    check_report,
    foreign_files,
    refuse_foreign,
    write_overview,
    write_report,
)
from oodbench.report.results import read_comparisons, read_results

__all__ = [
    "check_report",
    "foreign_files",
    "read_comparisons",
    "read_results",
    "refuse_foreign",
    "write_overview",
    "write_report",
]
