//! Checkouts from the customer's request to the gateway's ledger, the stock and the mailbox.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use serde_json::{Value, json};

use shop::records::Payment;
use shop::{CALM, Folder, Shop, checkout, on_both_databases};

const STEPS: [&str; 5] =
    ["validate_cart", "process_payment", "update_inventory", "create_order", "send_confirmation"];

/// As the documentation gives them to `curl`.
const SUCCEEDS: &str = r#"{
    "checkout": {
      "cart_items": [{"product_id": 1, "quantity": 2}],
      "payment_info": {"token": "test_success_visa", "amount": 100.00},
      "customer_info": {"email": "test@example.com", "name": "Test Customer"}
    }
  }"#;
const TIMES_OUT: &str = r#"{
    "checkout": {
      "cart_items": [{"product_id": 2, "quantity": 1}],
      "payment_info": {"token": "test_timeout_gateway", "amount": 50.00},
      "customer_info": {"email": "retry@example.com", "name": "Retry Test"}
    }
  }"#;

/// A shop whose retries wait for a tenth of a second, and whose customers all pay with bad cards
/// without its taking the gateway for dead.
fn quick_shop(folder: &Folder) -> Shop {
    let [calm, calmer] = CALM;
    let workflow = folder.workflow(&[("base: 1000", "base: 100"), calm, calmer]);
    let workflow = workflow.to_str().unwrap();
    Shop::open_with(folder, &["--workflow", workflow, "--gateway-latency", "20"], "info")
}

/// How often a step was recorded with an outcome.
fn recorded(details: &Value, step: &str, event: &str) -> usize {
    let history = details["history"].as_array().unwrap().iter();
    history.filter(|entry| entry["step"] == step && entry["event"] == event).count()
}

/// How many lines at level `ERROR` tell of an order.
fn errors_of(shop: &Shop, task: &str) -> usize {
    let lines = shop.output().lines();
    lines.iter().filter(|line| line.contains("ERROR") && line.contains(task)).count()
}

on_both_databases! {
    the_first_command_of_the_documentation_charges_once_and_delivers,
    the_second_command_is_retried_fails_is_escalated_and_can_be_resumed,
    an_order_that_met_an_outage_goes_through_when_it_is_retried,
    every_token_does_what_the_documentation_says,
    a_gateway_that_never_answers_is_given_up,
    a_rate_limit_is_waited_for,
    another_amount_than_the_carts_is_given_back,
    a_cart_that_cannot_be_delivered_is_refused_before_anything_is_paid,
    the_last_item_is_sold_once,
    an_order_is_not_lost_to_an_e_mail,
}

fn the_first_command_of_the_documentation_charges_once_and_delivers(folder: &Folder) {
    let shop = Shop::open(folder);
    let answer = shop.post_text("/checkout", SUCCEEDS);
    assert_eq!(answer.status, 202, "{answer:?}");
    let task = answer.json["task_id"].as_str().unwrap();
    let url = format!("/order_status/{task}");
    assert_eq!(answer.location.as_ref(), Some(&url));
    let expected =
        json!({"success": true, "task_id": task, "status": "processing", "checkout_url": url});
    assert_eq!(answer.json, expected);

    let status = shop.wait_for_end(task);
    assert_eq!(status["status"], "completed", "{status}");
    assert_eq!(status["total_amount"], 100.0);
    assert_eq!(status["degraded"], false);
    let number = status["order_number"].as_str().unwrap();
    let [_, day, digits] = number.split('-').collect::<Vec<_>>()[..] else { panic!("{number}") };
    assert!(day.len() == 8 && digits.len() == 8, "{number}");

    let order = shop.get(status["redirect_url"].as_str().unwrap());
    assert_eq!(order.json["order_number"], number, "{order:?}");
    assert_eq!(order.json["items"][0]["quantity"], 2);
    assert_eq!(shop.get(&format!("/orders/{number}")).json, order.json);

    let payments = folder.ledger();
    let [payment] = payments.as_slice() else { panic!("{payments:?}") };
    assert_eq!((payment.state.as_str(), payment.amount.as_str()), ("captured", "100.00"));
    assert_eq!((payment.captures, payment.requests), (1, 1));
    assert_eq!(folder.orders().len(), 1);
    assert_eq!(shop.stock(1), 98);
    let mails = folder.mails();
    assert_eq!(mails.keys().collect::<Vec<_>>(), [number]);
    assert!(mails[number].contains("To: \"Test Customer\" <test@example.com>"), "{mails:?}");

    let details = shop.details(task);
    for step in STEPS {
        assert_eq!(recorded(&details, step, "completed"), 1, "{step}: {details}");
    }
    assert_eq!(details["why"], Value::Null, "nothing is to be explained");
}

