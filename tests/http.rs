//! What the shop answers to requests, good and bad: the whole contract of its addresses.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use shop::{Answer, Folder, Shop, checkout, on_both_databases, raw};

const UNKNOWN: &str = "01900000-0000-7000-8000-000000000000";

fn good() -> Value {
    checkout(1, 2, "test_success_visa", 100.0)
}

/// A good checkout with one place of it changed.
fn with(pointer: &str, value: Value) -> Value {
    let mut changed = good();
    *changed.pointer_mut(&format!("/checkout{pointer}")).expect(pointer) = value;
    changed
}

fn post(shop: &Shop, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    shop.ask("POST", "/checkout", headers, Some(body))
}

fn refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json["success"], false, "{answer:?}");
    assert!(answer.json["error"].as_str().is_some_and(|told| !told.is_empty()), "{answer:?}");
}

on_both_databases! {
    a_checkout_that_breaks_a_rule_is_told_where,
    what_is_not_json_is_refused_and_never_a_fault_of_the_shop,
    only_json_of_up_to_a_mebibyte_is_read,
    the_same_idempotency_key_is_the_same_order,
    an_idempotency_key_that_is_none_is_refused,
    an_order_that_is_not_there_is_not_found,
    an_address_takes_its_method_only,
    what_is_no_http_harms_nobody,
}

fn a_checkout_that_breaks_a_rule_is_told_where(folder: &Folder) {
    let shop = Shop::open(folder);
    let item =
        |product: Value, quantity: Value| json!([{"product_id": product, "quantity": quantity}]);
    let long = |length| Value::from("x".repeat(length));
    let rows = [
        ("/cart_items", json!([]), "/cart_items"),
        ("/cart_items", json!({}), "/cart_items"),
        ("/cart_items", Value::Null, "/cart_items"),
        ("/cart_items", json!(vec![json!({"product_id": 1, "quantity": 1}); 51]), "/cart_items"),
        ("/cart_items", json!([1]), "/cart_items/0"),
        ("/cart_items", item(json!(1), json!(0)), "/cart_items/0/quantity"),
        ("/cart_items", item(json!(1), json!(-1)), "/cart_items/0/quantity"),
        ("/cart_items", item(json!(1), json!(1001)), "/cart_items/0/quantity"),
        ("/cart_items", item(json!(1), json!(1.5)), "/cart_items/0/quantity"),
        ("/cart_items", item(json!(1), json!("1")), "/cart_items/0/quantity"),
        ("/cart_items", item(json!(1), json!(true)), "/cart_items/0/quantity"),
        ("/cart_items", item(json!(1), json!(1e300)), "/cart_items/0/quantity"),
        ("/cart_items", item(json!(0), json!(1)), "/cart_items/0/product_id"),
        ("/cart_items", item(json!(2_147_483_648_u32), json!(1)), "/cart_items/0/product_id"),
        ("/cart_items", item(json!(u64::MAX), json!(1)), "/cart_items/0/product_id"),
        ("/cart_items/0", json!({"product_id": 1}), "/cart_items/0/quantity"),
        (
            "/cart_items/0",
            json!({"product_id": 1, "quantity": 1, "price": 0}),
            "/cart_items/0/price",
        ),
        ("/payment_info/amount", json!(0), "/payment_info/amount"),
        ("/payment_info/amount", json!(-100), "/payment_info/amount"),
        ("/payment_info/amount", json!("100.00"), "/payment_info/amount"),
        ("/payment_info/amount", json!(1e300), "/payment_info/amount"),
        ("/payment_info/amount", json!(99.999), "/payment_info/amount"),
        ("/payment_info/amount", json!(0.001), "/payment_info/amount"),
        ("/payment_info/amount", json!(1_234_567.891), "/payment_info/amount"),
        ("/payment_info/amount", Value::Null, "/payment_info/amount"),
        ("/payment_info/token", json!(""), "/payment_info/token"),
        ("/payment_info/token", json!("two words"), "/payment_info/token"),
        ("/payment_info/token", json!("nul\0nul"), "/payment_info/token"),
        ("/payment_info/token", long(201), "/payment_info/token"),
        ("/payment_info/token", json!(1), "/payment_info/token"),
        ("/payment_info", json!({"token": "test_success_visa"}), "/payment_info/amount"),
        ("/customer_info/email", json!(""), "/customer_info/email"),
        ("/customer_info/email", json!("nobody"), "/customer_info/email"),
        ("/customer_info/email", json!("a@b@c.example"), "/customer_info/email"),
        ("/customer_info/email", json!("a@b.example\r\nBcc: x@y.example"), "/customer_info/email"),
        ("/customer_info/email", long(300), "/customer_info/email"),
        ("/customer_info/name", json!(""), "/customer_info/name"),
        ("/customer_info/name", json!("   "), "/customer_info/name"),
        ("/customer_info/name", json!("a\r\nBcc: x@y.example"), "/customer_info/name"),
        ("/customer_info/name", json!("nul\0nul"), "/customer_info/name"),
        ("/customer_info/name", long(201), "/customer_info/name"),
        ("/customer_info/name", json!(["a"]), "/customer_info/name"),
        ("/customer_info", Value::Null, "/customer_info"),
        ("", json!({}), "/cart_items"),
        ("", json!([]), ""),
        ("", Value::Null, ""),
    ];
    for (place, value, path) in rows {
        let body = with(place, value);
        let answer = shop.post("/checkout", &body);
        refused(&answer, 422);
        assert_eq!(answer.json["error"], "Invalid checkout data");
        let details = answer.json["details"].as_array().expect("details");
        let told = details.iter().any(|detail| {
            detail["path"] == path && detail["message"].as_str().is_some_and(|it| !it.is_empty())
        });
        assert!(told, "{body}: no detail for {path:?} in {answer:?}");
    }
    for body in [json!({}), json!([]), json!(null), json!("checkout"), json!(7)] {
        refused(&shop.post("/checkout", &body), 422);
    }
    let mut beside = good();
    beside["admin"] = true.into();
    refused(&shop.post("/checkout", &beside), 422);
    let several = json!({"checkout": {"cart_items": [{"quantity": 0}], "payment_info": {}}});
    let several = shop.post("/checkout", &several);
    assert!(several.json["details"].as_array().unwrap().len() >= 4, "all at once: {several:?}");
    assert!(folder.tasks().is_empty(), "what was refused is not stored");
}

