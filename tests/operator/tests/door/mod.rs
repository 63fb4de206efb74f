//! A door that stays where it is while the server behind it is killed and comes back on another port.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Passes every connection on to a port of this machine that may change.
pub struct Door {
    /// Where clients knock.
    pub address: SocketAddr,
    behind: Arc<AtomicU16>,
}

impl Door {
    /// Opens a door; the runtime that it is opened in keeps it open.
    pub async fn open(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let behind = Arc::new(AtomicU16::new(port));
        tokio::spawn(pass_on(listener, Arc::clone(&behind)));
        Self { address, behind }
    }

    /// From now on, new connections go to this port.
    pub fn lead_to(&self, port: u16) {
        self.behind.store(port, Ordering::SeqCst);
    }
}

async fn pass_on(listener: TcpListener, behind: Arc<AtomicU16>) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let port = behind.load(Ordering::SeqCst);
        connections.spawn(async move {
            if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}
