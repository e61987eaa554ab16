//! How the steps of a template depend on each other: a directed acyclic graph.
//!
//! petgraph resolves it once, when the template is made; a running task only looks things up.

use std::collections::{BTreeSet, HashMap};

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::DiGraph;

use crate::template::{StepIndex, StepTemplate, TemplateError};

/// The dependency graph of a template's steps.
#[derive(Clone, Debug)]
pub struct Dag {
    parents: Vec<Vec<StepIndex>>,
    children: Vec<Vec<StepIndex>>,
    order: Vec<StepIndex>,
    level: Vec<u32>,
}

impl Dag {
    /// Resolves the names in `depends_on`.
    pub(crate) fn new(steps: &[StepTemplate]) -> Result<Self, TemplateError> {
        let by_name: HashMap<&str, StepIndex> =
            (0u32..).zip(steps).map(|(at, step)| (step.name.as_str(), StepIndex(at))).collect();
        let mut graph = DiGraph::<(), (), u32>::with_capacity(steps.len(), steps.len());
        let nodes: Vec<_> = steps.iter().map(|_| graph.add_node(())).collect();
        let mut parents = vec![Vec::new(); steps.len()];
        let mut children = vec![Vec::new(); steps.len()];
        for (index, step) in (0u32..).zip(steps) {
            for name in &step.depends_on {
                let Some(&parent) = by_name.get(name.as_str()) else {
                    let fault = format!("step `{}` depends on unknown step `{name}`", step.name);
                    return Err(TemplateError(fault));
                };
                parents[index as usize].push(parent);
                children[parent.get()].push(StepIndex(index));
                graph.add_edge(nodes[parent.get()], nodes[index as usize], ());
            }
        }
        let Ok(order) = toposort(&graph, None) else {
            let _ = kosaraju_scc(&graph);
            return Err(TemplateError("the steps depend on each other in a cycle".into()));
        };
        let order: Vec<_> = order.into_iter().map(|node| StepIndex(node.index() as u32)).collect();
        let mut level = vec![0; steps.len()];
        for step in &order {
            let above =
                parents[step.get()].iter().map(|parent: &StepIndex| level[parent.get()] + 1);
            level[step.get()] = above.max().unwrap_or(0);
        }
        Ok(Self { parents, children, order, level })
    }

    /// The steps that must have succeeded before `step` may start.
    pub fn parents(&self, step: StepIndex) -> &[StepIndex] {
        &self.parents[step.get()]
    }

    /// The steps that wait for `step`.
    pub fn children(&self, step: StepIndex) -> &[StepIndex] {
        &self.children[step.get()]
    }

    /// All steps, parents before children.
    pub fn topological_order(&self) -> &[StepIndex] {
        &self.order
    }

    /// The steps without parents.
    pub fn roots(&self) -> impl Iterator<Item = StepIndex> {
        self.order.iter().copied().filter(|step| self.parents(*step).is_empty())
    }

    /// The steps by level: those of one level may run at the same time.
    pub fn levels(&self) -> Vec<Vec<StepIndex>> {
        let depth = self.level.iter().max().map_or(0, |deepest| *deepest as usize + 1);
        let mut levels = vec![Vec::new(); depth];
        for (index, level) in (0u32..).zip(&self.level) {
            levels[*level as usize].push(StepIndex(index));
        }
        levels
    }

    /// Whether `step` depends on `other`, directly or through others.
    pub fn rests_on(&self, step: StepIndex, other: StepIndex) -> bool {
        self.parents(step).contains(&other)
            || (self.level[other.get()] < self.level[step.get()]
                && self.ancestors(step).contains(&other))
    }

    /// Everything that `step` rests on: its parents, their parents and so on.
    pub fn ancestors(&self, step: StepIndex) -> BTreeSet<StepIndex> {
        let mut found = BTreeSet::new();
        let mut open = self.parents(step).to_vec();
        while let Some(next) = open.pop() {
            if found.insert(next) {
                open.extend_from_slice(self.parents(next));
            }
        }
        found
    }
}