fn what_is_not_json_is_refused_and_never_a_fault_of_the_shop(folder: &Folder) {
    let shop = Shop::open(folder);
    let whole = good().to_string();
    let mut bodies: Vec<Vec<u8>> = (0..whole.len()).map(|end| whole[..end].into()).collect();
    let nested = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let numbers = ["1e999", "NaN", "Infinity", "01", "+1", "0x10", ".5", "1_000"];
    bodies.extend(numbers.map(|number| whole.replace("100.0", number).into()));
    bodies.extend([
        nested.into_bytes(),
        format!("{whole}{whole}").into_bytes(),
        format!("{whole},").into_bytes(),
        [b"\xef\xbb\xbf", whole.as_bytes()].concat(),
        whole.replace("Test Customer", r"\ud800").into_bytes(),
        whole.replace("Test Customer", "line\nbreak").into_bytes(),
        [b"{\"checkout\": \"\xff\xfe\"}".as_slice()].concat(),
        whole.replace('"', "'").into_bytes(),
        b"\0".to_vec(),
        b"--boundary\r\nContent-Disposition: form-data\r\n\r\n".to_vec(),
    ]);
    for body in bodies {
        let answer = shop.post_text("/checkout", &body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        assert_eq!(answer.status, 400, "{shown}: {answer:?}");
        refused(&answer, 400);
    }
    assert!(folder.tasks().is_empty());
    assert_eq!(shop.post("/checkout", &good()).status, 202, "and it still takes orders");
}

fn only_json_of_up_to_a_mebibyte_is_read(folder: &Folder) {
    let shop = Shop::open(folder);
    let body = good().to_string().into_bytes();
    refused(&post(&shop, &[], &body), 415);
    for other in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        refused(&post(&shop, &[("Content-Type", other)], &body), 415);
    }
    for json in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(post(&shop, &[("Content-Type", json)], &body).status, 202, "{json}");
    }
    let mut large = body;
    large.resize(1024 * 1024, b' ');
    assert_eq!(shop.post_text("/checkout", &large).status, 202, "a mebibyte");
    large.push(b' ');
    refused(&shop.post_text("/checkout", &large), 413);
}

