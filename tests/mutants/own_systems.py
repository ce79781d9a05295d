"""Bugs between the agent and systems of one's own, which tests with real servers catch."""

from tests.mutants import Mutant

NEAR = "tests/own"

MUTANTS = (
    Mutant(
        "an answer to COMMIT that is lost is a refusal",
        "L10",
        f"{NEAR}/test_postgres.py",
        "agent/sinks/postgres.py",
        'if committing and kind not in ("23", "40"):',
        "if False:",
    ),
    Mutant(
        "a row that says something else is a repeat",
        "L3",
        f"{NEAR}/test_postgres.py",
        "agent/sinks/postgres.py",
        'else ("conflict", "a row with this id says something else")',
        'else ("duplicate", "the row was there")',
    ),
    Mutant(
        "a column that rounds is written to",
        "§4",
        f"{NEAR}/test_postgres.py",
        "agent/sinks/postgres.py",
        'if found != ("numeric",):',
        "if not found:",
    ),
    Mutant(
        "acknowledged before it is written",
        "L8",
        f"{NEAR}/test_postgres.py",
        "agent/sinks/postgres.py",
        "            await connection.execute(_DURABLE)\n",
        "",
    ),
    Mutant(
        "a file is written over",
        "L9",
        f"{NEAR}/test_s3.py",
        "agent/sinks/s3.py",
        'mode="create"',
        'mode="overwrite"',
    ),
    Mutant(
        "a file is sent in parts",
        "§7",
        f"{NEAR}/test_s3.py",
        "agent/sinks/s3.py",
        "splits=False",
        "splits=True",
    ),
    Mutant(
        "every report is a good one",
        "L9",
        f"{NEAR}/test_kafka.py",
        "agent/sinks/kafka.py",
        "    if error is None:\n",
        "    if True:\n",
    ),
    Mutant(
        "a repeat has an id of its own",
        "L3",
        "tests/sinks/test_webhook.py",
        "agent/sinks/webhook.py",
        'f"msg_{sha256(body).hexdigest()[:32]}", int(self._wall())',
        'f"msg_{self._wall()}", int(self._wall())',
    ),
)
