//! A headless Chromium, driven over WebDriver: as much of the protocol as these tests speak.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::shop::output::Output;
use crate::shop::{DEADLINE, poll};

/// The name under which WebDriver gives an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// How wide the window is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Width {
    Desktop,
    Phone,
}

/// A browser with a profile of its own; closed when dropped.
pub(crate) struct Browser {
    driver: Child,
    output: Output,
    session: String,
    agent: ureq::Agent,
    name: String,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Opens a browser; its screenshots bear `name`.
    pub(crate) fn open(name: &str, width: Width) -> Self {
        let mut driver = Command::new("chromedriver")
            .args(["--port=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("chromedriver is needed, as in Debian's package chromium-driver");
        let output = Output::of(&mut driver);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(DEADLINE))
            .build();
        let name = format!("{name}-{width:?}").to_lowercase();
        let profile = tempfile::tempdir().unwrap();
        let session = String::new();
        let agent = config.into();
        let mut browser = Self { driver, output, session, agent, name, profile };
        let line =
            browser.output.wait_for_line(DEADLINE, |line| line.contains("successfully on port "));
        let line = line.expect("chromedriver says where it is");
        let port = line.rsplit("on port ").next().unwrap().trim_end_matches('.').to_owned();
        browser.session = format!("http://127.0.0.1:{port}/session");
        let opened = browser.command("POST", "", &browser.capabilities(width));
        let id = opened["sessionId"].as_str().expect("a session");
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    fn capabilities(&self, width: Width) -> Value {
        let mut options = json!({"args": [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-dev-shm-usage", "--window-size=1280,900",
            format!("--user-data-dir={}", self.profile.path().display()),
        ]});
        if let Width::Phone = width {
            // A window is never narrower than 500 pixels; a phone is.
            let screen = json!({"width": 390, "height": 844, "pixelRatio": 2.0, "touch": true});
            options["mobileEmulation"] = json!({"deviceMetrics": screen});
        }
        json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }}})
    }

    pub(crate) fn go(&self, url: &str) {
        self.command("POST", "/url", &json!({"url": url}));
    }

    /// Clicks what an XPath finds, once it is there.
    pub(crate) fn click(&self, path: &str) {
        let element = self.find(path);
        self.command("POST", &format!("/element/{element}/click"), &json!({}));
    }

    /// Replaces the text in a field.
    pub(crate) fn fill(&self, path: &str, text: &str) {
        let element = self.find(path);
        self.command("POST", &format!("/element/{element}/clear"), &json!({}));
        self.command("POST", &format!("/element/{element}/value"), &json!({"text": text}));
    }

    /// Waits until an element shows a text.
    pub(crate) fn wait_for_text(&self, path: &str, text: &str) {
        let script =
            "const found = document.evaluate(arguments[0], document, null, 9).singleNodeValue;
            return found && found.checkVisibility() ? found.innerText : null;";
        let mut shown = Value::Null;
        let found = poll(DEADLINE, || {
            shown = self.run(script, &json!([path]));
            shown.as_str().is_some_and(|shown| shown.contains(text))
        });
        assert!(found, "{path} does not show {text:?} but {shown}");
    }

    /// What an XPath finds is in the window, with nothing over it, or gets there by itself.
    pub(crate) fn wait_until_in_sight(&self, path: &str) {
        let script = "const found = document.evaluate(arguments[0], document, null, 9)
                .singleNodeValue;
            const { left, right, top, bottom } = found.getBoundingClientRect();
            const at = (y) => found.contains(document.elementFromPoint((left + right) / 2, y));
            return at(top + 2) && at(bottom - 2);";
        let in_sight = poll(DEADLINE, || self.run(script, &json!([path])) == true);
        assert!(in_sight, "{path} is out of sight");
    }

    /// Nothing sticks out to the right.
    pub(crate) fn fits(&self) {
        let script = "const width = document.documentElement.clientWidth;
            const outside = [...document.querySelectorAll('body *')].filter((one) =>
                one.checkVisibility() && !one.closest('.unseen')
                && one.getBoundingClientRect().right > width + 0.5);
            return [document.documentElement.scrollWidth - width, outside.map((one) =>
                one.outerHTML.slice(0, 80))];";
        assert_eq!(self.run(script, &json!([])), json!([0, []]), "the page is too wide");
    }

    /// The browser's console has no errors and no warnings.
    pub(crate) fn has_no_faults(&self) {
        assert_eq!(self.faults(), Vec::<String>::new());
    }

    /// The same, except for those that name something expected.
    pub(crate) fn has_no_faults_but(&self, expected: &str) {
        let faults = self.faults();
        assert!(faults.iter().all(|fault| fault.contains(expected)), "{faults:?}");
    }

    fn faults(&self) -> Vec<String> {
        let log = self.command("POST", "/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().unwrap().iter();
        let grave = entries.filter(|one| one["level"] == "SEVERE" || one["level"] == "WARNING");
        grave.map(|one| one["message"].to_string()).collect()
    }

    /// Keeps a picture of the whole page in `target/screenshots`.
    pub(crate) fn screenshot(&self, moment: &str) {
        if let Some(file) = self.try_screenshot(moment) {
            println!("{}", file.display());
        }
    }

    fn try_screenshot(&self, moment: &str) -> Option<PathBuf> {
        let whole = json!({"format": "png", "captureBeyondViewport": true});
        let command = json!({"cmd": "Page.captureScreenshot", "params": whole});
        let taken = self.try_command("POST", "/goog/cdp/execute", &command)?;
        let folder =
            std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent()?.join("screenshots");
        std::fs::create_dir_all(&folder).ok()?;
        let file = folder.join(format!("{}-{moment}.png", self.name));
        std::fs::write(&file, decode_base64(taken["data"].as_str()?)).ok()?;
        Some(file)
    }

    fn find(&self, path: &str) -> String {
        let wanted = json!({"using": "xpath", "value": path});
        let mut found = None;
        poll(DEADLINE, || {
            found = self.try_command("POST", "/element", &wanted);
            found.is_some()
        });
        let found = found.unwrap_or_else(|| panic!("there is no {path}"));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    fn run(&self, script: &str, arguments: &Value) -> Value {
        self.command("POST", "/execute/sync", &json!({"script": script, "args": arguments}))
    }

    fn command(&self, method: &str, path: &str, body: &Value) -> Value {
        let answered = self.ask(method, path, body);
        answered.unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    fn try_command(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        self.ask(method, path, body).ok()
    }

    /// The value of the driver's answer, or what it says is wrong.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let request = ureq::http::Request::builder().method(method).uri(url);
        let request = request.body(body.to_string()).map_err(|error| error.to_string())?;
        let mut answer = self.agent.run(request).map_err(|error| error.to_string())?;
        let body = answer.body_mut().with_config().limit(1 << 26).read_to_string();
        let text = body.map_err(|error| error.to_string())?;
        let mut value: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if answer.status() == 200 { Ok(value["value"].take()) } else { Err(text) }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let file = self.try_screenshot("when-it-failed");
            eprintln!("the page when it failed: {file:?}");
        }
        // Ends Chromium; the driver alone would leave it behind.
        let config = self.agent.delete(&self.session).config();
        drop(config.timeout_global(Some(Duration::from_secs(10))).build().call());
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        self.output.wait_for_end();
    }
}

fn decode_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().filter_map(digit).collect();
    let bytes = digits.chunks(4).flat_map(|chunk| {
        let bits = chunk.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit));
        let bits = bits << (6 * (4 - chunk.len()));
        bits.to_be_bytes()[1..chunk.len()].to_vec()
    });
    bytes.collect()
}
