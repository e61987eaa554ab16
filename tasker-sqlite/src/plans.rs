//! Looks at the plans that SQLite makes: no hot statement may walk through a table.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Row};

use crate::{SqliteOptions, open};

/// What may be walked through: parameters, and what they were put into.
const SMALL: [&str; 9] = [
    "CONSTANT",
    "(subquery",
    "claimed",
    "change",
    "wanted",
    "served",
    "json_each",
    "row",
    "worker",
];

async fn plan(connection: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
    let rows = sqlx::query(explain).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

#[tokio::test]
async fn no_statement_walks_through_a_table_that_grows() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions::new(directory.path().join("tasks.db"));
    let mut connection = open::prepare(&options).await.unwrap();
    let queries = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let mut explained = 0;
    for file in std::fs::read_dir(queries).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        // The workers are few, and pruned; the rest is no query.
        if name.starts_with("schema") || name.contains("worker") {
            continue;
        }
        let code: String =
            text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
        for statement in code.split(';').map(str::trim) {
            let first = statement.split_whitespace().next().unwrap_or_default();
            if !["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].contains(&first) {
                continue;
            }
            explained += 1;
            for line in plan(&mut connection, statement).await {
                let walks = line.strip_prefix("SCAN ").filter(|what| {
                    let what = what.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
                    !SMALL.iter().any(|small| what.starts_with(small))
                });
                assert!(
                    walks.is_none() || name == "select_extras",
                    "{name} walks through a table: {line}",
                );
                assert!(!line.contains("AUTOMATIC"), "{name} makes an index: {line}");
                // What one worker holds is little.
                let sorts = line.contains("TEMP B-TREE") && name != "select_held_offers";
                assert!(!sorts, "{name} sorts: {line}");
            }
        }
    }
    assert!(explained > 30, "only {explained} statements were found");
}