fn the_second_command_is_retried_fails_is_escalated_and_can_be_resumed(folder: &Folder) {
    let shop = Shop::open(folder);
    let task = shop.post_text("/checkout", TIMES_OUT).json["task_id"].as_str().unwrap().to_owned();

    let waiting = shop.wait_for(&task, |status| status.get("next_retry_at").is_some());
    assert_eq!(waiting["current_step"], "process_payment", "{waiting}");
    assert_eq!(waiting["progress"], json!({"completed": 1, "total": 5, "percentage": 20}));
    let too_early = shop.ask("POST", &format!("/retry_checkout/{task}"), &[], None);
    assert_eq!(too_early.status, 422, "{too_early:?}");

    let retry_url = format!("/retry_checkout/{task}");
    let failed = json!({
        "status": "failed",
        "failed_step": "process_payment",
        "failed_steps": ["process_payment"],
        "error": {
            "code": "GATEWAY_TIMEOUT",
            "message": "the payment gateway did not answer in time",
        },
        "retry_url": retry_url,
        // What the gateway may have done all the same was called off.
        "refunded": true,
        "task_id": task,
    });
    assert_eq!(shop.wait_for_end(&task), failed);
    let details = shop.details(&task);
    assert_eq!(recorded(&details, "process_payment", "failed"), 3, "{details}");
    assert_eq!(recorded(&details, "update_inventory", "failed"), 0);
    assert_eq!(recorded(&details, "process_payment", "compensated"), 1);
    assert_eq!(details["why"], Value::Null, "nothing of it is left to be explained");
    let escalated = shop.output().wait_for_line(shop::DEADLINE, |line| {
        line.contains("somebody should look at this order") && line.contains(&task)
    });
    assert!(escalated.is_some());
    let told = shop.output().wait_for_line(shop::DEADLINE, |line| {
        line.contains("nothing is left of it") && line.contains(&task)
    });
    assert!(told.is_some());
    assert_eq!(errors_of(&shop, &task), 1);

    let retried = shop.ask("POST", &retry_url, &[], None);
    assert_eq!(retried.status, 202, "{retried:?}");
    assert_eq!(retried.json["success"], true);
    assert_eq!(retried.json["status"], "processing");
    assert_eq!(retried.json["task_id"], *task);
    // It goes on from the payment, with a new count of attempts.
    assert_eq!(shop.wait_for_end(&task), failed);
    let details = shop.details(&task);
    assert_eq!(recorded(&details, "validate_cart", "completed"), 1, "{details}");
    assert_eq!(recorded(&details, "process_payment", "failed"), 6);
    assert!(folder.ledger().iter().all(|payment| payment.captures == 0));
    assert!(folder.orders().is_empty() && folder.mails().is_empty());
    assert_eq!(shop.stock(2), 50);
}

