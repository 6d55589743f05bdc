-- The number of the newest snapshot: the next one is higher, whatever the clock says.
CREATE TABLE snapshots (
    one    INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL
) STRICT;

CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_object ON audit (object);
