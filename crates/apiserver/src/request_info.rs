//! What a request is about, read from its method and path alone, before any body is touched.
//!
//! The same reading as upstream's `RequestInfoFactory`
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go>):
//! authorization and metrics need it for paths that no kind serves, too.

use coracle_api::selector::{FieldSelector, FieldTerm};
use http::Method;

/// What is to be done, to which path or object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, `proxy`; for a path that is no
    /// resource, the lower-case HTTP method.
    pub(crate) verb: &'static str,
    /// The object or collection, or `None` for paths such as `/healthz` and for discovery.
    pub(crate) resource: Option<ResourcePath>,
    /// Which objects of a collection are meant; nothing where the selector cannot be read.
    pub(crate) fields: Vec<FieldTerm>,
}

/// The parts of a path below `/api/v1` or `/apis/GROUP/VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ResourcePath {
    /// Empty for the core group.
    pub(crate) group: String,
    /// `v1`.
    pub(crate) version: String,
    /// Empty across namespaces and for cluster-scoped objects; the object's own name for a Namespace.
    pub(crate) namespace: String,
    /// The plural name, `pods`.
    pub(crate) resource: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// `status`, `log`, … or empty.
    pub(crate) subresource: String,
    /// What follows the subresource: the path of a proxied request, without a leading slash.
    pub(crate) rest: String,
}

impl RequestInfo {
    /// Reads a request line. `watching` and `fields` come from the query: `?watch=true` turns a list into a watch, and a field
    /// selector narrows a collection request, which the node authorizer honours; RBAC does if it is for one name.
    pub(crate) fn read(method: &Method, path: &str, watching: bool, fields: &str) -> Self {
        let Some(mut parts) = resource_parts(path) else {
            return Self { verb: lower_case_method(method), resource: None, fields: Vec::new() };
        };
        let mut resource =
            ResourcePath { group: parts.group, version: parts.version, ..ResourcePath::default() };
        let mut segments = std::mem::take(&mut parts.segments);
        let mut verb = verb_of(method);
        if segments.len() > 1 && segments[0] == "watch" {
            verb = "watch";
            segments.remove(0);
        } else if segments.len() > 1 && segments[0] == "proxy" {
            verb = "proxy";
            segments.remove(0);
        }
        if segments.len() > 1 && segments[0] == "namespaces" {
            resource.namespace.clone_from(&segments[1]);
            if segments.len() > 2 && !matches!(segments[2].as_str(), "status" | "finalize") {
                segments.drain(..2);
            }
        }
        let mut segments = segments.into_iter();
        let mut selected = FieldSelector::everything();
        resource.resource = segments.next().unwrap_or_default();
        resource.name = segments.next().unwrap_or_default();
        resource.subresource = segments.next().unwrap_or_default();
        resource.rest = segments.collect::<Vec<_>>().join("/");
        if resource.name.is_empty() {
            match verb {
                "get" => verb = if watching { "watch" } else { "list" },
                "delete" => verb = "deletecollection",
                _ => (),
            }
            if matches!(verb, "list" | "watch" | "deletecollection") {
                selected = FieldSelector::parse(fields).unwrap_or_default();
                if let Some(name) = only_name(&selected) {
                    name.clone_into(&mut resource.name);
                }
            }
        } else if verb == "get" && watching && resource.subresource.is_empty() {
            // `GET …/pods/web?watch=true` watches that one object.
            verb = "watch";
        }
        Self { verb, resource: Some(resource), fields: selected.terms().to_vec() }
    }

    /// Whether the answer may take as long as it likes: watches, logs and what is proxied.
    pub(crate) fn is_long_running(&self) -> bool {
        matches!(self.verb, "watch" | "proxy")
            || self.resource.as_ref().is_some_and(|resource| {
                matches!(
                    resource.subresource.as_str(),
                    "log" | "exec" | "attach" | "portforward" | "proxy"
                )
            })
    }
}

/// The one name that a selector means, if it is one.
fn only_name(selector: &FieldSelector) -> Option<&str> {
    let name = selector.requires_exact("metadata.name")?;
    (!matches!(name, "" | "." | "..") && !name.contains(['/', '%'])).then_some(name)
}

struct Parts {
    group: String,
    version: String,
    segments: Vec<String>,
}

/// Splits `/api/v1/…` and `/apis/GROUP/VERSION/…`; `None` for everything else, discovery included.
fn resource_parts(path: &str) -> Option<Parts> {
    let mut segments = path.trim_matches('/').split('/').map(percent_decode);
    let group = match segments.next()?.as_str() {
        "api" => String::new(),
        "apis" => segments.next()?,
        _ => return None,
    };
    let version = segments.next()?;
    let segments: Vec<String> = segments.collect();
    if segments.is_empty() {
        return None;
    }
    Some(Parts { group, version, segments })
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn lower_case_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "other",
    }
}

/// Undoes `%XX`. What is not a valid escape, or not UTF-8 afterwards, stays as it came: no name can match it.
pub(crate) fn percent_decode(segment: &str) -> String {
    if !segment.contains('%') {
        return segment.to_owned();
    }
    let bytes = segment.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], escape.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| segment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: &str) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let info = RequestInfo::read(
            &method.parse().unwrap(),
            path,
            query.contains("watch=true"),
            query.strip_prefix("fieldSelector=").unwrap_or_default(),
        );
        let seen = match info.resource {
            None => info.verb.to_owned(),
            Some(r) => format!(
                "{} {}/{} ns={} {} name={} sub={} rest={}",
                info.verb,
                r.group,
                r.version,
                r.namespace,
                r.resource,
                r.name,
                r.subresource,
                r.rest
            ),
        };
        assert_eq!(seen, expected, "{method} {path}");
    }

    #[test]
    fn paths_are_read_as_upstream_reads_them() {
        check("GET", "/healthz", "get");
        check("GET", "/api/v1", "get");
        check("GET", "/apis/apps/v1", "get");
        check("GET", "/api/v1/pods", "list /v1 ns= pods name= sub= rest=");
        check("GET", "/api/v1/pods?watch=true", "watch /v1 ns= pods name= sub= rest=");
        check("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1 ns=a pods name= sub= rest=");
        check("GET", "/api/v1/namespaces/a/pods/p/log", "get /v1 ns=a pods name=p sub=log rest=");
        check("GET", "/api/v1/namespaces/a", "get /v1 ns=a namespaces name=a sub= rest=");
        check(
            "PUT",
            "/api/v1/namespaces/a/finalize",
            "update /v1 ns=a namespaces name=a sub=finalize rest=",
        );
        check(
            "POST",
            "/apis/apps/v1/namespaces/a/deployments",
            "create apps/v1 ns=a deployments name= sub= rest=",
        );
        check(
            "DELETE",
            "/api/v1/namespaces/a/pods",
            "deletecollection /v1 ns=a pods name= sub= rest=",
        );
        check(
            "GET",
            "/api/v1/namespaces/a/pods?fieldSelector=metadata.name=x",
            "list /v1 ns=a pods name=x sub= rest=",
        );
        check("GET", "/api/v1/nodes/n/proxy/a/b", "get /v1 ns= nodes name=n sub=proxy rest=a/b");
        check(
            "GET",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "get rbac.authorization.k8s.io/v1 ns= clusterroles name=system:node sub= rest=",
        );
    }
}
