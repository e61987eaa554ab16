//! The body: workers, which own tasks and run their steps.
//!
//! Small loops share one [`Core`]: `claim` gets tasks, `owner` holds them, asks `decide` and
//! settles, `attempt` runs a step, `lease` keeps the worker alive and takes over dead ones,
//! `escalate` tells people. None of them decides anything about a task.

mod arriving;
mod attempt;
mod care;
mod claim;
mod escalate;
mod held;
mod lease;
mod lookout;
mod mail;
mod owner;
mod parked;
mod patience;
mod queue;
mod rhythm;
mod room;
mod settle;
mod systems;

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime, RuntimeFlavor};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::escalation::EscalationSink;
use crate::event::Events;
use crate::registry::Registry;
use crate::snapshot::Snapshot;
use crate::store::{Route, StateStore};
use crate::{TaskId, TaskTemplate, WorkerId};

use self::arriving::Arriving;
use self::mail::{Message, StoreClock};
pub(crate) use self::room::Room;
use self::systems::{Place, Turn};
pub(crate) use self::systems::{Systems, breaker_of};

/// How a worker is set up; made by [`Tasker::worker`](crate::Tasker::worker).
#[derive(Clone, Debug)]
#[must_use]
pub struct WorkerBuilder {
    core: Arc<Shared>,
    settings: Settings,
}

#[derive(Clone, Debug)]
struct Settings {
    name: String,
    slots: usize,
    lease: Duration,
    poll: Duration,
    owners: usize,
    max_result_bytes: usize,
    namespaces: Option<BTreeSet<String>>,
}

/// What a client and its workers share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn StateStore>,
    pub(crate) registry: Registry,
    pub(crate) events: Events,
    /// The workers of this process.
    pub(crate) workers: Mutex<Vec<Weak<Core>>>,
    pub(crate) systems: Systems,
    /// Where escalations are delivered to.
    pub(crate) sinks: Vec<Arc<dyn EscalationSink>>,
    /// Told when this process has raised an escalation.
    pub(crate) raised: Notify,
}

impl Shared {
    fn attach(&self, worker: &Arc<Core>) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(worker));
        let slots = workers.iter().filter_map(Weak::upgrade).map(|worker| worker.settings.slots);
        self.systems.set_slots(slots.sum());
    }

    /// A worker of this process that has room, with that room reserved.
    pub(crate) fn worker_with_room(
        &self,
        template: &TaskTemplate,
    ) -> Option<(Arc<Incarnation>, Room)> {
        let route = Route::of(template);
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let serving = workers.iter().filter_map(Weak::upgrade);
        serving.filter(|worker| worker.routes.contains(&route)).find_map(|worker| {
            let incarnation = worker.incarnation()?;
            let room = Room::reserve(&worker, 1);
            (room.size() > 0).then_some((incarnation, room))
        })
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tasker").field("task_types", &self.registry.task_types()).finish()
    }
}

/// What the loops of one worker share.
#[derive(Debug)]
pub(crate) struct Core {
    shared: Arc<Shared>,
    settings: Settings,
    /// One for each step that may run at once.
    slots: Arc<Semaphore>,
    arriving: Arriving,
    /// Tasks that the worker holds or is about to hold.
    held: AtomicUsize,
    /// Told when a task was let go.
    let_go: Notify,
    /// Told when an answer of the store was lost, with what it may have handed out.
    resync: Notify,
    /// The tasks and steps that the worker takes.
    routes: Arc<BTreeSet<Route>>,
    /// The systems of which it takes parked tasks.
    systems: Vec<Served>,
    /// The worker's present name and lease, while it has one.
    incarnation: watch::Sender<Option<Arc<Incarnation>>>,
    owners: Vec<mpsc::UnboundedSender<Message>>,
    /// Nothing new begins.
    stop: CancellationToken,
    /// What runs is dropped.
    kill: CancellationToken,
    /// Nothing is held any more, and nothing will be.
    idle: CancellationToken,
    handlers: Handle,
    /// How many more steps the other workers could run, as the last heartbeat was told.
    others_spare: AtomicUsize,
    /// When the first document is due, as the last heartbeat was told.
    next_due: watch::Sender<Option<Instant>>,
    rejected: AtomicUsize,
}

/// A system of which a worker takes parked tasks, and the routes on which those wait.
#[derive(Debug)]
struct Served {
    turn: Turn,
    routes: Arc<BTreeSet<Route>>,
}

