"""The campaign: one kind of fault a row, many trials of each, and one oracle that says what was lost or doubled.

    python -m tests.campaign                            all of it; writes docs/proof.md
    python -m tests.campaign --faults 30 --seed 1       a sample over all rows
    python -m tests.campaign --only disk.full --seed 7 --trials 3

A module for each family of faults; `oracle.py` judges every trial alike. Under fault is the agent itself: its daemon as
a process, or, where time is days, its spool, line and drain with clocks that are arguments. What counts the usage, and
the billing system that takes it, are not the agent's: each says in exact integers what was used and what arrived.
"""
