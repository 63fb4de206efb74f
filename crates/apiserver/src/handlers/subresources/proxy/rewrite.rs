//! Redirects and pages of the other side, so that what they lead to is asked of us again.

use std::io::Read as _;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::{HeaderMap, HeaderValue, header};

use crate::limits;

/// From where a page was fetched, and as what the client knows that place.
pub(super) struct Page {
    /// `/api/v1/namespaces/a/pods/p/proxy`
    pub(super) own_path: String,
    /// The other side's address.
    pub(super) backend: String,
    /// The host that the client asked for.
    pub(super) host: String,
}

/// The attributes that hold an address, on whatever element they stand.
const LINKS: [&str; 14] = [
    "action",
    "background",
    "cite",
    "classid",
    "codebase",
    "data",
    "formaction",
    "href",
    "icon",
    "longdesc",
    "manifest",
    "poster",
    "profile",
    "src",
];

/// Elements whose content is no markup.
const RAW: [&str; 4] = ["script", "style", "textarea", "title"];

impl Page {
    /// Changes the response's `Location`, or the links if it is a page.
    pub(super) async fn rewrite(&self, response: Response) -> Response {
        let (mut parts, body) = response.into_parts();
        if let Some(location) = parts.headers.get(header::LOCATION) {
            let moved = location.to_str().ok().map(|location| self.link(location));
            if let Some(moved) = moved.and_then(|moved| HeaderValue::try_from(moved).ok()) {
                parts.headers.insert(header::LOCATION, moved);
            }
            return Response::from_parts(parts, body);
        }
        let Some(packing) = packing_of_page(&parts.headers) else {
            return Response::from_parts(parts, body);
        };
        let bytes = match whole(body).await {
            Ok(bytes) => bytes,
            Err(too_long) => return Response::from_parts(parts, too_long),
        };
        let page = match packing {
            Packing::None => Some(bytes.to_vec()),
            Packing::Gzip => unpack(&bytes),
        };
        // The answer to HEAD has a length, and no page.
        let Some(page) = page.filter(|page| !page.is_empty()) else {
            return Response::from_parts(parts, Body::from(bytes));
        };
        parts.headers.remove(header::CONTENT_ENCODING);
        let rewritten = self.page(&page);
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(rewritten.len()));
        Response::from_parts(parts, Body::from(rewritten))
    }

    /// An address as the client must ask for it. Relative ones, and those of other hosts, stay.
    fn link(&self, link: &str) -> String {
        let (before_path, path, rest) = split_link(link);
        let host = before_path.rsplit_once("//").map_or("", |(_, host)| host);
        let is_elsewhere = !host.is_empty() && host != self.backend && host != self.host;
        let is_opaque = host.is_empty() && !before_path.is_empty();
        if is_elsewhere || is_opaque || !path.starts_with('/') {
            return link.to_owned();
        }
        let before = if !host.is_empty() && host == self.host { before_path } else { "" };
        if path.starts_with(&self.own_path) {
            return format!("{before}{path}{rest}");
        }
        format!("{before}{}{path}{rest}", self.own_path)
    }

    /// The page with its links changed, and nothing else.
    fn page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len() + page.len() / 8);
        let mut rest = page;
        while let Some(open) = rest.iter().position(|byte| *byte == b'<') {
            let (text, markup) = rest.split_at(open);
            out.extend_from_slice(text);
            let length = self.markup(markup, &mut out);
            rest = &markup[length..];
        }
        out.extend_from_slice(rest);
        out
    }

    /// Copies what begins with `<`, at least that one byte, and says how much it was.
    fn markup(&self, markup: &[u8], out: &mut Vec<u8>) -> usize {
        if markup.starts_with(b"<!--") {
            let length = find(markup, b"-->").map_or(markup.len(), |end| end + 3);
            out.extend_from_slice(&markup[..length]);
            return length;
        }
        let name_length =
            markup[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        if name_length == 0 {
            out.push(b'<');
            return 1;
        }
        let name = String::from_utf8_lossy(&markup[1..=name_length]).to_ascii_lowercase();
        let mut at = 1 + name_length;
        out.extend_from_slice(&markup[..at]);
        while let Some(&byte) = markup.get(at) {
            match byte {
                b'>' => {
                    out.push(b'>');
                    at += 1;
                    break;
                }
                b'=' => at += self.value(&markup[..at], &markup[at..], out),
                _ => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        if RAW.contains(&name.as_str()) {
            let end = format!("</{name}");
            let content = &markup[at..];
            let length = content
                .windows(end.len())
                .position(|window| window.eq_ignore_ascii_case(end.as_bytes()))
                .unwrap_or(content.len());
            out.extend_from_slice(&content[..length]);
            at += length;
        }
        at
    }

    /// Copies `=` and the value after it, changed if what comes before names a link; says how much it was.
    fn value(&self, before: &[u8], markup: &[u8], out: &mut Vec<u8>) -> usize {
        let blanks = markup[1..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let start = 1 + blanks;
        out.extend_from_slice(&markup[..start]);
        let quote = markup.get(start).copied().filter(|byte| matches!(byte, b'"' | b'\''));
        let (from, length) = match quote {
            Some(quote) => {
                out.push(quote);
                let value = &markup[start + 1..];
                let length = value.iter().position(|byte| *byte == quote);
                (start + 1, length.unwrap_or(value.len()))
            }
            None => {
                let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b'>';
                let value = &markup[start..];
                (start, value.iter().position(is_end).unwrap_or(value.len()))
            }
        };
        let value = &markup[from..from + length];
        let changed = Some(value).filter(|_| is_link(before)).and_then(|value| {
            let link = std::str::from_utf8(value).ok()?.replace("&amp;", "&");
            let changed = self.link(&link);
            (changed != link).then(|| changed.replace('&', "&amp;"))
        });
        out.extend_from_slice(changed.as_deref().map_or(value, str::as_bytes));
        from + length
    }
}

/// How a page comes.
enum Packing {
    None,
    Gzip,
}

/// `None` for what is no page, or comes in a form that we cannot read.
fn packing_of_page(headers: &HeaderMap) -> Option<Packing> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text(header::CONTENT_TYPE).split(';').next()?.trim();
    match text(header::CONTENT_ENCODING) {
        _ if media_type != "text/html" => None,
        "" | "identity" => Some(Packing::None),
        "gzip" => Some(Packing::Gzip),
        _ => None,
    }
}

/// Whether the tag so far ends with the name of an attribute that holds an address.
fn is_link(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'-';
    let length = before.iter().rev().take_while(is_name).count();
    let name = String::from_utf8_lossy(&before[before.len() - length..]).to_ascii_lowercase();
    LINKS.contains(&name.as_str())
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// Scheme and host, the path, and query and fragment.
fn split_link(link: &str) -> (&str, &str, &str) {
    let scheme = link.find(':').filter(|end| {
        *end > 0
            && link[..*end].chars().all(|character| {
                character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.')
            })
    });
    let after_scheme = scheme.map_or(0, |end| end + 1);
    let path = if link[after_scheme..].starts_with("//") {
        let host = after_scheme + 2;
        host + link[host..].find(['/', '?', '#']).unwrap_or(link.len() - host)
    } else {
        after_scheme
    };
    let rest = path + link[path..].find(['?', '#']).unwrap_or(link.len() - path);
    (&link[..path], &link[path..rest], &link[rest..])
}

/// All of a body that is no longer than pages are; the body again, if it is.
async fn whole(body: Body) -> Result<Bytes, Body> {
    let mut stream = body.into_data_stream();
    let mut gathered = BytesMut::new();
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(chunk) => gathered.extend_from_slice(&chunk),
            // Whoever reads on is told the same.
            Err(error) => {
                let begun = futures::stream::iter([Ok(gathered.freeze()), Err(error)]);
                return Err(Body::from_stream(begun));
            }
        }
        if gathered.len() > limits::PAGE_BYTES {
            let begun = futures::stream::iter([Ok(gathered.freeze())]);
            return Err(Body::from_stream(begun.chain(stream)));
        }
    }
    Ok(gathered.freeze())
}

/// What was packed, if it is no longer than pages are.
fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let mut page = Vec::new();
    let limit = u64::try_from(limits::PAGE_BYTES).ok()?;
    let mut reader = flate2::read::GzDecoder::new(packed).take(limit + 1);
    let length = reader.read_to_end(&mut page).ok()?;
    (length <= limits::PAGE_BYTES).then_some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched() -> Page {
        Page {
            own_path: "/api/v1/namespaces/a/pods/p/proxy".to_owned(),
            backend: "10.0.0.1:80".to_owned(),
            host: "cluster:6443".to_owned(),
        }
    }

    #[track_caller]
    fn check_link(link: &str, expected: &str) {
        let expected = expected.replace("OWN", &fetched().own_path);
        assert_eq!(fetched().link(link), expected, "{link}");
    }

    #[test]
    fn links_to_the_same_place_are_asked_of_us() {
        check_link("/a/b?c=d#e", "OWN/a/b?c=d#e");
        check_link("/", "OWN/");
        check_link("http://10.0.0.1:80/a/", "OWN/a/");
        check_link("//10.0.0.1:80/a", "OWN/a");
        check_link("https://cluster:6443/a", "https://cluster:6443OWN/a");
        let own = fetched().link("/api/v1/namespaces/a/pods/p/proxy/a");
        assert_eq!(own, "/api/v1/namespaces/a/pods/p/proxy/a");
        for elsewhere in ["a/b", "?q", "#top", "", "https://example.com/a", "mailto:a@b", "data:/x"]
        {
            check_link(elsewhere, elsewhere);
        }
    }

    #[track_caller]
    fn check_page(page: &str, expected: &str) {
        let expected = expected.replace("OWN", &fetched().own_path);
        let rewritten = fetched().page(page.as_bytes());
        assert_eq!(String::from_utf8_lossy(&rewritten), expected);
    }

    #[test]
    fn pages_keep_everything_but_their_links() {
        check_page(r#"<a href="/rewriteme">test</a>"#, r#"<a href="OWN/rewriteme">test</a>"#);
        check_page("<IMG SRC=/a.png alt='/b'>", "<IMG SRC=OWN/a.png alt='/b'>");
        check_page("<a href = '/a?b=1&amp;c=2' x>", "<a href = 'OWN/a?b=1&amp;c=2' x>");
        for same in [
            "no markup < at all",
            "<!-- <a href=\"/a\"> --><b>",
            "<script>let a = '<a href=\"/a\">';</script>",
            "<a title=\"/a\" href=\"a\">",
            "<a href=\"/unfinished",
            "<",
        ] {
            let expected =
                if same.ends_with("unfinished") { "<a href=\"OWN/unfinished" } else { same };
            check_page(same, expected);
        }
    }
}
