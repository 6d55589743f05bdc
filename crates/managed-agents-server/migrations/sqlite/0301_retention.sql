-- How long a session was in turns: until `active_since`, since when it is in one.
ALTER TABLE sessions ADD COLUMN active_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE sessions ADD COLUMN active_since INTEGER;
-- The newest `session.usage`, as it was written.
ALTER TABLE sessions ADD COLUMN usage TEXT;
-- The session's end was the item's.
ALTER TABLE works ADD COLUMN ended_with_session INTEGER NOT NULL DEFAULT 0;

-- What is to be forgotten: `bytes` of a deleted session is 0 once its events are gone.
CREATE INDEX sessions_to_empty ON sessions (id) WHERE deleted_at IS NOT NULL AND bytes > 0;
CREATE INDEX sessions_deleted ON sessions (deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX works_stopped ON works (stopped_at) WHERE stopped_at IS NOT NULL;
