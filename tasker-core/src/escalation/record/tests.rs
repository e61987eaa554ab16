#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::Strategy;

use super::*;
use crate::store::{Collection, DocumentChange};
use crate::{Operator, TaskId};

const SINKS: [&str; 3] = ["chat", "log", "pager"];

/// What happens to an escalation.
#[derive(Clone, Debug)]
enum Happening {
    Passes(u64),
    /// A worker with some of the sinks looks; its deliveries end as it is said, or never.
    Look {
        sinks: Vec<&'static str>,
        ends: Option<[bool; 3]>,
    },
    Acknowledged,
    Resolved,
}

fn happening() -> impl Strategy<Value = Happening> {
    let sinks = proptest::sample::subsequence(SINKS.to_vec(), 1..=3);
    let ends = proptest::option::weighted(0.8, any::<[bool; 3]>());
    prop_oneof![
        4 => (0u64..4000).prop_map(Happening::Passes),
        8 => (sinks, ends).prop_map(|(sinks, ends)| Happening::Look { sinks, ends }),
        1 => Just(Happening::Acknowledged),
        1 => Just(Happening::Resolved),
    ]
}

/// A document as a store would keep it.
fn stored(change: &DocumentChange, version: u64, now: Timestamp) -> Document {
    let put = change.put.clone().unwrap();
    Document {
        collection: Collection::Escalation,
        key: change.key.clone(),
        version,
        state: put.state,
        due_at: put.due_in.map(|wait| now.checked_add(wait).unwrap()),
        body: put.body,
        created_at: Timestamp::UNIX_EPOCH,
        written_at: now,
    }
}

fn raised(now: Timestamp) -> Document {
    let incident = Incident::Quarantined { task: TaskId::new(), deliveries: 10 };
    stored(&incident.raise("key".to_owned()), 1, now)
}

fn operator() -> Operator {
    Operator::new("ada", "seen\nto")
}

proptest! {
    #[test]
    fn an_escalation_is_due_until_everybody_has_it(
        happenings in proptest::collection::vec(happening(), 0..60),
    ) {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut document = raised(now);
        // Who has heard that it was raised, and that it is resolved.
        let mut delivered: BTreeSet<(String, bool)> = BTreeSet::new();
        // Until when a sink is another worker's.
        let mut claims: BTreeMap<String, Timestamp> = BTreeMap::new();
        let mut seen: Option<SeenTo> = None;
        for happening in happenings {
            let mut record = Record::read(&document).unwrap();
            prop_assert_eq!(record.state().as_str(), document.state.as_str());
            match happening {
                Happening::Passes(seconds) => {
                    now = now.checked_add(Duration::from_secs(seconds)).unwrap();
                    continue;
                }
                Happening::Look { sinks, ends } => {
                    let (of, tried) = (record.state(), record.deliveries.clone());
                    let is_over = of == EscalationState::Resolved;
                    let known = [SINKS[0].to_owned()];
                    let looks = Sinks { own: &sinks, known: &known };
                    let claimed = record.claim(&document, &looks, now);
                    for sink in &claimed {
                        prop_assert!(sinks.contains(&sink.as_str()));
                        prop_assert!(!delivered.contains(&(sink.clone(), is_over)), "{sink} has it");
                        let tried = tried.get(sink).is_some_and(|it| it.attempts > 0);
                        prop_assert!(tried || !is_over, "{sink} knows of nothing");
                        prop_assert!(claims.get(sink).is_none_or(|until| *until <= now));
                        claims.insert(sink.clone(), now.checked_add(CLAIM_LEASE).unwrap());
                    }
                    if of == EscalationState::Acknowledged {
                        prop_assert!(claimed.is_empty());
                    }
                    for (sink, ends) in SINKS.into_iter().zip(ends.unwrap_or_default()) {
                        if !claimed.iter().any(|claimed| claimed == sink) {
                            continue;
                        }
                        let outcome = if ends { Ok(()) } else { Err("no\0pe".to_owned()) };
                        record.told("key", &Told { sink, of, outcome }, now);
                        claims.remove(sink);
                        if ends {
                            delivered.insert((sink.to_owned(), is_over));
                        }
                    }
                }
                Happening::Acknowledged => {
                    record.acknowledge(SeenTo::by(&operator(), now));
                }
                Happening::Resolved => {
                    record.resolve(SeenTo::by(&operator(), now));
                }
            }
            let change = record.replaces(&document, now).unwrap();
            document = stored(&change, document.version + 1, now);
            let escalation = record.escalation(&document);
            // Who was first stays.
            if let Some(seen) = &seen {
                prop_assert_eq!(Some(seen), escalation.resolved.as_ref());
            }
            seen = escalation.resolved.clone();
            let deliveries = &escalation.deliveries;
            let owed = match escalation.state {
                EscalationState::Open => {
                    deliveries.is_empty() || deliveries.values().any(|it| it.delivered_at.is_none())
                }
                EscalationState::Acknowledged => false,
                EscalationState::Resolved => {
                    deliveries.values().any(|it| it.attempts > 0 && it.resolved_at.is_none())
                }
            };
            prop_assert_eq!(document.due_at.is_some(), owed);
            if let Some(due) = document.due_at {
                prop_assert!(due <= now.checked_add(Duration::from_secs(3600)).unwrap());
            }
            let errors = deliveries.values().filter_map(|delivery| delivery.last_error.as_ref());
            prop_assert!(errors.into_iter().all(|error| !error.contains(char::is_control)));
        }
    }
}

#[test]
fn waits_grow_to_an_hour_and_no_further() {
    let mut now = Timestamp::UNIX_EPOCH;
    let document = raised(now);
    let mut record = Record::read(&document).unwrap();
    let mut waits = Vec::new();
    for _ in 0..20 {
        let sinks = Sinks { own: &["pager"], known: &[] };
        assert_eq!(record.claim(&document, &sinks, now), ["pager"]);
        let (of, outcome) = (EscalationState::Open, Err("busy".to_owned()));
        record.told("key", &Told { sink: "pager", of, outcome }, now);
        let wait = record.due_in(now).unwrap();
        waits.push(wait);
        now = now.checked_add(wait).unwrap();
    }
    assert!(waits[0] <= Duration::from_millis(1_250), "{waits:?}");
    assert!(waits[..11].is_sorted(), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(3600)), "{waits:?}");
    assert!(waits[15..].iter().all(|wait| *wait >= Duration::from_secs(2700)), "{waits:?}");
}
