//! `wasi:sockets` as pods have it: the functions that name an address, in front of wasmtime's own.

use std::net::SocketAddr;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{
    Host as LookupHost, ResolveAddressStream,
};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpSocketAddress, Network};
use wasmtime_wasi::p2::bindings::sockets::tcp::HostTcpSocket;
use wasmtime_wasi::p2::bindings::sockets::udp::HostUdpSocket;
use wasmtime_wasi::p2::{SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView};

use crate::guest::Guest;
use crate::network::{Meaning, PodNetwork, Unreachable};

/// The names under which wasmtime 48 defines them; guests may ask for any 0.2 version.
const TCP: &str = "wasi:sockets/tcp@0.2.12";
const UDP: &str = "wasi:sockets/udp@0.2.12";
const LOOKUP: &str = "wasi:sockets/ip-name-lookup@0.2.12";

type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

/// Puts our functions in the place of wasmtime's.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut tcp = linker.instance(TCP)?;
    tcp.func_wrap("[method]tcp-socket.start-connect", start_connect)?;
    tcp.func_wrap_async(
        "[method]tcp-socket.start-bind",
        |mut store: StoreContextMut<'_, Guest>,
         (socket, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move {
                let Some(own) = own_address(&store, address) else {
                    return Ok((Err(ErrorCode::AddressNotBindable),));
                };
                let mut sockets = store.data_mut().sockets();
                answer(HostTcpSocket::start_bind(&mut sockets, socket, network, own).await)
            })
        },
    )?;
    linker.instance(UDP)?.func_wrap_async(
        "[method]udp-socket.start-bind",
        |mut store: StoreContextMut<'_, Guest>,
         (socket, network, address): (Resource<UdpSocket>, Resource<Network>, IpSocketAddress)| {
            Box::new(async move {
                let Some(own) = own_address(&store, address) else {
                    return Ok((Err(ErrorCode::AddressNotBindable),));
                };
                let mut sockets = store.data_mut().sockets();
                answer(HostUdpSocket::start_bind(&mut sockets, socket, network, own).await)
            })
        },
    )?;
    linker.instance(LOOKUP)?.func_wrap("resolve-addresses", resolve_addresses)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What is asked for each address a socket uses: the last line, behind the functions above.
pub(crate) fn may_use(network: &PodNetwork, address: SocketAddr, purpose: SocketAddrUse) -> bool {
    match purpose {
        // With port 0 it is the system's choice for an outgoing connection.
        SocketAddrUse::TcpBind | SocketAddrUse::UdpBind => {
            (address.ip().is_unspecified() && address.port() == 0)
                || network.own(address) == Some(address)
        }
        SocketAddrUse::TcpListen => network.own(address) == Some(address),
        // Where it leads was decided when the connection was asked for.
        SocketAddrUse::TcpConnect | SocketAddrUse::TcpAccept | SocketAddrUse::UdpReceive => true,
        SocketAddrUse::UdpSend => network.may_send(address),
    }
}

fn start_connect(
    mut store: StoreContextMut<'_, Guest>,
    (socket, network, address): (Resource<TcpSocket>, Resource<Network>, IpSocketAddress),
) -> Answer<()> {
    let target = match store.data().grants().network.destination(address.into()) {
        Ok(target) => target.into(),
        Err(Unreachable::Refused) => return Ok((Err(ErrorCode::ConnectionRefused),)),
    };
    let mut sockets = store.data_mut().sockets();
    answer(HostTcpSocket::start_connect(&mut sockets, socket, network, target))
}

fn resolve_addresses(
    mut store: StoreContextMut<'_, Guest>,
    (network, name): (Resource<Network>, String),
) -> Answer<Resource<ResolveAddressStream>> {
    let name = match store.data().grants().network.meaning(&name) {
        // wasmtime's stream is made from one name. Of several pods behind a headless Service any will do.
        Meaning::Addresses(addresses) => {
            addresses[rand::random_range(0..addresses.len())].to_string()
        }
        Meaning::Outside(name) => name,
        Meaning::Unknown => return Ok((Err(ErrorCode::NameUnresolvable),)),
    };
    let mut sockets = store.data_mut().sockets();
    answer(LookupHost::resolve_addresses(&mut sockets, network, name))
}

fn own_address(
    store: &StoreContextMut<'_, Guest>,
    address: IpSocketAddress,
) -> Option<IpSocketAddress> {
    store.data().grants().network.own(address.into()).map(Into::into)
}

/// An error code goes to the guest, anything else traps.
fn answer<T>(result: SocketResult<T>) -> Answer<T> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => error.downcast().map(|code| (Err(code),)),
    }
}
