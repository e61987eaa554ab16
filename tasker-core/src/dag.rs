//! How the steps of a template depend on each other: a directed acyclic graph.
//!
//! petgraph resolves it once, when the template is made; a running task only looks things up.

use std::collections::BTreeSet;

use petgraph::algo::{kosaraju_scc, toposort};
use petgraph::graph::DiGraph;

use crate::template::StepIndex;

/// The dependency graph of a template's steps.
#[derive(Clone, Debug)]
pub struct Dag {
    parents: Vec<Vec<StepIndex>>,
    children: Vec<Vec<StepIndex>>,
    order: Vec<StepIndex>,
    level: Vec<u32>,
}

impl Dag {
    /// The graph in which each step has these parents, or the ways in which they go round: each
    /// a list of steps of which one waits for the next, and the last for the first.
    pub(crate) fn new(parents: Vec<Vec<StepIndex>>) -> Result<Self, Vec<Vec<StepIndex>>> {
        let edges = parents.iter().map(Vec::len).sum();
        let mut graph = DiGraph::<(), (), u32>::with_capacity(parents.len(), edges);
        let nodes: Vec<_> = parents.iter().map(|_| graph.add_node(())).collect();
        let mut children = vec![Vec::new(); parents.len()];
        for (index, above) in (0u32..).zip(&parents) {
            for parent in above {
                children[parent.get()].push(StepIndex(index));
                graph.add_edge(nodes[parent.get()], nodes[index as usize], ());
            }
        }
        let Ok(order) = toposort(&graph, None) else { return Err(cycles(&graph, &parents)) };
        let order: Vec<_> = order.into_iter().map(|node| StepIndex(node.index() as u32)).collect();
        let mut level = vec![0; parents.len()];
        for step in &order {
            let above = parents[step.get()].iter().map(|parent| level[parent.get()] + 1);
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

    /// A longest chain of steps of which each waits for the one before: no run takes fewer rounds.
    ///
    /// Among several it is the one whose end was written first.
    pub fn critical_path(&self) -> Vec<StepIndex> {
        let last = (0u32..).zip(&self.level).max_by_key(|(index, level)| (**level, !index));
        let mut next = last.map(|(index, _)| StepIndex(index));
        let mut path = Vec::new();
        while let Some(step) = next {
            path.push(step);
            let parents = self.parents(step).iter().copied();
            next = parents.max_by_key(|parent| (self.level[parent.get()], !parent.0));
        }
        path.reverse();
        path
    }

    /// Every parent with each of its children, by parent.
    pub(crate) fn edges(&self) -> impl Iterator<Item = (StepIndex, StepIndex)> {
        let below = (0u32..).zip(&self.children);
        below.flat_map(|(parent, below)| below.iter().map(move |child| (StepIndex(parent), *child)))
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

/// One cycle of every knot of steps that wait for each other.
fn cycles(graph: &DiGraph<(), ()>, parents: &[Vec<StepIndex>]) -> Vec<Vec<StepIndex>> {
    let mut knot = vec![0; parents.len()];
    let knots: Vec<_> = kosaraju_scc(graph).into_iter().filter(|knot| knot.len() > 1).collect();
    for (number, members) in (1..).zip(&knots) {
        for node in members {
            knot[node.index()] = number;
        }
    }
    // Every step of a knot has a parent in it, so going from parent to parent comes round.
    let mut seen_at = vec![None; parents.len()];
    let mut cycles = Vec::new();
    for members in knots {
        let Some(first) = members.iter().map(|node| node.index()).min() else { continue };
        let mut path = vec![StepIndex(first as u32)];
        while let Some(step) = path.last().copied() {
            if let Some(begin) = seen_at[step.get()] {
                path.pop();
                cycles.push(from_first(path.split_off(begin)));
                break;
            }
            seen_at[step.get()] = Some(path.len() - 1);
            let within = |parent: &&StepIndex| knot[parent.get()] == knot[first];
            path.extend(parents[step.get()].iter().find(within));
        }
    }
    cycles.sort();
    cycles
}

/// The same cycle, told from the step that was written first.
fn from_first(mut cycle: Vec<StepIndex>) -> Vec<StepIndex> {
    let first = (0..cycle.len()).min_by_key(|at| cycle[*at]).unwrap_or(0);
    cycle.rotate_left(first);
    cycle
}