fn an_order_that_met_an_outage_goes_through_when_it_is_retried(folder: &Folder) {
    let shop = quick_shop(folder);
    let task = shop.check_out(&checkout(1, 1, "test_outage_amex", 50.0));
    assert_eq!(shop.wait_for_end(&task)["error"]["code"], "GATEWAY_FAULT");
    assert_eq!(shop.ask("POST", &format!("/retry_checkout/{task}"), &[], None).status, 202);
    let status = shop.wait_for_end(&task);
    assert_eq!(status["status"], "completed", "{status}");
    let details = shop.details(&task);
    assert_eq!(recorded(&details, "validate_cart", "completed"), 1, "{details}");
    // The first payment was called off, the second one was made.
    let mut payments: Vec<_> =
        folder.ledger().into_iter().map(|one| (one.state, one.captures)).collect();
    payments.sort();
    assert_eq!(payments, [("cancelled".to_owned(), 0), ("captured".to_owned(), 1)]);
    assert_eq!(folder.orders().len(), 1);
    let again = shop.ask("POST", &format!("/retry_checkout/{task}"), &[], None);
    assert_eq!(again.status, 422, "a complete order is not retried: {again:?}");
}

fn every_token_does_what_the_documentation_says(folder: &Folder) {
    // Token, failed attempts at the payment, and the code of the failure that ends the order.
    let rows = [
        ("test_success_mastercard", 0, None),
        ("test_temp_fail_visa", 2, None),
        ("test_lost_answer_visa", 1, None),
        ("test_timeout_7", 3, Some("GATEWAY_TIMEOUT")),
        ("test_network_error", 3, Some("GATEWAY_UNREACHABLE")),
        ("test_rate_limit_gateway", 3, Some("RATE_LIMITED")),
        ("test_insufficient_funds", 1, Some("INSUFFICIENT_FUNDS")),
        ("test_invalid_card", 1, Some("INVALID_CARD")),
        ("test_fraud_detected", 1, Some("FRAUD_DETECTED")),
        ("tok_of_another_shop", 1, Some("CARD_DECLINED")),
    ];
    let shop = quick_shop(folder);
    let tasks = rows.map(|(token, ..)| shop.check_out(&checkout(4, 1, token, 19.95)));
    for ((token, attempts, code), task) in rows.iter().zip(&tasks) {
        let status = shop.wait_for_end(task);
        let details = shop.details(task);
        assert_eq!(
            recorded(&details, "process_payment", "failed"),
            *attempts,
            "{token}: {details}"
        );
        match code {
            None => assert_eq!(status["status"], "completed", "{token}: {status}"),
            Some(code) => {
                assert_eq!(status["failed_step"], "process_payment", "{token}: {status}");
                assert_eq!(status["error"]["code"], *code, "{token}");
            }
        }
    }
    let captured: Vec<_> = folder.ledger().into_iter().filter(|one| one.captures > 0).collect();
    assert!(captured.iter().all(|one| one.captures == 1 && one.amount == "19.95"), "{captured:?}");
    assert_eq!((captured.len(), folder.orders().len(), folder.mails().len()), (3, 3, 3));
    assert_eq!(shop.stock(4), 247);
}

fn a_gateway_that_never_answers_is_given_up(folder: &Folder) {
    let workflow =
        folder.workflow(&[("base: 1000", "base: 100"), ("timeout: 5000", "timeout: 1000")]);
    let shop = Shop::open_with(folder, &["--workflow", workflow.to_str().unwrap()], "info");
    let task = shop.check_out(&checkout(1, 1, "test_hang_gateway", 50.0));
    let status = shop.wait_for_end(&task);
    assert_eq!(status["failed_step"], "process_payment", "{status}");
    assert_eq!(status["error"]["code"], "TIMED_OUT", "{status}");
    assert_eq!(recorded(&shop.details(&task), "process_payment", "failed"), 3);
    assert!(folder.ledger().iter().all(|payment| payment.captures == 0));
}

fn a_rate_limit_is_waited_for(folder: &Folder) {
    let shop = quick_shop(folder);
    let task = shop.check_out(&checkout(1, 1, "test_rate_limit_gateway", 50.0));
    let waiting = shop.wait_for(&task, |status| status.get("next_retry_at").is_some());
    let details = shop.details(&task);
    let history = details["history"].as_array().unwrap();
    let failed = history.iter().find(|entry| entry["event"] == "failed").unwrap();
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let wait = time(&waiting["next_retry_at"]).duration_since(time(&failed["at"]));
    // The workflow would wait for a tenth of a second; the gateway asked for three seconds.
    assert!(wait.as_millis() >= 3000, "{wait}");
}

