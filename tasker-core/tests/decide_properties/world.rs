//! A store and an owner in a few lines, and everything that may happen to them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tasker_core::decide::{self, Order, Report};
use tasker_core::history::{Author, Failure, FailureClass, Occurrence, Recorded, Transition};
use tasker_core::snapshot::Snapshot;
use tasker_core::store::{StoredTask, TaskChange, Then};
use tasker_core::{
    Action, Backoff, Json, OnFailure, Priority, RetryPolicy, StepCause, StepIndex, StepState,
    StepTemplate, Strategy, TaskCause, TaskId, TaskState, TaskTemplate, Why, WorkerId,
};

use crate::oracle::{self, Event, MAX_WAIT_MS, Reaction, Rule, View};

/// Something that happens; the number picks one of what there is.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    Claim,
    Start(u16),
    Succeed(u16),
    Fail(u16, FailureClass, u16),
    SucceedElsewhere(u16),
    ReportAgain(u16),
    LoseWorker(u8),
    HandBack,
    Wait,
    Retry,
    Cancel,
}

/// The moves that were made.
#[derive(Default)]
pub struct Moves {
    pub tasks: BTreeSet<(TaskState, TaskState)>,
    pub steps: BTreeSet<(StepState, StepState)>,
}

pub struct World {
    rules: Vec<Rule>,
    stored: StoredTask,
    events: Vec<Event>,
    owner: Option<Owner>,
    settled: Vec<(StepIndex, u32)>,
    pub moves: Moves,
}

struct Owner {
    task: Snapshot,
    queue: Vec<StepIndex>,
    running: Vec<StepIndex>,
}

fn pick<T: Copy>(from: &[T], number: u16) -> Option<T> {
    (!from.is_empty()).then(|| from[number as usize % from.len()])
}

fn why_names_worker(why: &Why) -> bool {
    matches!(why.cause, TaskCause::Owned { .. } | TaskCause::Failing { .. })
}

/// The template that the rules describe.
fn template(rules: &[Rule]) -> TaskTemplate {
    let step = |(index, rule): (usize, &Rule)| {
        let backoff = Backoff {
            strategy: Strategy::Fixed,
            base: Duration::from_millis(rule.wait_ms as u64),
            max: Duration::from_millis(MAX_WAIT_MS as u64),
            jitter: 0.0,
            ..Backoff::default()
        };
        let on_failure = match rule.on_failure {
            Reaction::Fail => OnFailure::Fail,
            Reaction::Continue => OnFailure::Continue,
            Reaction::Fallback => OnFailure::Fallback("other".to_owned()),
        };
        StepTemplate::new(format!("s{index}"))
            .after_all(rule.parents.iter().map(|parent| format!("s{parent}")))
            .retry(RetryPolicy { retryable: rule.retryable, limit: rule.limit, backoff })
            .on_failure(on_failure)
    };
    let steps = rules.iter().enumerate().map(step);
    steps.fold(TaskTemplate::builder("any"), |builder, step| builder.step(step)).build().unwrap()
}

impl World {
    pub fn new(rules: Vec<Rule>) -> Self {
        let now = Timestamp::UNIX_EPOCH;
        let stored = StoredTask {
            id: TaskId::new(),
            template: Arc::new(template(&rules)),
            context: Json::null(),
            priority: Priority::Normal,
            state: TaskState::Pending,
            degraded: false,
            version: 0,
            owner: None,
            created_at: now,
            ended_at: None,
            wake_at: Some(now),
            route: None,
            now,
            rows: Vec::new(),
        };
        let (events, settled) = (Vec::new(), Vec::new());
        Self { rules, stored, events, owner: None, settled, moves: Moves::default() }
    }

    pub fn act(&mut self, act: Act) {
        self.stored.now += SignedDuration::from_millis(1);
        match act {
            Act::Claim => self.claim(),
            Act::Start(number) => self.start(number),
            Act::Succeed(number) => self.end(number, None),
            Act::Fail(number, class, asked) => self.end(number, Some((class, asked))),
            Act::SucceedElsewhere(number) => self.succeed_elsewhere(number),
            Act::ReportAgain(number) => self.report_again(number),
            Act::LoseWorker(times) => self.lose_worker(times),
            Act::HandBack => self.hand_back(),
            Act::Wait => self.stored.now += SignedDuration::from_millis(MAX_WAIT_MS / 2),
            Act::Retry => self.operate(false),
            Act::Cancel => self.operate(true),
        }
        self.take_runnable();
        self.compare();
    }

