//! The shop's outgoing mail: files in a folder by default, a mail server when one is configured.
//!
//! A mail is known by its idempotency key. What is known to have been sent is not sent again; what
//! a crash leaves in doubt is sent again under the same `Message-ID`, by which mail programs
//! recognise it.

use std::path::{Path, PathBuf};

use lettre::message::{Mailbox, MultiPart};
use lettre::{
    AsyncFileTransport, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor, transport,
};
use sha2::{Digest, Sha256};

use crate::checkout::CustomerInfo;
use crate::database::Database;

pub(crate) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS {shop}sent_mails (
    idempotency_key TEXT PRIMARY KEY,
    message_id      TEXT NOT NULL
){strict};
";

/// Mail to this domain is refused, so that a lost confirmation can be watched.
const BOUNCING: &str = "bounces.example";

/// Sends the shop's mail; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Mailer {
    sent: Database,
    sender: Mailbox,
    outbox: Outbox,
}

#[derive(Clone, Debug)]
enum Outbox {
    Folder(PathBuf),
    Server(AsyncSmtpTransport<Tokio1Executor>),
}

/// A mail as the shop thinks of it.
#[derive(Clone, Debug)]
pub(crate) struct Mail<'a> {
    pub(crate) to: &'a CustomerInfo,
    /// What it is about, for instance an order number: the name of its file, too.
    pub(crate) reference: &'a str,
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
}

/// A mail that was not sent, or that nobody knows to have been sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MailError {
    #[error("the e-mail address is not valid")]
    Address(#[from] lettre::address::AddressError),
    #[error("the e-mail cannot be written")]
    Message(#[from] lettre::error::Error),
    #[error("the recipient's mail server refuses the e-mail")]
    Bounced,
    #[error("the mailbox folder cannot be written")]
    Folder(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the mail server did not take the e-mail")]
    Server(#[from] transport::smtp::Error),
    #[error("the list of sent e-mails is not available")]
    Sent(#[from] sqlx::Error),
}

impl MailError {
    /// Whether the same mail may go through later.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Address(_) | Self::Message(_) | Self::Bounced => false,
            Self::Folder(_) | Self::Sent(_) => true,
            Self::Server(error) => !error.is_permanent(),
        }
    }
}

impl Mailer {
    /// Writes mail to files in a folder, which is made if need be.
    pub(crate) fn to_folder(sent: Database, sender: Mailbox, folder: &Path) -> Self {
        Self { sent, sender, outbox: Outbox::Folder(folder.to_owned()) }
    }

    /// Hands mail to a server, such as `smtp://user:password@mail.example.com?tls=required`.
    pub(crate) fn to_server(
        sent: Database,
        sender: Mailbox,
        url: &str,
    ) -> Result<Self, transport::smtp::Error> {
        let server = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)?.build();
        Ok(Self { sent, sender, outbox: Outbox::Server(server) })
    }

    /// Sends a mail unless it is known to have been sent; gives its `Message-ID`.
    pub(crate) async fn send(&self, key: &str, mail: Mail<'_>) -> Result<String, MailError> {
        let message_id = message_id(key);
        if self.was_sent(key).await? {
            return Ok(message_id);
        }
        let address = mail.to.email.parse()?;
        let message = Message::builder()
            .from(self.sender.clone())
            .to(Mailbox::new(Some(mail.to.name.clone()), address))
            .message_id(Some(message_id.clone()))
            .subject(mail.subject)
            .multipart(MultiPart::alternative_plain_html(mail.text, mail.html))?;
        if mail.to.email.to_ascii_lowercase().ends_with(&format!("@{BOUNCING}")) {
            return Err(MailError::Bounced);
        }
        match &self.outbox {
            Outbox::Folder(folder) => write(folder, mail.reference, message).await?,
            Outbox::Server(server) => drop(server.send(message).await?),
        }
        self.sent
            .query("INSERT INTO {shop}sent_mails VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(key.to_owned())
            .bind(message_id.clone())
            .execute(self.sent.pool())
            .await?;
        Ok(message_id)
    }

    async fn was_sent(&self, key: &str) -> Result<bool, sqlx::Error> {
        let row = self
            .sent
            .query("SELECT 1 FROM {shop}sent_mails WHERE idempotency_key = $1")
            .bind(key.to_owned())
            .fetch_optional(self.sent.pool())
            .await?;
        Ok(row.is_some())
    }
}

/// Puts a mail into a folder under a name of its own, so that a repeat replaces it.
async fn write(folder: &Path, reference: &str, message: Message) -> Result<(), MailError> {
    let refused = |error: std::io::Error| MailError::Folder(error.into());
    // A mail is written elsewhere and moved: nobody finds half of one.
    let outgoing = folder.join(".outgoing");
    tokio::fs::create_dir_all(&outgoing).await.map_err(refused)?;
    let transport = AsyncFileTransport::<Tokio1Executor>::new(&outgoing);
    let id = transport.send(message).await.map_err(|error| MailError::Folder(error.into()))?;
    let written = outgoing.join(format!("{id}.eml"));
    tokio::fs::File::open(&written).await.map_err(refused)?.sync_all().await.map_err(refused)?;
    let placed = folder.join(format!("{reference}.eml"));
    tokio::fs::rename(written, placed).await.map_err(refused)
}

fn message_id(key: &str) -> String {
    let digest = Sha256::digest(key.as_bytes());
    let hex: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("<{hex}@shop.example>")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, clippy::unwrap_used)]

    use super::*;

    async fn mailer(folder: &tempfile::TempDir) -> Mailer {
        let file = folder.path().join("shop.db");
        let sent = Database::in_file(&file, &[TABLES]).await.expect("a file");
        let sender = "Shop <shop@shop.example>".parse().expect("a sender");
        Mailer::to_folder(sent, sender, &folder.path().join("mailbox"))
    }

    fn mail(to: &CustomerInfo) -> Mail<'_> {
        let subject = "Your order\r\nBcc: everybody@example.com".to_owned();
        Mail { to, reference: "ORD-1", subject, text: "Thank you".into(), html: "<p>".into() }
    }

    fn mails(folder: &tempfile::TempDir) -> Vec<String> {
        let entries = std::fs::read_dir(folder.path().join("mailbox")).expect("a mailbox");
        let files = entries.map(|entry| entry.expect("an entry").path());
        let mails = files.filter(|path| path.extension().is_some_and(|end| end == "eml"));
        mails.map(|path| std::fs::read_to_string(path).expect("a mail")).collect()
    }

    #[tokio::test]
    async fn a_repeat_leaves_one_mail() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = CustomerInfo { email: "test@example.com".into(), name: "Zoë \"Q\" Test".into() };
        let mailer = mailer(&folder).await;
        let first = mailer.send("key", mail(&to)).await.expect("sent");
        // The crash came before the list of sent mails was written.
        let sent = &mailer.sent;
        sent.query("DELETE FROM {shop}sent_mails").execute(sent.pool()).await.expect("deleted");
        let again = mailer.send("key", mail(&to)).await.expect("sent");
        assert_eq!(first, again);
        let mails = mails(&folder);
        let [text] = mails.as_slice() else { panic!("{} mails", mails.len()) };
        assert!(text.contains(&first), "{text}");
        assert!(!text.lines().any(|line| line.starts_with("Bcc:")), "{text}");
    }

    #[tokio::test]
    async fn an_address_that_bounces_is_given_up() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = CustomerInfo { email: "test@bounces.example".into(), name: "Test".into() };
        let refused = mailer(&folder).await.send("key", mail(&to)).await;
        assert!(refused.is_err_and(|error| !error.may_pass()));
    }
}
