//! Stores new tasks: what arrives together is stored with one statement.
//!
//! While a statement runs the next requests queue up, and all of them make the next one: there is
//! no timer, so a lone request starts at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use tasker_core::store::{Created, NewTask, Route, StoreError, input_digest};
use tasker_core::{Fingerprint, Json, TaskId, WorkerId};
use tokio::sync::{Mutex, mpsc, oneshot};
use uuid::Uuid;

use crate::database::{Database, Session, Work, statement};
use crate::documents::New;
use crate::fault::Fault;
use crate::rows::{Columns, column, micros, timestamp};

/// How many tasks join one statement.
const BATCH: usize = 256;

/// How many tasks one request may have: larger ones are handed in one after the other.
pub(crate) const REQUEST: usize = 1_000;

/// How many statements run at once.
pub(crate) const LANES: usize = 2;

/// How often a key is asked for that is taken and then, because its task was deleted, is not.
const ROUNDS: usize = 8;

/// A request to store tasks.
#[derive(Debug)]
pub(crate) struct Create {
    pub(crate) tasks: Vec<NewTask>,
    pub(crate) claimant: Option<WorkerId>,
}

/// A request and who waits for the answer.
pub(crate) struct Ask {
    pub(crate) request: Create,
    pub(crate) answer: oneshot::Sender<Result<Vec<Created>, StoreError>>,
}

/// What arrives, shared by the lanes.
pub(crate) type Arrivals = Arc<Mutex<mpsc::Receiver<Ask>>>;

/// Stores what arrives until nobody can ask any more.
pub(crate) async fn run(database: Arc<Database>, arrivals: Arrivals) {
    loop {
        let mut asks = Vec::new();
        {
            let mut arrivals = arrivals.lock().await;
            let Some(first) = arrivals.recv().await else { return };
            let mut tasks = first.request.tasks.len();
            asks.push(first);
            while tasks < BATCH
                && let Ok(next) = arrivals.try_recv()
            {
                tasks += next.request.tasks.len();
                asks.push(next);
            }
        }
        // Whoever has stopped waiting wants nothing any more.
        asks.retain(|ask| !ask.answer.is_closed());
        if !asks.is_empty() {
            serve(&database, asks).await;
        }
    }
}

/// Stores the tasks of some requests; if one of them spoils it, each gets a statement of its own.
async fn serve(database: &Arc<Database>, asks: Vec<Ask>) {
    let (requests, answers): (Vec<_>, Vec<_>) =
        asks.into_iter().map(|ask| (Arc::new(ask.request), ask.answer)).unzip();
    match database.perform_here(Batch(requests.clone())).await {
        Ok(created) => {
            for (answer, created) in answers.into_iter().zip(created) {
                // Whoever has stopped waiting learns it in another way.
                _ = answer.send(Ok(created));
            }
        }
        Err(fault) if requests.len() > 1 && fault.is_of_one_operation() => {
            for (request, answer) in requests.into_iter().zip(answers) {
                if answer.is_closed() {
                    continue;
                }
                let alone = database.perform_here(Batch(vec![request])).await;
                let alone = alone.map(|mut created| created.pop().unwrap_or_default());
                _ = answer.send(alone.map_err(|fault| fault.to_store_error()));
            }
        }
        Err(fault) => {
            for answer in answers {
                _ = answer.send(Err(fault.to_store_error()));
            }
        }
    }
}

/// Requests that are served together.
pub(crate) struct Batch(pub(crate) Vec<Arc<Create>>);

impl Work for Batch {
    type Answer = Vec<Vec<Created>>;

    fn weight(&self) -> usize {
        let tasks = self.0.iter().flat_map(|create| &create.tasks);
        tasks.map(|task| task.context.as_str().len()).sum()
    }

    async fn run(self, session: &mut Session<'_>) -> Result<Self::Answer, Fault> {
        let keys = keys_of(session, self.0.iter().flat_map(|create| &create.tasks)).await?;
        let mut places = Vec::new();
        for (request, create) in self.0.iter().enumerate() {
            let claimant = create.claimant;
            let arrivals = create.tasks.iter();
            places.extend(arrivals.map(|task| Arrival { request, task, claimant, keys: &keys }));
        }
        let created = store(session, &places).await?;
        let mut answers: Vec<Vec<Created>> =
            self.0.iter().map(|create| Vec::with_capacity(create.tasks.len())).collect();
        let mut queued = false;
        for (place, created) in places.iter().zip(created) {
            queued |= matches!(created, Created::New { claimed: None, .. });
            answers[place.request].push(created);
        }
        if queued {
            session.database.hints.there_may_be_work();
        }
        Ok(answers)
    }
}

/// The keys of templates, by their fingerprints.
pub(crate) type Keys = HashMap<Fingerprint, i32>;

/// The keys of the templates of some tasks; those that are new are stored. Not in an open
/// transaction: they are to be there for good.
pub(crate) async fn keys_of<'a>(
    session: &mut Session<'_>,
    tasks: impl Iterator<Item = &'a NewTask>,
) -> Result<Keys, Fault> {
    let mut keys = Keys::new();
    for task in tasks {
        if let Entry::Vacant(vacant) = keys.entry(task.template.fingerprint()) {
            let Database { templates, sql, .. } = session.database;
            let key = templates.key_of(session.connection, sql, &task.template).await?;
            vacant.insert(i32::try_from(key).unwrap_or(i32::MAX));
        }
    }
    Ok(keys)
}