    pub fn state(&self) -> TaskState {
        self.stored.state
    }

    /// Lets everything go well until the task has ended.
    pub fn run_out(&mut self) {
        // Each step needs a few acts, and so does each wait.
        for _ in 0..20 * (self.rules.len() + 1) {
            if self.state().is_terminal() {
                return;
            }
            for act in [Act::Claim, Act::Start(0), Act::Succeed(0), Act::Wait] {
                self.act(act);
            }
        }
        panic!("the task has not ended: {:?}", self.stored);
    }

    fn view(&self) -> View {
        oracle::view(&self.rules, &self.events)
    }

    fn claim(&mut self) {
        if self.owner.is_some() || self.stored.wake_at.is_none_or(|at| at > self.stored.now) {
            return;
        }
        self.move_task(TaskState::InProgress);
        self.stored.version += 1;
        self.stored.wake_at = None;
        let task = Snapshot::replay(&self.stored);
        let may_run = decide::may_run(&task, self.stored.now);
        self.owner = Some(Owner { task, queue: Vec::new(), running: Vec::new() });
        if !may_run {
            self.settle(Vec::new(), &[]);
        }
    }

    fn take_runnable(&mut self) {
        let before = self.owner.as_ref().map(|owner| owner.task.clone());
        let now = self.stored.now;
        let view = self.view();
        let Some(owner) = &mut self.owner else { return };
        let taken = owner.task.take_runnable(now);
        for step in &taken {
            let expected = &view.steps[step.get()];
            assert_eq!(expected.state, StepState::Ready, "step {step:?} was taken");
            assert!(expected.ready_at.is_none_or(|at| at <= now), "step {step:?} is early");
            assert!(!owner.queue.contains(step) && !owner.running.contains(step), "{step:?} twice");
        }
        if !view.failed {
            let due = |(_, seen): &(usize, &oracle::StepView)| {
                seen.state == StepState::Ready && seen.ready_at.is_none_or(|at| at <= now)
            };
            let forgotten = view.steps.iter().enumerate().filter(due).find(|(step, _)| {
                let step = StepIndex(*step as u32);
                let held = [&owner.queue, &owner.running, &taken];
                !held.iter().any(|held| held.contains(&step))
            });
            assert_eq!(forgotten, None, "a step that is due was forgotten");
        }
        owner.queue.extend(taken);
        self.note_moves(before);
    }

    fn start(&mut self, number: u16) {
        let failed = self.view().failed;
        let before = self.owner.as_ref().map(|owner| owner.task.clone());
        let Some(owner) = &mut self.owner else { return };
        let Some(step) = pick(&owner.queue, number) else { return };
        owner.queue.retain(|queued| *queued != step);
        assert_eq!(owner.task.has_failed(), failed);
        if failed {
            owner.task.give_back(step);
            self.note_moves(before);
            return self.settle(Vec::new(), &[]);
        }
        owner.running.push(step);
    }

    fn end(&mut self, number: u16, failure: Option<(FailureClass, u16)>) {
        let Some(owner) = &mut self.owner else { return };
        let Some(step) = pick(&owner.running, number) else { return };
        owner.running.retain(|running| *running != step);
        let seq = owner.task.step(step).next_seq();
        let event = match failure {
            None => Event::Succeeded { step: step.get() },
            Some((class, asked)) => Event::Failed {
                step: step.get(),
                retryable: matches!(
                    class,
                    FailureClass::Retryable | FailureClass::TimedOut | FailureClass::Panicked
                ),
                asked_ms: asked.into(),
                at: self.stored.now,
            },
        };
        self.events.push(event);
        self.settle(vec![report(step, seq, failure)], &[]);
    }

