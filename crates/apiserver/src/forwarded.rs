//! What servers behind a proxy are told of the client, as Go's `httputil.ReverseProxy` and upstream's
//! `apimachinery/pkg/util/proxy/transport.go` tell them.
//!
//! `X-Forwarded-Host` and `X-Forwarded-Proto` are not among it: upstream sends on what a client says there, and adds none, because a
//! server's request has no host in its URL.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::audit::Source;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// Tells which address the request comes from, after those that earlier proxies told; a request made in this process has none.
pub(crate) fn tell_client(headers: &mut HeaderMap, source: Option<Source>) {
    let Some(Source(address)) = source else { return };
    let earlier = headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok());
    let mut all: Vec<String> = earlier.map(str::to_owned).collect();
    all.push(address.ip().to_canonical().to_string());
    // Addresses and what was a header's value make a header's value.
    if let Ok(value) = HeaderValue::try_from(all.join(", ")) {
        headers.insert(FOR, value);
    }
}

/// Tells by which path the client asked.
pub(crate) fn tell_path(headers: &mut HeaderMap, path: &str) {
    // A path that was in a URL is one that a header can hold.
    if let Ok(value) = HeaderValue::try_from(path) {
        headers.insert(URI, value);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn the_client_comes_after_those_who_passed_it_on() {
        let mut headers = HeaderMap::new();
        let source = |text: &str| Some(Source(text.parse::<SocketAddr>().unwrap()));
        tell_client(&mut headers, None);
        assert!(headers.is_empty());
        tell_client(&mut headers, source("[::ffff:10.0.0.1]:4"));
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1");
        tell_client(&mut headers, source("[fd00::1]:4"));
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, fd00::1");
    }
}
