//! A payment taken once, whatever happens to the requests and the answers.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use super::*;

pub(super) const PRICE: Money = Money::from_cents(10_000);

pub(super) fn token(text: &str) -> PaymentToken {
    serde_json::from_value(text.into()).expect("a token")
}

pub(super) async fn gateway(folder: &tempfile::TempDir) -> Gateway {
    let ledger = folder.path().join("gateway.db");
    Gateway::open(&ledger, Duration::ZERO).await.expect("a ledger")
}

#[tokio::test]
async fn a_repeat_finds_the_same_charge_even_in_another_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let visa = token("test_success_visa");
    let mut charges = Vec::new();
    for _ in 0..3 {
        let gateway = gateway(&folder).await;
        gateway.authorise("key", &visa, PRICE).await.expect("granted");
        charges.push(gateway.capture("key", &visa).await.expect("taken"));
    }
    assert_eq!(charges[0].amount_charged, PRICE);
    assert!(charges.iter().all(|charge| *charge == charges[0]), "{charges:?}");
}

#[tokio::test]
async fn money_whose_answer_was_lost_is_found_by_the_repeat() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = gateway(&folder).await;
    let forgetful = token("test_lost_answer_visa");
    gateway.authorise("key", &forgetful, PRICE).await.expect("granted");
    let lost = gateway.capture("key", &forgetful).await;
    assert!(matches!(lost, Err(GatewayError::AnswerLost)), "{lost:?}");
    gateway.authorise("key", &forgetful, PRICE).await.expect("still granted");
    let found = gateway.capture("key", &forgetful).await.expect("found");
    assert_eq!(found.amount_charged, PRICE);
}

#[tokio::test]
async fn a_voided_authorisation_cannot_be_captured() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = gateway(&folder).await;
    let visa = token("test_success_visa");
    gateway.authorise("key", &visa, PRICE).await.expect("granted");
    gateway.void("key").await.expect("voided");
    let taken = gateway.capture("key", &visa).await;
    assert!(matches!(taken, Err(GatewayError::NotAuthorised)), "{taken:?}");
}

#[tokio::test]
async fn a_temporary_failure_ends_after_two_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = gateway(&folder).await;
    let shaky = token("test_temp_fail_visa");
    for _ in 0..2 {
        let refused = gateway.authorise("key", &shaky, PRICE).await;
        assert!(matches!(refused, Err(GatewayError::Faulty)), "{refused:?}");
    }
    gateway.authorise("key", &shaky, PRICE).await.expect("granted");
}

#[tokio::test]
async fn a_key_is_good_for_one_amount() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = gateway(&folder).await;
    let visa = token("test_success_visa");
    gateway.authorise("key", &visa, PRICE).await.expect("granted");
    let other = gateway.authorise("key", &visa, PRICE * 2).await;
    assert!(matches!(other, Err(GatewayError::KeyReused)), "{other:?}");
}

#[tokio::test]
async fn a_voided_payment_may_be_asked_for_with_another_amount() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = gateway(&folder).await;
    let visa = token("test_success_visa");
    gateway.authorise("key", &visa, PRICE * 2).await.expect("granted");
    gateway.void("key").await.expect("voided");
    gateway.authorise("key", &visa, PRICE).await.expect("granted anew");
    assert_eq!(gateway.capture("key", &visa).await.expect("taken").amount_charged, PRICE);
}

#[tokio::test]
async fn no_ledger_row_holds_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = gateway(&folder).await;
    let visa = token("test_success_visa_4242");
    gateway.authorise("key", &visa, PRICE).await.expect("granted");
    gateway.ledger.close().await;
    let bytes = std::fs::read(folder.path().join("gateway.db")).expect("a ledger");
    let needle = visa.reveal().as_bytes();
    assert!(!bytes.windows(needle.len()).any(|window| window == needle));
}