fn the_same_idempotency_key_is_the_same_order(folder: &Folder) {
    let shop = Shop::open(folder);
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "basket-1")];
    let body = good().to_string();
    let ids: BTreeSet<String> = std::thread::scope(|scope| {
        let ask = || post(&shop, &headers, body.as_bytes());
        let askers: Vec<_> = (0..16).map(|_| scope.spawn(ask)).collect();
        let answers = askers.into_iter().map(|asker| asker.join().unwrap());
        answers.map(|one| one.json["task_id"].as_str().expect("taken").to_owned()).collect()
    });
    let [task] = Vec::from_iter(&ids)[..] else { panic!("{ids:?}") };
    shop.wait_for_end(task);
    // In another notation, and after its end, it is still the same.
    let noted = body.replace("100.0", "1e2").replace(',', " , ");
    let repeat = post(&shop, &headers, noted.as_bytes());
    assert_eq!((repeat.status, &repeat.json["status"]), (202, &"completed".into()), "{repeat:?}");
    assert_eq!(repeat.json["task_id"], **task);
    let other = with("/cart_items/0/quantity", json!(3)).to_string();
    refused(&post(&shop, &headers, other.as_bytes()), 409);
    assert_eq!((folder.tasks().len(), folder.orders().len(), folder.ledger().len()), (1, 1, 1));
}

fn an_idempotency_key_that_is_none_is_refused(folder: &Folder) {
    let shop = Shop::open(folder);
    let body = good().to_string();
    let long = "k".repeat(256);
    for key in ["", "two words", &long] {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        refused(&post(&shop, &headers, body.as_bytes()), 400);
    }
    let twice =
        [("Content-Type", "application/json"), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")];
    refused(&post(&shop, &twice, body.as_bytes()), 400);
    let longest = [("Content-Type", "application/json"), ("Idempotency-Key", &long[..255])];
    assert_eq!(post(&shop, &longest, body.as_bytes()).status, 202);
}

fn an_order_that_is_not_there_is_not_found(folder: &Folder) {
    let shop = Shop::open(folder);
    let long = "9".repeat(4000);
    let ids = [UNKNOWN, "0", "-1", "x", "%00", "%ff", "%2e%2e%2f", "'%20OR%201=1", &long];
    for id in ids {
        for (method, path) in [
            ("GET", "/order_status/"),
            ("GET", "/workflow_details/"),
            ("POST", "/retry_checkout/"),
            ("GET", "/orders/"),
        ] {
            let answer = shop.ask(method, &format!("{path}{id}"), &[], None);
            assert_eq!(answer.status, 404, "{method} {path}{id}: {answer:?}");
            assert_eq!(answer.json, json!({"error": "Order not found"}), "{method} {path}{id}");
        }
        let events = shop.get(&format!("/order_status/{id}/events"));
        assert_eq!(events.status, 404, "{id}: {events:?}");
    }
    for path in ["/nothing", "/order_status", "/order_status/", "/checkout/", "/assets/", "//"] {
        refused(&shop.get(path), 404);
    }
}

fn an_address_takes_its_method_only(folder: &Folder) {
    let shop = Shop::open(folder);
    let rows = [
        ("GET", "/checkout".to_owned()),
        ("PUT", "/checkout".to_owned()),
        ("DELETE", "/checkout".to_owned()),
        ("PATCH", "/products".to_owned()),
        ("POST", format!("/order_status/{UNKNOWN}")),
        ("DELETE", format!("/order_status/{UNKNOWN}")),
        ("GET", format!("/retry_checkout/{UNKNOWN}")),
        ("POST", format!("/workflow_details/{UNKNOWN}")),
        ("POST", "/products".to_owned()),
        ("POST", "/orders/1".to_owned()),
        ("POST", "/health/live".to_owned()),
        ("POST", "/".to_owned()),
    ];
    for (method, path) in rows {
        refused(&shop.ask(method, &path, &[], None), 405);
    }
}

fn what_is_no_http_harms_nobody(folder: &Folder) {
    let shop = Shop::open(folder);
    let requests: [&[u8]; 5] = [
        b"\r\n\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"POST /checkout HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /checkout HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\
          Content-Type: application/json\r\n\r\nzz\r\n",
        b"GET /order_status/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for request in requests {
        let answer = raw(shop.address(), request);
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{}: {answer}", String::from_utf8_lossy(request));
    }
    assert_eq!(shop.get("/health/live").json, json!({"status": "live"}));
    assert_eq!(shop.get("/health/ready").json, json!({"status": "ready"}));
}
