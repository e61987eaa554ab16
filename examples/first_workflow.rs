//! A first workflow. Run it twice: `cargo run --example first_workflow`.
use std::{error::Error, time::Duration};

use serde::{Deserialize, Serialize};
use tasker::{SqliteStore, StepContext, StepError, TaskRequest, TaskTemplate, Tasker, Workflow};
use tasker::{step_fn, typed_fn};

const SELL_TICKET: &str = "
name: sell_ticket
step_templates:
  - { name: hold_seat }
  - { name: charge_card, retry_limit: 5, backoff: { base: 200 } }
  - { name: send_ticket, depends_on_steps: [hold_seat, charge_card] }
";

#[derive(Serialize, Deserialize)]
struct Sale {
    show: String,
    price: u32,
}

async fn hold_seat(sale: Sale, _: StepContext) -> Result<String, StepError> {
    Ok(format!("{}, seat 7", sale.show))
}

async fn charge_card(sale: Sale, step: StepContext) -> Result<u32, StepError> {
    if step.attempt() < 3 {
        return Err(StepError::retryable("the bank does not answer")); // So it is tried again.
    }
    Ok(sale.price)
}

async fn send_ticket(step: StepContext) -> Result<String, StepError> {
    let seat: String = step.result_of("hold_seat")?;
    let paid: u32 = step.result_of("charge_card")?;
    Ok(format!("{seat}: {paid} paid"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sell_ticket = Workflow::new(TaskTemplate::from_yaml(SELL_TICKET)?)
        .step("hold_seat", typed_fn(hold_seat))
        .step("charge_card", typed_fn(charge_card))
        .step("send_ticket", step_fn(send_ticket));
    let store = SqliteStore::open("tickets.db").await?;
    let tasker = Tasker::builder(store).register(sell_ticket).build()?;
    let worker = tasker.worker().start();

    let sale = Sale { show: "Hamlet".to_owned(), price: 40 };
    let request = TaskRequest::new("sell_ticket", &sale)?.idempotency_key("sale-1");
    let sold = tasker.submit(request).await?; // From here on it is on the disk.
    let status = tasker.wait(sold.id, Duration::from_secs(30)).await?;
    for entry in tasker.history(sold.id).await?.unwrap_or_default() {
        println!("{} {} {}", entry.at, entry.event, entry.step.unwrap_or_default());
    }
    println!("{}: {:?}", status.state, status.step("send_ticket").and_then(|it| it.result.clone()));
    worker.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

#[cfg(test)]
#[test]
fn the_second_run_finds_what_the_first_has_done() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    std::env::set_current_dir(&directory)?;
    main()?;
    main()
}
