//! How fast tasks are claimed while many wait, by asking the store itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tasker::store::{
    ClaimRequest, Claimed, Created, Heartbeat, NewTask, Renewed, Route, StateStore,
};
use tasker::{Json, Priority, TaskId, TaskTemplate, WorkerId};
use tokio::task::JoinSet;

use super::place::{HeldSnapshot, Home, connect};
use crate::Failed;
use crate::args::{Args, Shape};
use crate::system::Places;

/// Tasks that are stored together.
const TOGETHER: usize = 2_000;

/// How many at a time store so many.
const FILLERS: usize = 4;

/// Measurements of each backlog, in turns with the others.
const ROUNDS: usize = 12;

/// Tasks that are claimed in each, and put back at the end of the queue.
const CLAIMED: usize = 4_000;

/// How fast tasks were claimed beside a number of others.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Claims {
    pub(crate) waiting: usize,
    /// Whether another session held a snapshot from before.
    pub(crate) held_snapshot: bool,
    /// Tasks that a call claimed.
    pub(crate) together: usize,
    /// Tasks a second, in each round.
    pub(crate) tasks_per_second: Vec<f64>,
}

/// A store with its backlog.
struct Backlog {
    home: Home,
    waiting: usize,
    worker: WorkerId,
    template: Arc<TaskTemplate>,
}

/// Fills a store for each backlog, and claims from them in turns; with `--held-snapshot` again
/// beside one.
pub(crate) async fn run(args: &Args, places: &Places) -> Result<Vec<Claims>, Failed> {
    let mut backlogs = Vec::new();
    for &waiting in &args.postgres.backlog {
        backlogs.push(Backlog::fill(args, places, waiting).await?);
    }
    let mut claims = Vec::new();
    if !backlogs.is_empty() {
        claims.extend(in_turns(args, &backlogs, false).await?);
        if let Some(held) = HeldSnapshot::wanted(args, places).await? {
            claims.extend(in_turns(args, &backlogs, true).await?);
            drop(held);
        }
    }
    for backlog in backlogs {
        backlog.home.clear().await?;
    }
    Ok(claims)
}

async fn in_turns(
    args: &Args,
    backlogs: &[Backlog],
    held_snapshot: bool,
) -> Result<Vec<Claims>, Failed> {
    let together = args.postgres.claim.max(1);
    let mut claims: Vec<_> = backlogs
        .iter()
        .map(|backlog| Claims {
            waiting: backlog.waiting,
            held_snapshot,
            together,
            tasks_per_second: Vec::new(),
        })
        .collect();
    for round in 0..=ROUNDS {
        for (backlog, claims) in backlogs.iter().zip(&mut claims) {
            let rate = backlog.claim(together).await?;
            // The first plans the statements.
            if round > 0 {
                claims.tasks_per_second.push(rate);
            }
            backlog.store(CLAIMED).await?;
        }
    }
    Ok(claims)
}

impl Backlog {
    async fn fill(args: &Args, places: &Places, waiting: usize) -> Result<Self, Failed> {
        let home = places.postgres()?.store(args.postgres.connections).await?;
        let template = Arc::new(Shape::Single.template()?);
        let backlog = Self { home, waiting, worker: WorkerId::new(), template };
        let began = Instant::now();
        backlog.store(waiting).await?;
        println!("{waiting} tasks wait after {:.1} s", began.elapsed().as_secs_f64());
        // As autovacuum would have done by the time that so many have gathered.
        let schema = backlog.home.schema.name();
        for table in ["task", "queue"] {
            let analyze = format!("VACUUM (ANALYZE) {schema}.{table}");
            let analyze = sqlx::query(sqlx::AssertSqlSafe(analyze));
            analyze.execute(&mut connect(&backlog.home.url).await?).await?;
        }
        Ok(backlog)
    }

    /// Stores so many tasks.
    async fn store(&self, tasks: usize) -> Result<(), Failed> {
        let batches = tasks.div_ceil(TOGETHER);
        let mut fillers = JoinSet::new();
        for filler in 0..FILLERS.min(batches) {
            let (store, template) = (self.home.store.clone(), self.template.clone());
            fillers.spawn(async move {
                for batch in (filler..batches).step_by(FILLERS) {
                    let count = TOGETHER.min(tasks - batch * TOGETHER);
                    let some = (0..count).map(|_| new_task(&template)).collect();
                    let created = store.create(some, None).await?;
                    if !created.iter().all(|created| matches!(created, Created::New { .. })) {
                        return Err(Failed::from("a new task was there already"));
                    }
                }
                Ok(())
            });
        }
        while let Some(filled) = fillers.join_next().await {
            filled??;
        }
        Ok(())
    }

    /// Claims tasks, a number in each call; tasks a second.
    async fn claim(&self, together: usize) -> Result<f64, Failed> {
        let store = &self.home.store;
        let beat = Heartbeat {
            worker: self.worker,
            name: "claims".to_owned(),
            lease: Some(Duration::from_secs(600)),
            spare: 0,
            running: Vec::new(),
        };
        if store.renew(beat).await? == Renewed::LeaseLost {
            return Err("the worker was taken over".into());
        }
        let routes = Arc::new([Route::of(&self.template)].into());
        let (began, mut claimed) = (Instant::now(), 0);
        while claimed < CLAIMED {
            let request = ClaimRequest {
                worker: self.worker,
                routes: Arc::clone(&routes),
                tasks: together,
                offers: 0,
                holding: None,
            };
            match store.claim(request).await? {
                Claimed::Work(work) if work.tasks.is_empty() => {
                    return Err("nothing was claimed although tasks wait".into());
                }
                Claimed::Work(work) => claimed += work.tasks.len(),
                Claimed::LeaseLost => return Err("the worker was taken over".into()),
            }
        }
        Ok(claimed as f64 / began.elapsed().as_secs_f64())
    }
}

fn new_task(template: &Arc<TaskTemplate>) -> NewTask {
    NewTask {
        id: TaskId::new(),
        template: Arc::clone(template),
        context: Json::null(),
        idempotency_key: None,
        delay: Duration::ZERO,
        priority: Priority::default(),
    }
}
