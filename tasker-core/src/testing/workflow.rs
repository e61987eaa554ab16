//! A workflow put through what Tasker may do to it.

mod disturb;
mod play;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use serde::Serialize;

use self::disturb::{Disturbance, Kind};
use self::play::{Ending, Play};
use super::Loss;
use crate::{
    Json, OnFailure, StepIndex, StepState, StepTemplate, TaskHandler, TaskState, TaskStatus,
};

/// A workflow, its input, and what must be true when it has ended.
///
/// Each of the tests plays the workflow as often as it takes, every time with new handlers and a
/// new world of theirs: a simulated gateway, a ledger, whatever they change. Time is paused and
/// jumps to the next thing that is due, so that days of waiting take milliseconds; handlers must
/// therefore not wait for anything outside the test. Tasks live in a store in memory of the test: a
/// handler that records its own success elsewhere ([`Completion`](crate::Completion)) is refused
/// there, and its step fails with `NOT_RECORDED`; put such a step to the test on its own store. The
/// tests make their own runtime: call them
/// from a `#[test]` that is not `async`. They panic, and say at which step or point, if a promise
/// is broken.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::{Arc, Mutex};
///
/// use tasker_core::testing::WorkflowTest;
/// use tasker_core::{StepContext, StepTemplate, TaskState, TaskTemplate, Workflow, step_fn};
///
/// /// What the bank has booked, by idempotency key.
/// type Ledger = Arc<Mutex<HashMap<String, u32>>>;
///
/// fn payment() -> (Workflow, Ledger) {
///     let ledger = Ledger::default();
///     let bank = ledger.clone();
///     let charge = step_fn(move |step: StepContext| {
///         let bank = bank.clone();
///         async move {
///             let amount: u32 = step.context()?;
///             bank.lock().unwrap().insert(step.idempotency_key().to_owned(), amount);
///             Ok(amount)
///         }
///     });
///     let receipt = step_fn(|step: StepContext| async move { step.result_of::<u32>("charge") });
///     let template = TaskTemplate::builder("payment")
///         .step(StepTemplate::new("charge"))
///         .step(StepTemplate::new("receipt").after("charge"))
///         .build()
///         .unwrap();
///     (Workflow::new(template).step("charge", charge).step("receipt", receipt), ledger)
/// }
///
/// let test = WorkflowTest::new(payment).context(&50).check(|status, ledger| {
///     assert_eq!(status.state, TaskState::Complete);
///     let booked: u32 = ledger.lock().unwrap().values().sum();
///     assert_eq!(booked, 50, "the customer pays once");
/// });
/// test.run();
/// test.fail_each_step();
/// test.give_up_each_step();
/// test.repeat_each_step();
/// test.crash_at_each_point();
/// ```
pub struct WorkflowTest<W> {
    fresh: Box<Fresh<W>>,
    context: Json,
    check: Box<Check<W>>,
    check_undone: Box<Check<W>>,
}

/// Makes a workflow and the world that its handlers change.
type Fresh<W> = dyn Fn() -> (Arc<dyn TaskHandler>, W);
/// Says what must be true at the end.
type Check<W> = dyn Fn(&TaskStatus, &W);

impl<W> fmt::Debug for WorkflowTest<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkflowTest").field("context", &self.context).finish_non_exhaustive()
    }
}

