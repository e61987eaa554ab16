//! The gateway is let down, and the shop: orders wait for it and lose nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use serde_json::{Value, json};

use shop::records::Call;
use shop::{DEADLINE, Folder, Shop, checkout, on_both_databases, poll};

on_both_databases! {
    an_order_outlives_an_outage_of_the_gateway_and_of_the_shop,
    two_hundred_orders_wait_for_a_gateway_that_is_down_and_lose_nothing,
    a_system_that_a_person_trips_is_left_alone_until_it_is_reset,
    a_switch_that_is_none_is_refused,
    an_order_that_needs_a_person_is_listed_with_its_reason_and_without_its_token,
}

fn switch(shop: &Shop, mode: &str) -> Value {
    let answer = shop.post("/demo/gateway", &json!({"mode": mode}));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json
}

fn an_order_outlives_an_outage_of_the_gateway_and_of_the_shop(folder: &Folder) {
    let workflow = folder.workflow(&[("base: 1000", "base: 200"), ("limit: 3", "limit: 100")]);
    let arguments = ["--workflow", workflow.to_str().unwrap(), "--gateway-latency", "5"];
    let mut shop = Shop::open_with(folder, &arguments, "info");
    assert_eq!(shop.get("/demo/gateway").json["mode"], "up");
    switch(&shop, "down");
    let order = shop.check_out(&checkout(1, 2, "test_success_visa", 100.0));
    shop.wait_for(&order, |status| status["attempts"].as_u64() >= Some(1));
    let payment = shop.details(&order)["steps"][1].clone();
    assert_eq!(payment["failure"]["code"], "GATEWAY_UNREACHABLE", "{payment}");
    assert_eq!(payment["failure"]["class"], "retryable", "{payment}");

    shop.kill();
    let shop = Shop::open_with(folder, &arguments, "info");
    assert_eq!(shop.get("/demo/gateway").json["mode"], "down");
    assert!(folder.ledger().is_empty(), "the gateway has heard of nothing");
    let up = switch(&shop, "up");
    assert!(up["calls"].as_u64() >= Some(1), "{up}");
    assert_eq!(shop.wait_for_end(&order)["status"], "completed");
    // Authorise and capture.
    let report = shop.get("/demo/gateway").json;
    assert_eq!((&report["calls_since"], &report["at_once_since"]), (&json!(2), &json!(1)));
    assert_eq!(folder.ledger()[0].captures, 1);
}

fn two_hundred_orders_wait_for_a_gateway_that_is_down_and_lose_nothing(folder: &Folder) {
    const ORDERS: usize = 200;
    const PROBE_INTERVAL: i64 = 400_000;
    const INITIAL_CALLS: usize = 3;
    let workflow = folder.workflow(&[("probe_interval: 5000", "probe_interval: 400")]);
    let arguments = ["--workflow", workflow.to_str().unwrap(), "--gateway-latency", "20"];
    let shop = Shop::open_with(folder, &arguments, "warn");
    switch(&shop, "down");
    let orders: Vec<_> =
        (0..ORDERS).map(|_| shop.check_out(&checkout(5, 1, "test_success_visa", 7.5))).collect();
    let gateway = || system(&shop, "payment_gateway");
    let parked = poll(DEADLINE, || gateway()["waiting"].as_u64() == Some(ORDERS as u64));
    assert!(parked, "not all wait: {}", gateway());
    let seen = folder.calls().len();
    // While everybody waits, nothing but the probes calls it.
    assert!(poll(DEADLINE, || folder.calls().len() >= seen + 3), "it is probed");
    let why = shop.details(orders.last().unwrap())["why"].clone();
    assert_eq!(
        (&why["cause"], &why["system"]),
        (&json!("waits_for_system"), &json!("payment_gateway"))
    );
    switch(&shop, "up");
    for order in &orders {
        assert_eq!(shop.wait_for_end(order)["status"], "completed");
    }

    let calls = folder.calls();
    let (down, mut up): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.mode == "down");
    let time = down.last().unwrap().began_at - down[0].began_at;
    let most = 10 + usize::try_from(time / PROBE_INTERVAL).unwrap();
    assert!(down.len() < most, "{} calls while it was down, for {time} microseconds", down.len());
    println!("{} calls in {} ms of outage", down.len(), time / 1000);

    let (mut spent, mut failed) = (0, 0);
    for order in &orders {
        let payment = shop.details(order)["steps"][1].clone();
        let all = |name: &str| payment[name].as_u64().unwrap();
        // The last one is the success.
        spent += all("attempts_counted") - 1;
        failed += all("attempts") - 1;
    }
    assert!(spent < 10, "{spent} attempts were spent, of {failed} that failed");
    assert_eq!(failed, down.len() as u64, "every call is on record as an attempt");
    println!("{spent} attempts spent");

    // Whoever begins is there with those that began before and have not ended.
    up.sort_by_key(|call| call.began_at);
    let mut at_once = 0;
    for (number, call) in up.iter().enumerate() {
        let began = call.began_at;
        let running = up[..number].iter().filter(|other| other.ended_at.unwrap() > began).count();
        let paid = |other: &&&Call| other.kind == "capture" && other.ended_at.unwrap() <= began;
        let paid = up[..number].iter().filter(paid).count();
        assert!(running < INITIAL_CALLS + paid, "{running} at once after {paid} payments");
        at_once = at_once.max(running + 1);
    }
    println!("{at_once} calls at once at most");
    assert_eq!(up.len(), 2 * ORDERS, "authorise and capture, once each");
    assert!(folder.ledger().iter().all(|payment| payment.captures == 1));
    assert_eq!((folder.orders().len(), folder.mails().len()), (ORDERS, ORDERS));
}

