//! The addresses behind the counter: what a person does to orders, and what is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use serde_json::{Value, json};

use shop::{Answer, DEADLINE, Folder, Shop, checkout, on_both_databases, poll};

const UNKNOWN: &str = "01900000-0000-7000-8000-000000000000";

on_both_databases! {
    a_failed_order_goes_on_with_the_input_that_a_person_mends,
    a_step_whose_result_a_person_gives_does_not_run,
    a_skipped_step_leaves_the_order_degraded,
    a_paused_order_waits_until_it_is_resumed,
    an_order_that_is_resolved_by_hand_is_over,
    an_action_that_is_asked_for_again_is_done_once,
    an_action_on_what_has_moved_since_is_refused,
    what_makes_no_sense_is_refused_with_a_sentence,
    many_orders_are_retried_by_what_they_failed_of,
    an_escalation_is_acknowledged_and_resolved,
}

fn open(folder: &Folder) -> Shop {
    let workflow = folder.workflow(&[("base: 1000", "base: 50"), shop::CALM[0], shop::CALM[1]]);
    let arguments = ["--workflow", workflow.to_str().unwrap(), "--gateway-latency", "5"];
    Shop::open_with(folder, &arguments, "info")
}

/// What a person asks for, by a name and with a reason.
fn asked(mut body: Value) -> Value {
    body["actor"] = "ada".into();
    body["reason"] = "the customer rang up".into();
    body
}

fn act(shop: &Shop, task: &str, body: Value) -> Answer {
    shop.post(&format!("/admin/tasks/{task}/actions"), &asked(body))
}

fn done(shop: &Shop, task: &str, body: Value) -> Value {
    let answer = act(shop, task, body);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json["task_id"], task);
    answer.json
}

fn refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.json["error"].as_str().is_some_and(|told| told.len() > 10), "{answer:?}");
}

/// An order of a product that there is not: `validate_cart` fails for good.
fn mistyped(shop: &Shop) -> String {
    let task = shop.check_out(&checkout(77, 2, "test_success_visa", 100.0));
    assert_eq!(shop.wait_for_end(&task)["error"]["code"], "PRODUCT_NOT_FOUND");
    task
}

fn a_failed_order_goes_on_with_the_input_that_a_person_mends(folder: &Folder) {
    let shop = open(folder);
    let task = mistyped(&shop);
    let mut context = shop.details(&task)["context"].clone();
    context["cart_items"][0]["product_id"] = 1.into();
    done(&shop, &task, json!({"action": "edit_context", "context": context}));
    done(&shop, &task, json!({"action": "retry"}));
    let status = shop.wait_for_end(&task);
    assert_eq!(status["status"], "completed", "with the token that was not shown: {status}");
    let history = shop.details(&task)["history"].as_array().unwrap().clone();
    let edit = history.iter().find(|entry| entry["event"] == "context_edited").unwrap();
    assert_eq!(edit["author"]["operator"], "ada", "{edit}");
    assert_eq!(edit["reason"], "the customer rang up");
    let items = |aspect: &str| edit[aspect]["context"]["cart_items"][0]["product_id"].clone();
    assert_eq!((items("before"), items("after")), (json!(77), json!(1)));
    context["cart_items"] = json!([]);
    let wrong = act(&shop, &mistyped(&shop), json!({"action": "edit_context", "context": context}));
    refused(&wrong, 422);
    assert_eq!(wrong.json["details"][0]["path"], "/cart_items", "{wrong:?}");
}

fn a_step_whose_result_a_person_gives_does_not_run(folder: &Folder) {
    let shop = open(folder);
    let task = mistyped(&shop);
    let cart = json!({"total": 100.0, "items": [{
        "product_id": 1, "name": "Widget", "quantity": 2, "unit_price": 50.0, "line_total": 100.0,
    }]});
    done(&shop, &task, json!({"action": "resolve_step", "step": "validate_cart", "result": cart}));
    assert_eq!(shop.wait_for_end(&task)["status"], "completed");
    assert_eq!(shop.details(&task)["steps"][0]["state"], "resolved_manually");
    assert_eq!(folder.ledger()[0].captures, 1);
}

fn a_skipped_step_leaves_the_order_degraded(folder: &Folder) {
    let shop = open(folder);
    let body = checkout(1, 2, "test_success_visa", 100.0);
    done(&shop, &held(&shop, &body), json!({"action": "resume"}));
    let task = held(&shop, &body);
    done(&shop, &task, json!({"action": "skip_step", "step": "send_confirmation"}));
    done(&shop, &task, json!({"action": "resume"}));
    let status = shop.wait_for_end(&task);
    assert_eq!((&status["status"], &status["degraded"]), (&json!("completed"), &json!(true)));
}

