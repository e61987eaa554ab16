//! How urgent a task is, and in which order tasks are therefore claimed.
//!
//! A priority is a head start in time and not a class of its own: whoever waits long enough comes
//! first, so nothing starves. The order is a pure function that every store asks.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How urgent a task is.
///
/// A level is worth ten minutes: a task of high priority goes before normal ones that became due
/// up to ten minutes before it, and a low one lets those pass that become due up to ten minutes
/// after it.
///
/// ```
/// use tasker_core::{Priority, TaskRequest};
///
/// let refund = TaskRequest::new("refund", &42)?.priority(Priority::High);
/// assert_eq!("high".parse::<Priority>()?, Priority::High);
/// # drop(refund);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After whatever became due at the same time.
    Low,
    /// In the order in which tasks become due.
    #[default]
    Normal,
    /// Before whatever became due at the same time.
    High,
}

/// What a level is worth, in minutes.
const LEVEL: i64 = 10;

impl Priority {
    /// All priorities, from the lowest to the highest.
    pub const ALL: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// How much earlier than its time a task is ranked; negative for later.
    pub const fn head_start(self) -> SignedDuration {
        SignedDuration::from_mins(LEVEL * self.to_stored() as i64)
    }

    /// Where a task stands among those that are due: the lowest rank is claimed first, and of equal
    /// ones the lowest id.
    ///
    /// Tasks of one priority have the order of their times. A task that is not due has no rank,
    /// whatever its priority.
    pub fn rank(self, wake_at: Timestamp) -> Timestamp {
        let limit = if self < Self::Normal { Timestamp::MAX } else { Timestamp::MIN };
        wake_at.checked_sub(self.head_start()).unwrap_or(limit)
    }

    /// The number in databases: -1, 0 or 1, the higher the more urgent.
    pub const fn to_stored(self) -> i16 {
        match self {
            Self::Low => -1,
            Self::Normal => 0,
            Self::High => 1,
        }
    }

    /// The priority that a store read back.
    ///
    /// # Errors
    /// This version of Tasker knows no such priority.
    pub fn from_stored(number: i16) -> Result<Self, UnknownPriority> {
        let known = Self::ALL.into_iter().find(|priority| priority.to_stored() == number);
        known.ok_or_else(|| UnknownPriority(number.to_string()))
    }

    /// The name in requests, answers and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

/// A priority that this version of Tasker does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown priority `{0}`: there are low, normal and high")]
pub struct UnknownPriority(String);

impl FromStr for Priority {
    type Err = UnknownPriority;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|priority| priority.as_str() == name);
        known.ok_or_else(|| UnknownPriority(name.to_owned()))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    #[test]
    fn a_level_is_worth_ten_minutes() {
        let urgent = Priority::High.rank(at(60));
        assert!(urgent < Priority::Normal.rank(at(51)), "due nine minutes earlier: overtaken");
        assert!(Priority::Normal.rank(at(49)) < urgent, "due eleven minutes earlier: goes first");
        assert!(Priority::Low.rank(at(39)) < urgent, "two levels are worth twenty");
        assert!(urgent < Priority::Low.rank(at(41)));
        assert!(Priority::Normal.rank(at(60)) < Priority::Low.rank(at(60)));
    }

    #[test]
    fn nothing_is_overtaken_by_what_becomes_due_later_than_its_head_start() {
        for waiting in Priority::ALL {
            for late in Priority::ALL {
                let after = late.head_start() - waiting.head_start();
                let later = at(60) + after + SignedDuration::from_secs(1);
                assert!(waiting.rank(at(60)) < late.rank(later), "{waiting} before {late}");
            }
        }
    }

    #[test]
    fn tasks_of_one_priority_keep_the_order_of_their_times() {
        for priority in Priority::ALL {
            assert!(priority.rank(at(59)) < priority.rank(at(60)));
        }
        assert_eq!(Priority::High.rank(Timestamp::MIN), Timestamp::MIN);
        assert_eq!(Priority::Low.rank(Timestamp::MAX), Timestamp::MAX);
    }

    #[test]
    fn every_priority_comes_back_from_its_number_and_its_names() {
        for priority in Priority::ALL {
            assert_eq!(Priority::from_stored(priority.to_stored()).unwrap(), priority);
            assert_eq!(priority.to_string().parse::<Priority>().unwrap(), priority);
            let json = serde_json::to_string(&priority).unwrap();
            assert_eq!(json, format!("\"{priority}\""));
        }
        assert_eq!(
            Priority::from_stored(2).unwrap_err().to_string(),
            "unknown priority `2`: there are low, normal and high"
        );
    }
}
