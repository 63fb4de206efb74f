//! A guest for tests: does what its arguments say, one after the other.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::process::exit;
use std::thread::sleep;
use std::time::{Duration, Instant};

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

fn main() {
    let mut words = env::args().skip(1);
    while let Some(word) = words.next() {
        let mut next = || words.next().unwrap_or_default();
        match word.as_str() {
            "print" => println!("{}", next()),
            "error" => eprintln!("{}", next()),
            "args" => println!("{:?}", env::args().collect::<Vec<_>>()),
            "env" => {
                let mut all: Vec<String> =
                    env::vars().map(|(name, value)| format!("{name}={value}")).collect();
                all.sort();
                println!("env {}", all.join(" "));
            }
            "stdin" => {
                let mut text = String::new();
                let read = std::io::stdin().read_to_string(&mut text);
                println!("stdin {read:?}");
            }
            "ls" => println!("ls {}", told(list(&next()))),
            "read" => println!("read {}", told(fs::read_to_string(next()))),
            "write" => {
                let path = next();
                println!("write {}", told(fs::write(path, next()).map(|()| "done".to_owned())));
            }
            "flood" => flood(next().parse().unwrap_or(0)),
            "spin" => spin(Duration::from_millis(next().parse().unwrap_or(0))),
            "sleep" => sleep(Duration::from_millis(next().parse().unwrap_or(0))),
            "allocate" => allocate(next().parse().unwrap_or(0)),
            "trap" => deeper(3),
            "exit" => exit(next().parse().unwrap_or(0)),
            "resolve" => println!("resolve {}", resolve(&next())),
            "connect" => println!("connect {}", connect(&next())),
            "listen" => println!("listen {}", listen(&next())),
            other => println!("what is {other}?"),
        }
    }
}

fn told(result: std::io::Result<String>) -> String {
    result.unwrap_or_else(|error| format!("failed: {:?}", error.kind()))
}

fn list(path: &str) -> std::io::Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names.join(" "))
}

fn flood(lines: u64) {
    let line = [b'x'; 1023];
    let mut out = std::io::stdout().lock();
    for _ in 0..lines {
        out.write_all(&line).and_then(|()| out.write_all(b"\n")).expect("the log takes everything");
    }
}

/// For ever when it is zero.
fn spin(duration: Duration) {
    let began = Instant::now();
    let mut rounds = 0_u64;
    while duration.is_zero() || began.elapsed() < duration {
        for _ in 0..10_000 {
            rounds = std::hint::black_box(rounds.wrapping_mul(3).wrapping_add(1));
        }
    }
    println!("spun");
}

fn allocate(mebibytes: usize) {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        held.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    println!("allocated {}", held.len());
}

#[inline(never)]
fn deeper(levels: u32) {
    if std::hint::black_box(levels) == 0 {
        core::arch::wasm32::unreachable();
    }
    deeper(levels - 1);
    std::hint::black_box(levels);
}

fn resolve(name: &str) -> String {
    let stream = match resolve_addresses(&instance_network(), name) {
        Ok(stream) => stream,
        Err(error) => return format!("failed: {error:?}"),
    };
    loop {
        match stream.resolve_next_address() {
            Ok(Some(IpAddress::Ipv4((a, b, c, d)))) => return format!("{a}.{b}.{c}.{d}"),
            Ok(_) => return "nothing".to_owned(),
            Err(ErrorCode::WouldBlock) => stream.subscribe().block(),
            Err(error) => return format!("failed: {error:?}"),
        }
    }
}

fn address(text: &str) -> IpSocketAddress {
    let address: std::net::SocketAddrV4 = text.parse().expect("an IPv4 address and port");
    let [a, b, c, d] = address.ip().octets();
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port: address.port(), address: (a, b, c, d) })
}

fn socket() -> TcpSocket {
    create_tcp_socket(IpAddressFamily::Ipv4).expect("sockets are granted")
}

/// Reads until the other side closes.
fn connect(target: &str) -> String {
    let socket = socket();
    if let Err(error) = socket.start_connect(&instance_network(), address(target)) {
        return format!("failed: {error:?}");
    }
    socket.subscribe().block();
    match socket.finish_connect() {
        Err(error) => format!("failed: {error:?}"),
        Ok((input, _output)) => {
            let mut text = Vec::new();
            while let Ok(bytes) = input.blocking_read(4096) {
                text.extend(bytes);
            }
            String::from_utf8_lossy(&text).into_owned()
        }
    }
}

/// Serves one connection.
fn listen(own: &str) -> String {
    let socket = socket();
    if let Err(error) = socket.start_bind(&instance_network(), address(own)) {
        return format!("failed: {error:?}");
    }
    socket.subscribe().block();
    let listening = socket.finish_bind().and_then(|()| socket.start_listen());
    if let Err(error) = listening.and_then(|()| socket.finish_listen()) {
        return format!("failed: {error:?}");
    }
    println!("listening on {:?}", socket.local_address());
    socket.subscribe().block();
    match socket.accept() {
        Err(error) => format!("failed: {error:?}"),
        Ok((_connection, _input, output)) => {
            let written = output.blocking_write_and_flush(b"hello from a guest");
            format!("{written:?}")
        }
    }
}
