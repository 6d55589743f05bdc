-- Agents: a version is never changed, and never deleted.
CREATE TABLE agents (
    id          TEXT    NOT NULL PRIMARY KEY,
    workspace   TEXT    NOT NULL,
    -- The newest version.
    version     INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    archived_at INTEGER
) STRICT;
CREATE INDEX agents_of_workspace ON agents (workspace, id);

CREATE TABLE agent_versions (
    agent      TEXT    NOT NULL REFERENCES agents (id),
    version    INTEGER NOT NULL,
    definition TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (agent, version)
) STRICT, WITHOUT ROWID;
