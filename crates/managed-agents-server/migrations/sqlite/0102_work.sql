CREATE TABLE sessions (
    id            TEXT    NOT NULL PRIMARY KEY,
    workspace     TEXT    NOT NULL,
    environment   TEXT    NOT NULL REFERENCES environments (id),
    thread        TEXT    NOT NULL UNIQUE,
    -- The agent as it was when the session was made, as it is served.
    agent         TEXT    NOT NULL,
    agent_id      TEXT    NOT NULL,
    agent_version INTEGER NOT NULL,
    title         TEXT,
    metadata      TEXT    NOT NULL,
    resources     TEXT    NOT NULL,
    status        TEXT    NOT NULL CHECK (status IN ('idle', 'running', 'rescheduling', 'terminated')),
    -- Whether a call waits for a worker: what the history says at `position`.
    needs_worker  INTEGER NOT NULL DEFAULT 0,
    -- The number of the newest event, and what all events weigh.
    position      INTEGER NOT NULL DEFAULT 0,
    bytes         INTEGER NOT NULL DEFAULT 0,
    -- When its loop has something to do.
    due_at        INTEGER,
    -- Items that ended in vain since the last progress.
    attempts      INTEGER NOT NULL DEFAULT 0,
    -- An operator stopped its work: nothing is queued until a client writes again.
    held          INTEGER NOT NULL DEFAULT 0,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    archived_at   INTEGER,
    deleted_at    INTEGER
) STRICT;
CREATE INDEX sessions_of_workspace ON sessions (workspace, id);
CREATE INDEX sessions_of_environment ON sessions (environment) WHERE archived_at IS NULL AND deleted_at IS NULL;
CREATE INDEX sessions_due ON sessions (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE events (
    session      TEXT    NOT NULL REFERENCES sessions (id),
    -- Of the session; a queued message gets a new one when it is taken up.
    seq          INTEGER NOT NULL,
    id           TEXT    NOT NULL UNIQUE,
    kind         TEXT    NOT NULL,
    processed_at INTEGER,
    -- The call that it is the result of.
    answers      TEXT,
    -- Exactly what came, without id and time.
    body         TEXT    NOT NULL,
    PRIMARY KEY (session, seq)
) STRICT;
CREATE UNIQUE INDEX one_result_a_call ON events (session, answers) WHERE answers IS NOT NULL;
CREATE INDEX events_queued ON events (session, seq) WHERE processed_at IS NULL;

CREATE TABLE works (
    id                TEXT    NOT NULL PRIMARY KEY,
    workspace         TEXT    NOT NULL,
    environment       TEXT    NOT NULL REFERENCES environments (id),
    session           TEXT    NOT NULL REFERENCES sessions (id),
    state             TEXT    NOT NULL CHECK (state IN ('queued', 'starting', 'active', 'stopping', 'stopped')),
    -- Of the claim: a token of another epoch is dead.
    epoch             INTEGER NOT NULL DEFAULT 0,
    -- The environment key and the worker of the claim.
    claim_key         TEXT    REFERENCES environment_keys (id),
    worker            TEXT,
    token_used        INTEGER NOT NULL DEFAULT 0,
    metadata          TEXT    NOT NULL DEFAULT '{}',
    created_at        INTEGER NOT NULL,
    queued_at         INTEGER NOT NULL,
    -- Not before this, for back-off.
    available_at      INTEGER NOT NULL,
    reserved_at       INTEGER,
    acknowledged_at   INTEGER,
    started_at        INTEGER,
    heartbeat_at      INTEGER,
    lease_until       INTEGER,
    stop_requested_at INTEGER,
    stopped_at        INTEGER,
    -- An operator asked for its end.
    operator_stop     INTEGER NOT NULL DEFAULT 0,
    -- What was said when it ended.
    reason            TEXT
) STRICT;
CREATE UNIQUE INDEX one_live_item ON works (session) WHERE state <> 'stopped';
CREATE INDEX works_queued ON works (environment, id) WHERE state = 'queued';
CREATE INDEX works_leased ON works (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX works_of_environment ON works (environment, id);
CREATE INDEX works_of_session ON works (session, id);

CREATE TABLE begun (
    session TEXT    NOT NULL REFERENCES sessions (id),
    call    TEXT    NOT NULL,
    work    TEXT    NOT NULL,
    epoch   INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (session, call)
) STRICT, WITHOUT ROWID;
