"""Rows → leaderboards. The markdown is a pure function of the stored rows and costs; figures come from columns."""

from oodbench.report.gallery import gallery, missing_figures
from oodbench.report.leaderboard import check_report, write_report

__all__ = ["check_report", "gallery", "missing_figures", "write_report"]
