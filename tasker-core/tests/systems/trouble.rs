//! What goes wrong beside the system: the store, the prober.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tasker_core::testing::{FaultyStore, Loss};
use tasker_core::{MemoryStore, StepTemplate, TaskState, TaskTemplate, Tasker};
use tokio::time::Instant;

use crate::bank::{
    Bank, CALL, LONG, PROBES, charge, ends, failures, policy, submit, tasker, template, workflow,
};

const A_WHILE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn the_probe_of_a_process_that_died_is_followed_by_another_once_it_counts_as_lost() {
    let (memory, bank) = (MemoryStore::new(), Bank::new());
    let timeout = Duration::from_secs(60);
    let process = |store: FaultyStore<MemoryStore>| {
        let workflow = workflow(&bank, template(charge().timeout(timeout)));
        Tasker::builder(store).register(workflow).build().unwrap()
    };
    bank.set_down(true);
    let store = FaultyStore::new(memory.clone());
    let doomed = process(store.clone());
    let worker = doomed.worker().start();
    let ids = submit(&doomed, 20).await;
    tokio::time::sleep(A_WHILE).await;
    bank.hangs.store(true, Ordering::SeqCst);
    let before = bank.calls();
    tokio::time::sleep(PROBES).await;
    assert_eq!(bank.calls(), before + 1, "it is being probed");
    // Nothing of what it does from here on is seen.
    store.fail_next(usize::MAX);
    drop(worker);
    bank.hangs.store(false, Ordering::SeqCst);
    bank.set_down(false);

    let other = process(FaultyStore::new(memory));
    let worker = other.worker().start();
    let began = Instant::now();
    tokio::time::sleep(timeout - A_WHILE).await;
    assert_eq!(bank.calls(), before + 1, "one probe at a time");
    for status in ends(&other, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    assert!(began.elapsed() < timeout + PROBES + A_WHILE, "{:?}", began.elapsed());
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_answer_is_lost_the_bank_is_left_alone_and_every_order_ends() {
    for loss in [Loss::OfCall, Loss::OfAnswer] {
        for call in 1..60 {
            let bank = Bank::new();
            bank.set_down(true);
            let memory = MemoryStore::new();
            let store = FaultyStore::new(memory.clone());
            let tasker = tasker(store.clone(), &bank);
            let worker = tasker.worker().start();
            let ids = {
                // Submitted by somebody else, who has no trouble.
                let client = crate::bank::tasker(memory.clone(), &bank);
                submit(&client, 20).await
            };
            store.fail_call(call, loss);
            tokio::time::sleep(A_WHILE).await;
            let scene = format!("{loss:?} {call}");
            // A failure that could not be noted counts with the next one.
            let most = policy().minimum_calls as usize + 3;
            assert!(bank.calls() <= most, "{scene}: {} calls", bank.calls());
            tokio::time::sleep(PROBES * 3).await;
            assert!(bank.calls() <= most + 3, "{scene}: {} calls", bank.calls());
            bank.set_down(false);
            for status in ends(&tasker, &ids).await {
                assert_eq!(status.state, TaskState::Complete, "{scene}");
            }
            worker.shutdown(LONG).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_is_away_failures_count_and_then_open_the_breaker() {
    let (memory, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let store = FaultyStore::new(memory.clone());
    let tasker = tasker(store.clone(), &bank);
    let worker = tasker.worker().start();
    let ids = submit(&tasker, 20).await;
    // The first calls are under way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let calls = store.calls();
    store.fail_next(20);
    tokio::time::sleep(A_WHILE * 3).await;
    assert!(store.calls() > calls + 20);
    let (counted, _) = failures(&memory, &ids).await;
    assert!(counted >= 3, "what could not be noted in time counts: {counted}");
    bank.set_down(false);
    for status in ends(&tasker, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_asks_nothing_more_for_systems_that_are_well() {
    let mut calls = Vec::new();
    for watched in [false, true] {
        let bank = Bank::new();
        let store = FaultyStore::new(MemoryStore::new());
        let plain = TaskTemplate::builder("order").step(StepTemplate::new("charge")).build();
        let template = if watched { template(charge()) } else { plain.unwrap() };
        let workflow = workflow(&bank, template);
        let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
        let worker = tasker.worker().start();
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = store.calls();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        calls.push(store.calls() - before);
        worker.shutdown(LONG).await;
    }
    // The waits between two looks differ by a tenth, by chance.
    assert!(calls[1] <= calls[0] + calls[0] / 10, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_seldom_looks_for_somebody_to_probe_with() {
    let mut calls = Vec::new();
    for open in [false, true] {
        let bank = Bank::new();
        bank.declines.store(open, Ordering::SeqCst);
        let store = FaultyStore::new(MemoryStore::new());
        // What fails for good does not wait for the bank.
        let workflow = workflow(&bank, template(charge().system_errors(["CARD_DECLINED"])));
        let tasker = Tasker::builder(store.clone()).register(workflow).build().unwrap();
        let worker = tasker.worker().start();
        let ids = submit(&tasker, 5).await;
        ends(&tasker, &ids).await;
        assert_eq!(tasker.systems().await.unwrap()[0].since.is_some(), open);
        tokio::time::sleep(Duration::from_secs(120)).await;
        let before = store.calls();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        calls.push(store.calls() - before);
        worker.shutdown(LONG).await;
    }
    // One look in each interval, with a claim before and after it.
    let looks = 3 * 3600 / PROBES.as_secs() as usize;
    assert!(calls[1] <= calls[0] + calls[0] / 10 + looks, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_system_of_which_nothing_can_be_read_hides_no_other() {
    use tasker_core::store::{Collection, Content, DocumentChange, StateStore};
    let (store, bank) = (MemoryStore::new(), Bank::new());
    let order = TaskTemplate::builder("order").system("bank", policy());
    let [before, after] = ["atlas", "zebra"].map(|system| {
        StepTemplate::new(system).handler("check").after("charge").dependent_system(system)
    });
    let order = order.step(charge()).step(before).step(after).build().unwrap();
    let process = || {
        let template = TaskTemplate::from_stored(order.body().as_str()).unwrap();
        Tasker::builder(store.clone()).register(workflow(&bank, template)).build().unwrap()
    };
    for key in ["atlas", "zebra"] {
        let (collection, key) = (Collection::System, key.to_owned());
        let body = tasker_core::Json::of(&"of another version").unwrap();
        let put = Some(Content { state: "open".to_owned(), due_in: None, body });
        let change = DocumentChange { collection, key, expects: None, put };
        store.write_documents(vec![change]).await.unwrap();
    }
    let (here, there) = (process(), process());
    let worker = here.worker().start();
    let ada = tasker_core::Operator::new("Ada", "the bank moves house");
    there.trip_system("bank", &ada).await.unwrap();
    tokio::time::sleep(PROBES).await;
    let ids = submit(&here, 5).await;
    tokio::time::sleep(PROBES).await;
    assert_eq!(bank.calls(), 0, "it heard of it");
    there.reset_system("bank", &ada).await.unwrap();
    for status in ends(&here, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
}

#[tokio::test(start_paused = true)]
async fn processes_that_find_it_down_at_once_raise_one_escalation() {
    use tasker_core::breaker::SystemPolicy;
    use tasker_core::store::{Collection, DocumentQuery, StateStore};
    use tasker_core::{StepContext, StepError, Workflow, step_fn};
    let store = MemoryStore::new();
    let hasty = SystemPolicy { minimum_calls: 1, ..policy() };
    let order = TaskTemplate::builder("order").system("bank", hasty).step(charge());
    let order = order.build().unwrap();
    let processes = ["east", "west", "south"].map(|line| {
        let call = move |_: StepContext| async move {
            tokio::time::sleep(CALL).await;
            Err::<(), _>(StepError::retryable(format!("the {line} line is dead")))
        };
        let template = TaskTemplate::from_stored(order.body().as_str()).unwrap();
        let workflow = Workflow::new(template).step("charge", step_fn(call));
        Tasker::builder(store.clone()).register(workflow).build().unwrap()
    });
    let workers: Vec<_> = processes.iter().map(|process| process.worker().start()).collect();
    // Each takes what it is given itself.
    tokio::time::sleep(Duration::from_millis(1)).await;
    for process in &processes {
        submit(process, 1).await;
    }
    tokio::time::sleep(PROBES / 2).await;
    let (collection, state, after) = (Collection::Escalation, None, None);
    let query = DocumentQuery::List { collection, state, after, limit: 0 };
    let raised = store.read_documents(query).await.unwrap().found;
    assert_eq!(raised.len(), 1, "{raised:?}");
    for worker in workers {
        worker.shutdown(LONG).await;
    }
}
