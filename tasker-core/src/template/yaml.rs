//! Templates from YAML: the door, in the order of work: text, tree, environment, definition.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::{env, fs, io};

use super::check::Checked;
use super::compose::{MAX_TEXT, compose};
use super::fault::{Faults, TemplateError};
use super::read::Reader;
use super::tree::Value;
use super::{TaskTemplate, environment};

/// The variable that says which environment of a file counts.
const ENVIRONMENT: &str = "TASKER_ENV";

/// A YAML text, the name that messages call it by, and the environment that counts.
///
/// ```
/// use tasker_core::{TaskTemplate, YamlSource};
///
/// let text = "
/// name: order
/// step_templates:
///   - name: charge
///     retry_limit: 3
/// environments:
///   test:
///     step_templates: [ { name: charge, retry_limit: 1 } ]
/// ";
/// let source = YamlSource::new(text).named("order.yaml").environment("test");
/// assert_eq!(TaskTemplate::from_yaml(source)?.steps()[0].retry.limit, 1);
/// assert_eq!(TaskTemplate::from_yaml(text)?.steps()[0].retry.limit, 3);
/// # Ok::<(), tasker_core::TemplateError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct YamlSource<'a> {
    text: &'a str,
    name: Option<&'a str>,
    environment: Option<&'a str>,
}

impl<'a> YamlSource<'a> {
    /// A text without a name, of which no environment counts.
    pub const fn new(text: &'a str) -> Self {
        Self { text, name: None, environment: None }
    }

    /// Sets the name in messages, such as `order.yaml`.
    #[must_use]
    pub const fn named(self, name: &'a str) -> Self {
        Self { name: Some(name), ..self }
    }

    /// Merges what the text says under `environments` for this one, if it says anything.
    #[must_use]
    pub const fn environment(self, environment: &'a str) -> Self {
        Self { environment: Some(environment), ..self }
    }
}

impl<'a> From<&'a str> for YamlSource<'a> {
    fn from(text: &'a str) -> Self {
        Self::new(text)
    }
}

impl<'a> From<&'a String> for YamlSource<'a> {
    fn from(text: &'a String) -> Self {
        Self::new(text)
    }
}

impl TaskTemplate {
    /// Reads a template from a YAML text.
    ///
    /// Keys of the original Rails format that mean nothing here are accepted;
    /// [`warnings`](Self::warnings) names them.
    ///
    /// ```
    /// use tasker_core::TaskTemplate;
    ///
    /// let order = TaskTemplate::from_yaml(
    ///     "
    /// name: order
    /// step_templates:
    ///   - name: reserve_stock
    ///   - name: charge
    ///     depends_on_step: reserve
    /// ",
    /// );
    /// assert_eq!(
    ///     order.unwrap_err().to_string(),
    ///     "6:22: step \"charge\" depends on unknown step \"reserve\"; \
    ///      did you mean \"reserve_stock\"?",
    /// );
    /// ```
    ///
    /// # Errors
    /// Whatever is wrong with the text, with line and column: mend it.
    pub fn from_yaml<'a>(source: impl Into<YamlSource<'a>>) -> Result<Self, TemplateError> {
        let YamlSource { text, name, environment } = source.into();
        let file = name.map(Arc::<str>::from);
        read(text, environment, file.as_ref()).map_err(|faults| faults.into_error(file.as_ref()))
    }

    /// Reads a template from a YAML file; `TASKER_ENV` says which of its environments counts.
    ///
    /// # Errors
    /// The file cannot be read, or whatever is wrong with its text.
    pub fn from_yaml_file(path: impl AsRef<Path>) -> Result<Self, TemplateError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let text = text_of(path)
            .map_err(|error| TemplateError::whole(format!("cannot read {name}: {error}")))?;
        let environment = env::var(ENVIRONMENT).ok();
        let source =
            YamlSource { text: &text, name: Some(&name), environment: environment.as_deref() };
        let template = Self::from_yaml(source)?;
        for warning in template.warnings() {
            tracing::warn!(%warning, "template loaded");
        }
        Ok(template)
    }
}

fn read(
    text: &str,
    environment: Option<&str>,
    file: Option<&Arc<str>>,
) -> Result<TaskTemplate, Faults> {
    let mut root = compose(text)?;
    let mut reader = Reader::default();
    if !matches!(root.value, Value::Map(_)) {
        reader.at(String::new(), root.at, format!("a template must be a map, not {}", root.kind()));
        return Err(reader.faults);
    }
    environment::apply(&mut root, environment, &mut reader);
    let definition = reader.task(&root);
    let Reader { mut faults, warnings, incomplete } = reader;
    // What is missing could not be told from what was unreadable.
    if incomplete {
        return Err(faults);
    }
    match Checked::new(definition) {
        Ok(checked) if faults.is_empty() => {
            // A large file is not held beside the stored form of the template.
            drop(root);
            Ok(TaskTemplate { warnings: warnings.told(file), ..checked.into() })
        }
        Ok(_) => Err(faults),
        Err(more) => {
            faults.append(more);
            faults.locate(|pointer| Some(root.position_of(pointer)));
            Err(faults)
        }
    }
}

/// Reads no more of a file than would be accepted, and a byte to notice that there is more.
fn text_of(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_TEXT {
        return Err(io::Error::other(format!("it is longer than {} MiB", MAX_TEXT >> 20)));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
