"""Rows → leaderboards. The markdown is a pure function of the stored rows and costs; figures come from columns."""

from oodbench.report.leaderboard import check_report, write_report
from oodbench.report.tables import missing_figures

__all__ = ["check_report", "missing_figures", "write_report"]
