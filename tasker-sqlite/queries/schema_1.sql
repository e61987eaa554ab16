-- The schema, version 1. Times are microseconds since 1970 (UTC), spans are nanoseconds, ids of
-- tasks and workers are the 16 bytes of their UUID, and whatever is JSON is kept as text.

-- The templates that tasks were made of, each stored once and never changed.
CREATE TABLE template (
    key         INTEGER PRIMARY KEY,    -- what tasks refer to
    fingerprint BLOB NOT NULL UNIQUE,   -- SHA-256 of the body
    namespace   TEXT NOT NULL,
    name        TEXT NOT NULL,
    task_type   TEXT NOT NULL,          -- namespace/name@version, which is the tasks' own route
    body        TEXT NOT NULL           -- the whole template, JSON
) STRICT;

-- Where every task stands. Slim, because it is what changes; what does not is in its history.
CREATE TABLE task (
    id         BLOB NOT NULL PRIMARY KEY,
    template   INTEGER NOT NULL,        -- template.key
    priority   INTEGER NOT NULL,        -- -1, 0 or 1: the higher, the more urgent
    state      TEXT NOT NULL,
    degraded   INTEGER NOT NULL,        -- 1: goes on, or has ended, without something
    version    INTEGER NOT NULL,        -- counts claims, releases, ends and operators' actions
    owner      BLOB,                    -- the worker that owns it
    route      TEXT,                    -- where it was queued last; NULL: on its template's own
    wake_at    INTEGER,                 -- while it is queued: from when on it may be claimed
    created_at INTEGER NOT NULL,
    ended_at   INTEGER                  -- when it last ended
) STRICT, WITHOUT ROWID;

-- What a worker owns: read when it is taken over or lost an answer.
CREATE INDEX task_by_owner ON task (owner) WHERE owner IS NOT NULL;

-- Tasks that are not as most are; few, so listing them never reads the many that went well.
CREATE INDEX task_exceptional ON task (state, id)
WHERE state NOT IN ('pending', 'in_progress', 'complete');

-- Tasks that went on without something; few.
CREATE INDEX task_degraded ON task (id) WHERE degraded = 1;

-- What happened to tasks: rows are added and never changed.
CREATE TABLE history (
    task    BLOB NOT NULL,
    step    INTEGER NOT NULL,           -- whose log: a step's position, or -1 for the task's own
    seq     INTEGER NOT NULL,           -- from 1; row 0 of the task's own log holds its input
    at      INTEGER NOT NULL,
    author  ANY NOT NULL,               -- a worker as BLOB, an operator as TEXT
    attempt INTEGER NOT NULL,           -- the attempt that the row settles; 0: none
    ran_for INTEGER NOT NULL,
    kind    TEXT NOT NULL,              -- which occurrence; `submitted` for row 0
    result  TEXT,                       -- what the handler returned, or the task's input, JSON
    detail  TEXT,                       -- everything else that the occurrence says, JSON
    PRIMARY KEY (task, step, seq)
) STRICT, WITHOUT ROWID;

-- The tasks that wait to be claimed: those of one priority on one route in the order in which they
-- are.
CREATE TABLE queue (
    route    TEXT NOT NULL,
    priority INTEGER NOT NULL,          -- task.priority
    wake_at  INTEGER NOT NULL,
    task     BLOB NOT NULL,
    PRIMARY KEY (route, priority, wake_at, task)
) STRICT, WITHOUT ROWID;

-- Keys under which tasks were submitted.
CREATE TABLE idempotency (
    namespace TEXT NOT NULL,
    name      TEXT NOT NULL,
    key       TEXT NOT NULL,
    task      BLOB NOT NULL,            -- the first task with that key
    PRIMARY KEY (namespace, name, key)
) STRICT, WITHOUT ROWID;

-- The key goes when its task is deleted.
CREATE INDEX idempotency_by_task ON idempotency (task);

-- Steps that the owners of their tasks offer to other workers.
CREATE TABLE offer (
    task       BLOB NOT NULL,
    step       INTEGER NOT NULL,
    seq        INTEGER NOT NULL,        -- the history row that settling it will write
    route      TEXT NOT NULL,
    needs      TEXT NOT NULL,           -- the steps whose rows the handler may read, JSON array
    offered_at INTEGER NOT NULL,
    holder     BLOB,                    -- the worker that runs it
    PRIMARY KEY (task, step)
) STRICT, WITHOUT ROWID;

CREATE INDEX offer_open ON offer (route, offered_at) WHERE holder IS NULL;
CREATE INDEX offer_by_holder ON offer (holder) WHERE holder IS NOT NULL;

-- What others did to a worker's tasks, until it asks.
CREATE TABLE news (
    key    INTEGER PRIMARY KEY,         -- the order in which it happened
    worker BLOB NOT NULL,               -- who is to hear it
    task   BLOB NOT NULL,
    step   INTEGER,                     -- the history row that was added; NULL: the task was moved
    seq    INTEGER
) STRICT;

CREATE INDEX news_by_worker ON news (worker);

-- The living workers.
CREATE TABLE worker (
    id         BLOB NOT NULL PRIMARY KEY,
    name       TEXT NOT NULL,           -- for people: host and process
    expires_at INTEGER NOT NULL,        -- when its lease runs out
    spare      INTEGER NOT NULL,        -- how many more steps it could run at once
    running    TEXT NOT NULL            -- for people: steps that it has run for long, JSON
) STRICT, WITHOUT ROWID;

-- Workers that were taken over or retired: their ids are never accepted again.
CREATE TABLE former_worker (
    id      BLOB NOT NULL PRIMARY KEY,
    gone_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What workers and operators share beside tasks: small, written whole, each by compare and swap.
CREATE TABLE document (
    collection TEXT NOT NULL,           -- what it is about: `system`, `escalation`, `alarm` or `sink`
    key        TEXT NOT NULL,
    version    INTEGER NOT NULL,        -- counts its writes, from 1
    state      TEXT NOT NULL,
    due_at     INTEGER,                 -- when somebody should look at it
    body       TEXT NOT NULL,           -- JSON
    created_at INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    PRIMARY KEY (collection, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX document_due ON document (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX document_listed ON document (collection, created_at, key);
CREATE INDEX document_by_state ON document (collection, state, created_at, key);
