//! The systems that steps depend on, as the workers of this process see them.
//!
//! Who wants to call one needs a [`Place`]. How many there are at once is the allowance's business,
//! whether there are any the breaker's, of which a copy is kept here; `document` keeps it in step
//! with the one that all processes share. Nothing here decides anything about a task.

mod allowance;
mod call;
mod document;
mod turn;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use self::allowance::Allowance;
pub(super) use self::call::{NOTE, UnderWay};
use self::document::Unwritten;
pub(crate) use self::document::breaker_of;
use self::turn::Taker;
pub(super) use self::turn::Turn;
use super::mail::StoreClock;
use crate::breaker::{Admission, Breaker, Call, Probe, SystemPolicy};
use crate::snapshot::Want;
use crate::store::StateStore;

/// After the store failed: how long no probe is begun.
const AWAY: Duration = Duration::from_secs(1);

/// All systems that this process knows.
pub(crate) struct Systems {
    store: Arc<dyn StateStore>,
    known: Mutex<BTreeMap<String, Arc<System>>>,
    /// The number by which a heartbeat told of the documents when they were last read.
    read_at: AtomicU64,
    common: Arc<Common>,
}

/// What the systems of a process share.
#[derive(Debug)]
struct Common {
    /// Counts the occasions on which a claim of parked tasks may bring more than the last one.
    occasions: watch::Sender<u64>,
    /// Counts places that became free while steps waited for one in memory.
    turns: watch::Sender<usize>,
    /// How many steps run at once in this process.
    slots: AtomicUsize,
}

/// One system.
#[derive(Debug)]
pub(crate) struct System {
    name: String,
    common: Arc<Common>,
    view: Mutex<View>,
    /// Held while its document is written: what ends meanwhile is written together.
    writing: tokio::sync::Mutex<()>,
}

/// How a system stands, as far as is known here.
#[derive(Debug)]
struct View {
    breaker: Breaker,
    /// The version of the document that it is the body of, if there is one.
    version: Option<u64>,
    clock: StoreClock,
    allowance: Allowance,
    /// Calls that ended and are not in the document.
    unwritten: Unwritten,
    /// The workers of this process that take its parked tasks.
    takers: BTreeMap<u64, Taker>,
    /// Steps may wait in memory for a place.
    awaited: bool,
    /// A step of this process is to be the next probe, or is; until when that keeps others from it.
    ///
    /// A handler that blocks its thread may never say that it has ended.
    probing: Option<Instant>,
    /// The store failed, so that there is no probing before this.
    away_until: Option<Instant>,
}

/// The right to make one call to a system; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    system: Arc<System>,
    right: Right,
}

#[derive(Debug)]
enum Right {
    /// One of the calls that are made at once.
    Call,
    /// To be the probe, if no other process is quicker; then the permit.
    Probe(Option<Probe>),
}

impl Systems {
    pub(crate) fn new(
        store: Arc<dyn StateStore>,
        policies: impl IntoIterator<Item = (String, SystemPolicy)>,
    ) -> Self {
        let slots = AtomicUsize::new(0);
        let (occasions, turns) = (watch::Sender::new(0), watch::Sender::new(0));
        let common = Arc::new(Common { occasions, turns, slots });
        let known = policies.into_iter().map(|(name, policy)| {
            let system = System::new(name.clone(), &policy, common.clone());
            (name, Arc::new(system))
        });
        Self { known: Mutex::new(known.collect()), store, read_at: AtomicU64::new(0), common }
    }

    /// One system, whether or not a template names it.
    pub(crate) fn get(&self, name: &str) -> Arc<System> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(system) = known.get(name) {
            return system.clone();
        }
        let (policy, common) = (SystemPolicy::default(), self.common.clone());
        let system = Arc::new(System::new(name.to_owned(), &policy, common));
        known.insert(name.to_owned(), system.clone());
        system
    }

    /// All systems.
    pub(crate) fn all(&self) -> Vec<Arc<System>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().cloned().collect()
    }

    /// How many calls are under way, or held to be.
    #[cfg(feature = "testing")]
    pub(crate) fn calls(&self) -> usize {
        self.all().iter().map(|system| system.view().allowance.in_flight()).sum()
    }

    /// So many steps run at once in this process: a system that may have so many calls has no limit.
    pub(super) fn set_slots(&self, slots: usize) {
        self.common.slots.store(slots, Ordering::Relaxed);
    }

    /// Tells when parked tasks may be claimed that could not be before.
    pub(super) fn occasions(&self) -> watch::Receiver<u64> {
        self.common.occasions.subscribe()
    }

    /// Tells how many places became free while steps waited for one in memory.
    pub(super) fn turns(&self) -> watch::Receiver<usize> {
        self.common.turns.subscribe()
    }
}