/// One life of a worker: from its registration to the loss of its lease.
#[derive(Debug)]
pub(crate) struct Incarnation {
    pub(crate) id: WorkerId,
    /// Cancelled when the lease is lost: what it owns is somebody else's.
    pub(crate) lost: CancellationToken,
}

/// A running worker.
///
/// Dropping it stops it at once: what runs is dropped, and other workers take its tasks over when
/// its lease runs out. [`shutdown`](Self::shutdown) is the orderly way.
#[derive(Debug)]
#[must_use = "dropping a worker stops it"]
pub struct Worker {
    core: Arc<Core>,
    loops: JoinSet<()>,
    runtime: Option<Runtime>,
}

/// Threads on which handlers run: a handler that blocks its thread takes one of them.
const MAX_HANDLER_THREADS: usize = 64;

impl WorkerBuilder {
    pub(crate) fn new(core: Arc<Shared>) -> Self {
        let settings = Settings {
            name: format!("{}:{}", host(), std::process::id()),
            slots: 64,
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(20),
            owners: 2,
            max_result_bytes: 1024 * 1024,
            namespaces: None,
        };
        Self { core, settings }
    }

    /// What the worker is called in the store, for people; host and process id by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.settings.name = name.into();
        self
    }

    /// How many steps run at once, and how many tasks are held; 64 by default, at least 1.
    ///
    /// Up to 64 handlers that block their threads do so without holding up the others.
    pub fn slots(mut self, slots: usize) -> Self {
        self.settings.slots = slots.clamp(1, Semaphore::MAX_PERMITS);
        self
    }

    /// How long the worker's tasks stay its own after its last sign of life; 30 seconds by default.
    ///
    /// Renewed three times in that time; once it has run out another worker takes the tasks over
    /// within a second. Shorter: a dead worker's tasks are taken over sooner, and a short absence of
    /// the store is more easily mistaken for a death. Give all workers of a store the same lease:
    /// of a worker that has just come one hears with the next renewal, so that one with a much
    /// longer lease may notice its death up to a third of its own lease late.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease.max(Duration::from_millis(30));
        self
    }

    /// The longest time between two looks for work while the store hints at none; 20 seconds by
    /// default.
    ///
    /// Right after work there are more looks, a second apart at first. A store tells of new work by
    /// itself, so this bounds what a hint that was lost can cost.
    pub fn poll(mut self, poll: Duration) -> Self {
        self.settings.poll = poll.max(Duration::from_millis(1));
        self
    }

    /// The largest result that a step may return, in bytes of JSON; 1 MiB by default.
    pub fn max_result_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_result_bytes = bytes;
        self
    }

    /// Takes tasks of these namespaces only; by default of all that are registered.
    ///
    /// So one kind of work may have workers of its own, however busy another is. Tasks of a
    /// namespace that no worker takes wait. A second call replaces the first.
    pub fn namespaces<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.settings.namespaces = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// Starts the worker on the current tokio runtime; it works until the [`Worker`] is shut down or
    /// dropped.
    ///
    /// On a multi-threaded runtime the handlers get threads of their own, so that one that blocks
    /// disturbs neither the worker nor your program; on a current-thread runtime, as in a test with
    /// paused time, everything shares its one thread.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Worker {
        let Self { core: shared, settings } = self;
        let (runtime, handlers) = handler_runtime(&settings);
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..settings.owners).map(|_| mpsc::unbounded_channel()).unzip();
        let core = Arc::new(Core {
            routes: shared.registry.routes(settings.namespaces.as_ref()),
            systems: served(&shared, &settings),
            slots: Arc::new(Semaphore::new(settings.slots)),
            shared,
            settings,
            arriving: Arriving::default(),
            held: AtomicUsize::new(0),
            let_go: Notify::new(),
            resync: Notify::new(),
            incarnation: watch::Sender::new(None),
            owners: senders,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            idle: CancellationToken::new(),
            handlers,
            others_spare: AtomicUsize::new(0),
            next_due: watch::Sender::new(None),
            rejected: AtomicUsize::new(0),
        });
        // Before they run: how many slots there are tells which systems have no limit.
        core.shared.attach(&core);
        let mut loops = JoinSet::new();
        for inbox in receivers {
            loops.spawn(watched(core.clone(), owner::run(core.clone(), inbox)));
        }
        loops.spawn(watched(core.clone(), claim::run(core.clone())));
        loops.spawn(watched(core.clone(), lease::run(core.clone())));
        loops.spawn(watched(core.clone(), escalate::run(core.clone())));
        Worker { core, loops, runtime }
    }
}

