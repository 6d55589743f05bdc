-- Nothing here authenticates anybody: public keys and hashes only.
-- Times are milliseconds since 1970; ids sort by time.

CREATE TABLE tunnels (
    id           TEXT    NOT NULL PRIMARY KEY,
    workspace    TEXT    NOT NULL,
    -- Rows are never deleted, so a label is never given twice.
    label        TEXT    NOT NULL UNIQUE,
    display_name TEXT,
    approval     TEXT    NOT NULL CHECK (approval IN ('manual', 'auto')),
    caller_auth  TEXT    NOT NULL CHECK (caller_auth IN ('key', 'upstream')),
    created_at   INTEGER NOT NULL,
    archived_at  INTEGER
) STRICT;
CREATE INDEX tunnels_of_workspace ON tunnels (workspace, id);

CREATE TABLE tokens (
    id         TEXT    NOT NULL PRIMARY KEY,
    tunnel     TEXT    NOT NULL REFERENCES tunnels (id),
    master_key TEXT    NOT NULL,
    public_key TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    retired_at INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_current ON tokens (tunnel) WHERE retired_at IS NULL;
CREATE INDEX tokens_of_tunnel ON tokens (tunnel, id);

CREATE TABLE certificates (
    id          TEXT    NOT NULL PRIMARY KEY,
    tunnel      TEXT    NOT NULL REFERENCES tunnels (id),
    pem         TEXT    NOT NULL,
    fingerprint TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER,
    archived_at INTEGER
) STRICT;
CREATE INDEX certificates_of_tunnel ON certificates (tunnel, id);

CREATE TABLE gateways (
    id             TEXT    NOT NULL PRIMARY KEY,
    tunnel         TEXT    NOT NULL REFERENCES tunnels (id),
    fingerprint    TEXT    NOT NULL,
    decision       TEXT    NOT NULL CHECK (decision IN ('pending', 'approved', 'refused')),
    -- Approved by the tunnel's setting and by nobody: such rows make room for others.
    automatic      INTEGER NOT NULL DEFAULT 0,
    -- Links admitted under a snapshot with a lower number are closed.
    links_from     INTEGER NOT NULL DEFAULT 0,
    -- The code of a pending link, until that link is reported as gone.
    approval_code  TEXT,
    link           TEXT,
    token          TEXT,
    version        TEXT,
    remote_address TEXT,
    routes         TEXT    NOT NULL DEFAULT '',
    created_at     INTEGER NOT NULL,
    connected_at   INTEGER,
    last_seen_at   INTEGER,
    UNIQUE (tunnel, fingerprint)
) STRICT;
CREATE INDEX gateways_of_tunnel ON gateways (tunnel, id);

CREATE TABLE caller_keys (
    id         TEXT    NOT NULL PRIMARY KEY,
    workspace  TEXT    NOT NULL,
    hash       TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    -- Ids with spaces between; NULL for every one.
    tunnels    TEXT,
    routes     TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER
) STRICT;
CREATE INDEX caller_keys_of_workspace ON caller_keys (workspace, id);

CREATE TABLE api_keys (
    id          TEXT    NOT NULL PRIMARY KEY,
    workspace   TEXT    NOT NULL,
    hash        TEXT    NOT NULL UNIQUE,
    name        TEXT    NOT NULL,
    permissions TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;

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
