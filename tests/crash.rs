//! The shop is killed at random moments while customers keep buying: every order that was
//! acknowledged ends, and nothing happens twice.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

use shop::dice::Dice;
use shop::records::Row;
use shop::{CALM, DEADLINE, Folder, Shop, checkout, on_both_databases, poll};

/// Kills of the whole shop, one after the other.
const KILLS: usize = 50;
/// So many lives of the shop may pass without an order getting on, on a machine that has much else
/// to do. A task that loses ten workers in a row is given up, as promised.
const FRUITLESS: usize = 8;
/// Kills of one of two workers, at least and at most.
const WORKER_KILLS: usize = 16;
const MOST_WORKER_KILLS: usize = 200;
/// So many orders must have been under way when their worker was killed.
const INTERRUPTED: usize = 5;
const STEPS: i64 = 5;
/// The limits of the workflow, by the step's position.
const RETRY_LIMITS: [usize; STEPS as usize] = [3, 3, 2, 3, 5];

const OPTIONS: [&str; 4] = ["--lease", "1000", "--gateway-latency", "40"];
const LOG: &str = "info,ecommerce::console=debug";

/// What the customers pay with, and how it ends.
const TOKENS: [(&str, &str); 6] = [
    ("test_success_visa", "complete"),
    ("test_success_amex", "complete"),
    ("test_temp_fail_visa", "complete"),
    ("test_lost_answer_visa", "complete"),
    ("test_success_mastercard", "complete"),
    ("test_insufficient_funds", "compensated"),
];

/// Where the customers find the shop: it moves with every start.
#[derive(Default)]
struct Door {
    address: Mutex<String>,
    moved: Condvar,
}

impl Door {
    fn open_at(&self, address: &str) {
        address.clone_into(&mut self.address.lock().unwrap());
        self.moved.notify_all();
    }

    fn address(&self) -> String {
        self.address.lock().unwrap().clone()
    }

    /// Waits until the shop is elsewhere, or for a moment: the request may just have been unlucky.
    fn wait_for_move(&self, from: &str) {
        let address = self.address.lock().unwrap();
        let unmoved = |address: &mut String| *address == from;
        let moment = Duration::from_millis(50);
        drop(self.moved.wait_timeout_while(address, moment, unmoved).unwrap());
    }
}

/// The customers and what the shop has promised them.
#[derive(Default)]
struct Customers {
    door: Door,
    /// The task of every order that was acknowledged, and the state that it should end in.
    promised: Mutex<HashMap<String, &'static str>>,
    /// How many orders they want to place, and how many they have begun to.
    wanted: AtomicUsize,
    begun: AtomicUsize,
    gone: AtomicBool,
}

impl Customers {
    /// Buys one thing for every ticket, asking again under the same key until the shop says yes.
    fn buy(&self, tickets: &Mutex<mpsc::Receiver<()>>) {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_idle_connections(0)
            .timeout_global(Some(Duration::from_secs(10)))
            .build();
        let agent = ureq::Agent::from(config);
        loop {
            let ticket = tickets.lock().unwrap().recv();
            if ticket.is_err() {
                return;
            }
            let number = self.begun.fetch_add(1, Ordering::Relaxed);
            let (token, end) = TOKENS[number % TOKENS.len()];
            let body = checkout(5, 1, token, 7.5).to_string();
            let Some(task) = self.insist(&agent, number, &body) else { return };
            self.promised.lock().unwrap().insert(task.clone(), end);
            // Somebody who did not hear the answer asks once more.
            if number.is_multiple_of(3) {
                let again = self.insist(&agent, number, &body);
                assert!(again.is_none_or(|again| again == task), "another order for the same key");
            }
        }
    }

    fn insist(&self, agent: &ureq::Agent, number: usize, body: &str) -> Option<String> {
        while !self.gone.load(Ordering::Relaxed) {
            let address = self.door.address();
            let answer = agent
                .post(format!("{address}/checkout"))
                .header("Content-Type", "application/json")
                .header("Idempotency-Key", format!("order-{number}"))
                .send(body);
            match answer {
                Ok(mut answer) if answer.status() == 202 => {
                    // A kill may cut the answer off.
                    let text = answer.body_mut().read_to_string().unwrap_or_default();
                    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
                    if let Some(task) = answer["task_id"].as_str() {
                        return Some(task.to_owned());
                    }
                }
                Ok(answer) => assert_eq!(answer.status(), 503, "no other refusal is fair"),
                Err(_) => self.door.wait_for_move(&address),
            }
        }
        None
    }

