//! The storefront in a real browser, at a desktop's width and at a phone's.
//!
//! Not part of `cargo test`, because it needs Chromium and its driver: see `Cargo.toml`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chromium;
#[path = "../shop/mod.rs"]
mod shop;

use chromium::{Browser, Width};
use shop::{Folder, Shop, checkout};

/// A shop that retries sooner than people would like.
fn shop(folder: &Folder) -> Shop {
    let workflow = folder
        .workflow(&[("base: 1000", "base: 300"), ("probe_interval: 5000", "probe_interval: 2000")]);
    Shop::open_with(folder, &["--workflow", workflow.to_str().unwrap()], "info")
}

/// Chooses what happens at the gateway, by its label.
fn choose(browser: &Browser, outcome: &str) {
    browser.click(&format!("//label[b[text()='{outcome}']]"));
}

fn pay(browser: &Browser) {
    browser.click("//button[@id='pay-button']");
}

fn buys_and_sees_it_done(width: Width) {
    let folder = Folder::new();
    let shop = shop(&folder);
    let browser = Browser::open("buys", width);
    browser.go(shop.address());
    browser.wait_for_text("//button[@id='pay-button']", "Pay 100.00");
    browser.fits();
    browser.screenshot("cart");
    browser.click("//button[@id='more-2']");
    browser.wait_for_text("//button[@id='pay-button']", "Pay 175.00");
    pay(&browser);
    browser.wait_for_text("//*[@id='order-state']", "Done");
    browser.wait_for_text("//*[@id='outcome']", "175.00 charged");
    browser.wait_for_text("//*[@id='outcome']", &folder.orders()[0].order_number);
    // The stock that the page shows is the stock that is left.
    browser.wait_for_text("//*[@id='stock-2']", "49 in stock");
    browser.fits();
    browser.screenshot("done");
    browser.has_no_faults();
    assert_eq!((folder.orders().len(), folder.mails().len()), (1, 1));
}

fn is_refused_sees_why_and_tries_again(width: Width) {
    let folder = Folder::new();
    let shop = shop(&folder);
    let browser = Browser::open("retries", width);
    browser.go(shop.address());
    browser.wait_for_text("//button[@id='pay-button']", "Pay 100.00");
    choose(&browser, "The gateway is down");
    pay(&browser);
    browser.wait_for_text("//*[@id='steps']", "Next attempt");
    browser.screenshot("waits");
    browser.wait_for_text("//*[@id='order-state']", "Failed");
    browser.wait_for_text("//*[@id='outcome']", "It failed: Take the payment");
    // The page begins a sentence with a capital letter.
    browser.wait_for_text("//*[@id='outcome']", "he payment gateway has a fault");
    browser.wait_for_text("//*[@id='outcome']", "GATEWAY_FAULT");
    browser.fits();
    browser.wait_until_in_sight("//*[@id='outcome']//button[text()='Retry']");
    browser.screenshot("failed");
    assert!(folder.orders().is_empty());
    browser.click("//*[@id='outcome']//button[text()='Retry']");
    browser.wait_for_text("//*[@id='order-state']", "Done");
    browser.wait_for_text("//*[@id='outcome']", "100.00 charged");
    browser.fits();
    browser.screenshot("retried");
    browser.has_no_faults();
    // The first payment was called off.
    let captures: i64 = folder.ledger().iter().map(|payment| payment.captures).sum();
    assert_eq!((folder.orders().len(), captures), (1, 1));
}

fn is_told_what_to_mend(width: Width) {
    let folder = Folder::new();
    let shop = shop(&folder);
    let browser = Browser::open("mends", width);
    browser.go(shop.address());
    browser.wait_for_text("//button[@id='pay-button']", "Pay 100.00");
    browser.fill("//input[@id='email']", "nobody");
    pay(&browser);
    browser.wait_for_text("//*[@id='email-fault']", "e-mail");
    browser.fits();
    browser.screenshot("fault");
    browser.fill("//input[@id='email']", "customer@example.com");
    choose(&browser, "Not enough funds");
    pay(&browser);
    browser.wait_for_text("//*[@id='outcome']", "he card has not enough funds");
    browser.screenshot("refused");
    browser.fill("//input[@id='email']", "nobody");
    pay(&browser);
    browser.wait_for_text("//*[@id='email-fault']", "e-mail");
    browser.wait_for_text("//*[@id='order-title']", "Your previous order");
    browser.screenshot("refused-beside-an-earlier-order");
    // Chromium itself reports the refusal of the requests.
    browser.has_no_faults_but("422");
    assert_eq!(folder.tasks().len(), 1);
}

