//! The messages of the PostgreSQL protocol, cut out of a stream of bytes.
//!
//! All but a client's first have a byte of type and then a length that counts itself.

/// Bytes that came, until they make a whole message.
pub(super) struct Frames {
    bytes: Vec<u8>,
    typed: bool,
}

/// What a client may say before it says anything typed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// It wants to know whether it may encrypt.
    Encryption,
    /// It starts a session.
    Session,
    /// It cancels what another session does, and expects no answer.
    Cancel,
}

const CANCEL: u32 = 80_877_102;
const TLS: u32 = 80_877_103;
const GSS: u32 = 80_877_104;

impl Frames {
    pub(super) fn typed() -> Self {
        Self { bytes: Vec::new(), typed: true }
    }

    /// Those of a client that has said nothing yet.
    pub(super) fn opening() -> Self {
        Self { bytes: Vec::new(), typed: false }
    }

    /// What follows the message that opens a session.
    pub(super) fn now_typed(&mut self) {
        self.typed = true;
    }

    /// Where bytes that come are put, behind those that have.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The next whole message, with its header.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let header = usize::from(self.typed);
        let length = word(self.bytes.get(header..)?)?;
        // Less than itself would be no length; taken as one, we would never get on.
        let end = header + usize::try_from(length).ok()?.max(4);
        (self.bytes.len() >= end).then(|| self.bytes.drain(..end).collect())
    }
}

/// What an untyped message is about.
pub(super) fn opening(frame: &[u8]) -> Opening {
    match frame.get(4..).and_then(word) {
        Some(TLS | GSS) => Opening::Encryption,
        Some(CANCEL) => Opening::Cancel,
        Some(_) | None => Opening::Session,
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_however_the_bytes_arrive() {
        let stream = b"Q\0\0\0\x08abc\0S\0\0\0\x04";
        for cut in 0..=stream.len() {
            let mut frames = Frames::typed();
            let mut found = Vec::new();
            for part in [&stream[..cut], &stream[cut..]] {
                frames.buffer().extend_from_slice(part);
                found.extend(std::iter::from_fn(|| frames.next()));
            }
            assert_eq!(found, [stream[..9].to_vec(), stream[9..].to_vec()], "cut at {cut}");
        }
    }

    #[test]
    fn the_first_message_has_no_type() {
        let mut frames = Frames::opening();
        frames.buffer().extend_from_slice(b"\0\0\0\x08\x04\xd2\x16\x2fQ\0\0\0\x04");
        assert_eq!(frames.next().as_deref().map(opening), Some(Opening::Encryption));
        frames.now_typed();
        assert_eq!(frames.next().as_deref(), Some(&b"Q\0\0\0\x04"[..]));
    }
}
