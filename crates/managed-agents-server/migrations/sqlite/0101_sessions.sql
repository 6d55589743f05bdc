-- Nothing here authenticates anybody: hashes only; item tokens are derived, never stored.
-- Times are milliseconds since 1970; ids sort by time.

CREATE TABLE environments (
    id          TEXT    NOT NULL PRIMARY KEY,
    workspace   TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    description TEXT,
    kind        TEXT    NOT NULL CHECK (kind IN ('self_hosted', 'cloud')),
    config      TEXT    NOT NULL,
    metadata    TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    archived_at INTEGER,
    -- Not to be seen any more; sessions that were in it name the row.
    deleted_at  INTEGER
) STRICT;
CREATE INDEX environments_of_workspace ON environments (workspace, id);

CREATE TABLE environment_keys (
    id          TEXT    NOT NULL PRIMARY KEY,
    environment TEXT    NOT NULL REFERENCES environments (id),
    hash        TEXT    NOT NULL UNIQUE,
    name        TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;
CREATE INDEX environment_keys_of_environment ON environment_keys (environment, id);

CREATE TABLE audit (
    id        TEXT    NOT NULL PRIMARY KEY,
    workspace TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    actor     TEXT    NOT NULL,
    address   TEXT,
    action    TEXT    NOT NULL,
    object    TEXT    NOT NULL,
    reason    TEXT
) STRICT;
CREATE INDEX audit_of_workspace ON audit (workspace, id);
CREATE INDEX audit_by_time ON audit (at);
