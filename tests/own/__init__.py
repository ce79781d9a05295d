"""Systems of one's own, for real: a database, an object store, a broker; each is killed, and so is who sends to it."""
