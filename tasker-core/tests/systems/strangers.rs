//! Tasks that wait for a system which the registered template no longer names.

use std::collections::BTreeSet;
use std::time::Duration;

use tasker_core::{
    Action, Lack, MemoryStore, Operator, StepTemplate, StrandedCursor, TaskState, TaskTemplate,
    Tasker,
};

use crate::bank::{Bank, LONG, charge, ends, policy, submit, tasker, workflow};

const A_WHILE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_system_that_a_new_template_no_longer_names_is_told_and_can_go_on() {
    let (store, bank) = (MemoryStore::new(), Bank::new());
    bank.set_down(true);
    let before = tasker(store.clone(), &bank);
    let worker = before.worker().start();
    let ids = submit(&before, 20).await;
    tokio::time::sleep(A_WHILE).await;
    worker.shutdown(LONG).await;
    let lacks = Lack::System { name: "bank".to_owned() };

    let order = TaskTemplate::builder("order").system("payments", policy());
    let renamed = charge().dependent_system("payments").after("check");
    let order = order.step(StepTemplate::new("check")).step(renamed).build().unwrap();
    let after = Tasker::builder(store).register(workflow(&bank, order)).build().unwrap();
    let (mut stranded, mut page) = (BTreeSet::new(), Some(StrandedCursor::default()));
    while let Some(from) = page {
        let found = after.stranded(from).await.unwrap();
        stranded.extend(found.stranded.iter().filter(|it| it.lacks == lacks).map(|it| it.task));
        page = found.next;
    }
    assert_eq!(stranded, ids.iter().copied().collect());

    bank.set_down(false);
    let worker = after.worker().start();
    let ada = Operator::new("Ada", "the bank has another name");
    for id in &ids {
        after.operate(*id, Action::Pause, &ada).await.unwrap();
        after.operate(*id, Action::Resume, &ada).await.unwrap();
    }
    // Its breaker is open as it was: nobody probes any more.
    for status in ends(&after, &ids).await {
        assert_eq!(status.state, TaskState::Complete);
    }
    worker.shutdown(LONG).await;
}