impl<W: 'static> WorkflowTest<W> {
    /// A test of the workflow that `fresh` makes, together with the world that its handlers change.
    pub fn new<H: TaskHandler>(fresh: impl Fn() -> (H, W) + 'static) -> Self {
        Self {
            fresh: Box::new(move || {
                let (handler, world) = fresh();
                (Arc::new(handler), world)
            }),
            context: Json::null(),
            check: Box::new(|_, _| {}),
            check_undone: Box::new(|_, _| {}),
        }
    }

    /// Sets the input of the task, in place of `null`.
    ///
    /// # Panics
    /// It has no JSON form.
    #[must_use]
    pub fn context<C: Serialize + ?Sized>(mut self, context: &C) -> Self {
        self.context = match Json::of(context) {
            Ok(context) => context,
            Err(error) => panic!("the context has no JSON form: {error}"),
        };
        self
    }

    /// Says, by assertions, what must be true at the end, however the task got there.
    #[must_use]
    pub fn check(mut self, check: impl Fn(&TaskStatus, &W) + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// Says, by assertions, what must be true where the task failed and what its steps did was
    /// undone: as a rule, that the world is as if there had been no task.
    #[must_use]
    pub fn check_undone(mut self, check: impl Fn(&TaskStatus, &W) + 'static) -> Self {
        self.check_undone = Box::new(check);
        self
    }

    /// Plays the workflow undisturbed, and says where it ended.
    ///
    /// # Panics
    /// It is refused, does not end within a simulated year, or the check fails.
    pub fn run(&self) -> TaskStatus {
        let play = self.play(None, None);
        self.checked("undisturbed", &play);
        play.ending.status
    }

    /// Lets every step fail once, retryably: before its handler does anything, and again after it
    /// has done everything. Where another attempt is allowed, the task must end as it does
    /// undisturbed, and the check must hold.
    ///
    /// # Panics
    /// It does not.
    pub fn fail_each_step(&self) {
        let undisturbed = self.run();
        for (index, step) in self.steps() {
            if !step.retry.allows_another(1) {
                continue;
            }
            for (kind, when) in
                [(Kind::FailBefore, "before its work"), (Kind::FailAfter, "after its work")]
            {
                let scenario = format!("step `{}` failed once, {when}", step.name);
                let play = self.play(Some(Disturbance { step: index, kind }), None);
                play.was_disturbed(&scenario);
                expect_same(&scenario, &undisturbed, &play.ending);
                self.checked(&scenario, &play);
            }
        }
    }

    /// Lets every step fail permanently, in turn: the task must end as its template says.
    ///
    /// That is in `error`, or `compensated` if steps that have run say how they are undone, unless
    /// the step may fail: then the task is complete and `degraded`. The check is not asked, for it
    /// describes a task that went well; [that of what is undone](Self::check_undone) is.
    ///
    /// # Panics
    /// It does not end like that.
    pub fn give_up_each_step(&self) {
        for (index, step) in self.steps() {
            let scenario = format!("step `{}` failed permanently", step.name);
            let play = self.play(Some(Disturbance { step: index, kind: Kind::GiveUp }), None);
            play.was_disturbed(&scenario);
            let status = &play.ending.status;
            let undone = status.steps.iter().any(|step| step.compensation.is_some());
            let (expected, degraded) = match step.on_failure {
                OnFailure::Fail if undone || step.compensate_with.is_some() => {
                    (TaskState::Compensated, status.degraded)
                }
                OnFailure::Fail => (TaskState::Error, status.degraded),
                OnFailure::Continue | OnFailure::Fallback(_) => (TaskState::Complete, true),
            };
            assert!(
                (status.state, status.degraded) == (expected, degraded),
                "{scenario}: by its template the task ends `{expected}`, and it ended `{}`{}",
                status.state,
                failures(status),
            );
            self.checked_if_undone(&scenario, &play);
        }
    }

    /// Lets every step fail permanently, in turn, and the worker die at every call of the store, in
    /// turn, as [`crash_at_each_point`](Self::crash_at_each_point) does. The task must end as it
    /// does when no worker dies, with what each step did undone once on record, and where it was
    /// undone [the check of that](Self::check_undone) must hold.
    ///
    /// # Panics
    /// It does not.
    pub fn crash_while_failing(&self) {
        for (index, step) in self.steps() {
            let failing = || Some(Disturbance { step: index, kind: Kind::GiveUp });
            let undisturbed = self.play(failing(), None).ending.status;
            for loss in [Loss::OfCall, Loss::OfAnswer] {
                for call in 1.. {
                    let play = self.play(failing(), Some((call, loss)));
                    let Some(name) = play.ending.crashed_at else { break };
                    let when = match loss {
                        Loss::OfCall => "before",
                        Loss::OfAnswer => "after",
                    };
                    let scenario = format!(
                        "step `{}` failed permanently and the worker died {when} `{name}`, its \
                         call {call}",
                        step.name
                    );
                    expect_same(&scenario, &undisturbed, &play.ending);
                    for (step, times) in &play.ending.compensations {
                        assert!(*times <= 1, "{scenario}: `{step}` is undone {times} times");
                    }
                    self.checked_if_undone(&scenario, &play);
                }
            }
        }
    }

    /// Delivers every step twice, in turn, under the same idempotency key: the task must end as it
    /// does undisturbed, and the check must hold.
    ///
    /// # Panics
    /// It does not.
    pub fn repeat_each_step(&self) {
        let undisturbed = self.run();
        for (index, step) in self.steps() {
            let scenario = format!("step `{}` was delivered twice", step.name);
            let play = self.play(Some(Disturbance { step: index, kind: Kind::Repeat }), None);
            play.was_disturbed(&scenario);
            expect_same(&scenario, &undisturbed, &play.ending);
            self.checked(&scenario, &play);
        }
    }

    /// Lets the worker die at every call of the store, in turn, before the call has its effect and
    /// after; another worker takes over. The task must end as it does undisturbed, with each step's
    /// success recorded once, and the check must hold.
    ///
    /// # Panics
    /// It does not.
    pub fn crash_at_each_point(&self) {
        let undisturbed = self.run();
        for loss in [Loss::OfCall, Loss::OfAnswer] {
            for call in 1.. {
                let play = self.play(None, Some((call, loss)));
                let Some(name) = play.ending.crashed_at else { break };
                let when = match loss {
                    Loss::OfCall => "before",
                    Loss::OfAnswer => "after",
                };
                let scenario = format!("the worker died {when} `{name}`, its call {call}");
                expect_same(&scenario, &undisturbed, &play.ending);
                for (step, times) in &play.ending.completions {
                    assert!(*times <= 1, "{scenario}: step `{step}` is recorded {times} times");
                }
                self.checked(&scenario, &play);
            }
        }
    }

    fn steps(&self) -> Vec<(StepIndex, StepTemplate)> {
        let (handler, _) = (self.fresh)();
        (0u32..).map(StepIndex).zip(handler.template().steps().iter().cloned()).collect()
    }

    fn play(&self, disturbance: Option<Disturbance>, crash: Option<(usize, Loss)>) -> Play<W> {
        play::play(&*self.fresh, &self.context, disturbance, crash)
    }

    /// Asks the check, and says in which scenario it failed.
    fn checked(&self, scenario: &str, play: &Play<W>) {
        Self::ask(&*self.check, scenario, play);
    }

    /// Asks the check of what was undone, if it was.
    fn checked_if_undone(&self, scenario: &str, play: &Play<W>) {
        if play.ending.status.state == TaskState::Compensated {
            Self::ask(&*self.check_undone, scenario, play);
        }
    }

    fn ask(check: &Check<W>, scenario: &str, play: &Play<W>) {
        let check = || check(&play.ending.status, &play.world);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(check)) {
            eprintln!("the check failed when {scenario}{}", failures(&play.ending.status));
            resume_unwind(panic);
        }
    }
}

/// A disturbed task ends as the undisturbed one did.
fn expect_same(scenario: &str, undisturbed: &TaskStatus, ending: &Ending) {
    let status = &ending.status;
    let standing = |status: &TaskStatus| {
        let steps: Vec<StepState> = status.steps.iter().map(|step| step.state).collect();
        (status.state, status.degraded, steps)
    };
    assert!(
        standing(status) == standing(undisturbed),
        "{scenario}: undisturbed the task ends `{}`, now it ended `{}`{}",
        undisturbed.state,
        status.state,
        failures(status),
    );
}

/// The failures of a task's steps, as the rest of a sentence.
fn failures(status: &TaskStatus) -> String {
    let failed = status.steps.iter().filter_map(|step| {
        let failure = step.failure.as_ref()?;
        Some(format!("; step `{}`: {} ({})", step.name, failure.message, failure.code))
    });
    failed.collect()
}