fn served(shared: &Shared, settings: &Settings) -> Vec<Served> {
    let routes = shared.registry.parked_routes(settings.namespaces.as_ref());
    let served = routes.into_iter().map(|(name, routes)| {
        let (turn, routes) = (Turn::new(shared.systems.get(&name)), Arc::new(routes));
        Served { turn, routes }
    });
    served.collect()
}

/// Runs a loop of a worker; if it breaks, the whole worker ends and its lease runs out.
///
/// A worker that has lost one of its loops but renews its lease would keep its tasks for ever.
async fn watched(core: Arc<Core>, run: impl Future<Output = ()>) {
    let mut alarm = Alarm { core, armed: true };
    run.await;
    alarm.armed = false;
}

struct Alarm {
    core: Arc<Core>,
    armed: bool,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        if std::thread::panicking() {
            error!("a loop of the worker panicked: it stops, others take its tasks over");
        }
        self.core.abandon();
    }
}

/// A runtime for handlers beside a multi-threaded one; otherwise the current one.
fn handler_runtime(settings: &Settings) -> (Option<Runtime>, Handle) {
    let current = Handle::current();
    if current.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return (None, current);
    }
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.slots.min(MAX_HANDLER_THREADS))
        .thread_name("tasker-handler")
        .enable_all()
        .build();
    match built {
        Ok(runtime) => {
            let handle = runtime.handle().clone();
            (Some(runtime), handle)
        }
        Err(error) => {
            warn!(%error, "no threads for handlers of their own: they share the program's");
            (None, current)
        }
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    if name.trim().is_empty() { "worker".to_owned() } else { name.trim().to_owned() }
}

impl Worker {
    /// Stops the worker in good order: nothing new begins, what runs may end within `grace`.
    ///
    /// What has not ended by then is told through its cancellation signal, dropped a second later
    /// and given back: another worker runs it at once, and no attempt is counted. Returns when all
    /// is settled, or when the store did not answer within a few more seconds; what could not be
    /// given back is then taken over after its lease.
    pub async fn shutdown(mut self, grace: Duration) {
        self.core.stop();
        let core = self.core.clone();
        let in_time = tokio::time::timeout(grace, self.finish()).await.is_ok();
        if !in_time {
            core.kill.cancel();
            let settled = tokio::time::timeout(AFTER_GRACE, self.finish()).await;
            if settled.is_err() {
                warn!("the store did not answer: tasks are taken over when the lease runs out");
            }
        }
    }

    async fn finish(&mut self) {
        while let Some(ended) = self.loops.join_next().await {
            if let Err(error) = ended {
                warn!(%error, "a worker loop ended badly");
            }
        }
    }

    /// How many reports were refused because the lease was lost or the task had been moved.
    pub fn rejected_reports(&self) -> usize {
        self.core.rejected.load(Ordering::Relaxed)
    }

    /// Whether the worker holds a lease at present.
    pub fn is_registered(&self) -> bool {
        self.core.incarnation.borrow().is_some()
    }
}

/// How long a shutdown may take after its grace is over.
const AFTER_GRACE: Duration = Duration::from_secs(5);

impl Drop for Worker {
    fn drop(&mut self) {
        self.core.abandon();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Core {
    /// The worker's name and lease, while it has one.
    pub(crate) fn incarnation(&self) -> Option<Arc<Incarnation>> {
        self.incarnation.borrow().clone()
    }

    /// Hands a task for which room was reserved to its owner.
    ///
    /// One that waited for a system comes with the place there that is kept for it.
    fn own(
        &self,
        incarnation: Arc<Incarnation>,
        task: Snapshot,
        clock: StoreClock,
        place: Option<Place>,
    ) {
        let (id, task) = (task.id(), Box::new(task));
        self.tell(id, Message::Own { incarnation, task, clock, place });
    }

    /// Ends everything at once; what is held is taken over when the lease runs out.
    fn abandon(&self) {
        self.stop();
        self.kill.cancel();
        if let Some(incarnation) = self.incarnation() {
            incarnation.lost.cancel();
        }
    }

    fn stop(&self) {
        self.stop.cancel();
        self.check_idle();
    }

    /// Takes in how long it is until somebody should look at a document.
    fn told_due(&self, next_due: Option<Duration>) {
        self.next_due.send_replace(next_due.map(|wait| Instant::now() + wait));
    }

    fn tell(&self, task: TaskId, message: Message) {
        // The low bits of a version-7 UUID are random.
        let owner = (task.as_uuid().as_u128() as usize) % self.owners.len();
        // An owner is gone only when the worker has stopped.
        let _ = self.owners[owner].send(message);
    }
}
