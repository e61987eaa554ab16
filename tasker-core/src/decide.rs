//! The brain: what becomes of a task.
//!
//! Pure functions from a [`Snapshot`] and what happened to a [`TaskChange`]. No clock, no
//! randomness, no I/O, no `async`: whoever calls hands in the time, and hands the change to
//! [`StateStore::commit`](crate::store::StateStore::commit). A function that takes `&mut Snapshot`
//! leaves it as it will be once the change is committed; if the commit conflicts, throw the
//! snapshot away, reload and decide again.

pub(crate) mod compensate;
mod finish;
mod operate;
mod outcome;
mod start;

pub use operate::{Decision, Illegal, Order, Refused, operate};
pub(crate) use outcome::Begun;
pub use outcome::{Report, settle, settle_offer};
pub use start::{MAX_DELIVERIES, hand_back, handler_of, may_run, offers, system_of};

#[cfg(doc)]
use crate::snapshot::Snapshot;
#[cfg(doc)]
use crate::store::TaskChange;