fn a_system_that_a_person_trips_is_left_alone_until_it_is_reset(folder: &Folder) {
    let shop = Shop::open_with(folder, &["--gateway-latency", "5"], "info");
    let person = json!({"actor": "ada", "reason": "the bank moves house tonight"});
    let tripped = shop.post("/admin/systems/payment_gateway/trip", &person);
    assert_eq!((tripped.status, &tripped.json["state"]), (200, &json!("open")), "{tripped:?}");
    let order = shop.check_out(&checkout(1, 2, "test_success_visa", 100.0));
    assert!(poll(DEADLINE, || system(&shop, "payment_gateway")["waiting"] == 1));
    let gateway = system(&shop, "payment_gateway");
    assert_eq!(gateway["next_probe_at"], Value::Null, "until somebody resets it: {gateway}");
    assert!(gateway["reason"].as_str().unwrap().contains("ada"), "{gateway}");
    let waiting = shop.get("/admin/tasks?state=waiting").json;
    let why = &waiting["tasks"][0]["why"];
    let sentence = why["sentence"].as_str().unwrap();
    assert!(sentence.contains("payment_gateway") && sentence.contains("moves house"), "{why}");
    assert!(folder.calls().is_empty());
    let reset = shop.post("/admin/systems/payment_gateway/reset", &person);
    assert_eq!((reset.status, &reset.json["state"]), (200, &json!("closed")), "{reset:?}");
    assert_eq!(shop.wait_for_end(&order)["status"], "completed");
    let unknown = shop.post("/admin/systems/nobody/trip", &person);
    assert_eq!(unknown.status, 404, "{unknown:?}");
    let nobody = shop.post("/admin/systems/payment_gateway/trip", &json!({"actor": "ada"}));
    assert_eq!(nobody.status, 422, "{nobody:?}");
}

/// How a system stands, as the page behind the counter has it.
fn system(shop: &Shop, name: &str) -> Value {
    let answer = shop.get("/admin/systems");
    assert_eq!(answer.status, 200, "{answer:?}");
    let systems = answer.json["systems"].as_array().unwrap();
    systems.iter().find(|system| system["name"] == name).unwrap().clone()
}

fn a_switch_that_is_none_is_refused(folder: &Folder) {
    let shop = Shop::open(folder);
    let json = "application/json";
    let rows = [
        (json, r#"{"mode": "sideways"}"#, 422),
        (json, "{}", 422),
        (json, r#"{"mode": "down", "for": 5}"#, 422),
        (json, r#"{"mode": "down""#, 400),
        ("text/plain", r#"{"mode": "down"}"#, 415),
    ];
    for (kind, body, status) in rows {
        let headers = [("Content-Type", kind)];
        let answer = shop.ask("POST", "/demo/gateway", &headers, Some(body.as_bytes()));
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert_eq!(answer.json["success"], false, "{body}: {answer:?}");
    }
    assert_eq!(shop.get("/demo/gateway").json["mode"], "up");
}

fn an_order_that_needs_a_person_is_listed_with_its_reason_and_without_its_token(folder: &Folder) {
    let shop = Shop::open_with(folder, &["--gateway-latency", "5"], "info");
    let refused = shop.check_out(&checkout(77, 2, "test_success_s3cret", 100.0));
    let declined = shop.check_out(&checkout(1, 2, "test_insufficient_s3cret", 100.0));
    let mut bounces = checkout(1, 1, "test_success_visa", 50.0);
    bounces["checkout"]["customer_info"]["email"] = "test@bounces.example".into();
    let degraded = shop.check_out(&bounces);
    let fine = shop.check_out(&checkout(1, 1, "test_success_visa", 50.0));
    for order in [&refused, &declined, &degraded, &fine] {
        shop.wait_for_end(order);
    }
    let listed = |query: &str| {
        let answer = shop.get(&format!("/admin/tasks{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.text.contains("s3cret"), "{answer:?}");
        answer.json["tasks"].as_array().unwrap().clone()
    };
    let ids = |query: &str| -> Vec<_> {
        listed(query).iter().map(|task| task["task_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(""), [&*degraded, &*refused]);
    assert_eq!(ids("?state=attention&limit=1"), [&*degraded]);
    assert_eq!(ids("?state=degraded"), [&*degraded]);
    assert_eq!(ids("?state=error"), [&*refused]);
    assert_eq!(ids("?state=compensated"), [&*declined]);
    assert_eq!(ids("?state=complete"), [&*fine, &*degraded]);
    let why = &listed("?state=error")[0]["why"]["sentence"];
    assert!(why.as_str().is_some_and(|why| why.contains("validate_cart")), "{why}");
    for query in ["?state=sideways", "?limit=many"] {
        assert_eq!(shop.get(&format!("/admin/tasks{query}")).status, 422, "{query}");
    }
}

#[test]
fn the_page_behind_the_counter_is_in_the_program_and_loads_nothing_from_elsewhere() {
    let folder = Folder::new();
    let shop = Shop::open(&folder);
    let page = shop.get("/admin");
    assert_eq!(page.status, 200);
    for asset in ["/assets/style.css", "/assets/admin.css", "/assets/admin.js"] {
        assert!(page.text.contains(asset), "{asset}");
        assert_eq!(shop.get(asset).status, 200, "{asset}");
    }
    let heads = shop.answers();
    assert!(heads.iter().all(|head| head.contains("default-src 'none'; script-src 'self'")));
}
