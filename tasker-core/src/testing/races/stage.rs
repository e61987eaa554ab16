//! Where tasks stand when a race begins, and how they get there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::decide::{self, Decision, Order, Report};
use crate::history::{Author, Failure, FailureClass};
use crate::snapshot::Snapshot;
use crate::store::{
    Applied, ClaimRequest, Claimed, Committed, Created, Heartbeat, NewTask, Route, StateStore,
    TaskChange, Then,
};
use crate::{
    Action, Json, Priority, RetryPolicy, StepIndex, StepTemplate, TaskId, TaskTemplate, WorkerId,
};

/// A stage of a task's life: `first`, then `middle`, then with what `side` did `last`.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stage {
    /// `middle` runs; it may be attempted twice.
    Running,
    /// `middle` and `side` run, and it is `side` that ends.
    Beside,
    /// The last step runs, alone; if it fails, what was done is undone.
    Last,
    /// `middle` has failed for good, and what runs beside it ends.
    Failing,
    /// An operator has paused it, and `middle` has not heard of it yet.
    Paused,
    /// It failed for good, with nothing to be undone.
    Failed,
    /// It is complete.
    Done,
    /// `middle` is being undone.
    Undoing,
    /// `middle` is being undone, and this is the last attempt.
    UndoFailing,
    /// It failed and was undone.
    Undone,
}

/// How a step ended on the way.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Well,
    Fails,
    TimesOut,
}

impl Stage {
    pub(super) const ALL: [Self; 10] = [
        Self::Running,
        Self::Beside,
        Self::Last,
        Self::Failing,
        Self::Paused,
        Self::Failed,
        Self::Done,
        Self::Undoing,
        Self::UndoFailing,
        Self::Undone,
    ];

    const fn is_undone_if_it_fails(self) -> bool {
        matches!(self, Self::Last | Self::Done | Self::Undoing | Self::UndoFailing | Self::Undone)
    }

    /// What ended on the way, and what is to end next.
    fn script(self) -> (&'static [(u32, End)], u32) {
        use End::{Fails, TimesOut, Well};
        match self {
            Self::Running | Self::Paused => (&[(FIRST, Well), (SIDE, Well)], MIDDLE),
            Self::Beside => (&[(FIRST, Well)], SIDE),
            Self::Last | Self::Done => (&[(FIRST, Well), (SIDE, Well), (MIDDLE, Well)], LAST),
            Self::Failing | Self::Failed => (&[(FIRST, Well), (MIDDLE, Fails)], SIDE),
            Self::Undoing => {
                (&[(FIRST, Well), (SIDE, Well), (MIDDLE, Well), (LAST, Fails)], MIDDLE)
            }
            Self::UndoFailing => (
                &[(FIRST, Well), (SIDE, Well), (MIDDLE, Well), (LAST, Fails), (MIDDLE, TimesOut)],
                MIDDLE,
            ),
            Self::Undone => (
                &[(FIRST, Well), (SIDE, Well), (MIDDLE, Well), (LAST, Fails), (MIDDLE, Well)],
                FIRST,
            ),
        }
    }
}

const FIRST: u32 = 0;
const MIDDLE: u32 = 1;
const SIDE: u32 = 2;
const LAST: u32 = 3;

fn template(undoes: bool) -> Arc<TaskTemplate> {
    let again = |limit| RetryPolicy::fixed(limit, Duration::ZERO);
    let step = |name: &str| {
        let step = StepTemplate::new(name).retry(again(2));
        if undoes { step.compensate_with("undo") } else { step }
    };
    // A name of its own, so that nobody else is handed its tasks.
    let template = TaskTemplate::builder(format!("race {}", TaskId::new()))
        .step(step("first"))
        .step(step("middle").after("first"))
        .step(StepTemplate::new("side").retry(again(1)))
        .step(StepTemplate::new("last").after_all(["middle", "side"]).retry(again(1)));
    Arc::new(template.build().unwrap())
}

/// Tasks at one stage, and the worker that owns them or did.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) template: Arc<TaskTemplate>,
    pub(super) owner: WorkerId,
    pub(super) entrants: Vec<Entrant>,
    pub(super) now: Timestamp,
}

/// A task that is raced.
#[derive(Debug)]
pub(super) struct Entrant {
    pub(super) id: TaskId,
    /// As its owner holds it, or last held it.
    pub(super) held: Snapshot,
    /// The step that its owner is to settle next.
    pub(super) step: StepIndex,
}

