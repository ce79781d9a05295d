"""Bugs in settling by reading back."""

from tests.mutants import Mutant

_NEAR = "tests/delivery/test_reading_back.py"
_RULE = "agent/delivery/judgement.py"
_DRAIN = "agent/delivery/drain.py"

MUTANTS = (
    Mutant(
        "one empty look is enough",
        "L10",
        _NEAR,
        _RULE,
        "    if doubt.empty is None:\n        return Seen(",
        "    if doubt.empty == -1:\n        return Seen(",
    ),
    Mutant(
        "looked for before the delay",
        "L10",
        _NEAR,
        _RULE,
        "return last + (delay if doubt.empty is None else max(delay, APART))",
        "return last + (0 if doubt.empty is None else max(delay, APART))",
    ),
    Mutant(
        "two looks at once",
        "L10",
        _NEAR,
        _RULE,
        "return last + (delay if doubt.empty is None else max(delay, APART))",
        "return last + (delay if doubt.empty is None else 0)",
    ),
    Mutant(
        "what was found is sent again",
        "L10",
        _NEAR,
        _RULE,
        '            settled[item.seq] = "delivered", f"read back: {look.found[item.seq]}"\n',
        "            pass\n",
    ),
    Mutant(
        "a look that failed saw nothing",
        "L10",
        _NEAR,
        _RULE,
        "    if look.failed:\n        return Seen(settled, structs.replace(doubt, unread=doubt.unread + 1), outcome)\n",
        "",
    ),
    Mutant(
        "a late sight of one clears the others",
        "L10",
        _NEAR,
        _RULE,
        "if settled and left and doubt.empty is not None:",
        "if settled and left and doubt.empty == -1:",
    ),
    Mutant(
        "a wait goes on through a restart of unknown length",
        "L10",
        _NEAR,
        _RULE,
        "if last > now.elapsed or last < max(now.unsure_before, now.lost_before):",
        "if last > now.elapsed:",
    ),
    Mutant(
        "what the agent died with is looked for at once",
        "L10",
        _NEAR,
        _DRAIN,
        "doubt = Doubt(now.elapsed) if kept is None else Doubt(*kept)",
        "doubt = Doubt(submission.tainted or 0) if kept is None else Doubt(*kept)",
    ),
    Mutant(
        "never looked for",
        "L10",
        _NEAR,
        _DRAIN,
        "elif terms.visibility_delay is None:",
        "elif terms.visibility_delay != 0:",
    ),
)
