//! What is wrong with a template, and where: the list that a refused template comes with.
//!
//! The rules themselves are in `check`, `read` and `schema`; here is only how a fault is told.

use std::fmt;
use std::sync::Arc;

/// How many faults are listed; a template with more says how many it left out.
const LISTED: usize = 100;
/// How many unknown names are compared with the known ones: a search costs time for every name.
const SUGGESTED: usize = 3;
/// How much of a name is quoted.
const QUOTED: usize = 80;

/// A place in a YAML text, both numbers from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// One thing that is wrong, or odd, in a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFault {
    /// What is wrong, and what to do about it where that can be told.
    pub message: String,
    /// Where it is, as a JSON pointer with the keys of a YAML file: `/step_templates/2/timeout`.
    pub pointer: String,
    /// Where it is in the text, if the template was read from one.
    pub position: Option<Position>,
    file: Option<Arc<str>>,
}

impl fmt::Display for TemplateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        match self.position {
            Some(Position { line, column }) => write!(f, "{line}:{column}: ")?,
            None if self.file.is_some() => f.write_str(" ")?,
            None if !self.pointer.is_empty() => write!(f, "{}: ", self.pointer)?,
            None => {}
        }
        f.write_str(&self.message)
    }
}

/// A template that cannot be: everything that is wrong with it, one fault a line.
///
/// Mend the template; trying again as it is does not help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    faults: Vec<TemplateFault>,
    left_out: usize,
}

impl TemplateError {
    /// The faults in the order of the text, at most a hundred.
    pub fn faults(&self) -> &[TemplateFault] {
        &self.faults
    }

    /// One fault of the whole.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        let mut faults = Faults::default();
        faults.add("", message);
        Self { faults: faults.listed, left_out: 0 }
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.faults.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        if self.left_out > 0 {
            write!(f, "\n{} more faults are not listed", self.left_out)?;
        }
        Ok(())
    }
}

impl std::error::Error for TemplateError {}

/// The faults found so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    listed: Vec<TemplateFault>,
    left_out: usize,
    suggested: usize,
}

impl Faults {
    pub(super) fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.push(pointer, None, message);
    }

    pub(super) fn at(
        &mut self,
        pointer: impl Into<String>,
        position: Position,
        message: impl Into<String>,
    ) {
        self.push(pointer, Some(position), message);
    }

    fn push(
        &mut self,
        pointer: impl Into<String>,
        position: Option<Position>,
        message: impl Into<String>,
    ) {
        if self.is_full() {
            self.left_out += 1;
            return;
        }
        let (message, pointer) = (message.into(), pointer.into());
        self.listed.push(TemplateFault { message, pointer, position, file: None });
    }

    pub(super) fn len(&self) -> usize {
        self.listed.len() + self.left_out
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// Whether another fault would not be listed.
    pub(super) fn is_full(&self) -> bool {
        self.listed.len() == LISTED
    }

    /// `; did you mean "…"?` for a name that is nearly one of the known ones, else nothing.
    pub(super) fn suggest<'a>(
        &mut self,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> String {
        self.suggested += 1;
        if self.suggested > SUGGESTED {
            return String::new();
        }
        let near =
            known.into_iter().filter(|candidate| *candidate != name).filter_map(|candidate| {
                likeness(name, candidate).map(|distance| (distance, candidate))
            });
        match near.min_by_key(|(distance, _)| *distance) {
            Some((_, candidate)) => format!("; did you mean {}?", Quoted(candidate)),
            None => String::new(),
        }
    }

    /// Gives the faults their places in a text.
    pub(super) fn locate(&mut self, place: impl Fn(&str) -> Option<Position>) {
        for fault in &mut self.listed {
            fault.position = fault.position.or_else(|| place(&fault.pointer));
        }
    }

    /// Adds the faults of another stage.
    pub(super) fn append(&mut self, other: Self) {
        for fault in other.listed {
            self.push(fault.pointer, fault.position, fault.message);
        }
        self.left_out += other.left_out;
    }

    /// The faults as they are told: named after their file and in the order of its text.
    pub(super) fn told(self, file: Option<&Arc<str>>) -> Vec<TemplateFault> {
        let mut faults = self.listed;
        faults.sort_by_key(|fault| fault.position);
        for fault in &mut faults {
            fault.file = file.cloned();
        }
        faults
    }

    /// The faults as an error.
    pub(super) fn into_error(self, file: Option<&Arc<str>>) -> TemplateError {
        let left_out = self.left_out;
        TemplateError { faults: self.told(file), left_out }
    }
}

/// A name in a message: quoted, on one line and not too long.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(QUOTED) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
        }
    }
}

/// One segment of a JSON pointer, escaped.
pub(super) fn segment(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// How far a name is from another, unless they are plainly different.
///
/// A name that goes on where the other one ends counts as near, so `reserve` finds
/// `reserve_stock`; anything else must be two slips away at most.
fn likeness(name: &str, candidate: &str) -> Option<usize> {
    const LONGEST: usize = 64;
    let (short, long) =
        if name.len() <= candidate.len() { (name, candidate) } else { (candidate, name) };
    if short.is_empty() || long.len() > LONGEST {
        return None;
    }
    let allowed = if short.chars().count() < 4 { 1 } else { 2 };
    let near = slips(name, candidate, allowed);
    let extends = |rest: &str| rest.starts_with(['_', '-', '.', ' ']);
    let extended = short.len() >= 4 && long.strip_prefix(short).is_some_and(extends);
    near.or_else(|| extended.then_some(allowed + long.len() - short.len()))
}

/// The edit distance in characters, if it is not more than `allowed`.
fn slips(left: &str, right: &str, allowed: usize) -> Option<usize> {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    if left.len().abs_diff(right.len()) > allowed {
        return None;
    }
    // Only cells this near to the diagonal can be small enough.
    let far = allowed + 1;
    let mut row: Vec<usize> = (0..=right.len()).map(|cell| cell.min(far)).collect();
    for (i, a) in left.iter().enumerate() {
        let (from, to) = (i.saturating_sub(allowed), (i + far).min(right.len()));
        let mut diagonal = row[from];
        row[from] = if from == 0 { (i + 1).min(far) } else { far };
        let mut least = row[from];
        for j in from..to {
            let replaced = diagonal + usize::from(*a != right[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1).min(far);
            least = least.min(row[j + 1]);
        }
        if least > allowed {
            return None;
        }
    }
    Some(row[right.len()]).filter(|distance| *distance <= allowed)
}

#[cfg(test)]
mod tests {
    use super::{Faults, Quoted};

    #[test]
    fn a_slip_or_a_longer_name_is_suggested_and_nothing_else() {
        let known = ["reserve_stock", "charge", "ship", "a"];
        for (name, expected) in [
            ("reserve", "; did you mean \"reserve_stock\"?"),
            ("chrage", "; did you mean \"charge\"?"),
            ("shop", "; did you mean \"ship\"?"),
            ("refund", ""),
            ("charges", "; did you mean \"charge\"?"),
            ("resreve_stok", ""),
            ("reserve_stok", "; did you mean \"reserve_stock\"?"),
            ("b", "; did you mean \"a\"?"),
            ("", ""),
        ] {
            assert_eq!(Faults::default().suggest(name, known), expected, "{name}");
        }
    }

    #[test]
    fn a_quoted_name_stays_on_its_line() {
        assert_eq!(Quoted("a\n\"b\"").to_string(), r#""a\n\"b\"""#);
        assert_eq!(Quoted(&"é".repeat(200)).to_string().chars().count(), 83);
    }
}
