//! How the shop ends: when it is asked to, and when it cannot even start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod shop;

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use shop::{DEADLINE, Folder, Shop, WORKFLOW, checkout, command};

/// The shop lets running steps finish for ten seconds, and then tidies up.
const GRACE: Duration = Duration::from_secs(10);

/// A shop with an order whose payment hangs and is not given up for a minute.
fn shop_with_a_hanging_payment(folder: &Folder) -> (Shop, String) {
    let workflow = folder.workflow(&[("timeout: 5000", "timeout: 60000")]);
    let workflow = workflow.to_str().unwrap().to_owned();
    let shop = Shop::open_with(folder, &["--workflow", &workflow], "info,ecommerce::console=debug");
    let task = shop.check_out(&checkout(1, 1, "test_hang_gateway", 50.0));
    wait_for_payment(&shop);
    (shop, task)
}

fn wait_for_payment(shop: &Shop) {
    let started = shop.output().wait_for_line(DEADLINE, |line| {
        line.contains("step started") && line.contains("process_payment")
    });
    assert!(started.is_some(), "the payment does not start");
}

#[test]
fn a_payment_that_hangs_costs_no_attempt_at_ctrl_c() {
    close_with_a_hanging_payment(Signal::INT);
}

#[test]
fn a_payment_that_hangs_costs_no_attempt_at_sigterm() {
    close_with_a_hanging_payment(Signal::TERM);
}

fn close_with_a_hanging_payment(signal: Signal) {
    let folder = Folder::new();
    let (mut shop, task) = shop_with_a_hanging_payment(&folder);
    shop.signal(signal);
    let status = shop.wait_for_exit(GRACE + DEADLINE).expect("the shop closes");
    assert_eq!(status.code(), Some(0));
    assert!(shop.output().lines().iter().any(|line| line.contains("the shop is closed")));
    drop(shop);

    // The payment was given back: nobody has to wait for a lease to run out.
    assert_eq!(folder.owned_tasks(), 0);
    let shop = Shop::open_with(&folder, &[], "info,ecommerce::console=debug");
    wait_for_payment(&shop);
    let details = shop.details(&task);
    assert_eq!(details["steps"][1]["attempts"], 0, "no attempt is counted: {details}");
    assert_eq!(details["steps"][1]["state"], "in_progress");
    let history = details["history"].as_array().unwrap();
    let payment = history.iter().filter(|entry| entry["step"] == "process_payment");
    assert_eq!(payment.count(), 0, "{details}");
    let validated = history.iter().filter(|entry| entry["step"] == "validate_cart");
    assert_eq!(validated.count(), 1, "what was done is not done again: {details}");
}

#[test]
fn a_step_that_ends_in_time_is_recorded_before_the_shop_closes() {
    let folder = Folder::new();
    let mut shop =
        Shop::open_with(&folder, &["--gateway-latency", "700"], "info,ecommerce::console=debug");
    let task = shop.check_out(&checkout(1, 1, "test_success_visa", 50.0));
    wait_for_payment(&shop);
    shop.signal(Signal::TERM);
    let status = shop.wait_for_exit(GRACE + DEADLINE).expect("the shop closes");
    assert_eq!(status.code(), Some(0));
    drop(shop);
    let shop = Shop::open(&folder);
    assert_eq!(shop.wait_for_end(&task)["status"], "completed");
    let payments = folder.ledger();
    let [payment] = payments.as_slice() else { panic!("{payments:?}") };
    assert_eq!((payment.requests, payment.captures), (1, 1), "the payment was not asked for twice");
}

#[test]
fn a_second_signal_leaves_at_once_and_loses_nothing() {
    let folder = Folder::new();
    let (mut shop, task) = shop_with_a_hanging_payment(&folder);
    shop.signal(Signal::INT);
    let closing = shop.output().wait_for_line(DEADLINE, |line| line.contains("closing the shop"));
    assert!(closing.is_some());
    let asked = Instant::now();
    shop.signal(Signal::INT);
    let status = shop.wait_for_exit(DEADLINE).expect("the shop leaves");
    assert_eq!(status.code(), Some(130));
    assert!(asked.elapsed() < GRACE, "it waited for the payment");
    drop(shop);
    let shop = Shop::open_with(&folder, &[], "info,ecommerce::console=debug");
    wait_for_payment(&shop);
    assert_eq!(shop.details(&task)["steps"][1]["attempts"], 0);
}

