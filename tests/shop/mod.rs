//! The real shop as its customers meet it: a process of its own on a data folder of its own, and
//! if so wished on a PostgreSQL database of its own.
//!
//! [`Folder`] is what survives a kill, [`Shop`] is one process on it, [`Answer`] is what the
//! process said over HTTP. What folder and database then hold is read in [`records`].
#![allow(dead_code, reason = "every test that includes this module uses a part of it")]

pub(crate) mod dice;
pub(crate) mod output;
pub(crate) mod records;

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tasker_postgres_kit::{Database, Server};
use ureq::http::Request;

use output::Output;

/// Far longer than anything takes, however busy the machine is.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The workflow that the shop runs unless it is told another one.
pub(crate) const WORKFLOW: &str =
    include_str!("../../examples/ecommerce/config/order_processing.yaml");

/// Makes the gateway be taken for dead after many more calls than a test makes.
pub(crate) const CALM: [(&str, &str); 2] =
    [("minimum_calls: 5", "minimum_calls: 1000"), ("window_calls: 10", "window_calls: 1000")];

/// Makes a test of each claim for either database: `fn claim(folder: &Folder)`.
#[allow(unused_macros, reason = "some tests are about one database")]
macro_rules! on_both_databases {
    ($($claim:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[test]
            fn $claim() {
                super::$claim(&crate::shop::Folder::new());
            })+
        }

        mod on_postgres {
            $(#[test]
            fn $claim() {
                super::$claim(&crate::shop::Folder::on_postgres());
            })+
        }
    };
}
#[allow(unused_imports, reason = "some tests are about one database")]
pub(crate) use on_both_databases;

/// The data of a shop: outlives its processes, and goes when the test ends.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    /// Without one, the data is in SQLite files in the folder.
    database: Option<Database>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), database: None }
    }

    /// With an empty database of the server that the tests share.
    pub(crate) fn on_postgres() -> Self {
        block_on(async { Self::on(Server::shared().await.unwrap()).await })
    }

    /// With an empty database of a server.
    pub(crate) async fn on(server: &Server) -> Self {
        Self { database: Some(server.database().await.unwrap()), ..Self::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A command that would start the shop on this data.
    pub(crate) fn command(&self) -> Command {
        let mut command = command(self.path());
        if let Some(database) = &self.database {
            command.env("DATABASE_URL", database.url());
        }
        command
    }

    /// A workflow file beside the data: the shop's own one with some text replaced.
    pub(crate) fn workflow(&self, replaced: &[(&str, &str)]) -> PathBuf {
        let mut yaml = WORKFLOW.to_owned();
        for (old, new) in replaced {
            assert!(yaml.contains(old), "the workflow has no `{old}`");
            yaml = yaml.replace(old, new);
        }
        let file = self.path().join("workflow.yaml");
        // In one go: another process may be reading the one that is there.
        let written = tempfile::NamedTempFile::new_in(self.path()).unwrap();
        std::fs::write(written.path(), yaml).unwrap();
        written.persist(&file).unwrap();
        file
    }
}

/// A command that would start the shop on a folder.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(executable());
    command.arg("--data-dir").arg(folder).args(["--port", "0"]).stdin(Stdio::null());
    for variable in ["DATABASE_URL", "SMTP_URL", "TASKER_ENV", "RUST_LOG", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

/// `<target>/<profile>/examples/ecommerce`, beside the `deps` folder that this test runs from.
///
/// Built here, because `cargo test` does not: it compiles an example whose unit tests it runs with
/// those tests alone. The features are those of the command in the README, so that there is nothing
/// to do after it but to link.
fn executable() -> &'static Path {
    static EXECUTABLE: OnceLock<PathBuf> = OnceLock::new();
    EXECUTABLE.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--quiet", "--workspace", "--all-features", "--example", "ecommerce"]);
        build.arg("--target-dir").arg(profile.parent().unwrap());
        // What cargo tells a test of its package; some build scripts would run again for it.
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        for (name, _) in std::env::vars_os() {
            if told.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                build.env_remove(name);
            }
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status();
        assert!(built.is_ok_and(|status| status.success()), "{build:?} has failed");
        profile.join("examples/ecommerce")
    })
}

/// A running shop; killed when dropped, and its output shown if the test has failed.
pub(crate) struct Shop {
    child: Child,
    output: Output,
    address: String,
    agent: ureq::Agent,
    said: Mutex<Vec<String>>,
}

/// What the shop answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    /// The body if it is JSON, else `null`.
    pub(crate) json: Value,
    pub(crate) text: String,
}

impl Shop {
    /// Opens the shop on a folder and waits until it answers.
    pub(crate) fn open(folder: &Folder) -> Self {
        Self::open_with(folder, &[], "info")
    }

    pub(crate) fn open_with(folder: &Folder, arguments: &[&str], log: &str) -> Self {
        let mut command = folder.command();
        command.args(arguments).env("RUST_LOG", log);
        let mut shop = Self::start(command);
        shop.wait_until_open();
        shop
    }