/// A task that is to be stored.
pub(crate) struct Arrival<'a> {
    /// Which request it is of.
    pub(crate) request: usize,
    pub(crate) task: &'a NewTask,
    pub(crate) claimant: Option<WorkerId>,
    /// The keys of all templates.
    pub(crate) keys: &'a Keys,
}

/// Stores tasks and says what became of each.
pub(crate) async fn store(
    session: &mut Session<'_>,
    arrivals: &[Arrival<'_>],
) -> Result<Vec<Created>, Fault> {
    let mut created: Vec<Option<Created>> = vec![None; arrivals.len()];
    for _ in 0..ROUNDS {
        let open: Vec<usize> = (0..arrivals.len()).filter(|at| created[*at].is_none()).collect();
        if open.is_empty() {
            break;
        }
        insert(session, arrivals, &open, &mut created).await?;
        let taken: Vec<usize> = open.into_iter().filter(|at| created[*at].is_none()).collect();
        if !taken.is_empty() {
            look_up(session, arrivals, &taken, &mut created).await?;
        }
    }
    created.into_iter().collect::<Option<_>>().ok_or(Fault::Contended)
}

async fn insert(
    session: &mut Session<'_>,
    arrivals: &[Arrival<'_>],
    open: &[usize],
    created: &mut [Option<Created>],
) -> Result<(), Fault> {
    let mut columns = Arrays::default();
    for (nr, at) in (1i64..).zip(open) {
        columns.put(nr, &arrivals[*at]);
    }
    let new = columns.documents;
    let insert = statement(&session.database.sql.create)
        .bind(columns.id)
        .bind(columns.template)
        .bind(columns.input)
        .bind(columns.delay)
        .bind(columns.priority)
        .bind(columns.route)
        .bind(columns.claimant)
        .bind(columns.namespace)
        .bind(columns.name)
        .bind(columns.key)
        .bind(columns.document_of)
        .bind(column(&new, |new| new.collection.as_str()))
        .bind(column(&new, |new| new.key.clone()))
        .bind(column(&new, |new| new.put.state.clone()))
        .bind(column(&new, |new| new.put.due_in.map(micros)))
        .bind(column(&new, |new| new.put.body.as_str().to_owned()));
    for row in &session.fetch(insert).await? {
        let mut columns = Columns::of(row);
        let (now, nr, claimed): (i64, i64, bool) =
            (columns.time()?, columns.next()?, columns.next()?);
        let place = usize::try_from(nr - 1).ok().and_then(|nr| open.get(nr));
        let place = place.and_then(|at| created.get_mut(*at));
        let place = place.ok_or_else(|| Fault::Unreadable("an answer to nothing".to_owned()))?;
        *place = Some(Created::New { at: timestamp(now)?, claimed: claimed.then_some(1) });
    }
    Ok(())
}

/// The parameters of the statement that stores tasks.
#[derive(Default)]
struct Arrays {
    id: Vec<Uuid>,
    template: Vec<i32>,
    input: Vec<String>,
    delay: Vec<i64>,
    priority: Vec<i16>,
    route: Vec<String>,
    claimant: Vec<Option<Uuid>>,
    namespace: Vec<String>,
    name: Vec<String>,
    key: Vec<Option<String>>,
    /// Which task each document is added with, counted from 1.
    document_of: Vec<i64>,
    documents: Vec<New>,
}

impl Arrays {
    fn put(&mut self, nr: i64, arrival: &Arrival<'_>) {
        let task = arrival.task;
        let template = arrival.keys.get(&task.template.fingerprint()).copied().unwrap_or(i32::MAX);
        let kind = task.template.task_type();
        self.id.push(task.id.as_uuid());
        self.template.push(template);
        self.input.push(task.context.as_str().to_owned());
        self.delay.push(micros(task.delay));
        self.priority.push(task.priority.to_stored());
        self.route.push(Route::of(&task.template).as_str().to_owned());
        self.claimant.push(arrival.claimant.map(|worker| worker.as_uuid()));
        self.namespace.push(kind.namespace.as_str().to_owned());
        self.name.push(kind.name.as_str().to_owned());
        self.key.push(task.idempotency_key.clone());
        for document in New::among(task.alarm()) {
            self.document_of.push(nr);
            self.documents.push(document);
        }
    }
}

/// Who has the keys of some tasks; nobody any more if the task was deleted meanwhile.
async fn look_up(
    session: &mut Session<'_>,
    arrivals: &[Arrival<'_>],
    taken: &[usize],
    created: &mut [Option<Created>],
) -> Result<(), Fault> {
    let tasks = || taken.iter().map(|at| arrivals[*at].task);
    let namespaces: Vec<String> =
        tasks().map(|task| task.template.task_type().namespace.as_str().to_owned()).collect();
    let names: Vec<String> =
        tasks().map(|task| task.template.task_type().name.as_str().to_owned()).collect();
    let keys: Vec<Option<String>> = tasks().map(|task| task.idempotency_key.clone()).collect();
    let query = statement(&session.database.sql.select_existing);
    let query = query.bind(namespaces).bind(names).bind(keys);
    for row in &session.fetch(query).await? {
        let mut columns = Columns::of(row);
        let (nr, id): (i64, TaskId) = (columns.next()?, columns.task()?);
        let input = columns.json()?.unwrap_or_else(Json::null);
        let place = usize::try_from(nr - 1).ok().and_then(|nr| taken.get(nr));
        let place = place.and_then(|at| created.get_mut(*at));
        let place = place.ok_or_else(|| Fault::Unreadable("an answer to nothing".to_owned()))?;
        *place = Some(Created::Existing { id, input_digest: input_digest(&input) });
    }
    Ok(())
}