#[test]
fn a_closing_shop_lets_go_of_who_watches_an_order() {
    let folder = Folder::new();
    let mut shop = Shop::open(&folder);
    let task = shop.check_out(&checkout(1, 1, "test_hang_gateway", 50.0));
    let address = shop.address().to_owned();
    let (begun, begins) = std::sync::mpsc::channel();
    let watcher = std::thread::spawn(move || {
        use std::io::Read as _;
        let path = format!("{address}/order_status/{task}/events");
        let mut stream = ureq::get(path).call().unwrap().into_body().into_reader();
        let mut first = [0; 5];
        stream.read_exact(&mut first).unwrap();
        begun.send(first).unwrap();
        stream.read_to_end(&mut Vec::new()).is_ok()
    });
    assert_eq!(&begins.recv_timeout(DEADLINE).unwrap(), b"data:");
    shop.signal(Signal::TERM);
    let status = shop.wait_for_exit(GRACE + DEADLINE).expect("the shop closes");
    assert_eq!(status.code(), Some(0));
    assert!(watcher.join().unwrap(), "the stream ends and does not break off");
    let cut_off = shop.output().lines().iter().any(|line| line.contains("cut off"));
    assert!(!cut_off, "nothing had to be cut off");
}

/// Starts a shop that must refuse to; gives all that it prints.
fn refusal(arguments: &[&str], folder: &std::path::Path) -> String {
    let mut command = command(folder);
    let mut shop = Shop::start({
        command.args(arguments);
        command
    });
    let status = shop.wait_for_exit(DEADLINE).expect("the shop gives up");
    assert!(status.code().is_some_and(|code| code != 0), "{status:?}");
    let told = shop.output().to_string();
    assert!(!told.contains("panicked"), "{told}");
    told
}

#[test]
fn a_port_in_use_is_told_and_nothing_is_touched() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let folder = Folder::new();
    let mut command = std::process::Command::new(command(folder.path()).get_program());
    command.args(["--port", &port, "--data-dir"]).arg(folder.path().join("data"));
    let mut shop = Shop::start(command);
    let status = shop.wait_for_exit(DEADLINE).expect("the shop gives up");
    assert_eq!(status.code(), Some(1));
    let told = shop.output().to_string();
    assert!(told.contains(&format!("port {port} is in use")) && told.contains("--port"), "{told}");
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_broken_workflow_is_told_with_file_line_and_column() {
    let folder = Folder::new();
    let line_of = |text: &str| 1 + WORKFLOW.lines().position(|line| line.contains(text)).unwrap();
    let rows = [
        ("name: update_inventory", "nam: update_inventory", line_of("name: update_inventory")),
        ("retry_limit: 2", "retry_limit: two", line_of("retry_limit: 2")),
        (
            "depends_on_step: create_order",
            "depends_on_step: nobody",
            line_of("depends_on_step: create_order"),
        ),
        (
            "    description: Reserve the items",
            "   description: Reserve the items",
            line_of("Reserve the items"),
        ),
    ];
    for (old, new, line) in rows {
        let file = folder.workflow(&[(old, new)]);
        let file = file.to_str().unwrap();
        let told = refusal(&["--workflow", file], folder.path());
        let place = format!("{file}:{line}:");
        let place_at = told.find(&place).unwrap_or_else(|| panic!("{new}: no {place} in: {told}"));
        let column = told[place_at + place.len()..].split(|it: char| !it.is_ascii_digit()).next();
        assert!(column.is_some_and(|column| !column.is_empty()), "{told}");
    }
    let told = refusal(&["--workflow", "nowhere.yaml"], folder.path());
    assert!(told.contains("nowhere.yaml"), "{told}");
}

#[test]
fn a_folder_that_cannot_be_used_is_told() {
    let folder = Folder::new();
    let file = folder.path().join("a_file");
    std::fs::write(&file, "").unwrap();
    let told = refusal(&[], &file);
    assert!(told.contains("a_file"), "{told}");

    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("tasker.db"), "this is no database, it only has its name").unwrap();
    let told = refusal(&[], &foreign);
    assert!(told.contains("tasker.db"), "{told}");

    let locked = folder.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Permissions do not hold for root: then there is nothing to be refused.
    if std::fs::write(locked.join("probe"), "").is_err() {
        let told = refusal(&[], &locked);
        assert!(told.contains("locked"), "{told}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_told() {
    let folder = Folder::new();
    let rows = [
        (["--role", "cook"], "cook"),
        (["--gateway-latency", "soon"], "soon"),
        (["--database-url", "mysql://localhost"], "--database-url"),
        (["--database-url", "postgres://localhost:1/shop"], "no connection can be made"),
        (["--smtp-url", "nonsense"], "--smtp-url"),
        (["--lease", "499"], "from 500"),
    ];
    for (arguments, named) in rows {
        let told = refusal(&arguments, folder.path());
        assert!(told.contains(named), "{arguments:?}: {told}");
    }
}

#[test]
fn a_log_filter_that_makes_no_sense_is_told_once_and_keeps_nobody_from_shopping() {
    let folder = Folder::new();
    let shop = Shop::open_with(&folder, &[], "shop=loud");
    let told = shop.output().lines();
    assert_eq!(told.iter().filter(|line| line.contains("RUST_LOG")).count(), 1, "{told:?}");
}
