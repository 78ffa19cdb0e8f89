"""What igm does with bad inputs, planted files and sudden ends: ``make faults`` runs all of it, a seeded suite.

A module here lists the cases of one area (``cases(kit)``); :mod:`faults.case` says what a case is and what counts as right,
:mod:`faults.forked` runs them by the hundred, each in a process of its own.
"""
