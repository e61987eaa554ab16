//! The storefront in a real browser, at a desktop's width and at a phone's.
//!
//! Not part of `cargo test`, because it needs Chromium and its driver: see `Cargo.toml`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod chromium;
#[path = "../shop/mod.rs"]
mod shop;

use chromium::{Browser, Width};
use shop::{Folder, Shop};

/// A shop that retries sooner than people would like.
fn shop(folder: &Folder) -> Shop {
    let workflow = folder.workflow(&[("base: 1000", "base: 300")]);
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
    assert_eq!((folder.orders().len(), folder.ledger()[0].captures), (1, 1));
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
