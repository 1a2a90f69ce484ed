//! A network that can be cut: a proxy of one address.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What the network does to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// It carries them.
    Whole,
    /// It ends them, and new ones.
    Cut,
    /// It carries nothing on, and ends nothing: nobody is told.
    Silent,
}

/// A proxy on a port of its own.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    network: watch::Sender<Network>,
    _listener: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (network, watched) = watch::channel(Network::Whole);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Dropped with the listener.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, server, watched.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            network,
            _listener: tasks,
        }
    }

    pub(crate) fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut network: watch::Receiver<Network>) {
    // A silent network lets a client connect, as far as the client can tell.
    if network
        .wait_for(|network| *network != Network::Silent)
        .await
        .is_err()
    {
        return;
    }
    if *network.borrow() == Network::Cut {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = client.set_nodelay(true);
    let _ = server.set_nodelay(true);
    let mut watched = network.clone();
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => return,
        _ = watched.wait_for(|network| *network != Network::Whole) => {}
    }
    // What was under way is lost; when the network speaks again, both ends learn of it.
    let _ = network
        .wait_for(|network| *network != Network::Silent)
        .await;
}
