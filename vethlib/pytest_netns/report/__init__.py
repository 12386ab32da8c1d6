"""Additions to the reports of failures and to the end of a run."""
