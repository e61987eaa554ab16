//! Everything at once: workers that die, a system that goes down, operators who do whatever comes to
//! their minds, tasks that are deleted, a store that is away for a moment. On any store.
//!
//! What happens follows from a seed, as far as the scheduler lets it. When the storm is over and all
//! is well outside, every task must come to its end, and the history, the documents and the books of
//! the outside world must agree about what happened.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A storm fails by panicking.

mod calm;
mod operators;
mod processes;
mod record;
mod workflows;
mod world;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;

use self::processes::Process;
use self::world::World;
use super::compare::dice::Dice;
use crate::store::{StateStore, StoreError};
use crate::{Priority, TaskId, TaskRequest};

/// Where a storm takes place: handles on one empty store, as several processes would have them.
#[derive(Clone)]
pub struct Ground {
    stores: Vec<Arc<dyn StateStore>>,
    sweep: Option<Sweep>,
    _guard: Arc<dyn Any + Send + Sync>,
}

/// Deletes tasks that have ended.
type Sweep = Arc<dyn Fn() -> Swept + Send + Sync>;
type Swept = Pin<Box<dyn Future<Output = Result<u64, StoreError>> + Send>>;

impl Ground {
    /// A store by way of some handles, and what is to be kept as long as they are used.
    pub fn new(stores: Vec<Arc<dyn StateStore>>, guard: impl Any + Send + Sync) -> Self {
        Self { stores, sweep: None, _guard: Arc::new(guard) }
    }

    /// Says how tasks are deleted that have ended: called now and then, it should delete those that
    /// ended a little while ago.
    #[must_use]
    pub fn sweeping<F>(mut self, sweep: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<u64, StoreError>> + Send + 'static,
    {
        self.sweep = Some(Arc::new(move || Box::pin(sweep())));
        self
    }
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").field("stores", &self.stores.len()).finish_non_exhaustive()
    }
}

/// How fast things go.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long an attempt may take.
    timeout: Duration,
    lease: Duration,
    storm: Duration,
    /// Everything is over by then.
    patience: Duration,
    /// Whether time is paused, so that waiting costs nothing.
    is_paused: bool,
}

const PAUSED: Pace = Pace {
    timeout: Duration::from_millis(100),
    lease: Duration::from_millis(400),
    storm: Duration::from_secs(2),
    patience: Duration::from_secs(600),
    is_paused: true,
};

const REAL: Pace = Pace {
    timeout: Duration::from_millis(200),
    lease: Duration::from_millis(800),
    storm: Duration::from_secs(2),
    patience: Duration::from_secs(60),
    is_paused: false,
};

/// How many tasks there are in a storm.
const TASKS: u64 = 40;
/// With it and the next one there is a storm with and one without faults, and deletions.
const FIRST_SEED: u64 = 3;
const PROCESSES: usize = 3;
const OPERATORS: usize = 4;

/// Storms in paused time and on one thread, for a store that runs on tokio's clock.
///
/// `TASKER_TEST_SEED` says with which seed to begin, `TASKER_TEST_STORMS` how many there are.
///
/// # Panics
/// Something is not as it must be after one of them; the message has its seed.
pub fn paused<F: Future<Output = Ground>>(storms: u64, fresh: impl Fn() -> F) {
    run(storms, PAUSED, fresh);
}

/// Storms in real time and on several threads, as [`paused`].
///
/// # Panics
/// As [`paused`].
pub fn real<F: Future<Output = Ground>>(storms: u64, fresh: impl Fn() -> F) {
    run(storms, REAL, fresh);
}

fn run<F: Future<Output = Ground>>(storms: u64, pace: Pace, fresh: impl Fn() -> F) {
    let from_environment =
        |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let first = from_environment("TASKER_TEST_SEED").unwrap_or(FIRST_SEED);
    let storms = from_environment("TASKER_TEST_STORMS").unwrap_or(storms);
    watch_for_panics();
    for seed in first..first + storms {
        println!("a storm: repeat it with TASKER_TEST_SEED={seed} TASKER_TEST_STORMS=1");
        let mut builder = match pace.is_paused {
            true => Builder::new_current_thread(),
            false => Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().start_paused(pace.is_paused).build().unwrap();
        let panics = PANICS.load(Ordering::SeqCst);
        runtime.block_on(async { Storm::new(seed, pace, fresh().await).blow().await });
        assert_eq!(PANICS.load(Ordering::SeqCst), panics, "seed {seed}: something panicked");
    }
}

/// Panics other than those of the storm's own handlers.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A loop of a worker that panics ends the worker, and others take over: nothing else would tell.
fn watch_for_panics() {
    static WATCHING: Once = Once::new();
    WATCHING.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload_as_str() != Some(world::PANIC) {
                PANICS.fetch_add(1, Ordering::SeqCst);
                others(panic);
            }
        }));
    });
}

