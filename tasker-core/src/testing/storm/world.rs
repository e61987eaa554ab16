//! What is outside: a bank that goes up and down, and books of what was done and undone there.
//!
//! The books know each effect by its idempotency key, as a provider would: doing it twice changes
//! nothing, and what was undone cannot be done any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::Pace;
use crate::testing::compare::dice::Dice;
use crate::{StepContext, StepError, TaskId};

/// The code with which the books refuse to do what was undone.
pub(super) const UNDONE: &str = "UNDONE";

/// The outside world of one storm.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    pub(super) pace: Pace,
    calm: AtomicBool,
    bank_is_down: AtomicBool,
    books: Mutex<Books>,
    /// Requests that arrive after whoever sent them has given up.
    late: Mutex<JoinSet<()>>,
    /// Where they are under way: who sent them may be dead.
    network: Handle,
}

/// What was done and undone.
#[derive(Debug, Default)]
struct Books {
    effects: BTreeMap<String, Effect>,
    /// How often each step of each task, by its number, was delivered.
    deliveries: BTreeMap<(u64, String, bool), u64>,
}

/// What became of one idempotency key.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub(super) task: TaskId,
    pub(super) step: String,
    pub(super) is_done: bool,
    /// The keys under which it was undone.
    pub(super) undone_by: BTreeSet<String>,
}

/// How one delivery of a step goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Succeeds,
    IsSlow,
    Fails,
    GivesUp,
    Hangs,
    Panics,
}

/// What a handler that panics says, so that other panics are told from it.
pub(super) const PANIC: &str = "a handler of the storm panics";

impl World {
    pub(super) fn new(seed: u64, pace: Pace) -> Arc<Self> {
        Arc::new(Self {
            seed,
            pace,
            calm: AtomicBool::new(false),
            bank_is_down: AtomicBool::new(false),
            books: Mutex::default(),
            late: Mutex::default(),
            network: Handle::current(),
        })
    }

    /// From now on all is well.
    pub(super) async fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
        self.set_bank_down(false);
        let late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        late.join_all().await;
    }

    pub(super) fn set_bank_down(&self, is_down: bool) {
        self.bank_is_down.store(is_down, Ordering::SeqCst);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// What the books say, by key.
    pub(super) fn effects(&self) -> BTreeMap<String, Effect> {
        self.books().effects.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One attempt at a step, or at undoing one: it may fail before or after its effect.
    pub(super) async fn work(self: Arc<Self>, step: StepContext) -> Result<String, StepError> {
        let (fate, takes_effect, takes) = self.fate(&step)?;
        tokio::time::sleep(takes).await;
        let calls_bank = step.step_name() == "charge";
        if calls_bank && self.bank_is_down.load(Ordering::SeqCst) {
            return Err(StepError::retryable("no answer").with_code("DOWN"));
        }
        if fate == Fate::IsSlow {
            tokio::time::sleep(self.pace.timeout / 2).await;
        }
        if takes_effect {
            self.take_effect(&step)?;
        }
        match fate {
            Fate::Succeeds | Fate::IsSlow => {
                self.take_effect(&step)?;
                Ok(step.idempotency_key().to_owned())
            }
            Fate::Fails => {
                self.arrives_late(&step);
                Err(StepError::retryable("try again"))
            }
            Fate::GivesUp => Err(StepError::permanent("NEVER", "it will not work")),
            Fate::Hangs => std::future::pending().await,
            Fate::Panics => panic!("{PANIC}"),
        }
    }

    /// How this delivery goes, whether it takes effect before it fails, and how long it takes: from
    /// the seed and what is delivered for the how manieth time.
    fn fate(&self, step: &StepContext) -> Result<(Fate, bool, Duration), StepError> {
        let number: u64 = step.context::<super::workflows::Input>()?.number;
        let what = (number, step.step_name().to_owned(), step.is_compensation());
        let name = step.step_name().bytes().fold(0, |sum: u64, it| sum * 31 + u64::from(it));
        let mut books = self.books();
        let delivery = books.deliveries.entry(what).or_default();
        *delivery += 1;
        if self.is_calm() {
            return Ok((Fate::Succeeds, false, Duration::ZERO));
        }
        let undoes = u64::from(step.is_compensation());
        let mixed = [number, name, *delivery, undoes].into_iter().fold(self.seed, |mixed, part| {
            (mixed ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        });
        let mut dice = Dice::new(mixed);
        let fate = match dice.below(100) {
            0..=57 => Fate::Succeeds,
            58..=63 => Fate::IsSlow,
            64..=79 => Fate::Fails,
            80..=87 => Fate::GivesUp,
            88..=93 => Fate::Hangs,
            _ => Fate::Panics,
        };
        Ok((fate, dice.chance(40), self.pace.timeout / 4 * dice.below(100) as u32 / 100))
    }

    fn take_effect(&self, step: &StepContext) -> Result<(), StepError> {
        let own = step.idempotency_key().to_owned();
        let key = step.undone_key().unwrap_or_else(|| own.clone());
        let (task, name) = (step.task_id(), step.step_name().to_owned());
        let mut books = self.books();
        let none = Effect { task, step: name, is_done: false, undone_by: BTreeSet::new() };
        let effect = books.effects.entry(key).or_insert(none);
        if step.is_compensation() {
            effect.undone_by.insert(own);
        } else if effect.undone_by.is_empty() {
            effect.is_done = true;
        } else {
            return Err(StepError::permanent(UNDONE, "it was undone"));
        }
        Ok(())
    }

    /// Some requests arrive when nobody waits for them any more.
    fn arrives_late(self: &Arc<Self>, step: &StepContext) {
        if step.attempt().is_multiple_of(2) {
            return;
        }
        let (world, step) = (self.clone(), step.clone());
        let wait = Duration::from_millis(20 + 40 * u64::from(step.attempt()));
        let arrives = async move {
            tokio::time::sleep(wait).await;
            // Refused where it was undone meanwhile.
            let _ = world.take_effect(&step);
        };
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.spawn_on(arrives, &self.network);
    }
}
