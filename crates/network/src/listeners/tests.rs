//! Where connections go while servers come and go.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Stays,
    Ends,
}

/// A door, and servers of this process behind it, which answer with their own address.
struct World {
    address: SocketAddr,
    table: Arc<ServiceTable>,
    refreshed: watch::Sender<()>,
    servers: Arc<Mutex<HashMap<SocketAddr, Server>>>,
    tasks: Tasks,
}

fn endpoint(last: u8) -> SocketAddr {
    // Nobody listens there.
    SocketAddr::from(([127, 0, 199, last], 9))
}

impl World {
    async fn new(servers: &[(u8, Server)], endpoints: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let servers = servers.iter().map(|(last, server)| (endpoint(*last), *server)).collect();
        let servers: Arc<Mutex<HashMap<_, _>>> = Arc::new(Mutex::new(servers));
        let table = Arc::new(ServiceTable::default());
        let (refreshed, receiver) = watch::channel(());
        let tasks = Tasks::new(CancellationToken::new());
        let here = Arc::clone(&servers);
        let guide = Guide {
            door: Door::Virtual(address),
            table: Arc::clone(&table),
            deliver: Arc::new(move |address, client, offer| {
                match (here.lock().get(&address), offer) {
                    (None, _) => Err(NotTaken::NotHere(client)),
                    (Some(Server::Ends), Offer::ToStaying) => Err(NotTaken::Ending(client)),
                    (Some(Server::Ends), Offer::ToAny) | (Some(Server::Stays), _) => {
                        tokio::spawn(answer(address, client));
                        Ok(())
                    }
                }
            }),
            refreshed: receiver,
        };
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let doorman = Doorman { guide: Arc::new(guide), room, tasks: tasks.clone() };
        tokio::spawn(doorman.accept(listener));
        let world = Self { address, table, refreshed, servers, tasks };
        world.snapshot(endpoints);
        world
    }

    fn snapshot(&self, endpoints: &[u8]) {
        let endpoints = endpoints.iter().map(|last| endpoint(*last)).collect();
        let port = Arc::new(ServicePort::new("shop/web".to_owned(), endpoints, None, None));
        let mut services = Services::default();
        services.by_address.insert(self.address, port);
        self.table.replace(services);
        self.refreshed.send_replace(());
    }

    /// Who answers one connection; `None` when nobody does.
    async fn ask(address: SocketAddr) -> Option<u8> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        match text.parse().ok()? {
            SocketAddr::V4(address) => Some(address.ip().octets()[3]),
            SocketAddr::V6(_) => None,
        }
    }

    /// Who answers many connections at once.
    async fn ask_often(&self) -> Vec<Option<u8>> {
        let asked: Vec<_> = (0..50).map(|_| tokio::spawn(Self::ask(self.address))).collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.unwrap());
        }
        answers
    }
}

async fn answer(address: SocketAddr, mut client: TcpStream) {
    // A client that went away needs none.
    let _ = client.write_all(address.to_string().as_bytes()).await;
}

#[tokio::test]
async fn a_server_that_is_about_to_end_gets_no_connection_that_another_takes() {
    let world = World::new(&[(1, Server::Ends), (2, Server::Stays)], &[1, 2, 3, 4, 5]).await;
    assert_eq!(world.ask_often().await, [Some(2); 50]);
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_server_that_is_about_to_end_answers_when_nobody_else_does() {
    let world = World::new(&[(1, Server::Ends)], &[1, 2]).await;
    assert_eq!(world.ask_often().await, [Some(1); 50]);
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_connection_waits_for_those_who_follow_servers_that_have_ended() {
    let world = World::new(&[], &[1, 2]).await;
    let asked: Vec<_> = (0..20).map(|_| tokio::spawn(World::ask(world.address))).collect();
    tokio::task::yield_now().await;
    world.servers.lock().insert(endpoint(3), Server::Stays);
    world.snapshot(&[2, 3]);
    for answer in asked {
        assert_eq!(answer.await.unwrap(), Some(3));
    }
    world.tasks.shutdown().await;
}

#[tokio::test]
async fn a_service_without_endpoints_refuses_at_once() {
    let world = World::new(&[(1, Server::Stays)], &[]).await;
    assert_eq!(World::ask(world.address).await, None);
    world.tasks.shutdown().await;
}
