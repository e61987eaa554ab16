-- The schema, version 1. It runs with the schema of the user's choice first on the search path.
-- Spans are nanoseconds; whatever is JSON is kept as text, exactly as it was written.

CREATE TABLE template (
    key         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint bytea NOT NULL UNIQUE,
    namespace   text NOT NULL,
    name        text NOT NULL,
    task_type   text NOT NULL,
    body        text NOT NULL
);
COMMENT ON TABLE template IS 'The templates that tasks were made of, each stored once and never changed.';
COMMENT ON COLUMN template.key IS 'What tasks refer to.';
COMMENT ON COLUMN template.fingerprint IS 'SHA-256 of the body.';
COMMENT ON COLUMN template.namespace IS 'The namespace of the task type.';
COMMENT ON COLUMN template.name IS 'The name of the task type.';
COMMENT ON COLUMN template.task_type IS 'namespace/name@version, which is the tasks'' own route.';
COMMENT ON COLUMN template.body IS 'The whole template, JSON.';

-- The rows are rewritten when a task is claimed, released and ended; the rest of a page gives the
-- new versions room.
CREATE TABLE task (
    id         uuid NOT NULL PRIMARY KEY,
    template   integer NOT NULL,
    state      text NOT NULL,
    degraded   boolean NOT NULL,
    priority   smallint NOT NULL,
    version    bigint NOT NULL,
    owner      uuid,
    route      text,
    wake_at    timestamptz,
    created_at timestamptz NOT NULL,
    ended_at   timestamptz,
    input      text NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
COMMENT ON TABLE task IS 'Where every task stands, and its input.';
COMMENT ON COLUMN task.id IS 'Its name, a UUID of version 7: in the order of submission.';
COMMENT ON COLUMN task.template IS 'template.key.';
COMMENT ON COLUMN task.state IS 'pending, in_progress, paused, complete, error, cancelled, compensating, compensated or resolved_manually.';
COMMENT ON COLUMN task.degraded IS 'Whether it goes on, or has ended, without something that was asked of it.';
COMMENT ON COLUMN task.priority IS '-1 low, 0 normal, 1 high.';
COMMENT ON COLUMN task.version IS 'Counts claims, releases, ends and operators'' actions.';
COMMENT ON COLUMN task.owner IS 'The worker that owns it.';
COMMENT ON COLUMN task.route IS 'Where it was queued last; null: on its template''s own route.';
COMMENT ON COLUMN task.wake_at IS 'While it is queued: from when on it may be claimed.';
COMMENT ON COLUMN task.created_at IS 'When it was stored.';
COMMENT ON COLUMN task.ended_at IS 'When it last ended.';
COMMENT ON COLUMN task.input IS 'Its context, JSON.';

CREATE INDEX task_by_owner ON task (owner) WHERE owner IS NOT NULL;
COMMENT ON INDEX task_by_owner IS 'What a worker owns: read when it is taken over or lost an answer.';
CREATE INDEX task_exceptional ON task (state, id)
    WHERE state NOT IN ('pending', 'in_progress', 'complete');
COMMENT ON INDEX task_exceptional IS 'Few tasks: listing them never reads the many that went well.';

CREATE INDEX task_degraded ON task (id) WHERE degraded;
COMMENT ON INDEX task_degraded IS 'Few tasks, to be listed.';

CREATE TABLE history (
    task     uuid NOT NULL,
    step     integer NOT NULL,
    seq      integer NOT NULL,
    at       timestamptz NOT NULL,
    worker   uuid,
    operator text,
    attempt  integer NOT NULL,
    ran_for  bigint NOT NULL,
    kind     text NOT NULL,
    result   text,
    detail   text,
    PRIMARY KEY (task, step, seq)
);
COMMENT ON TABLE history IS 'What happened to tasks: rows are added and never changed.';
COMMENT ON COLUMN history.task IS 'The task.';
COMMENT ON COLUMN history.step IS 'Whose log the row is in: a step''s position, or -1 for the task''s own.';
COMMENT ON COLUMN history.seq IS 'The number of the row in that log, from 1.';
COMMENT ON COLUMN history.at IS 'When it was recorded; an attempt began ran_for earlier.';
COMMENT ON COLUMN history.worker IS 'The worker that recorded it.';
COMMENT ON COLUMN history.operator IS 'The person that recorded it.';
COMMENT ON COLUMN history.attempt IS 'The attempt that the row settles; 0: none.';
COMMENT ON COLUMN history.ran_for IS 'How long the attempt ran, nanoseconds.';
COMMENT ON COLUMN history.kind IS 'What happened, such as completed or failed.';
COMMENT ON COLUMN history.result IS 'What the handler returned, JSON.';
COMMENT ON COLUMN history.detail IS 'Everything else that there is to say, JSON.';

-- Rows come and go all the time: the table stays small if what is dead is swept at once.
CREATE TABLE queue (
    route    text NOT NULL,
    priority smallint NOT NULL,
    wake_at  timestamptz NOT NULL,
    task     uuid NOT NULL,
    PRIMARY KEY (route, priority, wake_at, task)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE queue IS 'The tasks that wait to be claimed, in the order in which they are.';
COMMENT ON COLUMN queue.route IS 'Who may claim it: namespace/name@version, or with #handler or !system#handler at its end.';
COMMENT ON COLUMN queue.priority IS 'task.priority.';
COMMENT ON COLUMN queue.wake_at IS 'From when on it may be claimed.';
COMMENT ON COLUMN queue.task IS 'The task.';

CREATE TABLE idempotency (
    namespace text NOT NULL,
    name      text NOT NULL,
    key       text NOT NULL,
    task      uuid NOT NULL,
    PRIMARY KEY (namespace, name, key)
);
COMMENT ON TABLE idempotency IS 'Keys under which tasks were submitted.';
COMMENT ON COLUMN idempotency.namespace IS 'The namespace of the task type.';
COMMENT ON COLUMN idempotency.name IS 'The name of the task type.';
COMMENT ON COLUMN idempotency.key IS 'The key.';
COMMENT ON COLUMN idempotency.task IS 'The first task with that key.';

CREATE INDEX idempotency_by_task ON idempotency (task);
COMMENT ON INDEX idempotency_by_task IS 'The key goes when its task is deleted.';

CREATE TABLE offer (
    task       uuid NOT NULL,
    step       integer NOT NULL,
    seq        integer NOT NULL,
    route      text NOT NULL,
    needs      integer[] NOT NULL,
    offered_at timestamptz NOT NULL,
    holder     uuid,
    PRIMARY KEY (task, step)
) WITH (
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE offer IS 'Steps that the owners of their tasks offer to other workers.';
COMMENT ON COLUMN offer.task IS 'The task.';
COMMENT ON COLUMN offer.step IS 'The step''s position.';
COMMENT ON COLUMN offer.seq IS 'The history row that settling it will write.';
COMMENT ON COLUMN offer.route IS 'Who may run it.';
COMMENT ON COLUMN offer.needs IS 'The steps whose rows the handler may read.';
COMMENT ON COLUMN offer.offered_at IS 'Since when it may be claimed.';
COMMENT ON COLUMN offer.holder IS 'The worker that runs it.';

CREATE INDEX offer_open ON offer (route, offered_at) WHERE holder IS NULL;
CREATE INDEX offer_by_holder ON offer (holder) WHERE holder IS NOT NULL;

CREATE TABLE news (
    key    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker uuid NOT NULL,
    task   uuid NOT NULL,
    step   integer,
    seq    integer
);
COMMENT ON TABLE news IS 'What others did to a worker''s tasks, until it asks.';
COMMENT ON COLUMN news.key IS 'The order in which it happened.';
COMMENT ON COLUMN news.worker IS 'Who is to hear it.';
COMMENT ON COLUMN news.task IS 'The task.';
COMMENT ON COLUMN news.step IS 'The log of the history row that was added; null: the task was moved.';
COMMENT ON COLUMN news.seq IS 'The number of that row.';

CREATE INDEX news_by_worker ON news (worker);

-- Few rows, rewritten with every sign of life and locked by every commit.
CREATE TABLE worker (
    id         uuid NOT NULL PRIMARY KEY,
    name       text NOT NULL,
    expires_at timestamptz NOT NULL,
    spare      bigint NOT NULL,
    running    text NOT NULL,
    waiting    boolean NOT NULL DEFAULT false,
    moved      bigint NOT NULL DEFAULT 0,
    gone_at    timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
COMMENT ON TABLE worker IS 'The workers, those that live and those that are gone: no id is used again.';
COMMENT ON COLUMN worker.id IS 'One life of a worker.';
COMMENT ON COLUMN worker.name IS 'For people: host and process.';
COMMENT ON COLUMN worker.expires_at IS 'When its lease runs out.';
COMMENT ON COLUMN worker.spare IS 'How many more steps it could run at once.';
COMMENT ON COLUMN worker.running IS 'For people: steps that it has run for long, JSON.';
COMMENT ON COLUMN worker.waiting IS 'Whether it found nothing to do and wants to be notified.';
COMMENT ON COLUMN worker.moved IS 'Counts what others did to its tasks, so that a commit notices what came in between.';
COMMENT ON COLUMN worker.gone_at IS 'When it retired or was taken over.';

CREATE INDEX worker_living ON worker (id) WHERE gone_at IS NULL;

-- Read whole and written whole; what is due is looked for with every sign of life, so what is dead
-- is swept at once.
CREATE TABLE document (
    collection text NOT NULL,
    key        text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    state      text NOT NULL,
    due_at     timestamptz,
    body       text NOT NULL,
    created_at timestamptz NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (collection, key)
) WITH (
    fillfactor = 80,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0
);
COMMENT ON TABLE document IS 'What workers and operators share beside tasks, each by compare and swap.';
COMMENT ON COLUMN document.collection IS 'What it is about: system, escalation, alarm or sink.';
COMMENT ON COLUMN document.key IS 'Its name: of a system, of what needs a person, or the id of a task.';
COMMENT ON COLUMN document.version IS 'Counts its writes, from 1.';
COMMENT ON COLUMN document.state IS 'Its state, to list documents by.';
COMMENT ON COLUMN document.due_at IS 'When somebody should look at it, if ever.';
COMMENT ON COLUMN document.body IS 'What it says, JSON.';
COMMENT ON COLUMN document.created_at IS 'When it was first written.';
COMMENT ON COLUMN document.written_at IS 'When it was last written.';

CREATE INDEX document_due ON document (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX document_listed ON document (collection, created_at, key);
CREATE INDEX document_by_state ON document (collection, state, created_at, key);

CREATE VIEW task_status AS
SELECT
    task.id,
    template.namespace,
    template.name,
    template.task_type,
    task.state,
    task.degraded,
    task.priority,
    worker.name AS owner,
    task.wake_at,
    task.created_at,
    task.ended_at,
    task.input::json AS input
FROM task
JOIN template ON template.key = task.template
LEFT JOIN worker ON worker.id = task.owner;
COMMENT ON VIEW task_status IS 'Where every task stands, for people.';
COMMENT ON COLUMN task_status.id IS 'Its name, in the order of submission.';
COMMENT ON COLUMN task_status.namespace IS 'The namespace of its type.';
COMMENT ON COLUMN task_status.name IS 'The name of its type.';
COMMENT ON COLUMN task_status.task_type IS 'namespace/name@version.';
COMMENT ON COLUMN task_status.state IS 'pending, in_progress, paused, complete, error, cancelled, compensating, compensated or resolved_manually.';
COMMENT ON COLUMN task_status.degraded IS 'Whether it goes on, or has ended, without something that was asked of it.';
COMMENT ON COLUMN task_status.priority IS '-1 low, 0 normal, 1 high.';
COMMENT ON COLUMN task_status.owner IS 'The worker that owns it, by its name for people.';
COMMENT ON COLUMN task_status.wake_at IS 'While it is queued: from when on it may be claimed.';
COMMENT ON COLUMN task_status.created_at IS 'When it was stored.';
COMMENT ON COLUMN task_status.ended_at IS 'When it last ended.';
COMMENT ON COLUMN task_status.input IS 'Its context.';

CREATE VIEW step_status AS
SELECT
    task.id AS task,
    template.task_type,
    step.position - 1 AS step,
    step.template ->> 'name' AS name,
    last.kind AS last_event,
    last.attempt,
    last.at - make_interval(secs => last.ran_for / 1e9) AS began_at,
    last.at AS ended_at,
    last.result::json AS result,
    last.detail::json AS detail
FROM task
JOIN template ON template.key = task.template
CROSS JOIN LATERAL json_array_elements(template.body::json -> 'steps')
    WITH ORDINALITY AS step (template, position)
LEFT JOIN LATERAL (
    SELECT history.*
    FROM history
    WHERE history.task = task.id AND history.step = step.position - 1
    ORDER BY history.seq DESC
    LIMIT 1
) AS last ON true;
COMMENT ON VIEW step_status IS 'The last thing on record about every step of every task, for people; null: nothing yet.';
COMMENT ON COLUMN step_status.task IS 'The task.';
COMMENT ON COLUMN step_status.task_type IS 'namespace/name@version.';
COMMENT ON COLUMN step_status.step IS 'The position of the step, from 0.';
COMMENT ON COLUMN step_status.name IS 'The name of the step.';
COMMENT ON COLUMN step_status.last_event IS 'What happened to it last, such as completed or failed.';
COMMENT ON COLUMN step_status.attempt IS 'The attempt that this settled; 0: none.';
COMMENT ON COLUMN step_status.began_at IS 'When that attempt began.';
COMMENT ON COLUMN step_status.ended_at IS 'When it was recorded.';
COMMENT ON COLUMN step_status.result IS 'What the handler returned.';
COMMENT ON COLUMN step_status.detail IS 'Everything else that there is to say, such as why it failed and what follows.';

CREATE VIEW escalation AS
SELECT
    document.key,
    document.state,
    document.created_at AS raised_at,
    document.written_at AS changed_at,
    document.due_at,
    document.body::json AS detail
FROM document
WHERE document.collection = 'escalation';
COMMENT ON VIEW escalation IS 'What needs a person, or needed one, for people.';
COMMENT ON COLUMN escalation.key IS 'What it is about; nothing is raised twice.';
COMMENT ON COLUMN escalation.state IS 'open until a person has seen to it.';
COMMENT ON COLUMN escalation.raised_at IS 'Since when.';
COMMENT ON COLUMN escalation.changed_at IS 'When anything about it changed last.';
COMMENT ON COLUMN escalation.due_at IS 'When somebody is told next.';
COMMENT ON COLUMN escalation.detail IS 'What happened, and to which task and step.';

CREATE VIEW dependent_system AS
SELECT
    document.key AS name,
    document.state,
    document.created_at AS known_since,
    document.written_at AS changed_at,
    document.due_at,
    document.body::json AS detail
FROM document
WHERE document.collection = 'system';
COMMENT ON VIEW dependent_system IS 'How the systems stand that steps depend on, for people.';
COMMENT ON COLUMN dependent_system.name IS 'The name that the steps give it.';
COMMENT ON COLUMN dependent_system.state IS 'Whether it is called, left alone or tried again.';
COMMENT ON COLUMN dependent_system.known_since IS 'When something was first told of it.';
COMMENT ON COLUMN dependent_system.changed_at IS 'When that was found.';
COMMENT ON COLUMN dependent_system.due_at IS 'When it is looked at next.';
COMMENT ON COLUMN dependent_system.detail IS 'Everything else that there is to say.';