    /// Another worker settles a step that runs as an offer; the owner is told, twice.
    fn succeed_elsewhere(&mut self, number: u16) {
        let Some(owner) = &mut self.owner else { return };
        let Some(step) = pick(&owner.running, number) else { return };
        owner.running.retain(|running| *running != step);
        let seq = owner.task.step(step).next_seq();
        let change = decide::settle_offer(&Snapshot::replay(&self.stored), report(step, seq, None));
        let rows = change.unwrap().rows;
        self.events.push(Event::Succeeded { step: step.get() });
        let rows: Vec<_> = rows.into_iter().map(|row| self.recorded(row)).collect();
        self.record(&rows);
        self.settle(Vec::new(), &[rows.clone(), rows].concat());
    }

    fn report_again(&mut self, number: u16) {
        let Some((step, seq)) = pick(&self.settled, number) else { return };
        let Some(owner) = &mut self.owner else { return };
        let again =
            decide::settle(&mut owner.task, vec![report(step, seq, None)], &[], self.stored.now);
        assert_eq!(again.rows, [], "an attempt was settled twice");
        self.apply(again);
    }

    fn lose_worker(&mut self, times: u8) {
        for _ in 0..times {
            self.stored.now += SignedDuration::from_millis(1);
            self.claim();
            let before = self.owner.take().map(|owner| owner.task);
            if before.is_none() {
                return;
            }
            let logged = self.stored.rows.iter().filter(|row| row.transition.step.is_none());
            let seq = logged.count() as u32 + 1;
            let what = Occurrence::WorkerLost { worker: WorkerId::new() };
            let row = Transition { step: None, seq, attempt: 0, ran_for: Duration::ZERO, what };
            let row = self.recorded(row);
            self.record(&[row]);
            self.events.push(Event::Lost);
            self.queue(Duration::ZERO);
            self.note_replay(before);
        }
    }

    fn hand_back(&mut self) {
        let Some(owner) = &self.owner else { return };
        let Then::Queue { state, wake_in, .. } = decide::hand_back(&owner.task) else {
            panic!("a task that is handed back is queued")
        };
        assert_eq!(state, TaskState::InProgress);
        let before = self.owner.take().map(|owner| owner.task);
        self.queue(wake_in);
        self.note_replay(before);
    }

    fn operate(&mut self, cancel: bool) {
        let mut task = Snapshot::replay(&self.stored);
        let untouched = task.clone();
        let action = if cancel { Action::Cancel } else { Action::Retry };
        let order = Order::because("because");
        let decided = decide::operate(&mut task, &action, &order, self.stored.now);
        let Ok(change) = decided else { return };
        let change = change.into_change().unwrap();
        let before = self.owner.take().map_or(untouched, |owner| owner.task);
        self.events.push(if cancel { Event::Cancelled } else { Event::Retried });
        self.owner = Some(Owner { task, queue: Vec::new(), running: Vec::new() });
        self.note_moves(Some(before));
        self.apply(change);
        self.owner = None;
    }

    fn settle(&mut self, reports: Vec<Report>, arrived: &[Recorded]) {
        let Some(owner) = &mut self.owner else { return };
        let before = owner.task.clone();
        let change = decide::settle(&mut owner.task, reports, arrived, self.stored.now);
        if change.rows.iter().any(|row| matches!(row.what, Occurrence::Quarantined { .. })) {
            self.events.push(Event::Quarantined);
        }
        self.note_moves(Some(before));
        self.apply(change);
    }

