//! A network that fails on purpose: a proxy between a store and its server, for one thing above
//! all: a COMMIT that the server carries out while its reply is lost.
//!
//! It knows as much of the protocol as it takes to tell where a request and its reply end
//! (`proxy/exchange.rs`), and offers no TLS.

mod exchange;
mod frames;
mod relay;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use crate::{Error, url};
use exchange::Armed;
use relay::{Flow, Network};

/// A TCP proxy in front of one server, to be disturbed while a test runs. Dropping it closes every
/// connection.
///
/// Its methods take effect on the connections that there are and on those to come, in the runtime
/// that made it.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
    cuts: mpsc::Sender<oneshot::Sender<()>>,
    accepting: JoinHandle<()>,
}

/// A reply that is going to be lost.
pub struct Swallow {
    done: oneshot::Receiver<()>,
}

impl Proxy {
    /// A proxy on a port of its own in front of the server of `url`, whose database is of no
    /// consequence. The server may be down; it is dialled for each connection.
    ///
    /// # Errors
    ///
    /// [`Error::Url`], if there is no address in the URL; [`Error::Io`], if there is no port.
    pub async fn to(url: &str) -> Result<Self, Error> {
        let server = url::address(url)?;
        let no_port = || Error::io("listen on 127.0.0.1");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(no_port())?;
        let address = listener.local_addr().map_err(no_port())?;
        let network = Arc::new(Network::new(server));
        let (cuts, ordered) = mpsc::channel(1);
        let accepting = tokio::spawn(accept(listener, Arc::clone(&network), ordered));
        Ok(Self { address, network, cuts, accepting })
    }

    /// `url` by way of the proxy: its user and database, the proxy's address.
    ///
    /// # Errors
    ///
    /// [`Error::Url`], as for [`to`](Self::to).
    pub fn url(&self, url: &str) -> Result<String, Error> {
        url::with_address(url, &self.address.to_string())
    }

    /// Closes every connection that there is, whatever it is about; returns when they are closed.
    pub async fn cut(&self) {
        let (closed, done) = oneshot::channel();
        if self.cuts.send(closed).await.is_ok() {
            // It fails with the runtime of the connections, and then they are closed too.
            let _ = done.await;
        }
    }

    /// Whether to hang up on new connections. Their port does answer: for one that refuses, stop
    /// the server.
    pub fn refuse(&self, refuse: bool) {
        self.change(|flow| flow.refusing = refuse);
    }

    /// How long everything takes in each direction.
    pub fn delay(&self, delay: Duration) {
        self.change(|flow| flow.delay = delay);
    }

    /// Lets no byte through in either direction until [`thaw`](Self::thaw); nothing is lost and
    /// nothing is closed. Connections can still be opened and are frozen too.
    pub fn freeze(&self) {
        self.change(|flow| flow.frozen = true);
    }

    /// Ends a [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.change(|flow| flow.frozen = false);
    }

    fn change(&self, change: impl FnOnce(&mut Flow)) {
        self.network.flow.send_modify(change);
    }

    /// Loses the reply to the `nth` request, from 1 and from now on, that executes SQL which is
    /// `meant`: the server gets it whole and carries it out; once the server has answered, the
    /// connection is closed and nothing of the answer has come through.
    ///
    /// `meant` sees the statement's text, also when it was prepared earlier and only its name is
    /// sent; more than one, if the client sent them together, as one text. It is not asked about
    /// requests that only prepare, nor about those that set up a connection in the protocol (what
    /// a pool executes first, it is). The requests of all connections are counted together.
    ///
    /// Only one reply is being waited for: this replaces what was armed before.
    pub fn swallow_reply(
        &self,
        nth: usize,
        meant: impl Fn(&str) -> bool + Send + 'static,
    ) -> Swallow {
        let (swallowed, done) = oneshot::channel();
        let armed = Armed { nth, meant: Box::new(meant), swallowed };
        *self.network.armed() = Some(armed);
        Swallow { done }
    }

    /// Loses the reply to the next request that executes something, whatever it is, as
    /// [`swallow_reply`](Self::swallow_reply) does.
    pub fn swallow_next_reply(&self) -> Swallow {
        self.swallow_reply(1, |_| true)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Swallow {
    /// Waits until the server has answered and the connection is closed: `true`. `false`: the
    /// connection ended before the answer, or another reply was armed instead.
    pub async fn happened(self) -> bool {
        self.done.await.is_ok()
    }
}

async fn accept(
    listener: TcpListener,
    network: Arc<Network>,
    mut cuts: mpsc::Receiver<oneshot::Sender<()>>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of descriptors, or the client is gone again: the next may do better.
                let Ok((client, _)) = accepted else { tokio::task::yield_now().await; continue };
                if !network.flow.borrow().refusing {
                    connections.spawn(connect(client, Arc::clone(&network)));
                }
            }
            Some(closed) = cuts.recv() => {
                connections.shutdown().await;
                // Whoever asked may have stopped waiting.
                let _ = closed.send(());
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(client: TcpStream, network: Arc<Network>) {
    // A server that is down and a connection that breaks look the same to the client: closed.
    if let Ok(Some(swallowed)) = relay::relay(client, &network).await {
        let _ = swallowed.send(());
    }
}
