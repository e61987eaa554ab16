//! Where the PostgreSQL binaries are. Distributions keep `initdb` off the `PATH`, each elsewhere.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::Error;

/// Directories with one folder for each version: before and after the version's folder.
const VERSIONED: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/Library/PostgreSQL", "", "bin"),
];
const PLAIN: &str = "/usr/local/pgsql/bin";

/// The directory that holds `initdb` and `postgres`.
///
/// `TASKER_POSTGRES_BIN` decides if it is set; else the first of the `PATH`, then the newest of
/// the places where packages put them.
pub(crate) fn find() -> Result<PathBuf, Error> {
    if let Some(named) = env::var_os("TASKER_POSTGRES_BIN").map(PathBuf::from) {
        return if is_complete(&named) {
            Ok(named)
        } else {
            let named = named.display();
            Err(Error::NotFound {
                looked: format!("TASKER_POSTGRES_BIN={named} has no initdb and postgres"),
            })
        };
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let known = VERSIONED.iter().flat_map(|(parent, prefix, bin)| {
        newest_first(Path::new(parent), prefix).into_iter().map(move |version| version.join(bin))
    });
    env::split_paths(&path)
        .chain(known)
        .chain([PathBuf::from(PLAIN)])
        .find(|directory| is_complete(directory))
        .ok_or_else(|| Error::NotFound {
            looked: "DATABASE_URL is not set, and initdb and postgres are neither on the PATH nor \
                     where packages put them"
                .into(),
        })
}

fn is_complete(directory: &Path) -> bool {
    ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file())
}

/// The folders in `parent` whose names are `prefix` and perhaps a version.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = version(entry.file_name().to_str()?.strip_prefix(prefix)?)?;
            Some((version, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, path)| path).collect()
}

/// `9.6`, `17`, `@17` as numbers, because "9" sorts after "17" as text.
fn version(text: &str) -> Option<Vec<u32>> {
    let text = text.strip_prefix('@').unwrap_or(text);
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split('.').map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_numbers_and_other_folders_are_none() {
        assert!(version("17") > version("9.6"));
        assert!(version("@17") > version(""));
        assert_eq!(version("common"), None);
    }
}