    /// Stores what was decided, after a look at whether it had to be.
    fn apply(&mut self, change: TaskChange) {
        let (view, now) = (self.view(), self.stored.now);
        let quarantined = matches!(self.events.last(), Some(Event::Quarantined));
        let rows: Vec<_> = change.rows.into_iter().map(|row| self.recorded(row)).collect();
        self.record(&rows);
        let Some(owner) = &self.owner else { return };
        let busy = !owner.queue.is_empty() || !owner.running.is_empty();
        match change.then {
            Then::Keep => {
                let due = |seen: &oracle::StepView| {
                    seen.state == StepState::Ready && seen.ready_at.is_none_or(|at| at <= now)
                };
                let can_go_on = !view.failed && view.steps.iter().any(due);
                assert!(busy || can_go_on, "nothing would ever happen: {view:?}");
            }
            Then::Hold { .. } => panic!("no operator asked for it"),
            Then::Queue { state: TaskState::Pending, wake_in, .. } => {
                assert!(!view.failed && wake_in.is_zero(), "{view:?}");
                self.move_task(TaskState::Pending);
                self.queue(wake_in);
            }
            Then::Queue { state, wake_in, .. } => {
                assert_eq!(state, TaskState::InProgress);
                assert!(!busy && !view.failed && !view.ended, "{view:?}");
                let waiting = view.steps.iter().filter(|seen| seen.state == StepState::Ready);
                let first = waiting.map(|seen| seen.ready_at.unwrap()).min().unwrap();
                assert_eq!(now + wake_in, first, "it wakes when the first step is due");
                self.queue(wake_in);
            }
            Then::End { state, degraded } => {
                let expected = match self.events.last() {
                    Some(Event::Cancelled) => TaskState::Cancelled,
                    _ if view.failed || quarantined => TaskState::Error,
                    _ => TaskState::Complete,
                };
                assert_eq!(state, expected, "{view:?}");
                assert!(state != TaskState::Complete || view.ended, "{view:?}");
                assert!(state == TaskState::Cancelled || !busy, "attempts in flight finish first");
                assert_eq!(degraded, view.degraded, "{view:?}");
                self.move_task(state);
                self.stored.degraded = degraded;
                self.stored.ended_at = Some(now);
                self.stored.wake_at = None;
                self.stored.version += 1;
                self.owner = None;
            }
        }
    }

    fn queue(&mut self, wake_in: Duration) {
        self.stored.version += 1;
        self.stored.wake_at = Some(self.stored.now + wake_in);
        self.owner = None;
    }

    fn recorded(&self, transition: Transition) -> Recorded {
        Recorded { at: self.stored.now, author: Author::Operator("any".to_owned()), transition }
    }

    fn record(&mut self, rows: &[Recorded]) {
        for row in rows {
            let key = |row: &Recorded| (row.transition.step, row.transition.seq);
            assert!(self.stored.rows.iter().all(|old| key(old) != key(row)), "{row:?} twice");
            if let Some(step) = row.transition.step
                && row.transition.attempt > 0
            {
                self.settled.push((step, row.transition.seq));
            }
            self.stored.rows.push(row.clone());
        }
    }

    fn move_task(&mut self, next: TaskState) {
        let before = std::mem::replace(&mut self.stored.state, next);
        if before != next {
            assert!(before.may_become(next), "{before} became {next}");
            self.moves.tasks.insert((before, next));
        }
    }

    fn note_replay(&mut self, before: Option<Snapshot>) {
        let after = Snapshot::replay(&self.stored);
        if let Some(before) = before {
            self.note(&before, &after);
        }
    }

    fn note_moves(&mut self, before: Option<Snapshot>) {
        if let (Some(before), Some(owner)) = (before, &self.owner) {
            let after = owner.task.clone();
            self.note(&before, &after);
        }
    }

    fn note(&mut self, before: &Snapshot, after: &Snapshot) {
        for (was, is) in before.steps().iter().zip(after.steps()) {
            let (was, is) = (was.state(), is.state());
            if was != is {
                assert!(was.may_become(is), "{was} became {is}");
                self.moves.steps.insert((was, is));
            }
        }
    }

    /// Holds what is stored, in several orders, and what the owner made of it step by step against
    /// the oracle.
    fn compare(&self) {
        let view = self.view();
        let replayed = Snapshot::replay(&self.stored);
        self.compare_with(&view, &replayed, &[]);
        self.explain(&replayed);
        let turn = self.stored.now.as_millisecond() % 3;
        self.compare_with(&view, &Snapshot::replay(&self.reordered(turn)), &[]);
        if let Some(owner) = &self.owner {
            let taken = [&owner.queue[..], &owner.running[..]].concat();
            self.compare_with(&view, &owner.task, &taken);
            for (one, other) in owner.task.steps().iter().zip(replayed.steps()) {
                assert_eq!(one.failure(), other.failure());
                assert_eq!(one.next_seq(), other.next_seq());
            }
            assert_eq!(owner.task.version(), replayed.version());
        }
        if self.state().is_terminal() {
            assert_eq!(self.stored.degraded, view.degraded);
        }
    }

