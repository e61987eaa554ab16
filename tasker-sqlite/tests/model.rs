//! The store answers as the store in memory does, whatever is done to both.

#![allow(clippy::unwrap_used)]

mod fixture;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fixture::{HOUR, beat, completed, task, template};
use tasker_core::history::{Author, Occurrence, Recorded, Transition};
use tasker_core::store::{
    Assumption, ClaimRequest, Claimed, Committed, Created, NewOffer, News, Renewed, Route,
    StateStore, StoredTask, TaskChange, TaskQuery, Then,
};
use tasker_core::{Json, MemoryStore, StepIndex, TaskId, TaskState, TaskTemplate, WorkerId};
use tasker_sqlite::{SqliteStore, Synchronous};

/// A reproducible source of choices (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

fn row(row: &Recorded) -> String {
    format!("{:?} {:?}", row.author, row.transition)
}

fn stored(task: &StoredTask) -> String {
    let rows: Vec<String> = task.rows.iter().map(row).collect();
    format!(
        "{} {} {} {} {} v{} {:?} ended {} queued {} {rows:?}",
        task.id,
        task.template.task_type(),
        task.context,
        task.state,
        task.degraded,
        task.version,
        task.owner,
        task.ended_at.is_some(),
        task.wake_at.is_some(),
    )
}

fn created(created: &[Created]) -> Vec<String> {
    let say = |created: &Created| match created {
        Created::New { claimed, .. } => format!("new {claimed:?}"),
        Created::Existing { id, input_digest } => format!("existing {id} {input_digest}"),
    };
    created.iter().map(say).collect()
}

fn claimed(claimed: &Claimed) -> Vec<String> {
    let Claimed::Work(work) = claimed else { return vec!["lease lost".to_owned()] };
    let mut said: Vec<String> = work.tasks.iter().map(stored).collect();
    let mut offers: Vec<String> = work
        .offers
        .iter()
        .map(|offer| format!("offer {:?} {} {}", offer.step, offer.seq, stored(&offer.task)))
        .collect();
    offers.sort();
    said.append(&mut offers);
    said.extend(work.news.iter().map(|news| match news {
        News::Settled { task, row: settled } => format!("settled {task} {}", row(settled)),
        News::Revoked { task } => format!("revoked {task}"),
    }));
    let next = work.next_in.map(|next| (next.is_zero(), next > HOUR));
    said.push(format!("next {next:?}"));
    said
}

fn committed(committed: &Committed) -> String {
    match committed {
        Committed::LeaseLost => "lease lost".to_owned(),
        Committed::Changes { applied, .. } => format!("{applied:?}"),
    }
}

fn change(
    dice: &mut Dice,
    template: &TaskTemplate,
    tasks: &[(TaskId, u64)],
    versions: u64,
) -> TaskChange {
    let (task, version) = dice.pick(tasks);
    let version = if dice.chance(80) { version } else { dice.below(versions as usize + 1) as u64 };
    let step = StepIndex(dice.below(2) as u32);
    let assumes = match dice.below(5) {
        0 => Assumption::Unmoved { version },
        1 => Assumption::OfferHeld { step, seq: 1 + dice.below(2) as u32 },
        _ => Assumption::Owned { version },
    };
    let mut rows = Vec::new();
    for _ in 0..dice.below(3) {
        rows.push(completed(dice.below(2) as u32, 1 + dice.below(6) as u32));
    }
    rows.dedup();
    if dice.chance(10) {
        let what = Occurrence::Cancelled { reason: "no longer wanted".to_owned() };
        let seq = 1 + dice.below(3) as u32;
        rows.push(Transition { step: None, seq, attempt: 0, ran_for: Duration::ZERO, what });
    }
    let mut offers = Vec::new();
    if dice.chance(30) {
        let route = Route::to_handler(template, "charge");
        let needs = vec![StepIndex(1 - step.0)];
        offers.push(NewOffer { step, seq: 1 + dice.below(2) as u32, route, needs });
    }
    let then = match dice.below(8) {
        0 => Then::Queue {
            state: dice.pick(&[TaskState::InProgress, TaskState::Pending]),
            wake_in: dice.pick(&[Duration::ZERO, 2 * HOUR]),
            route: Route::of(template),
        },
        1 => Then::End {
            state: dice.pick(&[TaskState::Complete, TaskState::Error, TaskState::Cancelled]),
            degraded: dice.chance(30),
        },
        _ => Then::Keep,
    };
    TaskChange { task, assumes, rows, offers, then }
}