/// One storm.
struct Storm {
    seed: u64,
    pace: Pace,
    ground: Ground,
    world: Arc<World>,
    processes: Vec<Process>,
    /// Tasks that were submitted, by their numbers.
    tasks: Mutex<Vec<TaskId>>,
    /// How long after their submission they were to start, where it was not at once.
    delays: Mutex<BTreeMap<TaskId, Duration>>,
    /// What operators ordered, and what they were told.
    orders: Mutex<Vec<operators::Order>>,
    over: tokio_util::sync::CancellationToken,
}

/// What a storm may bring, by its seed: some are without it, so that stricter claims can be made.
#[derive(Clone, Copy, Debug)]
struct Forecast {
    /// Workers die and the store is away.
    faults: bool,
    /// Tasks that have ended are deleted.
    sweeps: bool,
}

impl Storm {
    fn new(seed: u64, pace: Pace, ground: Ground) -> Arc<Self> {
        let world = World::new(seed, pace);
        let process = |at: usize| {
            let store = ground.stores[at % ground.stores.len()].clone();
            Process::start(store, &world, at == 0)
        };
        Arc::new(Self {
            seed,
            pace,
            processes: (0..PROCESSES).map(process).collect(),
            world,
            ground,
            tasks: Mutex::default(),
            delays: Mutex::default(),
            orders: Mutex::default(),
            over: tokio_util::sync::CancellationToken::new(),
        })
    }

    const fn forecast(&self) -> Forecast {
        Forecast { faults: !self.seed.is_multiple_of(4), sweeps: self.seed.is_multiple_of(3) }
    }

    fn dice(&self, who: usize) -> Dice {
        Dice::new(self.seed.wrapping_mul(1000) + who as u64)
    }

    /// The store itself: a look at it never fails.
    fn store(&self) -> &dyn StateStore {
        &*self.ground.stores[0]
    }

    fn tasks(&self) -> Vec<TaskId> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn blow(self: Arc<Self>) {
        let mut weather = tokio::task::JoinSet::new();
        weather.spawn(self.clone().submit());
        weather.spawn(self.clone().bank_goes_up_and_down());
        for at in 0..PROCESSES {
            weather.spawn(self.clone().processes_come_and_go(at));
        }
        for at in 0..OPERATORS {
            weather.spawn(self.clone().operate(at));
        }
        tokio::time::sleep(self.pace.storm).await;
        self.over.cancel();
        weather.join_all().await;
        calm::settle(&self).await;
    }

    /// Waits for a moment, unless the storm is over.
    async fn moment(&self, wait: Duration) -> bool {
        self.over.run_until_cancelled(tokio::time::sleep(wait)).await.is_some()
    }

    async fn submit(self: Arc<Self>) {
        let mut dice = self.dice(1);
        for number in 0..TASKS {
            let kind = workflows::KINDS[dice.below(workflows::KINDS.len())];
            let input = workflows::Input { number, edited: 0 };
            let request = TaskRequest::new(kind, &input).unwrap();
            let mut request = request.idempotency_key(number.to_string());
            let delay = self.pace.timeout * if dice.chance(15) { 5 } else { 0 };
            request = request.delay(delay);
            if dice.chance(20) {
                request = request.priority(Priority::High);
            }
            let id = loop {
                let tasker = self.processes[dice.below(PROCESSES)].tasker();
                let submitted = tasker.submit(request.clone());
                match tokio::time::timeout(self.pace.lease, submitted).await {
                    Ok(Ok(receipt)) => break receipt.id,
                    // Under its key it may be submitted again, whatever became of it.
                    Ok(Err(crate::SubmitError::Store(_))) | Err(_) => {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Ok(Err(error)) => panic!("seed {}: {error}", self.seed),
                }
            };
            self.delays.lock().unwrap_or_else(PoisonError::into_inner).insert(id, delay);
            self.tasks.lock().unwrap_or_else(PoisonError::into_inner).push(id);
            let wait = self.pace.storm / 2 / TASKS as u32;
            tokio::time::sleep(wait * dice.below(3) as u32).await;
        }
    }

    async fn bank_goes_up_and_down(self: Arc<Self>) {
        let mut dice = self.dice(2);
        let mut is_down = false;
        while self.moment(self.pace.timeout * (1 + dice.below(6) as u32)).await {
            is_down = !is_down;
            self.world.set_bank_down(is_down);
        }
    }
}