/// An order that waits for its payment, and is paused there.
fn held(shop: &Shop, body: &Value) -> String {
    let person = asked(json!({}));
    assert_eq!(shop.post("/admin/systems/payment_gateway/trip", &person).status, 200);
    let task = shop.check_out(body);
    shop.wait_for(&task, |status| status["current_step"] == "process_payment");
    done(shop, &task, json!({"action": "pause"}));
    assert_eq!(shop.post("/admin/systems/payment_gateway/reset", &person).status, 200);
    task
}

fn a_paused_order_waits_until_it_is_resumed(folder: &Folder) {
    let shop = open(folder);
    let task = held(&shop, &checkout(1, 2, "test_success_visa", 100.0));
    let status = shop.order_status(&task);
    assert_eq!((&status["status"], &status["paused"]), (&json!("processing"), &json!(true)));
    let why = shop.details(&task)["why"].clone();
    assert!(why["sentence"].as_str().unwrap().contains("ada"), "{why}");
    // Others overtake it.
    let other = shop.check_out(&checkout(1, 2, "test_success_visa", 100.0));
    assert_eq!(shop.wait_for_end(&other)["status"], "completed");
    assert_eq!(shop.order_status(&task)["paused"], true);
    done(&shop, &task, json!({"action": "set_retry_limit", "step": "process_payment", "limit": 7}));
    assert_eq!(shop.details(&task)["steps"][1]["retry_limit"], 7);
    done(&shop, &task, json!({"action": "resume"}));
    assert_eq!(shop.wait_for_end(&task)["status"], "completed");

    let cancelled = held(&shop, &checkout(1, 2, "test_success_visa", 100.0));
    done(&shop, &cancelled, json!({"action": "cancel"}));
    assert_eq!(shop.wait_for_end(&cancelled)["status"], "cancelled");
}

fn an_order_that_is_resolved_by_hand_is_over(folder: &Folder) {
    let shop = open(folder);
    let task = mistyped(&shop);
    assert_eq!(done(&shop, &task, json!({"action": "resolve"}))["state"], "resolved_manually");
    let status = shop.order_status(&task);
    assert_eq!((&status["status"], &status["resolved"]), (&json!("failed"), &json!(true)));
    assert_eq!(status.get("retry_url"), None, "{status}");
    refused(&shop.ask("POST", &format!("/retry_checkout/{task}"), &[], None), 422);
    refused(&act(&shop, &task, json!({"action": "retry"})), 409);
}

fn an_action_that_is_asked_for_again_is_done_once(folder: &Folder) {
    let shop = open(folder);
    let task = mistyped(&shop);
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "ticket-1")];
    let path = format!("/admin/tasks/{task}/actions");
    let ask = |body: Value| {
        let body = asked(body).to_string();
        shop.ask("POST", &path, &headers, Some(body.as_bytes()))
    };
    let first = ask(json!({"action": "retry"}));
    assert_eq!((first.status, &first.json["repeated"]), (200, &json!(false)), "{first:?}");
    shop.wait_for_end(&task);
    let again = ask(json!({"action": "retry"}));
    assert_eq!((again.status, &again.json["repeated"]), (200, &json!(true)), "{again:?}");
    refused(&ask(json!({"action": "cancel"})), 409);
    shop.wait_for_end(&task);
    let history = shop.details(&task)["history"].as_array().unwrap().clone();
    assert_eq!(history.iter().filter(|entry| entry["event"] == "retried").count(), 1);
}

fn an_action_on_what_has_moved_since_is_refused(folder: &Folder) {
    let shop = open(folder);
    let task = mistyped(&shop);
    let seen = shop.details(&task)["version"].as_u64().unwrap();
    let now = done(&shop, &task, json!({"action": "retry", "expects": seen}));
    assert!(now["version"].as_u64() > Some(seen), "{now}");
    shop.wait_for_end(&task);
    refused(&act(&shop, &task, json!({"action": "resolve", "expects": seen})), 409);
}

