"""What this package is worth, measured: every table of docs/proof.md is a module here.

Run: ``make proof`` (about 20 minutes on two idle cores) or ``make proof-full``; each writes its tables into the page.
"""
