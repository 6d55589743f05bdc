-- Skills and their files.
CREATE TABLE skills (
    id           TEXT    NOT NULL PRIMARY KEY,
    workspace    TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    display_name TEXT    NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX skills_of_workspace ON skills (workspace, id);

CREATE TABLE skill_versions (
    id          TEXT    NOT NULL PRIMARY KEY,
    skill       TEXT    NOT NULL REFERENCES skills (id) ON DELETE CASCADE,
    description TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    -- Last, so that listings need not read it.
    archive     BLOB    NOT NULL
) STRICT;
CREATE INDEX versions_of_skill ON skill_versions (skill, id);