/// What one store is compared by; `others` may have written in between, or may not.
async fn same_answers(seed: u64, shared: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tasks.db");
    let memory = MemoryStore::new();
    let options = SqliteStore::options(&path).synchronous(Synchronous::Normal);
    let stores = [options.clone().open().await.unwrap(), options.open().await.unwrap()];
    let dice = &mut Dice(seed);
    let template = template();
    let routes =
        Arc::new(BTreeSet::from([Route::of(&template), Route::to_handler(&template, "charge")]));
    let mut workers: Vec<WorkerId> = (0..3).map(|_| WorkerId::new()).collect();
    let mut tasks: Vec<TaskId> = Vec::new();
    for _ in 0..60 {
        let store = &stores[if shared { dice.below(2) } else { 0 }];
        let worker = dice.pick(&workers);
        match dice.below(10) {
            0 | 1 => {
                let mut new = task(&template);
                new.idempotency_key = dice.chance(40).then(|| format!("key-{}", dice.below(3)));
                new.delay = dice.pick(&[Duration::ZERO, Duration::ZERO, 2 * HOUR]);
                new.context = Json::of(&dice.below(2)).unwrap();
                let claimant = dice.chance(40).then_some(worker);
                let expected = memory.create(vec![new.clone()], claimant).await.unwrap();
                let answer = store.create(vec![new.clone()], claimant).await.unwrap();
                assert_eq!(created(&answer), created(&expected), "seed {seed}");
                if matches!(answer[..], [Created::New { .. }]) {
                    tasks.push(new.id);
                }
            }
            2 | 3 => {
                let holding = dice
                    .chance(20)
                    .then(|| tasks.iter().copied().filter(|_| dice.chance(50)).collect::<Vec<_>>());
                let request = ClaimRequest {
                    worker,
                    routes: Arc::clone(&routes),
                    tasks: dice.pick(&[0, 1, 2, 100]),
                    offers: dice.pick(&[0, 100]),
                    holding,
                };
                let expected = memory.claim(request.clone()).await.unwrap();
                let answer = store.claim(request).await.unwrap();
                assert_eq!(claimed(&answer), claimed(&expected), "seed {seed}");
            }
            4 => {
                let lease = dice.pick(&[Some(HOUR), Some(HOUR), Some(Duration::ZERO), None]);
                let expected = memory.renew(beat(worker, lease)).await.unwrap();
                let answer = store.renew(beat(worker, lease)).await.unwrap();
                let lost = |renewed: &Renewed| *renewed == Renewed::LeaseLost;
                assert_eq!(lost(&answer), lost(&expected), "seed {seed}");
                if dice.chance(30) {
                    workers.push(WorkerId::new());
                }
            }
            5 => {
                let mut expected = memory.take_over(9).await.unwrap();
                let mut answer = store.take_over(9).await.unwrap();
                expected.sort();
                answer.sort();
                assert_eq!(answer, expected, "seed {seed}");
            }
            _ if tasks.is_empty() => {}
            _ => {
                let mut known = Vec::new();
                for id in &tasks {
                    known.push((*id, memory.load(*id).await.unwrap().unwrap().version));
                }
                let author = match known.first() {
                    _ if dice.chance(15) => Author::Operator("ann".to_owned()),
                    _ => {
                        let (id, _) = dice.pick(&known);
                        let owner = memory.load(id).await.unwrap().unwrap().owner;
                        Author::Worker(owner.filter(|_| dice.chance(80)).unwrap_or(worker))
                    }
                };
                let count = 1 + dice.below(4);
                let changes: Vec<TaskChange> = (0..count)
                    .map(|_| change(dice, &template, &known, 4))
                    // An operator owns nothing, so neither store need say what it would mean.
                    .filter(|change| {
                        matches!(author, Author::Worker(_))
                            || matches!(change.assumes, Assumption::Unmoved { .. })
                    })
                    .collect();
                let expected = memory.commit(&author, changes.clone()).await.unwrap();
                let answer = store.commit(&author, changes.clone()).await.unwrap();
                assert_eq!(
                    committed(&answer),
                    committed(&expected),
                    "seed {seed}: {author:?} {changes:#?}",
                );
            }
        }
        for id in &tasks {
            let expected = memory.load(*id).await.unwrap().unwrap();
            let answer = store.load(*id).await.unwrap().unwrap();
            assert_eq!(stored(&answer), stored(&expected), "seed {seed}");
        }
    }
    for state in TaskState::ALL.map(Some).into_iter().chain([None]) {
        let query = TaskQuery { state, namespace: Some("shop".to_owned()), ..TaskQuery::default() };
        let ids = |found: Vec<tasker_core::store::TaskSummary>| {
            found.into_iter().map(|task| (task.id, task.state)).collect::<Vec<_>>()
        };
        let expected = ids(memory.find(query.clone()).await.unwrap());
        assert_eq!(ids(stores[0].find(query.clone()).await.unwrap()), expected);
        if let Some((before, _)) = expected.first() {
            let query = TaskQuery { before: Some(*before), limit: 2, ..query };
            let expected = ids(memory.find(query.clone()).await.unwrap());
            assert_eq!(ids(stores[1].find(query).await.unwrap()), expected);
        }
    }
}

#[tokio::test]
async fn alone_on_its_file_it_answers_as_the_store_in_memory() {
    for seed in 1..=40 {
        same_answers(seed * 0x9e37_79b9, false).await;
    }
}

#[tokio::test]
async fn two_on_one_file_answer_as_one_store_in_memory() {
    for seed in 1..=40 {
        same_answers(seed * 0x85eb_ca6b, true).await;
    }
}
