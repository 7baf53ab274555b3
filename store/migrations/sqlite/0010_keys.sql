-- Keys of servers in front: no more than the SHA-256 of each, which is 256 random bits.
CREATE TABLE keys (
    name       TEXT PRIMARY KEY,
    digest     TEXT NOT NULL UNIQUE,
    admin      INTEGER NOT NULL,
    created_at INTEGER NOT NULL
);

-- What this service signs with, made when it is first needed, the same for all processes. Exports do not have it.
CREATE TABLE secrets (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