impl Scene {
    pub(super) async fn set(store: &Arc<dyn StateStore>, stage: Stage, tasks: usize) -> Self {
        let template = template(stage.is_undone_if_it_fails());
        let owner = register(&**store, LONG).await;
        let ids: Vec<_> = (0..tasks).map(|_| TaskId::new()).collect();
        let new = ids.iter().map(|id| NewTask {
            id: *id,
            template: template.clone(),
            context: Json::parse(r#"{"number":1}"#).unwrap(),
            idempotency_key: None,
            delay: Duration::ZERO,
            priority: Priority::Normal,
        });
        let created = store.create(new.collect(), Some(owner)).await.unwrap();
        let Created::New { at, claimed: Some(version) } = created[0] else { panic!("{created:?}") };
        // Late enough for every retry to be due.
        let now = at.checked_add(LONG).unwrap();
        let (script, next) = stage.script();
        let held = |id: &TaskId| {
            let context = Json::parse(r#"{"number":1}"#).unwrap();
            let held = Snapshot::fresh(*id, template.clone(), context, version);
            Entrant { id: *id, held, step: StepIndex(next) }
        };
        let entrants = ids.iter().map(held).collect();
        let mut scene = Self { template, owner, entrants, now };
        for (step, end) in script {
            scene.settle(store, StepIndex(*step), *end).await;
        }
        scene.take();
        match stage {
            Stage::Paused => scene.pause(store).await,
            Stage::Failed | Stage::Done | Stage::Undone => {
                let entrants = scene.entrants.iter();
                let ends = entrants.map(|it| it.report(End::Well, scene.now)).collect();
                commit_all(&**store, &Author::Worker(owner), ends).await;
            }
            Stage::Running
            | Stage::Beside
            | Stage::Last
            | Stage::Failing
            | Stage::Undoing
            | Stage::UndoFailing => {}
        }
        scene
    }

    fn take(&mut self) {
        for entrant in &mut self.entrants {
            entrant.held.take_runnable(self.now);
        }
    }

    /// Settles one step of every task, and goes on with them.
    async fn settle(&mut self, store: &Arc<dyn StateStore>, step: StepIndex, end: End) {
        self.take();
        let now = self.now;
        let settle = |entrant: &mut Entrant| settled(&mut entrant.held, step, end, now);
        let changes: Vec<_> = self.entrants.iter_mut().map(settle).collect();
        let released = changes[0].then != Then::Keep;
        commit_all(&**store, &Author::Worker(self.owner), changes).await;
        if released {
            let mut claimed = claim(&**store, self.owner, &self.template, FIELD).await;
            for entrant in &mut self.entrants {
                let at = claimed.iter().position(|task| task.id() == entrant.id).unwrap();
                entrant.held = claimed.swap_remove(at);
            }
        }
    }

    async fn pause(&self, store: &Arc<dyn StateStore>) {
        let pause = |entrant: &Entrant| {
            let order = Order::because("before the race");
            let decided =
                decide::operate(&mut entrant.held.clone(), &Action::Pause, &order, self.now);
            decided.ok().and_then(Decision::into_change).unwrap()
        };
        let changes = self.entrants.iter().map(pause).collect();
        commit_all(&**store, &Author::Operator("carol".to_owned()), changes).await;
    }
}

/// The most tasks of a scene.
pub(super) const FIELD: usize = 100;
const LONG: Duration = Duration::from_secs(3600);

impl Entrant {
    /// What its owner concludes when the step that runs ends.
    pub(super) fn report(&self, end: End, now: Timestamp) -> TaskChange {
        settled(&mut self.held.clone(), self.step, end, now)
    }
}

/// Settles the attempt at a step that runs.
pub(super) fn settled(
    task: &mut Snapshot,
    step: StepIndex,
    end: End,
    now: Timestamp,
) -> TaskChange {
    let failure = |class, code: &str| {
        Err(Failure { class, code: code.to_owned(), message: "in the race".to_owned() })
    };
    let outcome = match end {
        End::Well => Ok(Json::null()),
        End::Fails => failure(FailureClass::Permanent, "FAILED"),
        End::TimesOut => failure(FailureClass::TimedOut, "TIMED_OUT"),
    };
    let (seq, ran_for) = (task.step(step).next_seq(), Duration::from_millis(1));
    let report = Report { step, seq, ran_for, outcome, retry_after: None, spared: false };
    decide::settle(task, vec![report], &[], now)
}

pub(super) async fn register(store: &dyn StateStore, lease: Duration) -> WorkerId {
    let worker = WorkerId::new();
    beat(store, worker, Some(lease)).await;
    worker
}

pub(super) async fn beat(store: &dyn StateStore, worker: WorkerId, lease: Option<Duration>) {
    let name = "race".to_owned();
    store.renew(Heartbeat { worker, name, lease, spare: 0, running: Vec::new() }).await.unwrap();
}

pub(super) async fn claim(
    store: &dyn StateStore,
    worker: WorkerId,
    template: &TaskTemplate,
    tasks: usize,
) -> Vec<Snapshot> {
    let routes = Arc::new(BTreeSet::from([Route::of(template)]));
    let request = ClaimRequest { worker, routes, tasks, offers: 0, holding: None };
    match store.claim(request).await.unwrap() {
        Claimed::Work(work) => work.tasks.iter().map(Snapshot::replay).collect(),
        Claimed::LeaseLost => panic!("the lease is alive, and the store says that it is lost"),
    }
}

pub(super) async fn commit(
    store: &dyn StateStore,
    author: &Author,
    changes: Vec<TaskChange>,
) -> Vec<Applied> {
    match store.commit(author, changes).await.unwrap() {
        Committed::Changes { applied, .. } => applied,
        Committed::LeaseLost => panic!("the lease is alive, and the store says that it is lost"),
    }
}

/// Commits what nobody else interferes with.
pub(super) async fn commit_all(store: &dyn StateStore, author: &Author, changes: Vec<TaskChange>) {
    let applied = commit(store, author, changes).await;
    assert!(applied.iter().all(|applied| *applied == Applied::Yes), "{applied:?}");
}
