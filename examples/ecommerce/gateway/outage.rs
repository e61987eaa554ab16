//! Outages of the gateway, and its record of every call.
//!
//! Both are in its ledger: whoever shares that, another process or the next one, finds the gateway
//! in the same mode, and counts the same calls.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{Row, SqlitePool};

use super::GatewayError;
use crate::database::undisturbed;

/// How long a slow gateway takes for an answer. A payment asks it twice, which is longer than the
/// five seconds that the step has.
const SLOW: Duration = Duration::from_secs(3);

pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS outage (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    mode     TEXT NOT NULL CHECK (mode IN ('up', 'down', 'slow')),
    since    INTEGER NOT NULL
) STRICT;
INSERT INTO outage VALUES (1, 'up', 0) ON CONFLICT DO NOTHING;
-- Times are microseconds since 1970.
CREATE TABLE IF NOT EXISTS calls (
    call     INTEGER PRIMARY KEY,
    -- authorise, capture, void or refund
    kind     TEXT NOT NULL,
    -- the gateway's mode when the call came
    mode     TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    -- without one it is under way, or its process was killed
    ended_at INTEGER,
    -- ok, the code of the error, or HUNG_UP if nobody waited for the answer
    outcome  TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS calls_by_time ON calls (began_at);
";

/// How the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// It answers.
    Up,
    /// Nobody reaches it; whoever tries knows at once.
    Down,
    /// It answers, and takes seconds for it.
    Slow,
}

/// What the gateway says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) mode: Mode,
    /// When it was switched to that mode; `None` if it never was switched.
    pub(crate) since: Option<Timestamp>,
    /// Every call that ever came.
    pub(crate) calls: u64,
    /// Those that came since it was switched.
    pub(crate) calls_since: u64,
    /// How many of those ran at the same time, at most.
    pub(crate) at_once_since: u64,
}

/// The gateway's line: every call comes in over it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    ledger: SqlitePool,
    latency: Duration,
}

/// A call that is on record. One that is dropped before it has ended was hung up.
#[derive(Debug)]
pub(super) struct Call {
    /// `None` once it has ended.
    id: Option<i64>,
    mode: Mode,
    line: Line,
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Slow => "slow",
        }
    }

    fn read(word: &str) -> Self {
        match word {
            "down" => Self::Down,
            "slow" => Self::Slow,
            _ => Self::Up,
        }
    }
}

impl Line {
    /// A line whose calls take about `latency` while the gateway is up.
    pub(super) fn new(ledger: SqlitePool, latency: Duration) -> Self {
        Self { ledger, latency }
    }

    /// Writes a call down, whatever will become of it.
    pub(super) async fn begin(&self, kind: &'static str) -> Result<Call, GatewayError> {
        // Undisturbed, so that no call is on record that nobody can end.
        let line = self.clone();
        let began = undisturbed(async move { line.note_begin(kind).await }).await;
        began.unwrap_or(Err(GatewayError::Faulty))
    }

    async fn note_begin(&self, kind: &'static str) -> Result<Call, GatewayError> {
        let row = sqlx::query(
            "INSERT INTO calls (kind, mode, began_at) SELECT ?, mode, ? FROM outage
             RETURNING call, mode",
        )
        .bind(kind)
        .bind(now())
        .fetch_one(&self.ledger)
        .await?;
        let mode = Mode::read(row.get("mode"));
        Ok(Call { id: Some(row.get("call")), mode, line: self.clone() })
    }

    /// Switches the gateway; what is under way goes on as it began.
    pub(super) async fn switch(&self, mode: Mode) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE outage SET mode = ?, since = ?")
            .bind(mode.word())
            .bind(now())
            .execute(&self.ledger)
            .await?;
        Ok(())
    }

    pub(super) async fn report(&self) -> Result<Report, sqlx::Error> {
        let row = sqlx::query(
            "WITH recent AS (
                 SELECT began_at, ended_at FROM calls, outage WHERE began_at >= since
             ),
             moment AS (
                 SELECT began_at AS at, 1 AS more FROM recent
                 UNION ALL
                 SELECT ended_at, -1 FROM recent WHERE ended_at IS NOT NULL
             ),
             -- Whoever ends in the instant in which another begins was not there with it.
             running AS (
                 SELECT sum(more) OVER (ORDER BY at, more ROWS UNBOUNDED PRECEDING) AS calls
                 FROM moment
             )
             SELECT mode, since,
                 (SELECT count(*) FROM calls) AS calls,
                 (SELECT count(*) FROM recent) AS calls_since,
                 (SELECT coalesce(max(calls), 0) FROM running) AS at_once_since
             FROM outage",
        )
        .fetch_one(&self.ledger)
        .await?;
        let count = |column: &str| u64::try_from(row.get::<i64, _>(column)).unwrap_or(0);
        let since = Timestamp::from_microsecond(row.get("since")).ok();
        Ok(Report {
            mode: Mode::read(row.get("mode")),
            since: since.filter(|since| *since != Timestamp::UNIX_EPOCH),
            calls: count("calls"),
            calls_since: count("calls_since"),
            at_once_since: count("at_once_since"),
        })
    }
}

impl Call {
    /// Gets through to the gateway, or does not.
    pub(super) fn connect(&self) -> Result<(), GatewayError> {
        match self.mode {
            Mode::Up | Mode::Slow => Ok(()),
            Mode::Down => Err(GatewayError::Unreachable),
        }
    }

