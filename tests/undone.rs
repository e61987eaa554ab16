//! Orders that fail for good after others of their steps were done: in the end it is as if they had
//! never been, however often the shop is killed on the way.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use std::time::Duration;

use serde_json::{Value, json};

use shop::dice::Dice;
use shop::{CALM, DEADLINE, Folder, Shop, checkout, on_both_databases, poll};

/// Orders that are killed at random moments.
const ORDERS: usize = 40;

on_both_databases! {
    an_order_that_fails_at_any_step_leaves_nothing_behind,
    an_order_that_is_retried_after_its_refund_is_paid_for_once_more,
    a_complete_order_that_a_person_undoes_leaves_nothing_behind,
    a_kill_at_any_transition_of_an_order_that_fails_leaves_nothing_behind,
    random_kills_leave_nothing_behind,
}

/// A shop with short waits.
fn start(folder: &Folder) -> Shop {
    let [calm, calmer] = CALM;
    let workflow = folder.workflow(&[("base: 1000", "base: 30"), calm, calmer]);
    let mut command = folder.command();
    command.args(["--lease", "1000", "--gateway-latency", "40"]).arg("--workflow").arg(workflow);
    let mut shop = Shop::start(command);
    shop.wait_until_open();
    shop
}

/// The money was given back as often as it was taken, everything is in stock, nothing is ordered.
fn nothing_is_left(folder: &Folder, opening_stock: &std::collections::BTreeMap<i64, i64>) {
    for payment in folder.ledger() {
        assert_eq!(payment.captures, payment.refunds, "{payment:?}");
        assert!(matches!(payment.state.as_str(), "refunded" | "cancelled"), "{payment:?}");
    }
    assert_eq!(folder.stock(), *opening_stock);
    assert!(folder.reserved().is_empty(), "{:?}", folder.reserved());
    assert!(folder.orders().is_empty(), "{:?}", folder.orders());
}

/// How many payments were taken and given back.
fn refunds(folder: &Folder) -> i64 {
    folder.ledger().iter().map(|payment| payment.refunds).sum()
}

fn undone(shop: &Shop, task: &str, failed_step: &str) {
    let status = shop.wait_for_end(task);
    assert_eq!(status["status"], "failed", "{status}");
    assert_eq!((&status["refunded"], &status["failed_step"]), (&json!(true), &json!(failed_step)));
    let steps = shop.details(task)["steps"].as_array().unwrap().clone();
    let with_undo = ["process_payment", "update_inventory", "create_order"];
    let begun = with_undo.iter().position(|step| *step == failed_step).unwrap();
    for (number, name) in with_undo.iter().enumerate() {
        let step = steps.iter().find(|step| step["name"] == **name).unwrap();
        let expected = if number <= begun { "compensated" } else { "cancelled" };
        assert_eq!(step["state"], expected, "{step}");
    }
}

fn an_order_that_fails_at_any_step_leaves_nothing_behind(folder: &Folder) {
    let shop = start(folder);
    let opening = folder.stock();
    let declined = shop.check_out(&checkout(1, 2, "test_insufficient_funds", 100.0));
    undone(&shop, &declined, "process_payment");
    nothing_is_left(folder, &opening);
    assert_eq!(refunds(folder), 0);

    folder.refuse_orders();
    let refused = shop.check_out(&checkout(1, 2, "test_lost_answer_visa", 100.0));
    undone(&shop, &refused, "create_order");
    nothing_is_left(folder, &opening);
    assert_eq!(refunds(folder), 1);
    folder.take_orders();

    // All see three of them in stock; one gets them.
    let wanted = checkout(6, 3, "test_success_visa", 747.0);
    let rivals: Vec<_> = (0..6).map(|_| shop.check_out(&wanted)).collect();
    let ends: Vec<_> = rivals.iter().map(|task| (task, shop.wait_for_end(task))).collect();
    let served = ends.iter().filter(|(_, status)| status["status"] == "completed").count();
    assert_eq!((served, folder.orders().len()), (1, 1), "{ends:?}");
    let late: Vec<_> = ends.iter().filter(|it| it.1["failed_step"] == "update_inventory").collect();
    assert!(!late.is_empty(), "none was late: {ends:?}");
    for (task, status) in &late {
        assert_eq!(status["error"]["code"], "INSUFFICIENT_INVENTORY");
        undone(&shop, task, "update_inventory");
    }
    assert_eq!(refunds(folder), 1 + i64::try_from(late.len()).unwrap());
    assert_eq!((folder.stock()[&6], folder.reserved()[&6]), (0, 3));
    let charged = folder.ledger().iter().filter(|one| one.state == "captured").count();
    assert_eq!(charged, 1);
}

