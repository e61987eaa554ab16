//! The pages say what is so: their code, their pictures, their links.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use tasker::TaskTemplate;

const README: &str = include_str!("../README.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The first code block whose opening line is this one.
fn block<'a>(page: &'a str, opening: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("{opening}\n")).expect("the block begins");
    rest.split_once("```").expect("the block ends").0
}

#[test]
fn the_readme_shows_the_first_workflow_as_it_is() {
    let example = include_str!("../examples/first_workflow.rs");
    let (example, _) = example.split_once("\n#[cfg(test)]").expect("the test comes last");
    assert_eq!(block(README, "```rust,no_run"), example);
    assert!(example.lines().count() <= 60);
}

#[test]
fn the_picture_of_the_checkout_is_drawn_from_its_workflow() {
    let workflow = root().join("examples/ecommerce/config/order_processing.yaml");
    let template = TaskTemplate::from_yaml_file(workflow).unwrap();
    assert_eq!(block(README, "```mermaid"), template.to_mermaid());
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = vec![root().to_owned(), root().join("examples/ecommerce")];
    pages.extend(["docs", "docs/guide", "docs/decisions"].map(|folder| root().join(folder)));
    let pages = pages.iter().flat_map(|folder| folder.read_dir().unwrap());
    let pages = pages.map(|entry| entry.unwrap().path());
    let pages: Vec<PathBuf> =
        pages.filter(|path| path.extension().is_some_and(|it| it == "md")).collect();
    assert!(pages.len() > 10);
    let mut broken = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1) {
            let target = link.split(')').next().unwrap_or_default();
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || path.is_empty();
            if !elsewhere && !page.with_file_name(path).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
