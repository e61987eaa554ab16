//! The pages whose examples are compiled and run with the documentation tests.

macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        $(#[doc = include_str!($path)] struct $name;)*
    };
}

pages! {
    Readme: "../README.md",
    Templates: "../docs/guide/templates.md",
    Handlers: "../docs/guide/handlers.md",
    Retries: "../docs/guide/retries.md",
    Testing: "../docs/guide/testing.md",
    Operating: "../docs/guide/operating.md",
}