    /// The time that the gateway takes.
    pub(super) async fn wait(&self) {
        let takes = match self.mode {
            Mode::Up | Mode::Down => self.line.latency,
            Mode::Slow => SLOW.max(self.line.latency),
        };
        tokio::time::sleep(takes).await;
    }

    /// Writes down what became of the call, and passes it on.
    pub(super) async fn end<T>(
        mut self,
        answer: Result<T, GatewayError>,
    ) -> Result<T, GatewayError> {
        let outcome = answer.as_ref().map_or_else(GatewayError::code, |_| "ok");
        let Some(id) = self.id else { return answer };
        note_end(&self.line.ledger, id, outcome).await?;
        self.id = None;
        answer
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let ledger = self.line.ledger.clone();
        // Nobody is left to be told that it failed; then the call has no end on record.
        runtime.spawn(async move { note_end(&ledger, id, "HUNG_UP").await });
    }
}

async fn note_end(ledger: &SqlitePool, call: i64, outcome: &'static str) -> sqlx::Result<()> {
    sqlx::query("UPDATE calls SET ended_at = ?, outcome = ? WHERE call = ? AND ended_at IS NULL")
        .bind(now())
        .bind(outcome)
        .bind(call)
        .execute(ledger)
        .await?;
    Ok(())
}

fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::super::Gateway;
    use super::*;
    use crate::checkout::PaymentToken;
    use crate::money::Money;

    const PRICE: Money = Money::from_cents(10_000);

    fn visa() -> PaymentToken {
        serde_json::from_value("test_success_visa".into()).expect("a token")
    }

    async fn gateway(folder: &tempfile::TempDir) -> Gateway {
        let ledger = folder.path().join("gateway.db");
        Gateway::open(&ledger, Duration::ZERO).await.expect("a ledger")
    }

    async fn outcomes(gateway: &Gateway) -> Vec<(String, String, Option<String>)> {
        let calls = sqlx::query_as("SELECT kind, mode, outcome FROM calls ORDER BY call");
        calls.fetch_all(&gateway.line.ledger).await.expect("calls")
    }

    #[tokio::test]
    async fn a_gateway_that_is_down_is_down_for_every_process_and_no_call_moves_money() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = gateway(&folder).await;
        first.authorise("key", &visa(), PRICE).await.expect("granted");
        first.switch(Mode::Down).await.expect("switched");
        let other = gateway(&folder).await;
        let refused = [
            other.authorise("key", &visa(), PRICE).await.err(),
            other.capture("key", &visa()).await.err(),
            other.void("key").await.err(),
            other.refund("key").await.err(),
        ];
        for refused in refused {
            assert!(matches!(refused, Some(GatewayError::Unreachable)), "{refused:?}");
        }
        let report = other.report().await.expect("a report");
        assert_eq!((report.mode, report.calls, report.calls_since), (Mode::Down, 5, 4));
        assert_eq!(report.at_once_since, 1);

        first.switch(Mode::Up).await.expect("switched");
        other.capture("key", &visa()).await.expect("as it was before the outage");
        assert_eq!(first.report().await.expect("a report").calls_since, 1);
    }

    #[tokio::test]
    async fn every_call_is_on_record_with_what_became_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let gateway = gateway(&folder).await;
        let poor = serde_json::from_value("test_insufficient_funds".into()).expect("a token");
        gateway.authorise("key", &visa(), PRICE).await.expect("granted");
        gateway.authorise("poor", &poor, PRICE).await.expect_err("refused");
        gateway.switch(Mode::Down).await.expect("switched");
        gateway.capture("key", &visa()).await.expect_err("down");
        let row = |kind: &str, mode: &str, outcome: &str| {
            (kind.to_owned(), mode.to_owned(), Some(outcome.to_owned()))
        };
        assert_eq!(
            outcomes(&gateway).await,
            [
                row("authorise", "up", "ok"),
                row("authorise", "up", "INSUFFICIENT_FUNDS"),
                row("capture", "down", "GATEWAY_UNREACHABLE"),
            ]
        );
    }

    #[tokio::test]
    async fn calls_that_run_at_the_same_time_are_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let gateway = gateway(&folder).await;
        let mut calls = Vec::new();
        for _ in 0..3 {
            calls.push(gateway.line.begin("capture").await.expect("a call"));
        }
        let last = calls.pop().expect("a call");
        last.end(Ok(())).await.expect("ended");
        calls.push(gateway.line.begin("capture").await.expect("a call"));
        assert_eq!(gateway.report().await.expect("a report").at_once_since, 3);
    }

    #[tokio::test]
    async fn a_call_that_nobody_waits_for_was_hung_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let gateway = gateway(&folder).await;
        gateway.switch(Mode::Slow).await.expect("switched");
        let asked = gateway.clone();
        let call = tokio::spawn(async move { asked.capture("key", &visa()).await });
        while outcomes(&gateway).await.is_empty() {
            tokio::task::yield_now().await;
        }
        call.abort();
        assert!(call.await.is_err_and(|error| error.is_cancelled()));
        while outcomes(&gateway).await[0].2.is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(outcomes(&gateway).await[0].2.as_deref(), Some("HUNG_UP"));
    }
}
