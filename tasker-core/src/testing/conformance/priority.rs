//! Which of the tasks that are due come first.

use std::sync::Arc;
use std::time::Duration;

use super::Handles;
use super::fixture::{
    LONG, apply, by, change, claim, claim_of, due, ids, keyed, living, load, lose, new_task, queue,
    request, template,
};
use crate::store::{Created, NewTask, Route, StateStore};
use crate::{Priority, TaskId, TaskTemplate};

/// Stores a task of a priority that nobody owns yet.
async fn queued(
    store: &dyn StateStore,
    template: &Arc<TaskTemplate>,
    priority: Priority,
) -> TaskId {
    let task = NewTask { priority, ..new_task(template) };
    let id = task.id;
    store.create(vec![task], None).await.unwrap();
    id
}

pub(super) async fn urgent_tasks_come_first(handles: Handles) {
    let template = template("urgent");
    let worker = living(&*handles.here).await;
    let mut stored = Vec::new();
    for priority in [Priority::Low, Priority::Normal, Priority::High].repeat(2) {
        stored.push(queued(&*handles.here, &template, priority).await);
    }
    let [low, normal, high, later_low, later_normal, later_high] = stored[..] else {
        unreachable!("six were stored")
    };
    let first = claim_of(&*handles.there, worker, &template, 1).await;
    assert_eq!(ids(&first.tasks), [high], "however late it was stored");
    let next = claim_of(&*handles.here, worker, &template, 2).await;
    assert_eq!(ids(&next.tasks), [later_high, normal]);
    let rest = claim_of(&*handles.there, worker, &template, 10).await;
    assert_eq!(ids(&rest.tasks), [later_normal, low, later_low]);
}

pub(super) async fn a_priority_hands_nothing_out_early(handles: Handles) {
    let template = template("early");
    let worker = living(&*handles.here).await;
    // Less than its head start: by rank alone it would come first.
    let delay = Duration::from_secs(300);
    let task = NewTask { delay, priority: Priority::High, ..new_task(&template) };
    handles.here.create(vec![task], None).await.unwrap();
    let normal = queued(&*handles.here, &template, Priority::Normal).await;
    let work = claim_of(&*handles.here, worker, &template, 10).await;
    assert_eq!(ids(&work.tasks), [normal]);
    let next = work.next_in.expect("the urgent one waits");
    assert!(next <= delay && next > delay / 2, "{next:?}");
}

pub(super) async fn priorities_leave_each_route_its_turn(handles: Handles) {
    let worker = living(&*handles.here).await;
    for (flooded, quiet) in [("a", "b"), ("d", "c")] {
        let (flooded, quiet) = (template(flooded), template(quiet));
        for _ in 0..20 {
            queued(&*handles.here, &flooded, Priority::High).await;
        }
        let patient = queued(&*handles.here, &quiet, Priority::Low).await;
        let routes = [Route::of(&flooded), Route::of(&quiet)];
        let work = claim(&*handles.here, request(worker, &routes, 4, 0)).await;
        assert_eq!(work.tasks.len(), 4);
        assert_eq!(ids(&work.tasks)[3], patient, "it has its turn, and comes after the urgent");
    }
}

pub(super) async fn what_is_left_of_any_priority_is_told(handles: Handles) {
    let template = template("left");
    let worker = living(&*handles.here).await;
    for (delay, priority) in [
        (LONG * 2, Priority::High),
        (LONG, Priority::Low),
        (Duration::ZERO, Priority::Low),
        (Duration::ZERO, Priority::High),
    ] {
        let task = NewTask { delay, priority, ..new_task(&template) };
        handles.here.create(vec![task], None).await.unwrap();
    }
    let work = claim_of(&*handles.here, worker, &template, 1).await;
    assert_eq!(work.next_in, Some(Duration::ZERO), "the low one is left");
    let work = claim_of(&*handles.here, worker, &template, 1).await;
    assert_eq!(work.tasks.len(), 1);
    let next = work.next_in.expect("two wait");
    assert!(next <= LONG && next > LONG / 2, "the next one is the low one: {next:?}");
}

pub(super) async fn a_claimed_task_keeps_its_priority(handles: Handles) {
    let template = template("kept");
    let worker = living(&*handles.here).await;
    for priority in Priority::ALL {
        let id = queued(&*handles.here, &template, priority).await;
        assert_eq!(load(&*handles.there, id).await.priority, priority);
        let work = claim_of(&*handles.there, worker, &template, 1).await;
        assert_eq!((work.tasks[0].id, work.tasks[0].priority), (id, priority));
        assert_eq!(load(&*handles.here, id).await.priority, priority);
        let mine = NewTask { priority, ..new_task(&template) };
        let id = mine.id;
        handles.here.create(vec![mine], Some(worker)).await.unwrap();
        assert_eq!(load(&*handles.there, id).await.priority, priority, "owned from the start");
    }
}

pub(super) async fn a_priority_survives_a_release(handles: Handles) {
    let template = template("released");
    let worker = living(&*handles.here).await;
    let urgent = NewTask { priority: Priority::High, ..new_task(&template) };
    let id = urgent.id;
    handles.here.create(vec![urgent], Some(worker)).await.unwrap();
    let normal = queued(&*handles.here, &template, Priority::Normal).await;
    for wait in [Duration::ZERO, Duration::from_millis(5)] {
        let task = load(&*handles.here, id).await;
        let release = change(&task, Vec::new(), queue(&template, wait));
        apply(&*handles.here, &by(worker), release).await;
        assert_eq!(load(&*handles.there, id).await.priority, Priority::High);
        due(&*handles.here, &[id, normal]).await;
        let work = claim_of(&*handles.there, worker, &template, 1).await;
        assert_eq!(ids(&work.tasks), [id], "it was queued after the other");
    }
}

pub(super) async fn a_priority_survives_a_take_over(handles: Handles) {
    let template = template("taken_over");
    let lost = living(&*handles.here).await;
    let mut owned = Vec::new();
    for priority in Priority::ALL {
        let task = NewTask { priority, ..new_task(&template) };
        owned.push(task.id);
        handles.here.create(vec![task], Some(lost)).await.unwrap();
    }
    lose(&*handles.there, lost).await;
    let worker = living(&*handles.here).await;
    let work = claim_of(&*handles.here, worker, &template, 10).await;
    owned.reverse();
    assert_eq!(ids(&work.tasks), owned, "the most urgent first");
    let priorities: Vec<_> = work.tasks.iter().map(|task| task.priority).collect();
    assert_eq!(priorities, [Priority::High, Priority::Normal, Priority::Low]);
}

pub(super) async fn a_repeated_submission_leaves_the_priority(handles: Handles) {
    let template = template("repeated");
    let first = NewTask { priority: Priority::Low, ..keyed(&template, "once") };
    let again = NewTask { priority: Priority::High, ..keyed(&template, "once") };
    let (id, digest) = (first.id, first.input_digest());
    assert_eq!(digest, again.input_digest(), "a priority is no input");
    handles.here.create(vec![first], None).await.unwrap();
    let created = handles.there.create(vec![again], None).await.unwrap();
    assert_eq!(created, [Created::Existing { id, input_digest: digest }]);
    assert_eq!(load(&*handles.here, id).await.priority, Priority::Low);
}
