//! What the parts of this crate may know of, read from their sources.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// The files under a folder of this crate, or one file.
fn sources(path: &str) -> Vec<(PathBuf, String)> {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(path)];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}

/// Words that stand for waiting, time, chance, the outside world and the parts above `decide`.
const BANNED: [&str; 24] = [
    "tokio",
    "async",
    "await",
    "thread",
    "spawn",
    "Mutex",
    "Instant",
    "SystemTime",
    "now",
    "now_v7",
    "new_v4",
    "rand",
    "random",
    "RandomState",
    "HashMap",
    "HashSet",
    "env",
    "fs",
    "net",
    "engine",
    "client",
    "registry",
    "memory",
    "StateStore",
];

/// The first line of code that has a banned word in it.
///
/// Comments, what is named for the documentation alone and the tests at the end do not count; nor
/// does `now` where it is the name of a time that was handed in.
fn offence(text: &str) -> Option<&str> {
    let mut lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    while let Some(line) = lines.next() {
        if line == "#[cfg(doc)]" {
            lines.next();
            continue;
        }
        let code = line.split("//").next().unwrap_or_default();
        let mut words = code.split(|it: char| !it.is_alphanumeric() && it != '_');
        let banned = |word: &str| match word {
            "now" => code.contains("now()"),
            word => BANNED.contains(&word),
        };
        if words.any(banned) || code.contains("crate::handler") {
            return Some(line);
        }
    }
    None
}

#[test]
fn decide_knows_no_clock_no_chance_and_no_waiting() {
    let parts = [
        "src/decide.rs",
        "src/decide",
        "src/snapshot.rs",
        "src/retry.rs",
        "src/dag.rs",
        "src/why.rs",
        "src/why",
        "src/escalation/overdue.rs",
        "src/escalation/record.rs",
        "src/escalation/sentence.rs",
        "src/escalation/review.rs",
    ];
    for (path, text) in parts.iter().flat_map(|part| sources(part)) {
        assert_eq!(offence(&text), None, "{}", path.display());
    }
}

#[test]
fn an_offence_is_found() {
    for line in [
        "use tokio::sync::mpsc;",
        "    let at = Timestamp::now();",
        "pub async fn settle() {",
        "use crate::{StepIndex, engine::Owner};",
        "use crate::handler::StepInput;",
        "    pub fn of(store: &dyn StateStore) {",
    ] {
        assert_eq!(offence(line), Some(line));
    }
    for line in ["// tokio", "fn settle(now: Timestamp) {", "#[cfg(doc)]\nuse crate::engine;"] {
        assert_eq!(offence(line), None);
    }
}

#[test]
fn no_database_is_named_here() {
    let manifest = sources("Cargo.toml");
    for (path, text) in sources("src").into_iter().chain(manifest) {
        for word in ["sqlx", "rusqlite", "tokio_postgres"] {
            assert!(!text.contains(word), "{} names {word}", path.display());
        }
    }
}
