//! An issuer's keys: fetched when one is missing, with a deadline, a bound on their size, and a pause between.

use std::time::Instant;

use axum::body::Body;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::Jwk;
use serde_json::Value;
use std::time::Duration;
use tokio::sync::Mutex;

use super::REFETCH;
use super::config::{Issuer, OidcError};
use crate::kubelet_client::{KubeletClient, Scheme};
use crate::pki;

/// One question, from dialling to the last byte.
const DEADLINE: Duration = Duration::from_secs(10);
/// Sets of keys are a few kilobytes.
const ANSWER_BYTES: usize = 1 << 20;

/// The keys, and how to get them.
pub(super) struct Keys {
    client: KubeletClient,
    issuer: String,
    discovery: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: Vec<(Option<String>, DecodingKey)>,
    asked: Option<Instant>,
}

impl Keys {
    pub(super) fn new(issuer: &Issuer) -> Result<Self, OidcError> {
        let tls = pki::trusting(issuer.authority.as_deref())
            .map_err(|error| OidcError::Wrong(error.to_string()))?;
        Ok(Self {
            client: KubeletClient::new(tls),
            issuer: issuer.url.clone(),
            discovery: issuer.discovery.clone(),
            state: Mutex::default(),
        })
    }

    /// The key of this name; the only one if the token names none.
    pub(super) async fn find(&self, name: Option<&str>) -> Result<DecodingKey, String> {
        let mut state = self.state.lock().await;
        if let Some(key) = state.find(name) {
            return Ok(key);
        }
        if state.asked.is_some_and(|asked| asked.elapsed() < REFETCH) {
            return Err("the issuer has no such key".to_owned());
        }
        state.asked = Some(Instant::now());
        let fetched = tokio::time::timeout(DEADLINE, self.fetch()).await;
        state.keys = fetched.map_err(|_| "the issuer did not answer in time".to_owned())??;
        state.find(name).ok_or_else(|| "the issuer has no such key".to_owned())
    }

    async fn fetch(&self) -> Result<Vec<(Option<String>, DecodingKey)>, String> {
        let discovered = self.get(&self.discovery).await?;
        if discovered["issuer"] != self.issuer {
            return Err("the issuer calls itself otherwise".to_owned());
        }
        let set = self.get(discovered["jwks_uri"].as_str().unwrap_or_default()).await?;
        // A key of a kind that we do not know must not hide the others.
        let keys = set["keys"].as_array().into_iter().flatten().filter_map(|key| {
            let key: Jwk = serde_json::from_value(key.clone()).ok()?;
            Some((key.common.key_id.clone(), DecodingKey::from_jwk(&key).ok()?))
        });
        Ok(keys.collect())
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let uri: Uri = url.parse().map_err(|_| format!("{url} is no URL"))?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(|| format!("{url} is no https URL"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let port = uri.port_u16().unwrap_or(443);
        let answer = self.client.send(Scheme::KubeletHttps, host, port, request).await;
        let answer = answer.map_err(|error| format!("get {url}: {error}"))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("get {url}: {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| format!("get {url}: {error}"))?.to_bytes();
        serde_json::from_slice(&body).map_err(|error| format!("get {url}: {error}"))
    }
}

impl State {
    fn find(&self, name: Option<&str>) -> Option<DecodingKey> {
        match (name, self.keys.as_slice()) {
            (None, [(_, only)]) => Some(only.clone()),
            (None, _) => None,
            (Some(name), keys) => keys
                .iter()
                .find(|(known, _)| known.as_deref() == Some(name))
                .map(|(_, key)| key.clone()),
        }
    }
}
