//! The pages whose examples are compiled and run with the documentation tests.

#[cfg(feature = "sqlite")]
#[doc = include_str!("../README.md")]
struct Readme;

#[doc = include_str!("../docs/guide/templates.md")]
struct Templates;

#[doc = include_str!("../docs/guide/handlers.md")]
struct Handlers;

#[doc = include_str!("../docs/guide/breakers.md")]
struct Breakers;

#[doc = include_str!("../docs/guide/retries.md")]
struct Retries;

// Paused time needs tokio's `test-util`, which comes with the feature.
#[cfg(feature = "testing")]
#[doc = include_str!("../docs/guide/testing.md")]
struct Testing;

#[doc = include_str!("../docs/guide/operating.md")]
struct Operating;

#[doc = include_str!("../docs/guide/deploying.md")]
struct Deploying;

#[doc = include_str!("../docs/guide/why.md")]
struct WhyPage;

#[doc = include_str!("../docs/guide/operators.md")]
struct Operators;

#[doc = include_str!("../docs/guide/compensation.md")]
struct Compensation;

#[cfg(feature = "postgres")]
#[doc = include_str!("../docs/guide/postgresql.md")]
struct Postgresql;

#[cfg(feature = "postgres")]
#[doc = include_str!("../docs/guide/transactions.md")]
struct Transactions;

#[cfg(feature = "postgres")]
#[doc = include_str!("../docs/guide/retention.md")]
struct Retention;

#[cfg(feature = "webhook")]
#[doc = include_str!("../docs/guide/escalations.md")]
struct Escalations;