    /// Runs `story` while customers buy what it [wants](Self::want).
    fn keep_buying(&self, story: impl FnOnce(&mpsc::Sender<()>)) {
        let (ticket, tickets) = mpsc::channel();
        let tickets = Mutex::new(tickets);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| self.buy(&tickets));
            }
            // A story that fails must not leave the customers waiting for a shop that is gone.
            let _leaves = Leaves(&self.gone);
            story(&ticket);
            drop(ticket);
        });
    }

    /// Four more orders.
    fn want(&self, ticket: &mpsc::Sender<()>) {
        self.wanted.fetch_add(4, Ordering::Relaxed);
        (0..4).for_each(|_| ticket.send(()).unwrap());
    }
}

struct Leaves<'a>(&'a AtomicBool);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

on_both_databases! {
    fifty_kills_lose_no_order_and_repeat_nothing,
    orders_survive_their_workers,
}

fn fifty_kills_lose_no_order_and_repeat_nothing(folder: &Folder) {
    let customers = Customers::default();
    let mut dice = Dice::new();
    let mut log = Vec::new();
    customers.keep_buying(|ticket| {
        for kill in 0..KILLS {
            let mut shop = Shop::start(shop_on(folder, "all"));
            let gets_on = kill % FRUITLESS == FRUITLESS - 1;
            // Some are killed while they open, the others while they work.
            if gets_on || dice.below(8) > 0 {
                shop.wait_until_open();
                customers.door.open_at(shop.address());
                if gets_on {
                    wait_for_all(folder, &customers);
                }
                customers.want(ticket);
            }
            let moment = Duration::from_micros(dice.below(900_000));
            let ended = shop.wait_for_exit(moment);
            assert!(ended.is_none(), "the shop ended by itself before kill {kill}: {ended:?}");
            shop.kill();
            log.extend(shop.output().lines());
        }
        let mut shop = Shop::start(shop_on(folder, "all"));
        shop.wait_until_open();
        customers.door.open_at(shop.address());
        wait_for_all(folder, &customers);
        customers_are_told(&shop, &customers);
        shop.kill();
        log.extend(shop.output().lines());
    });
    nothing_was_lost_or_repeated(folder, &customers);
    no_step_starts_after_its_end(&log);
}

fn orders_survive_their_workers(folder: &Folder) {
    let customers = Customers::default();
    let mut dice = Dice::new();
    customers.keep_buying(|ticket| {
        let mut web = Shop::start(shop_on(folder, "web"));
        web.wait_until_open();
        customers.door.open_at(web.address());
        let mut workers = [(); 2].map(|()| Shop::start(shop_on(folder, "worker")));
        for kills in 0.. {
            if kills >= WORKER_KILLS && interrupted(folder) >= INTERRUPTED {
                break;
            }
            assert!(kills < MOST_WORKER_KILLS, "the kills meet too few orders under way");
            customers.want(ticket);
            let victim = &mut workers[usize::try_from(dice.below(2)).unwrap()];
            let ended = victim.wait_for_exit(Duration::from_micros(dice.below(200_000)));
            assert!(ended.is_none(), "a worker ended by itself: {ended:?}");
            victim.kill();
            *victim = Shop::start(shop_on(folder, "worker"));
        }
        wait_for_all(folder, &customers);
        customers_are_told(&web, &customers);
    });
    nothing_was_lost_or_repeated(folder, &customers);
}

/// How many orders lost their workers and were taken over so far.
fn interrupted(folder: &Folder) -> usize {
    folder.history().iter().filter(|row| row.kind == "worker_lost").count()
}

fn shop_on(folder: &Folder, role: &str) -> std::process::Command {
    let workflow = folder.workflow(&CALM);
    let mut shop = folder.command();
    shop.args(OPTIONS).args(["--role", role]).arg("--workflow").arg(workflow).env("RUST_LOG", LOG);
    shop
}

/// Waits until every order that somebody wanted is acknowledged and has ended.
fn wait_for_all(folder: &Folder, customers: &Customers) {
    let began = Instant::now();
    let mut tasks = BTreeMap::new();
    let all = poll(DEADLINE, || {
        tasks = folder.tasks();
        let ended =
            tasks.values().filter(|state| matches!(state.as_str(), "complete" | "compensated"));
        let ended = ended.count();
        let promised = customers.promised.lock().unwrap().len();
        promised == customers.wanted.load(Ordering::Relaxed) && ended == tasks.len()
    });
    assert!(all, "after {:?} these are not over: {tasks:?}", began.elapsed());
}

