//! One connection through the proxy: two pumps, and the gate that both go through.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{oneshot, watch},
    time::sleep,
};

use super::{
    exchange::{Armed, Exchange, Verdict},
    frames::{Frames, Opening, opening},
};

/// What all connections of a proxy have in common.
pub(super) struct Network {
    server: String,
    pub(super) flow: watch::Sender<Flow>,
    armed: Mutex<Option<Armed>>,
}

/// How bytes flow at the moment.
#[derive(Clone, Copy, Default)]
pub(super) struct Flow {
    pub(super) refusing: bool,
    pub(super) frozen: bool,
    pub(super) delay: Duration,
}

impl Network {
    pub(super) fn new(server: String) -> Self {
        Self { server, flow: watch::Sender::default(), armed: Mutex::default() }
    }

    /// The reply that is to be lost.
    pub(super) fn armed(&self) -> MutexGuard<'_, Option<Armed>> {
        // A predicate that panicked is the test's failure, not the next connection's.
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until bytes may flow.
    async fn pass(&self) {
        let delay = self.flow.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        // It fails without a sender, and we hold it.
        let _ = self.flow.subscribe().wait_for(|flow| !flow.frozen).await;
    }
}

/// Relays until a side closes, or until a reply has been swallowed: that one's sender is returned
/// once both sides are closed.
pub(super) async fn relay(
    mut client: TcpStream,
    network: &Network,
) -> io::Result<Option<oneshot::Sender<()>>> {
    let mut server = TcpStream::connect(&network.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let Some(frames) = open(&mut client, &mut server, network).await? else { return Ok(None) };
    let exchange = Mutex::new(Exchange::opened());
    let (client_reads, client_writes) = client.split();
    let (server_reads, server_writes) = server.split();
    tokio::select! {
        ended = requests(client_reads, server_writes, (network, &exchange), frames) => {
            ended.map(|()| None)
        }
        ended = replies(server_reads, client_writes, (network, &exchange)) => ended,
    }
}

/// What is said before a session; the server's answers to it need no look. Returns with what the
/// client has sent ahead, or with nothing if there will be no session.
async fn open(
    client: &mut TcpStream,
    server: &mut TcpStream,
    network: &Network,
) -> io::Result<Option<Frames>> {
    let mut frames = Frames::opening();
    loop {
        while let Some(frame) = frames.next() {
            network.pass().await;
            match opening(&frame) {
                // Inside of TLS we would see nothing.
                Opening::Encryption => client.write_all(b"N").await?,
                Opening::Session => {
                    server.write_all(&frame).await?;
                    frames.now_typed();
                    return Ok(Some(frames));
                }
                Opening::Cancel => {
                    server.write_all(&frame).await?;
                    // The client waits for the close, and by then it must have been heard.
                    server.read_to_end(&mut Vec::new()).await?;
                    return Ok(None);
                }
            }
        }
        if client.read_buf(frames.buffer()).await? == 0 {
            return Ok(None);
        }
    }
}

type Shared<'a> = (&'a Network, &'a Mutex<Exchange>);

async fn requests(
    mut client: ReadHalf<'_>,
    mut server: WriteHalf<'_>,
    (network, exchange): Shared<'_>,
    mut frames: Frames,
) -> io::Result<()> {
    loop {
        let mut onward = Vec::new();
        while let Some(frame) = frames.next() {
            lock(exchange).client_sends(&frame, &mut network.armed());
            onward.extend_from_slice(&frame);
        }
        if !onward.is_empty() {
            network.pass().await;
            server.write_all(&onward).await?;
        }
        if client.read_buf(frames.buffer()).await? == 0 {
            return Ok(());
        }
    }
}

async fn replies(
    mut server: ReadHalf<'_>,
    mut client: WriteHalf<'_>,
    (network, exchange): Shared<'_>,
) -> io::Result<Option<oneshot::Sender<()>>> {
    let mut frames = Frames::typed();
    loop {
        if server.read_buf(frames.buffer()).await? == 0 {
            return Ok(None);
        }
        let mut onward = Vec::new();
        let mut swallowed = None;
        while swallowed.is_none()
            && let Some(frame) = frames.next()
        {
            match lock(exchange).server_sends(&frame) {
                Verdict::Forward => onward.extend_from_slice(&frame),
                Verdict::Swallow => {}
                Verdict::Swallowed(tell) => swallowed = Some(tell),
            }
        }
        if !onward.is_empty() {
            network.pass().await;
            client.write_all(&onward).await?;
        }
        if swallowed.is_some() {
            return Ok(swallowed);
        }
    }
}

fn lock(exchange: &Mutex<Exchange>) -> MutexGuard<'_, Exchange> {
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}
