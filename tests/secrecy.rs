//! Whoever has a payment token can charge its owner: where the shop lets it be seen, and where not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use serde_json::{Value, json};

use shop::{Folder, Shop, checkout};

/// Part of every token here; the shop prints none like it by itself.
const SECRET: &str = "5ecret0f4customer";

#[test]
fn a_payment_token_is_in_no_answer_no_log_and_no_file_but_the_workflows() {
    let folder = Folder::new();
    let shop = Shop::open_with(&folder, &["--gateway-latency", "5"], "trace");
    let tokens = ["success", "temp_fail", "insufficient", "unheard_of", "lost_answer"];
    let mut wanted: Vec<_> =
        tokens.iter().map(|kind| checkout(1, 2, &format!("test_{kind}_{SECRET}"), 100.0)).collect();
    wanted.push(checkout(1, 2, &format!("test_success_{SECRET}"), 99.0));
    let mut pasted = wanted[0].clone();
    pasted["checkout"]["customer_info"]["name"] = format!("test_success_{SECRET}").into();
    let tasks: Vec<_> = wanted.iter().map(|checkout| shop.check_out(checkout)).collect();
    for task in &tasks {
        let status = shop.wait_for_end(task);
        let details = shop.details(task);
        assert_eq!(details["context"]["payment_info"]["token"], "[redacted]");
        let _ = shop.get(&format!("/order_status/{task}/events"));
        if let Some(order) = status["redirect_url"].as_str() {
            let _ = shop.get(order);
        }
        let _ = shop.ask("POST", &format!("/retry_checkout/{task}"), &[], None);
    }
    let edited = operators_see_no_token(&shop, &wanted[0]["checkout"], &tasks);
    for path in ["/admin/tasks", "/admin/tasks?state=compensated", "/admin/escalations"] {
        assert_eq!(shop.get(path).status, 200, "{path}");
    }
    assert_eq!(shop.details(&edited)["context"]["payment_info"]["token"], "[redacted]");
    for body in refusable(&wanted[0]) {
        let answer = shop.post_text("/checkout", &body);
        assert!((400..500).contains(&answer.status), "{body}: {answer:?}");
    }
    let said: Vec<_> = shop.answers().into_iter().filter(|said| said.contains(SECRET)).collect();
    assert!(said.is_empty(), "answered: {said:#?}");
    let lines = shop.output().lines();
    assert!(lines.len() > 100, "everything is logged");
    let logged: Vec<_> = lines.iter().filter(|line| line.contains(SECRET)).collect();
    assert!(logged.is_empty(), "logged: {logged:#?}");
    // Tasker keeps the order's input, so that the payment can be made after a crash.
    let files = folder.files_with(SECRET);
    assert!(files.iter().all(|file| file.starts_with("tasker.db")), "{files:?}");
}

/// Actions that meet the token, and reasons that somebody pasted it into; gives the order whose
/// input was edited.
fn operators_see_no_token(shop: &Shop, context: &Value, tasks: &[String]) -> String {
    let act = |task: &str, mut body: Value| {
        body["actor"] = "ada".into();
        body["reason"] = format!("not with test_insufficient_{SECRET} again").into();
        shop.post(&format!("/admin/tasks/{task}/actions"), &body)
    };
    // It was refused, and undone.
    let refused = &tasks[2];
    let mut other = context.clone();
    other["payment_info"]["token"] = format!("test_success_{SECRET}_2").into();
    let edited = act(refused, json!({"action": "edit_context", "context": other}));
    assert_eq!(edited.status, 200, "{edited:?}");
    // A placeholder that comes back is the token as it was stored.
    other["payment_info"]["token"] = "[redacted]".into();
    other["customer_info"]["name"] = "Somebody Else".into();
    let edited = act(refused, json!({"action": "edit_context", "context": other}));
    assert_eq!(edited.status, 200, "{edited:?}");
    let details = shop.details(refused);
    let history = details["history"].as_array().unwrap();
    let edits = history.iter().filter(|entry| entry["event"] == "context_edited");
    let shown: Vec<_> = edits
        .flat_map(|entry| [&entry["before"], &entry["after"]])
        .map(|aspect| aspect["context"]["payment_info"]["token"].clone())
        .collect();
    assert_eq!(
        shown,
        [json!("[redacted]"), "[redacted]".into(), "[redacted]".into(), "[redacted]".into()]
    );
    other["payment_info"]["token"] = format!("two words {SECRET}").into();
    let bad = act(refused, json!({"action": "edit_context", "context": other}));
    assert_eq!((bad.status, &bad.json["details"][0]["path"]), (422, &"/payment_info/token".into()));
    for misplaced in [
        json!({"action": SECRET}),
        json!({"action": "set_retry_limit", "step": "create_order", "limit": SECRET}),
        json!({"action": "retry_step", "step": [SECRET]}),
        json!({"action": "retry", "expects": SECRET}),
    ] {
        let answer = act(refused, misplaced.clone());
        assert_eq!(answer.status, 422, "{misplaced}: {answer:?}");
    }
    let retried = act(refused, json!({"action": "retry"}));
    assert_eq!(retried.status, 200, "{retried:?}");
    assert_eq!(shop.wait_for_end(refused)["status"], "completed", "with the new token");
    refused.clone()
}

/// Requests that are refused, with the token wherever a mistake may have put it.
fn refusable(good: &Value) -> Vec<String> {
    let token = good["checkout"]["payment_info"]["token"].clone();
    let mut bodies: Vec<String> = [
        ("/checkout/customer_info/email", token.clone()),
        ("/checkout/cart_items/0/quantity", token.clone()),
        ("/checkout/payment_info/amount", token.clone()),
        ("/checkout/payment_info/token", json!([token])),
        ("/checkout/payment_info", token.clone()),
        ("/checkout/cart_items", token.clone()),
        ("/checkout", token.clone()),
        ("/checkout/payment_info/token", format!("two words {}", token.as_str().unwrap()).into()),
        (
            "/checkout/payment_info/token",
            format!("{}{}", token.as_str().unwrap(), "x".repeat(200)).into(),
        ),
    ]
    .into_iter()
    .map(|(place, value)| {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        bad.to_string()
    })
    .collect();
    let whole = good.to_string();
    bodies.extend([whole[..whole.len() - 1].to_owned(), token.to_string()]);
    bodies.push(token.as_str().unwrap().to_owned());
    bodies
}
