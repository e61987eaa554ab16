//! A store and an owner in a few lines, and everything that may happen to them.

mod compare;
mod operate;
mod settle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tasker_core::decide::{self, Report};
use tasker_core::history::{Author, Failure, FailureClass, Occurrence, Recorded, Transition};
use tasker_core::snapshot::{Snapshot, Want};
use tasker_core::store::{StoredTask, Then};
use tasker_core::{
    ActionKind, Backoff, Json, OnFailure, Priority, RetryPolicy, StepIndex, StepState,
    StepTemplate, Strategy, TaskId, TaskState, TaskTemplate, WorkerId,
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
    Spare(u16),
    Park(u16),
    LoseWorker(u8),
    HandBack,
    Wait,
    Operate(ActionKind, u16),
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
    parked: Vec<StepIndex>,
}

impl Owner {
    fn of(task: Snapshot) -> Self {
        Self { task, queue: Vec::new(), running: Vec::new(), parked: Vec::new() }
    }

    fn is_busy(&self) -> bool {
        !self.queue.is_empty() || !self.running.is_empty()
    }
}

fn pick<T: Copy>(from: &[T], number: u16) -> Option<T> {
    (!from.is_empty()).then(|| from[number as usize % from.len()])
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
    let step = |(index, rule): (usize, &Rule)| match rule.undoable {
        true => step((index, rule)).compensate_with("undo"),
        false => step((index, rule)),
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
            lease_until: None,
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
            Act::Spare(number) => self.spare(number),
            Act::Park(number) => self.park(number),
            Act::Operate(kind, number) => self.operate(kind, number),
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
        for _ in 0..40 * (self.rules.len() + 1) {
            if self.state().is_terminal() {
                return;
            }
            let resume = Act::Operate(ActionKind::Resume, 0);
            for act in [resume, Act::Claim, Act::Start(0), Act::Succeed(0), Act::Wait] {
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
        if self.state() != TaskState::Compensating {
            self.move_task(TaskState::InProgress);
        }
        self.stored.version += 1;
        self.stored.wake_at = None;
        let task = Snapshot::replay(&self.stored);
        let may_run = decide::may_run(&task, self.stored.now);
        self.owner = Some(Owner::of(task));
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
            assert!(expected.ready, "step {step:?} was taken");
            assert!(expected.ready_at.is_none_or(|at| at <= now), "step {step:?} is early");
            assert!(!owner.queue.contains(step) && !owner.running.contains(step), "{step:?} twice");
        }
        if !view.failed {
            let due = |(_, seen): &(usize, &oracle::StepView)| {
                seen.ready && seen.ready_at.is_none_or(|at| at <= now)
            };
            let forgotten = view.steps.iter().enumerate().filter(due).find(|(step, _)| {
                let step = StepIndex(*step as u32);
                let held = [&owner.queue, &owner.running, &owner.parked, &taken];
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
        assert_eq!(state, self.state());
        let before = self.owner.take().map(|owner| owner.task);
        self.queue(wake_in);
        self.note_replay(before);
    }

    /// A system that was found to be down: the attempt does not count.
    fn spare(&mut self, number: u16) {
        let Some(owner) = &mut self.owner else { return };
        let Some(step) = pick(&owner.running, number) else { return };
        owner.running.retain(|running| *running != step);
        let seq = owner.task.step(step).next_seq();
        let spared = report(step, seq, Some((FailureClass::Retryable, 0)));
        self.events.push(Event::Spared { step: step.get() });
        self.settle(vec![Report { spared: true, ..spared }], &[]);
    }

    /// The owner wants something that it needs to run a step.
    fn park(&mut self, number: u16) {
        let before = self.owner.as_ref().map(|owner| owner.task.clone());
        let Some(owner) = &mut self.owner else { return };
        let Some(step) = pick(&owner.queue, number) else { return };
        owner.queue.retain(|queued| *queued != step);
        owner.task.park(step, Want::Handler);
        owner.parked.push(step);
        self.note_moves(before);
        self.settle(Vec::new(), &[]);
    }

    fn queue(&mut self, wake_in: Duration) {
        self.stored.version += 1;
        self.stored.wake_at = Some(self.stored.now + wake_in);
        self.stored.ended_at = None;
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
