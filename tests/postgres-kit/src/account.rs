//! The account that the server runs under: PostgreSQL refuses to run as root, so root lends it
//! another one.

use std::{fs, path::Path, process::Command};

use crate::Error;
use std::os::unix::{fs::chown, process::CommandExt};

/// An account other than root's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None`: as whoever we are. For root: `postgres` if there is one, else `nobody`.
    pub(crate) fn to_lend() -> Result<Option<Self>, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
        match ["postgres", "nobody"].iter().find_map(|name| find(&accounts, name)) {
            Some(account) => Ok(Some(account)),
            None => Err(Error::NotFound {
                looked: "it does not run as root, and there is no account `postgres` or `nobody`"
                    .into(),
            }),
        }
    }

    /// Makes `directory` the account's own.
    pub(crate) fn own(self, directory: &Path) -> Result<(), Error> {
        chown(directory, Some(self.uid), Some(self.gid))
            .map_err(Error::io(format!("give {} away", directory.display())))
    }

    /// Makes `command` run under the account, without root's groups.
    pub(crate) fn run(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }
}

fn find(accounts: &str, name: &str) -> Option<Account> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(str::parse);
    let account = Account { uid: numbers.next()?.ok()?, gid: numbers.next()?.ok()? };
    (account.uid != 0).then_some(account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_whole_name_and_is_never_root() {
        let accounts = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:8:::\npostgres:x:101:104:A,,:/:\n";
        assert_eq!(find(accounts, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(find(accounts, "nobody"), None);
        assert_eq!(find(accounts, "root"), None);
    }
}
