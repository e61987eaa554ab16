//! The parts of a connection URL that the kit changes: which database, and which address.

use crate::Error;

/// A URL in three parts, to be put together with one of them changed.
struct Parts<'a> {
    /// Up to the address: `postgres://user:password@`.
    head: &'a str,
    /// `host`, `host:port` or `[::1]:port`.
    address: &'a str,
    /// The query with its `?`, or nothing.
    query: &'a str,
    database: &'a str,
}

pub(crate) fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

fn parts(url: &str) -> Result<Parts<'_>, Error> {
    let refused = || Error::Url { url: without_password(url) };
    let scheme = url.find("://").filter(|_| is_postgres(url)).ok_or_else(refused)? + 3;
    let query = url.find('?').unwrap_or(url.len());
    let path = url[scheme..query].find('/').map_or(query, |at| scheme + at);
    let address = url[scheme..path].rfind('@').map_or(scheme, |at| scheme + at + 1);
    // A socket's directory, as a host that is escaped or a parameter, is no address to connect to.
    if address == path || url[address..path].contains('%') {
        return Err(refused());
    }
    Ok(Parts {
        head: &url[..address],
        address: &url[address..path],
        query: &url[query..],
        database: url[path..query].trim_start_matches('/'),
    })
}

fn without_password(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, rest)) => format!("…@{rest}"),
        None => url.to_owned(),
    }
}

/// `url` with another database.
pub(crate) fn with_database(url: &str, database: &str) -> Result<String, Error> {
    let Parts { head, address, query, .. } = parts(url)?;
    Ok(format!("{head}{address}/{database}{query}"))
}

/// `url` with another host and port.
pub(crate) fn with_address(url: &str, address: &str) -> Result<String, Error> {
    let Parts { head, database, query, .. } = parts(url)?;
    Ok(format!("{head}{address}/{database}{query}"))
}

/// The host and port of `url`.
pub(crate) fn address(url: &str) -> Result<String, Error> {
    let address = parts(url)?.address;
    let after_host = address.rfind(']').unwrap_or(0);
    if address[after_host..].contains(':') {
        Ok(address.to_owned())
    } else {
        Ok(format!("{address}:5432"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_of_a_url_are_replaced_and_the_rest_is_kept() {
        let url = "postgres://me:p%40ss@db.example:6000/main?sslmode=disable";
        assert_eq!(
            with_database(url, "other").unwrap(),
            "postgres://me:p%40ss@db.example:6000/other?sslmode=disable"
        );
        assert_eq!(
            with_address(url, "127.0.0.1:7").unwrap(),
            "postgres://me:p%40ss@127.0.0.1:7/main?sslmode=disable"
        );
        assert_eq!(address(url).unwrap(), "db.example:6000");
        assert_eq!(address("postgresql://localhost").unwrap(), "localhost:5432");
        assert_eq!(address("postgres://me@[::1]/x").unwrap(), "[::1]:5432");
        assert_eq!(with_database("postgres://h", "x").unwrap(), "postgres://h/x");
    }

    #[test]
    fn what_is_no_address_is_refused_without_its_password() {
        for url in ["mysql://h/x", "postgres:///x", "postgres://me:secret@%2Ftmp/x"] {
            let error = address(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
