"""Outbox → Submission → outcome: each sink drains at its own pace, and shares nothing with measuring but the spool."""