impl System {
    fn new(name: String, policy: &SystemPolicy, common: Arc<Common>) -> Self {
        let view = View {
            breaker: Breaker::default(),
            version: None,
            clock: StoreClock::told(Timestamp::UNIX_EPOCH),
            allowance: Allowance::new(policy),
            unwritten: Unwritten::default(),
            takers: BTreeMap::new(),
            awaited: false,
            probing: None,
            away_until: None,
        };
        Self { name, common, view: Mutex::new(view), writing: tokio::sync::Mutex::default() }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        // Nothing below panics half-way through a change.
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots(&self) -> usize {
        self.common.slots.load(Ordering::Relaxed)
    }

    fn arise(&self) {
        self.common.occasions.send_modify(|count| *count += 1);
    }

    /// A place for a step that is about to start, or what it is to be parked for want of. It may
    /// wait in memory for its turn.
    pub(super) fn admit(
        self: &Arc<Self>,
        policy: &SystemPolicy,
        clock: StoreClock,
    ) -> Result<Place, Want> {
        let mut view = self.view();
        view.clock = clock;
        view.allowance.follow(policy);
        let right = match view.breaker.admission(clock.now()) {
            Admission::Go => view.allowance.take(self.slots()).then_some(Right::Call),
            Admission::Probe if view.may_probe() => {
                view.begin_probing();
                Some(Right::Probe(None))
            }
            Admission::Probe | Admission::Wait(_) => None,
        };
        let want = if view.breaker.is_open() { Want::System } else { Want::Turn };
        match want {
            _ if right.is_some() => {}
            Want::Turn => view.awaited = true,
            Want::System | Want::Handler => drop(view.backlog()),
        }
        right.map(|right| Place { system: self.clone(), right }).ok_or(want)
    }

    /// A task is about to wait on one of its routes.
    pub(super) fn parks(&self) {
        self.view().backlog();
    }

    /// A task now waits on one of its routes.
    pub(super) fn has_waiting(&self) {
        let mut view = self.view();
        let looked_in_vain = view.backlog();
        let free = !view.breaker.is_open() && view.allowance.has_free();
        drop(view);
        if looked_in_vain || free {
            self.arise();
        }
    }

    /// A call succeeded. That is written with the next failure, or not at all.
    fn note_success(&self, policy: &SystemPolicy) {
        let mut view = self.view();
        if view.breaker.is_open() {
            return;
        }
        let call = Call { at: view.clock.now(), failed: false };
        view.unwritten.note(call, policy);
        let wanted = view.is_backlogged();
        view.allowance.succeeded(wanted);
        if wanted && view.allowance.is_unlimited(self.slots()) {
            // Its tasks are claimed like all others again.
            view.takers.values_mut().for_each(|taker| taker.backlogged = false);
            drop(view);
            self.arise();
        }
    }

    /// Why its breaker is open.
    fn reason(&self) -> Option<String> {
        self.view().breaker.cause().map(ToString::to_string)
    }

    /// A probe has begun that counts as lost after some time.
    fn probes(&self, takes: Duration) {
        self.view().probing = Some(Instant::now() + takes);
    }

    /// The store failed: no probe for a moment.
    fn stay_away(&self) {
        self.view().away_until = Some(Instant::now() + AWAY);
    }
}

impl View {
    fn may_probe(&self) -> bool {
        let over = |at| at <= Instant::now();
        self.probing.is_none_or(over) && self.away_until.is_none_or(over)
    }

    fn begin_probing(&mut self) {
        self.probing = Some(Instant::now() + self.allowance.policy().probe_interval);
    }

    fn is_backlogged(&self) -> bool {
        self.takers.values().any(|taker| taker.backlogged)
    }

    /// Tasks wait, or may; whether a worker had looked for them in vain.
    fn backlog(&mut self) -> bool {
        let mut in_vain = false;
        for taker in self.takers.values_mut() {
            in_vain |= taker.nobody_until.is_some();
            *taker = Taker { backlogged: true, looks: false, nobody_until: None };
        }
        in_vain
    }
}

impl Place {
    pub(super) fn system(&self) -> &str {
        &self.system.name
    }

    /// Whether nobody else can be quicker to make the call.
    pub(super) const fn is_for_sure(&self) -> bool {
        matches!(self.right, Right::Call)
    }

    /// Whether it still is what is needed to make a call.
    pub(super) fn still_fits(&self) -> bool {
        self.system.view().breaker.is_open() == matches!(self.right, Right::Probe(_))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut view = self.system.view();
        if view.awaited {
            self.system.common.turns.send_modify(|count| *count = count.wrapping_add(1));
        }
        let wanted = match self.right {
            Right::Call => {
                view.allowance.give_back();
                view.is_backlogged()
            }
            Right::Probe(_) => {
                view.probing = None;
                view.takers.values().any(Taker::may_find)
            }
        };
        drop(view);
        if wanted {
            self.system.arise();
        }
    }
}
