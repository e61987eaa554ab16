//! Which reply belongs to which request, on one connection. Pure: frames in, verdicts out.
//!
//! Clients send ahead, so a reply is found by counting: the server ends each with ReadyForQuery.

use std::collections::HashMap;

use tokio::sync::oneshot;

/// A reply that is to be lost, before its request has come.
pub(super) struct Armed {
    /// How many requests that are meant it takes; the last is the one.
    pub(super) nth: usize,
    pub(super) meant: Meant,
    pub(super) swallowed: oneshot::Sender<()>,
}

/// Whether a request that executes this SQL is one that is meant.
pub(super) type Meant = Box<dyn Fn(&str) -> bool + Send>;

/// What is under way on a connection whose session has been asked for.
pub(super) struct Exchange {
    /// The text of each statement that the client has prepared: only its name is sent later.
    prepared: HashMap<String, String>,
    /// What the request that has not ended yet executes.
    executes: Vec<String>,
    sent: u64,
    answered: u64,
    /// How many replies go through before the one that is lost.
    swallow: Option<(u64, oneshot::Sender<()>)>,
}

/// What becomes of a frame from the server.
pub(super) enum Verdict {
    Forward,
    Swallow,
    /// It was the last of the reply that is lost.
    Swallowed(oneshot::Sender<()>),
}

impl Exchange {
    /// The message that opens the session is the first request; it is never lost.
    pub(super) fn opened() -> Self {
        Self { prepared: HashMap::new(), executes: Vec::new(), sent: 1, answered: 0, swallow: None }
    }

    /// Takes note of a frame from the client, before the server gets it.
    pub(super) fn client_sends(&mut self, frame: &[u8], armed: &mut Option<Armed>) {
        let (Some(kind), Some(body)) = (frame.first(), frame.get(5..)) else { return };
        let mut texts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let mut text = || texts.next().unwrap_or_default().into_owned();
        match kind {
            // Parse: a name and a statement. Bind: a portal and a name; it is executed next.
            b'P' => drop(self.prepared.insert(text(), text())),
            b'B' => {
                let (_portal, name) = (text(), text());
                self.executes.push(self.prepared.get(&name).cloned().unwrap_or(name));
            }
            b'Q' => self.executes.push(text()),
            _ => {}
        }
        // Sync, a simple query, a function call: what the server answers with ReadyForQuery.
        if !matches!(kind, b'S' | b'Q' | b'F') {
            return;
        }
        let executes = std::mem::take(&mut self.executes);
        if self.swallow.is_none()
            && !executes.is_empty()
            && let Some(mut one) = armed.take_if(|one| (one.meant)(&executes.join("; ")))
        {
            one.nth = one.nth.saturating_sub(1);
            if one.nth == 0 {
                self.swallow = Some((self.sent, one.swallowed));
            } else {
                *armed = Some(one);
            }
        }
        self.sent += 1;
    }

    /// Decides on a frame from the server.
    pub(super) fn server_sends(&mut self, frame: &[u8]) -> Verdict {
        let is_swallowed =
            self.swallow.as_ref().is_some_and(|(before, _)| *before == self.answered);
        let is_last = frame.first() == Some(&b'Z');
        self.answered += u64::from(is_last);
        match is_swallowed {
            false => Verdict::Forward,
            true => match self.swallow.take_if(|_| is_last) {
                Some((_, swallowed)) => Verdict::Swallowed(swallowed),
                None => Verdict::Swallow,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn armed(nth: usize, text: &'static str) -> (Option<Armed>, oneshot::Receiver<()>) {
        let (swallowed, done) = oneshot::channel();
        let meant = Box::new(move |sql: &str| sql.contains(text));
        (Some(Armed { nth, meant, swallowed }), done)
    }

    fn send(exchange: &mut Exchange, armed: &mut Option<Armed>, frames: &[(char, &str)]) {
        for (kind, body) in frames {
            exchange.client_sends(format!("{kind}size{body}").as_bytes(), armed);
        }
    }

    /// `f`orwarded, `s`wallowed, `!` the last one.
    fn verdicts(exchange: &mut Exchange, frames: &str) -> String {
        let verdict = |frame: u8| match exchange.server_sends(&[frame]) {
            Verdict::Forward => 'f',
            Verdict::Swallow => 's',
            Verdict::Swallowed(_) => '!',
        };
        frames.bytes().map(verdict).collect()
    }

    #[test]
    fn only_the_reply_to_the_request_that_is_meant_is_swallowed() {
        let (mut armed, _done) = armed(1, "COMMIT");
        let mut exchange = Exchange::opened();
        send(&mut exchange, &mut armed, &[('p', "a password, COMMIT")]);
        // Sent ahead, before the server has answered anything.
        let ahead = [('Q', "BEGIN"), ('P', "\0INSERT\0"), ('B', "\0\0"), ('E', ""), ('S', "")];
        send(&mut exchange, &mut armed, &ahead);
        send(&mut exchange, &mut armed, &[('Q', "COMMIT\0"), ('Q', "SELECT\0")]);
        assert_eq!(verdicts(&mut exchange, "RSZCZ12CZCZ"), "fffffffffs!");
    }

    #[test]
    fn a_request_is_meant_when_it_executes_and_not_when_it_prepares() {
        let (mut armed, _done) = armed(2, "INSERT");
        let mut exchange = Exchange::opened();
        let prepare = [('P', "one\0INSERT\0"), ('P', "two\0SELECT\0"), ('S', "")];
        send(&mut exchange, &mut armed, &prepare);
        for name in ["one", "two"] {
            send(&mut exchange, &mut armed, &[('B', &format!("\0{name}\0")), ('S', "")]);
        }
        assert!(exchange.swallow.is_none());
        send(&mut exchange, &mut armed, &[('B', "\0one\0"), ('S', "")]);
        assert_eq!(exchange.swallow.as_ref().map(|(before, _)| *before), Some(4));
        assert!(armed.is_none());
    }
}
