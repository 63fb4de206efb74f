//! Bootstrap tokens: what a machine shows to ask for its first certificate.
//!
//! A Secret `bootstrap-token-ID` in kube-system, as upstream's `plugin/pkg/auth/authenticator/token/bootstrap`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coracle_store::Store;
use jiff::Timestamp;
use serde_json::Value;

use super::stored;
use crate::identity::User;

const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const GROUP: &str = "system:bootstrappers";
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

/// Whose token this is; `None` when it is none of these, or does not hold.
pub(super) fn user(store: &Store, token: &str, now: Timestamp) -> Option<User> {
    let (id, secret) = split(token)?;
    let object = stored(store, "secrets", NAMESPACE, &format!("bootstrap-token-{id}"))?;
    let object: Value = serde_json::from_slice(&object.bytes).ok()?;
    let field = |name: &str| {
        let bytes = STANDARD.decode(object["data"][name].as_str()?).ok()?;
        String::from_utf8(bytes).ok()
    };
    let holds = object["type"] == TYPE
        && object["metadata"]["deletionTimestamp"].is_null()
        && field("token-id").as_deref() == Some(id)
        && field("token-secret").is_some_and(|kept| is_same(&kept, secret))
        && field("usage-bootstrap-authentication").as_deref() == Some("true")
        && field("expiration").is_none_or(|end| end.parse().is_ok_and(|end: Timestamp| end > now));
    if !holds {
        return None;
    }
    let extra = field("auth-extra-groups").unwrap_or_default();
    let mut groups = vec![GROUP];
    for group in extra.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        // A token that would make somebody else than a machine makes nobody.
        if !is_bootstrap_group(group) {
            return None;
        }
        groups.push(group);
    }
    Some(User::new(format!("system:bootstrap:{id}"), &groups))
}

/// `ID.SECRET`.
fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let is_plain =
        |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase());
    let fits = id.len() == ID_CHARS && secret.len() == SECRET_CHARS;
    (fits && is_plain(id) && is_plain(secret)).then_some((id, secret))
}

/// Upstream's pattern: `system:bootstrappers:` and up to 255 characters, the last of which is no sign.
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let is_word = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|byte| is_word(byte) || byte == b':' || byte == b'-')
        && rest.bytes().last().is_some_and(is_word)
}

/// Compares in a time that does not depend on where they differ.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len()
        && one.bytes().zip(other.bytes()).fold(0, |sum, (one, other)| sum | (one ^ other)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_groups_have_upstreams_form() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in [
            "abcde.0123456789abcdef",
            "abcdef.0123456789abcde",
            "ABCDEF.0123456789abcdef",
            "abcdef",
        ] {
            assert_eq!(split(wrong), None, "{wrong}");
        }
        assert!(is_bootstrap_group("system:bootstrappers:kubeadm:default-node-token"));
        for wrong in ["system:masters", "system:bootstrappers:", "system:bootstrappers:x-"] {
            assert!(!is_bootstrap_group(wrong), "{wrong}");
        }
        assert!(is_same("abc", "abc") && !is_same("abc", "abd") && !is_same("abc", "ab"));
    }
}