    /// Starts a process and does not wait for it.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the shop starts");
        let output = Output::of(&mut child);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The shop closes a connection on which it has refused a body, and who writes on it at
            // that moment cannot know.
            .max_idle_connections(0)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let said = Mutex::default();
        Self { child, output, address: String::new(), agent: config.into(), said }
    }

    /// Waits for the address that the shop prints when it listens.
    pub(crate) fn wait_until_open(&mut self) {
        let line = self.output.wait_for_line(DEADLINE, |line| line.starts_with("listening on "));
        let line = line.unwrap_or_else(|| panic!("the shop does not open:\n{}", self.output));
        self.address = line.trim_start_matches("listening on ").to_owned();
    }

    /// `http://127.0.0.1:PORT`
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What it has printed so far.
    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// Everything that it has answered, headers included.
    pub(crate) fn answers(&self) -> Vec<String> {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, body.to_string())
    }

    pub(crate) fn post_text(&self, path: &str, body: impl AsRef<[u8]>) -> Answer {
        self.ask("POST", path, &[("Content-Type", "application/json")], Some(body.as_ref()))
    }

    /// A request that must be answered.
    pub(crate) fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let asked = self.try_to_ask(method, path, headers, body);
        asked.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// A request that may get no answer.
    pub(crate) fn try_to_ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Answer, ureq::Error> {
        let (answer, head) = ask(&self.agent, &self.address, method, path, headers, body)?;
        self.said.lock().unwrap().push(format!("{head}\n{}", answer.text));
        Ok(answer)
    }

    /// Sends a checkout that must be taken; gives the id of its task.
    pub(crate) fn check_out(&self, checkout: &Value) -> String {
        let answer = self.post("/checkout", checkout);
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json["task_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn order_status(&self, task: &str) -> Value {
        let answer = self.get(&format!("/order_status/{task}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json
    }

    /// Asks for the status of an order until it is as wished.
    pub(crate) fn wait_for(&self, task: &str, wished: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let found = poll(DEADLINE, || {
            last = self.order_status(task);
            wished(&last)
        });
        assert!(found, "the order {task} does not get there: {last}");
        last
    }

    /// The status of an order when it has ended.
    pub(crate) fn wait_for_end(&self, task: &str) -> Value {
        self.wait_for(task, |status| status["status"] != "processing")
    }

    /// Every step, attempt and result on record.
    pub(crate) fn details(&self, task: &str) -> Value {
        let answer = self.get(&format!("/workflow_details/{task}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json
    }

    /// What is left of a product, as the shop tells it.
    pub(crate) fn stock(&self, product: u32) -> u64 {
        let products = self.get("/products").json;
        let listed = products.as_array().unwrap().iter();
        let found = listed.into_iter().find(|one| one["product_id"] == product).unwrap();
        found["available"].as_u64().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the shop is there to get a signal");
    }

    /// SIGKILL: the process has no say in it.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.output.wait_for_end();
    }

    /// Waits at most so long for the process to end by itself.
    pub(crate) fn wait_for_exit(&mut self, at_most: Duration) -> Option<ExitStatus> {
        let mut status = None;
        poll(at_most, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        if status.is_some() {
            self.output.wait_for_end();
        }
        status
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.output.wait_for_end();
        if std::thread::panicking() {
            let lines = self.output.lines();
            let last = lines[lines.len().saturating_sub(100)..].join("\n");
            eprintln!("--- the last that the shop said:\n{last}\n---");
        }
    }
}

fn ask(
    agent: &ureq::Agent,
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Result<(Answer, String), ureq::Error> {
    let mut request = Request::builder().method(method).uri(format!("{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = match body {
        Some(body) => agent.run(request.body(body)?)?,
        None => agent.run(request.body(())?)?,
    };
    let location = response.headers().get("location");
    let location = location.map(|value| value.to_str().unwrap().to_owned());
    let head = format!("{:?}", response.headers());
    let text = response.body_mut().read_to_string()?;
    let json = serde_json::from_str(&text).unwrap_or_default();
    Ok((Answer { status: response.status().as_u16(), location, json, text }, head))
}

/// The content of a request to check out one product.
pub(crate) fn checkout(product: u32, quantity: u32, token: &str, amount: f64) -> Value {
    json!({"checkout": {
        "cart_items": [{"product_id": product, "quantity": quantity}],
        "payment_info": {"token": token, "amount": amount},
        "customer_info": {"email": "test@example.com", "name": "Test Customer"},
    }})
}

/// Asks until it is so; `false` when the time is up.
pub(crate) fn poll(at_most: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + at_most;
    loop {
        if is_so() {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        std::thread::park_timeout(left.min(Duration::from_millis(20)));
    }
}

/// Runs something that has to do with a server, in a test that is none of its runtime's business.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

/// A request as raw bytes, for what no HTTP client would send; gives the whole answer.
pub(crate) fn raw(address: &str, request: &[u8]) -> String {
    use std::io::{Read as _, Write as _};
    let mut stream = TcpStream::connect(address.trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
