//! A template as a picture, for documents and dashboards.

use std::fmt::Write as _;

use petgraph::dot::{Config, Dot};
use petgraph::graph::DiGraph;

use super::TaskTemplate;

impl TaskTemplate {
    /// The graph in the language of Mermaid, arrows from a step to those that wait for it.
    ///
    /// ```
    /// use tasker_core::{StepTemplate, TaskTemplate};
    ///
    /// let order = TaskTemplate::builder("order")
    ///     .step(StepTemplate::new("charge"))
    ///     .step(StepTemplate::new("ship").after("charge"))
    ///     .build()?;
    /// let picture = "flowchart TD\n    s0[\"charge\"]\n    s1[\"ship\"]\n    s0 --> s1\n";
    /// assert_eq!(order.to_mermaid(), picture);
    /// # Ok::<(), tasker_core::TemplateError>(())
    /// ```
    pub fn to_mermaid(&self) -> String {
        let mut picture = String::from("flowchart TD\n");
        for (index, step) in self.steps().iter().enumerate() {
            let _ = writeln!(picture, "    s{index}[\"{}\"]", mermaid(&step.name));
        }
        for (parent, child) in self.dag().edges() {
            let _ = writeln!(picture, "    s{} --> s{}", parent.0, child.0);
        }
        picture
    }

    /// The graph in the DOT language of Graphviz.
    pub fn to_dot(&self) -> String {
        let mut graph = DiGraph::<&str, &str>::new();
        let nodes: Vec<_> = self.steps().iter().map(|step| graph.add_node(&step.name)).collect();
        for (parent, child) in self.dag().edges() {
            graph.add_edge(nodes[parent.get()], nodes[child.get()], "");
        }
        Dot::with_config(&graph, &[Config::EdgeNoLabel]).to_string()
    }
}

/// Mermaid has no escapes but character codes, and reads markdown and HTML in a label.
fn mermaid(name: &str) -> String {
    let mut label = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_alphanumeric() || matches!(character, ' ' | '_' | '-' | '.' | ':') {
            label.push(character);
        } else {
            let _ = write!(label, "#{};", u32::from(character));
        }
    }
    label
}
