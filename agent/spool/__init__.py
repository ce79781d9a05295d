"""The one durable file between measuring and delivering (DESIGN §6).

Invariants
  One transaction per sweep: cursors, marks, open windows and the records that closed commit together, with one fsync
  (WAL, synchronous=FULL, read back). Whatever instant the process dies, the file holds the state after some sweep.
  A record's sequence number, id and bytes are fixed in that transaction and never change.
  Nothing unsent is deleted. One process writes (a lock on the directory); any number read beside it.
  Schemas are expand-only: this release ignores tables and columns it does not know.

Tables
  meta       epoch, fingerprint, number of the last commit, segments, rules: small values, each replaced whole
  cursor     how far each source is booked;  listing  every resource that existed at its last sweep
  resource   one packed row per resource: marks and shares of open windows, updated in place
  record     the ledger and outbox: seq, (start, key, n) unique, CRC, canonical body
  evidence   what explains a record, by seq;  known  id → seq, filled as records are frozen;  spent  n of what expired
  sink, item, submission, attempt  each sink's position; each record there, what was frozen, and what was answered
  remainder  what rounding has left, by sink, customer and dimension
  held       ranges that wait for a person;  quarantine, audit, digest   what was refused, done, and proven complete
  reserve    pages kept for a full disk

At each crash point: before COMMIT returns, nothing of the sweep is there and the kernel's counters still hold the
usage; after it, all of it is. The witness (the number of the last commit, in files beside the spool and in the run
directory) is written after COMMIT, so it is never ahead of the disk: a spool behind its witness was restored.
"""

from agent.spool.store import Spool

__all__ = ["Spool"]
