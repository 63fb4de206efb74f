-- The log: one row a write, numbered without gaps. The state of the cluster is what its rows say, read in order.
-- A row that a later one supersedes, and a deletion, stays until compaction removes it.
CREATE TABLE log (
    revision INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL, -- 0: created, 1: updated, 2: deleted
    resource TEXT NOT NULL,
    namespace TEXT NOT NULL, -- empty for objects of the whole cluster
    name TEXT NOT NULL,
    created_revision INTEGER NOT NULL,
    bytes BLOB NOT NULL
) STRICT;

-- One row: the oldest revision whose state the log can still rebuild. It also keeps the last revision from being
-- given out again when compaction has deleted its row.
CREATE TABLE compaction (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL
) STRICT;

INSERT INTO compaction (id, revision) VALUES (1, 0);