    /// Whatever is not complete has a reason, and so has each of its steps that has not ended.
    fn explain(&self, task: &Snapshot) {
        let owner = self.owner.as_ref().map(|_| WorkerId::new());
        let why = Why::of(&StoredTask { owner, ..self.stored.clone() });
        assert_eq!(why.is_none(), self.state() == TaskState::Complete, "{:?}", self.stored);
        let Some(why) = why else { return };
        for (step, template) in task.steps().iter().zip(task.template().steps()) {
            let found = why.steps.iter().find(|it| it.step == template.name);
            assert!(found.is_some() || step.state().is_terminal(), "{}: {why:?}", template.name);
            let Some(StepCause::Blocked { waits_for }) = found.map(|it| &it.cause) else {
                continue;
            };
            assert_eq!(step.state(), StepState::Blocked);
            assert!(!waits_for.is_empty(), "{}: {why:?}", template.name);
        }
        let queued = self.owner.is_none() && self.state() == TaskState::InProgress;
        let waits = matches!(why.cause, TaskCause::WaitsForRetry { .. });
        assert_eq!(waits, queued && self.stored.wake_at > Some(self.stored.now), "{why:?}");
        assert_eq!(owner.is_some(), why_names_worker(&why), "{why:?}");
    }

    fn compare_with(&self, view: &View, task: &Snapshot, taken: &[StepIndex]) {
        assert_eq!(task.has_failed(), view.failed);
        assert_eq!(task.degraded(), view.degraded);
        assert_eq!(task.state(), self.state());
        for (index, (step, expected)) in (0u32..).zip(task.steps().iter().zip(&view.steps)) {
            let index = StepIndex(index);
            let state = if taken.contains(&index) { StepState::InProgress } else { expected.state };
            assert_eq!(step.state(), state, "step {index:?}");
            assert_eq!(step.next_attempt() - 1, expected.attempts, "step {index:?}");
            assert_eq!(step.counted(), expected.counted, "step {index:?}");
            assert!(step.counted() <= self.rules[index.get()].limit, "step {index:?}");
            assert_eq!(step.fell_back(), expected.fell_back, "step {index:?}");
            assert_eq!(step.ready_at(), expected.ready_at, "step {index:?}");
            let complete = expected.state == StepState::Complete;
            assert_eq!(task.result(index).is_some(), complete, "step {index:?}");
        }
        let waits = (0u32..).zip(&view.steps).filter(|(index, seen)| {
            seen.state == StepState::Ready && !taken.contains(&StepIndex(*index))
        });
        // Nothing more begins in a task that has failed or ended.
        let begins = !self.state().is_terminal() && !view.failed;
        let next_due = waits.filter_map(|(_, seen)| seen.ready_at).min().filter(|_| begins);
        assert_eq!(task.next_due(), next_due);
        let runs = !taken.is_empty();
        let now = self.stored.now;
        let due = view
            .steps
            .iter()
            .any(|seen| seen.state == StepState::Ready && seen.ready_at.is_none_or(|at| at <= now));
        let lives = !self.state().is_terminal() && !view.failed;
        let may_run = lives && due && view.lost < decide::MAX_DELIVERIES as usize;
        assert!(runs || decide::may_run(task, now) == may_run, "{view:?}");
    }

    /// The same history, each log in its order but the logs one after the other in another.
    fn reordered(&self, turn: i64) -> StoredTask {
        let mut stored = self.stored.clone();
        let mix = |row: &Recorded| {
            let log = row.transition.step.map_or(0, |step| step.0 + 1);
            match turn {
                0 => u32::MAX - log,
                1 => log,
                _ => log.wrapping_mul(0x9e37_79b9).rotate_left(7),
            }
        };
        stored.rows.sort_by_key(mix);
        stored
    }
}

fn report(step: StepIndex, seq: u32, failure: Option<(FailureClass, u16)>) -> Report {
    let asked = failure.map(|(_, asked)| Duration::from_millis(asked.into()));
    let outcome = match failure {
        None => Ok(Json::null()),
        Some((class, _)) => {
            Err(Failure { class, code: "CODE".to_owned(), message: "message".to_owned() })
        }
    };
    Report { step, seq, ran_for: Duration::ZERO, outcome, retry_after: asked, spared: false }
}