/// Fills in who acts and why, and does it.
fn decide(browser: &Browser) {
    browser.fill("//input[@id='actor']", "ada");
    browser.fill("//input[@id='reason']", "the customer rang up");
    browser.fits();
    browser.screenshot("decides");
    browser.click("//button[@id='dialog-do']");
}

fn retries_a_failed_order_and_notes_its_escalation(width: Width) {
    let folder = Folder::new();
    let shop = shop(&folder);
    let order = shop.check_out(&checkout(1, 2, "test_outage_visa", 100.0));
    assert_eq!(shop.wait_for_end(&order)["refunded"], true);
    let browser = Browser::open("counter", width);
    browser.go(&format!("{}/admin", shop.address()));
    browser.wait_for_text("//*[@id='escalations']", "GATEWAY_FAULT");
    browser.click("//*[@id='escalations']//button[text()='Acknowledge']");
    decide(&browser);
    browser.wait_for_text("//*[@id='escalations']", "ada: the customer rang up");
    browser.click("//*[@id='escalations']//button[text()='See the order']");
    browser.wait_for_text("//*[@id='task-state']", "compensated");
    browser.wait_for_text("//*[@id='task-why']", "undone");
    browser.fits();
    browser.screenshot("order");
    browser.click("//*[@id='task-actions']/button[text()='Retry']");
    decide(&browser);
    browser.wait_for_text("//*[@id='task-state']", "complete");
    browser.wait_for_text("//*[@id='task-history']", "the customer rang up");
    browser.wait_for_text("//*[@id='escalations']", "Nobody is called for.");
    browser.fits();
    browser.screenshot("retried");
    browser.has_no_faults();
    assert_eq!(folder.orders().len(), 1);
}

fn sees_an_outage_and_its_end(width: Width) {
    let folder = Folder::new();
    let shop = shop(&folder);
    let browser = Browser::open("outage", width);
    browser.go(&format!("{}/admin", shop.address()));
    browser.wait_for_text("//*[@id='systems']", "payment_gateway");
    browser.click("//*[@id='gateway-switch']/button[text()='down']");
    browser.wait_for_text("//*[@id='gateway-mode']", "down");
    let order = || shop.check_out(&checkout(1, 1, "test_success_visa", 50.0));
    let orders: Vec<_> = (0..8).map(|_| order()).collect();
    browser.wait_for_text("//*[@id='systems']", "8 orders wait");
    browser.wait_for_text("//*[@id='systems']", "GATEWAY_UNREACHABLE");
    browser.wait_for_text("//*[@id='task-list']", "payment_gateway");
    browser.wait_for_text("//*[@id='escalations']", "payment_gateway");
    browser.fits();
    browser.screenshot("down");
    browser.click("//*[@id='gateway-switch']/button[text()='up']");
    for order in &orders {
        assert_eq!(shop.wait_for_end(order)["status"], "completed");
    }
    browser.wait_for_text("//*[@id='task-list']", "None.");
    browser.wait_for_text("//*[@id='gateway-mode']", "up");
    browser.screenshot("up");
    browser.has_no_faults();
    assert_eq!(folder.orders().len(), 8);
}

#[test]
fn a_person_at_a_desk_retries_a_failed_order_and_notes_its_escalation() {
    retries_a_failed_order_and_notes_its_escalation(Width::Desktop);
}

#[test]
fn a_person_on_a_phone_retries_a_failed_order_and_notes_its_escalation() {
    retries_a_failed_order_and_notes_its_escalation(Width::Phone);
}

#[test]
fn a_person_at_a_desk_sees_an_outage_and_its_end() {
    sees_an_outage_and_its_end(Width::Desktop);
}

#[test]
fn a_person_on_a_phone_sees_an_outage_and_its_end() {
    sees_an_outage_and_its_end(Width::Phone);
}

#[test]
fn a_customer_at_a_desk_buys_and_sees_it_done() {
    buys_and_sees_it_done(Width::Desktop);
}

#[test]
fn a_customer_on_a_phone_buys_and_sees_it_done() {
    buys_and_sees_it_done(Width::Phone);
}

#[test]
fn a_customer_at_a_desk_is_refused_sees_why_and_tries_again() {
    is_refused_sees_why_and_tries_again(Width::Desktop);
}

#[test]
fn a_customer_on_a_phone_is_refused_sees_why_and_tries_again() {
    is_refused_sees_why_and_tries_again(Width::Phone);
}

#[test]
fn a_customer_at_a_desk_is_told_what_to_mend() {
    is_told_what_to_mend(Width::Desktop);
}

#[test]
fn a_customer_on_a_phone_is_told_what_to_mend() {
    is_told_what_to_mend(Width::Phone);
}
