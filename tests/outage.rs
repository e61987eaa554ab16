//! The gateway is let down, and the shop: orders wait for it and lose nothing.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use serde_json::{Value, json};

use shop::{Folder, Shop, checkout, on_both_databases};

on_both_databases! {
    an_order_outlives_an_outage_of_the_gateway_and_of_the_shop,
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
    let refused = shop.check_out(&checkout(1, 2, "test_insufficient_s3cret", 100.0));
    let mut bounces = checkout(1, 1, "test_success_visa", 50.0);
    bounces["checkout"]["customer_info"]["email"] = "test@bounces.example".into();
    let degraded = shop.check_out(&bounces);
    let fine = shop.check_out(&checkout(1, 1, "test_success_visa", 50.0));
    for order in [&refused, &degraded, &fine] {
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
    assert_eq!(ids("?state=complete"), [&*fine, &*degraded]);
    let why = &listed("?state=error")[0]["why"]["sentence"];
    assert!(why.as_str().is_some_and(|why| why.contains("process_payment")), "{why}");
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