/// Every customer who asks hears of the end of the order.
fn customers_are_told(shop: &Shop, customers: &Customers) {
    for (task, end) in customers.promised.lock().unwrap().iter() {
        let status = shop.order_status(task);
        let word = if *end == "complete" { "completed" } else { "failed" };
        assert_eq!(status["status"], word, "{task}: {status}");
        if word == "completed" {
            assert_eq!(
                (&status["degraded"], &status["total_amount"]),
                (&false.into(), &7.5.into())
            );
        }
    }
}

fn nothing_was_lost_or_repeated(folder: &Folder, customers: &Customers) {
    let promised = customers.promised.lock().unwrap();
    let paid = promised.values().filter(|end| **end == "complete").count();
    let plain = |task: &str| task.replace('-', "");
    let expected: BTreeMap<String, String> =
        promised.iter().map(|(task, end)| (plain(task), (*end).to_owned())).collect();
    assert_eq!(folder.tasks(), expected, "every key is one order, and ended as it should");

    let payments = folder.ledger();
    let captured: HashSet<_> =
        payments.iter().filter(|one| one.captures == 1).map(|one| one.payment_id.clone()).collect();
    assert!(payments.iter().all(|one| one.captures <= 1 && one.amount == "7.50"), "{payments:?}");
    assert_eq!(captured.len(), paid, "one charge for every order");

    let orders = folder.orders();
    let charged: HashSet<_> = orders.iter().map(|order| order.payment_id.clone()).collect();
    assert_eq!((orders.len(), &charged), (paid, &captured), "each order has a charge of its own");
    for order in &orders {
        assert_eq!(promised.get(&order.task_id), Some(&"complete"), "{order:?}");
    }

    let sold = i64::try_from(paid).unwrap();
    assert_eq!((folder.stock()[&5], folder.reserved()[&5]), (500 - sold, sold));
    let mails: HashSet<_> = folder.mails().into_keys().collect();
    let numbers: HashSet<_> = orders.iter().map(|order| order.order_number.clone()).collect();
    assert_eq!(mails, numbers, "one mail for every order");

    let rows = folder.history();
    let lost = interrupted(folder);
    println!("{} orders, {lost} of them interrupted", expected.len());
    assert!(lost >= INTERRUPTED, "the kills met too few orders under way: {lost}");
    let mut logs: HashMap<(String, i64), Vec<Row>> = HashMap::new();
    for row in rows {
        logs.entry((row.task.clone(), row.step)).or_default().push(row);
    }
    for ((task, step), rows) in &logs {
        let kinds: Vec<_> = rows.iter().map(|row| row.kind.as_str()).collect();
        assert!(!kinds.contains(&"quarantined"), "{task}: {kinds:?}");
        let Ok(position) = usize::try_from(*step) else { continue };
        if expected[task] == "compensated" && position == 1 {
            // Refused once, and called off once.
            assert_eq!(kinds, ["failed", "compensated"], "{task}");
            continue;
        }
        let (last, before) = kinds.split_last().unwrap();
        assert!(before.iter().all(|kind| *kind == "failed"), "step {step} of {task}: {kinds:?}");
        let attempts: Vec<_> = rows.iter().map(|row| row.attempt).collect();
        let counted: Vec<_> = (1..).take(attempts.len()).collect();
        assert_eq!(attempts, counted, "attempts of step {step} of {task}: {kinds:?}");
        assert!(attempts.len() <= RETRY_LIMITS[position], "step {step} of {task}: {kinds:?}");
        assert_eq!(*last, "completed", "step {step} of {task}: {kinds:?}");
    }
    for (task, end) in &expected {
        let steps = (0..STEPS).filter(|step| logs.contains_key(&(task.clone(), *step))).count();
        assert_eq!(steps, if end == "complete" { 5 } else { 2 }, "steps of {task}");
    }
}

/// A step whose success was told is never started again, by no later life of the shop.
fn no_step_starts_after_its_end(log: &[String]) {
    let field = |line: &str, name: &str| {
        let after = line.split_once(name).unwrap().1;
        after.split_whitespace().next().unwrap().to_owned()
    };
    let mut complete = HashSet::new();
    for line in log.iter().filter(|line| line.contains(" step=")) {
        let step = (field(line, " task="), field(line, " step="));
        if line.contains("step complete") {
            assert!(complete.insert(step), "completed twice: {line}");
        } else if line.contains("step started") {
            assert!(!complete.contains(&step), "ran again after its completion: {line}");
        }
    }
    assert!(complete.len() > 100, "{} steps were told", complete.len());
}