fn an_order_that_is_retried_after_its_refund_is_paid_for_once_more(folder: &Folder) {
    let shop = start(folder);
    let opening = folder.stock();
    folder.refuse_orders();
    let task = shop.check_out(&checkout(1, 2, "test_success_visa", 100.0));
    for round in 1..=2 {
        undone(&shop, &task, "create_order");
        nothing_is_left(folder, &opening);
        assert_eq!(refunds(folder), round);
        if round == 2 {
            folder.take_orders();
        }
        let retried = shop.ask("POST", &format!("/retry_checkout/{task}"), &[], None);
        assert_eq!(retried.status, 202, "{retried:?}");
    }
    let status = shop.wait_for_end(&task);
    assert_eq!(status["status"], "completed", "{status}");
    let payments = folder.ledger();
    assert_eq!(payments.len(), 3);
    assert_eq!(payments.iter().filter(|payment| payment.state == "captured").count(), 1);
    assert_eq!((folder.orders().len(), folder.stock()[&1]), (1, opening[&1] - 2));
}

fn a_complete_order_that_a_person_undoes_leaves_nothing_behind(folder: &Folder) {
    let shop = start(folder);
    let opening = folder.stock();
    let task = shop.check_out(&checkout(1, 2, "test_success_visa", 100.0));
    assert_eq!(shop.wait_for_end(&task)["status"], "completed");
    let undo = json!({"action": "compensate", "actor": "ada", "reason": "the customer rang up"});
    let asked = shop.post(&format!("/admin/tasks/{task}/actions"), &undo);
    assert_eq!(asked.status, 200, "{asked:?}");
    let status = shop.wait_for_end(&task);
    assert_eq!((&status["status"], &status["refunded"]), (&json!("failed"), &json!(true)));
    nothing_is_left(folder, &opening);
    assert_eq!(refunds(folder), 1);
}

/// The states that a task ends in here, and its history has so many rows.
fn rows_of(folder: &Folder, task: &str) -> usize {
    let task = task.replace('-', "");
    folder.history().iter().filter(|row| row.task == task).count()
}

fn is_over(folder: &Folder, task: &str) -> bool {
    folder.tasks()[&task.replace('-', "")] == "compensated"
}

fn a_kill_at_any_transition_of_an_order_that_fails_leaves_nothing_behind(folder: &Folder) {
    let mut shop = start(folder);
    let opening = folder.stock();
    folder.refuse_orders();
    let wanted = checkout(1, 2, "test_success_visa", 100.0);
    let whole = shop.check_out(&wanted);
    undone(&shop, &whole, "create_order");
    let rows = rows_of(folder, &whole);
    assert!(rows >= 8, "{rows} rows: steps, their undoing, and what lies between");
    for row in 0..rows {
        let task = shop.check_out(&wanted);
        let there = poll(DEADLINE, || rows_of(folder, &task) >= row || is_over(folder, &task));
        assert!(there, "no row {row}");
        shop.kill();
        shop = start(folder);
        undone(&shop, &task, "create_order");
        nothing_is_left(folder, &opening);
        let history: Vec<Value> = shop.details(&task)["history"].as_array().unwrap().clone();
        let undone = history.iter().filter(|entry| entry["event"] == "compensated").count();
        assert_eq!(undone, 3, "killed at row {row}: {history:?}");
    }
    assert_eq!(refunds(folder), i64::try_from(rows + 1).unwrap(), "one for every order");
}

fn random_kills_leave_nothing_behind(folder: &Folder) {
    let mut dice = Dice::new();
    let mut shop = start(folder);
    let opening = folder.stock();
    folder.refuse_orders();
    let mut tasks = Vec::new();
    while tasks.len() < ORDERS {
        tasks.extend((0..4).map(|_| shop.check_out(&checkout(1, 2, "test_success_visa", 100.0))));
        let ended = shop.wait_for_exit(Duration::from_micros(dice.below(700_000)));
        assert!(ended.is_none(), "the shop ended by itself: {ended:?}");
        shop.kill();
        shop = start(folder);
    }
    for task in &tasks {
        undone(&shop, task, "create_order");
    }
    nothing_is_left(folder, &opening);
    assert_eq!(refunds(folder), i64::try_from(ORDERS).unwrap());
}