fn another_amount_than_the_carts_is_given_back(folder: &Folder) {
    let shop = quick_shop(folder);
    for amount in [99.99, 100.01, 0.1, 75.5, 19.99, 1_234_567.89, 10_000_000.0] {
        let task = shop.check_out(&checkout(1, 2, "test_success_visa", amount));
        let status = shop.wait_for_end(&task);
        assert_eq!(status["error"]["code"], "PAYMENT_AMOUNT_MISMATCH", "{amount}: {status}");
        let details = shop.details(&task);
        assert_eq!(recorded(&details, "process_payment", "failed"), 1, "{amount}: {details}");
    }
    let payments = folder.ledger();
    assert_eq!(payments.len(), 7);
    let given_back = |one: &Payment| one.state == "cancelled" && one.captures == 0;
    assert!(payments.iter().all(given_back), "{payments:?}");
    assert!(folder.orders().is_empty() && folder.mails().is_empty());
    assert_eq!(shop.stock(1), 100);
}

fn a_cart_that_cannot_be_delivered_is_refused_before_anything_is_paid(folder: &Folder) {
    let shop = quick_shop(folder);
    let both = json!({"checkout": {
        "cart_items": [{"product_id": 6, "quantity": 2}, {"product_id": 6, "quantity": 2}],
        "payment_info": {"token": "test_success_visa", "amount": 996.0},
        "customer_info": {"email": "test@example.com", "name": "Test Customer"},
    }});
    let rows = [
        (checkout(6, 4, "test_success_visa", 996.0), "INSUFFICIENT_INVENTORY"),
        (both, "INSUFFICIENT_INVENTORY"),
        (checkout(77, 1, "test_success_visa", 1.0), "PRODUCT_NOT_FOUND"),
    ];
    for (checkout, code) in rows {
        let task = shop.check_out(&checkout);
        let status = shop.wait_for_end(&task);
        assert_eq!(status["failed_step"], "validate_cart", "{checkout}: {status}");
        assert_eq!(status["error"]["code"], code, "{checkout}");
        assert_eq!(recorded(&shop.details(&task), "validate_cart", "failed"), 1, "{checkout}");
        let told = shop.output().wait_for_line(shop::DEADLINE, |line| {
            line.contains("order failed") && line.contains(&task)
        });
        assert!(told.is_some());
        assert_eq!(errors_of(&shop, &task), 0, "a customer's order is no fault of the shop");
    }
    assert!(folder.ledger().is_empty());
}

fn the_last_item_is_sold_once(folder: &Folder) {
    let shop = quick_shop(folder);
    let wanted = checkout(6, 1, "test_success_visa", 249.0);
    let tasks: Vec<_> = (0..6).map(|_| shop.check_out(&wanted)).collect();
    let ends: Vec<_> = tasks.iter().map(|task| shop.wait_for_end(task)).collect();
    let sold = ends.iter().filter(|status| status["status"] == "completed").count();
    let refused = ends.iter().filter(|status| status["error"]["code"] == "INSUFFICIENT_INVENTORY");
    assert_eq!((sold, refused.count()), (3, 3), "{ends:?}");
    assert_eq!((shop.stock(6), folder.orders().len(), folder.mails().len()), (0, 3, 3));
}

fn an_order_is_not_lost_to_an_e_mail(folder: &Folder) {
    let shop = quick_shop(folder);
    let mut wanted = checkout(1, 1, "test_success_visa", 50.0);
    wanted["checkout"]["customer_info"]["email"] = "customer@bounces.example".into();
    let task = shop.check_out(&wanted);
    let status = shop.wait_for_end(&task);
    assert_eq!((&status["status"], &status["degraded"]), (&"completed".into(), &true.into()));
    assert_eq!((folder.orders().len(), folder.mails().len(), shop.stock(1)), (1, 0, 99));
}
