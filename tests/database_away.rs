//! The database server is killed under a shop of several processes: customers are told so in time,
//! no process gives up, and what was acknowledged is delivered when the server is back.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;
use tasker_postgres_kit::{Server, Settings};

use shop::{Answer, DEADLINE, Folder, Shop, block_on, checkout, poll};

/// In which everybody hears something, whatever the database does.
const IN_TIME: Duration = Duration::from_secs(5);
const KILLS: usize = 3;

fn place(web: &Shop, number: usize) -> Answer {
    let body = checkout(5, 1, "test_success_visa", 7.5).to_string();
    let key = format!("order-{number}");
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", &key)];
    web.ask("POST", "/checkout", &headers, Some(body.as_bytes()))
}

fn is_ready(web: &Shop) -> bool {
    web.get("/health/ready").status == 200
}

#[test]
fn while_the_database_is_away_customers_hear_so_and_no_order_is_lost() {
    let mut server = block_on(Server::start(Settings::default())).unwrap();
    let folder = block_on(Folder::on(&server));
    let options = ["--lease", "1000", "--gateway-latency", "60"];
    let start = |role| {
        let mut command = folder.command();
        command.args(options).args(["--role", role]).env("RUST_LOG", "info");
        Shop::start(command)
    };
    let mut web = start("web");
    web.wait_until_open();
    let mut workers = [start("worker"), start("worker")];
    for worker in &workers {
        let works = worker.output().wait_for_line(DEADLINE, |it| it.contains("working on orders"));
        assert!(works.is_some(), "{}", worker.output());
    }

    let mut promised = BTreeSet::new();
    for kill in 0..KILLS {
        for number in 0..4 {
            let taken = place(&web, 10 * kill + number);
            assert_eq!(taken.status, 202, "{taken:?}");
            promised.insert(taken.json["task_id"].as_str().unwrap().to_owned());
        }
        let some = promised.first().unwrap();
        block_on(server.crash()).unwrap();
        // Sessions of a server that was killed may still end what they are about.
        assert!(poll(DEADLINE, || !is_ready(&web)), "the shop does not notice");
        let asked = [
            ("POST", "/checkout".to_owned()),
            ("GET", "/health/ready".to_owned()),
            ("GET", "/products".to_owned()),
            ("GET", format!("/order_status/{some}")),
            ("GET", format!("/workflow_details/{some}")),
            ("POST", format!("/retry_checkout/{some}")),
        ];
        for (method, path) in asked {
            let began = Instant::now();
            let answer = match path.as_str() {
                "/checkout" => place(&web, 10 * kill + 4),
                _ => web.ask(method, &path, &[], None),
            };
            assert!(began.elapsed() < IN_TIME, "{method} {path}: {:?}", began.elapsed());
            assert_eq!(answer.status, 503, "{method} {path}: {answer:?}");
            assert_eq!(answer.json["success"], false, "{answer:?}");
            assert!(answer.json["error"].is_string(), "{answer:?}");
        }
        assert_eq!(web.get("/health/live").json, json!({"status": "live"}));

        block_on(server.start_again()).unwrap();
        assert!(poll(DEADLINE, || is_ready(&web)), "the shop does not recover");
        // Who was turned away asks again under the same key.
        let taken = place(&web, 10 * kill + 4);
        assert_eq!(taken.status, 202, "{taken:?}");
        promised.insert(taken.json["task_id"].as_str().unwrap().to_owned());
    }

    assert_eq!(promised.len(), 5 * KILLS);
    for task in &promised {
        let end = web.wait_for_end(task);
        assert_eq!(end["status"], "completed", "{end}");
    }
    for process in workers.iter_mut().chain([&mut web]) {
        assert!(process.wait_for_exit(Duration::ZERO).is_none(), "a process has given up");
    }
    let payments = folder.ledger();
    assert_eq!((payments.len(), folder.orders().len()), (promised.len(), promised.len()));
    assert!(payments.iter().all(|payment| payment.captures == 1), "{payments:?}");
    let sold = i64::try_from(promised.len()).unwrap();
    assert_eq!((folder.stock()[&5], folder.reserved()[&5]), (500 - sold, sold));
}
