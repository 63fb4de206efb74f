//! `store`, `api`, `etcd`: durable writes of 1 KiB a second, with few and with many clients.
//!
//! Clients of the API and of etcd talk HTTP/2 (gRPC to etcd) through the same connection code, 16 of them on a
//! connection; the API's with TLS and client certificates, which it cannot do without, etcd's in plain text.

use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use coracle_store::{Attributes, Key, Options, Store, Value};
use http::Method;

use crate::Settings;
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::etcd::Etcd;
use crate::load::measure;
use crate::report::Report;

const CLIENTS: [usize; 3] = [1, 64, 256];
/// Clients that share an HTTP/2 connection.
const SHARE: usize = 16;
const BYTES: usize = 1024;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Creates of new objects, in this process.
pub async fn store(settings: &Settings, report: &mut Report) -> Result<()> {
    for clients in CLIENTS {
        let folder = settings.folder()?;
        let options =
            Options::sqlite(folder.path().join("state.sqlite"), |_, _| Attributes::default());
        let store = Store::open(options).await?;
        let (resource, namespace): (Arc<str>, Arc<str>) = ("configmaps".into(), "default".into());
        let writer = store.clone();
        let figure = measure(clients, move |client, number| {
            let name = format!("object-{client}-{number}");
            let key = Key::new(resource.clone(), namespace.clone(), name);
            let value = Value {
                bytes: vec![b'x'; BYTES],
                revision_at: 100,
                attributes: Attributes::default(),
            };
            let writer = writer.clone();
            async move { Ok(writer.create(key, value).await.map(drop)?) }
        })
        .await?;
        report.add("store", &clients_of(clients, "in process"), figure, "5 × etcd");
        store.close().await;
    }
    Ok(())
}

/// Creates of ConfigMaps, through the API.
pub async fn api(settings: &Settings, report: &mut Report) -> Result<()> {
    for clients in CLIENTS {
        let cluster = Cluster::prepared(settings).await?;
        let mut connections = Vec::new();
        for _ in 0..clients.div_ceil(SHARE) {
            connections.push(cluster.connect().await?);
        }
        let payload: Arc<str> = "x".repeat(BYTES).into();
        let figure = measure(clients, move |client, number| {
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"object-{client}-{number}"}},"data":{{"payload":"{payload}"}}}}"#
            );
            let connection: Connection = connections[client / SHARE].clone();
            async move { connection.json_bytes(Method::POST, CONFIG_MAPS, body.into()).await.map(drop) }
        })
        .await?;
        report.add(
            "api",
            &clients_of(clients, "ConfigMaps through the API, TLS"),
            figure,
            "> etcd",
        );
        cluster.kill().await?;
    }
    Ok(())
}

/// Puts of new keys to etcd.
pub async fn etcd(settings: &Settings, report: &mut Report) -> Result<()> {
    for clients in CLIENTS {
        let folder = settings.folder()?;
        let etcd = Etcd::start(folder.path())
            .await
            .context("etcd is needed to compare with: apt-get install etcd-server")?;
        let mut connections = Vec::new();
        for _ in 0..clients.div_ceil(SHARE) {
            connections.push(etcd.connect().await?);
        }
        let payload = Bytes::from(vec![b'x'; BYTES]);
        let figure = measure(clients, move |client, number| {
            let key = format!("/registry/configmaps/default/object-{client}-{number}");
            let (put, connection) =
                (crate::etcd::put_request(&key, &payload), connections[client / SHARE].clone());
            async move { crate::etcd::put(&connection, put).await }
        })
        .await?;
        report.add("etcd", &clients_of(clients, "puts through gRPC, plain text"), figure, "");
        etcd.stop().await?;
    }
    Ok(())
}

fn clients_of(clients: usize, how: &str) -> String {
    let word = if clients == 1 { "client" } else { "clients" };
    format!("durable 1 KiB writes, {clients} {word}, {how}")
}