fn what_makes_no_sense_is_refused_with_a_sentence(folder: &Folder) {
    let shop = open(folder);
    let task = mistyped(&shop);
    let rows = [
        (json!({"action": "dance"}), 422),
        (json!({}), 422),
        (json!({"action": "retry_step"}), 422),
        (json!({"action": "resolve_step", "step": "validate_cart"}), 422),
        (json!({"action": "set_retry_limit", "step": "validate_cart"}), 422),
        (json!({"action": "set_retry_limit", "step": "validate_cart", "limit": -1}), 422),
        (json!({"action": "set_retry_limit", "step": "validate_cart", "limit": 0}), 422),
        (json!({"action": "edit_context"}), 422),
        (json!({"action": "retry", "step": "validate_cart"}), 422),
        (json!({"action": "retry", "expect": 3}), 422),
        (json!({"action": "retry_step", "step": "dance"}), 404),
        (json!({"action": "retry_step", "step": "create_order"}), 409),
        (json!({"action": "pause"}), 409),
        (json!({"action": "resume"}), 409),
    ];
    for (body, status) in rows {
        let answer = act(&shop, &task, body.clone());
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        refused(&answer, status);
    }
    let path = format!("/admin/tasks/{task}/actions");
    for nobody in [
        json!({"action": "retry"}),
        json!({"action": "retry", "actor": "ada"}),
        json!({"action": "retry", "actor": " ", "reason": "why not"}),
        json!({"action": "retry", "actor": "ada", "reason": ""}),
        json!({"action": "retry", "actor": "a".repeat(101), "reason": "why not"}),
    ] {
        refused(&shop.post(&path, &nobody), 422);
    }
    for unknown in [UNKNOWN, "x"] {
        refused(&act(&shop, unknown, json!({"action": "retry"})), 404);
    }
    for path in ["/admin/escalations/x%2F1/acknowledge", "/admin/escalations/%00/resolve"] {
        refused(&shop.post(path, &asked(json!({}))), 404);
    }
    refused(&shop.get("/admin/escalations?state=sideways"), 422);
    assert_eq!(shop.details(&task)["state"], "error", "nothing of it was done");
}

fn many_orders_are_retried_by_what_they_failed_of(folder: &Folder) {
    let shop = open(folder);
    let mistyped = [mistyped(&shop), mistyped(&shop)];
    let declined: Vec<_> =
        (0..3).map(|_| shop.check_out(&checkout(1, 1, "test_insufficient_funds", 50.0))).collect();
    declined.iter().for_each(|task| assert_eq!(shop.wait_for_end(task)["refunded"], true));
    let retried = |task: &String| {
        let history = shop.details(task)["history"].as_array().unwrap().clone();
        history.iter().filter(|entry| entry["event"] == "retried").count()
    };
    let ask = |body: Value| {
        let answer = shop.post("/admin/tasks/retry", &asked(body));
        assert_eq!((answer.status, &answer.json["refused"]), (200, &json!([])), "{answer:?}");
        declined.iter().chain(&mistyped).for_each(|task| {
            shop.wait_for_end(task);
        });
        answer.json["retried"].as_u64().unwrap()
    };
    assert_eq!(ask(json!({"error_code": "INSUFFICIENT_FUNDS", "limit": 2})), 2);
    assert_eq!([0, 1, 2].map(|one| retried(&declined[one])), [0, 1, 1], "the latest first");
    assert_eq!(ask(json!({"failed_step": "validate_cart"})), 2);
    assert_eq!(mistyped.each_ref().map(retried), [1, 1]);
    assert_eq!(ask(json!({"after": "2999-01-01T00:00:00Z"})), 0);
    assert_eq!(ask(json!({"before": "2999-01-01T00:00:00Z"})), 5);
    refused(&shop.post("/admin/tasks/retry", &asked(json!({"before": "yesterday"}))), 422);
    refused(&shop.post("/admin/tasks/retry", &json!({"actor": "ada"})), 422);
}

fn an_escalation_is_acknowledged_and_resolved(folder: &Folder) {
    let shop = open(folder);
    let task = mistyped(&shop);
    let listed = |query: &str| {
        let answer = shop.get(&format!("/admin/escalations{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["escalations"].as_array().unwrap().clone()
    };
    assert!(poll(DEADLINE, || !listed("?state=open").is_empty()));
    let [raised] = &listed("")[..] else { panic!("{:?}", listed("")) };
    assert_eq!((&raised["task_id"], &raised["incident"]), (&json!(task), &json!("step_failed")));
    assert!(raised["sentence"].as_str().unwrap().contains("PRODUCT_NOT_FOUND"), "{raised}");
    assert!(poll(DEADLINE, || listed("")[0]["deliveries"]["log"]["delivered_at"].is_string()));

    let key = raised["key"].as_str().unwrap().replace('/', "%2F");
    let see_to =
        |verb: &str| shop.post(&format!("/admin/escalations/{key}/{verb}"), &asked(json!({})));
    let noted = see_to("acknowledge");
    assert_eq!((noted.status, &noted.json["state"]), (200, &json!("acknowledged")), "{noted:?}");
    assert_eq!((&noted.json["actor"], &listed("").len()), (&json!("ada"), &1));
    assert!(listed("?state=open").is_empty());
    assert_eq!(see_to("acknowledge").status, 200, "again");
    let settled = see_to("resolve");
    assert_eq!((settled.status, &settled.json["state"]), (200, &json!("resolved")), "{settled:?}");
    assert!(listed("").is_empty());
    assert_eq!(listed("?state=resolved").len(), 1);
    refused(&see_to("acknowledge"), 409);

    // Whoever acts on an order has settled what it called for.
    let other = mistyped(&shop);
    assert!(poll(DEADLINE, || !listed("?state=open").is_empty()));
    done(&shop, &other, json!({"action": "resolve"}));
    assert!(listed("?state=open").is_empty());
}
