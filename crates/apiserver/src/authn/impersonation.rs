//! Acting as somebody else: the `Impersonate-*` headers.
//!
//! Each thing that is taken on (user, group, uid, extra) needs the verb `impersonate` on it, as upstream's
//! <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/endpoints/filters/impersonation.go>.

use std::collections::BTreeMap;

use coracle_api::status::Status;
use http::HeaderMap;

use crate::authz::{Attributes, Authorizer, Target};
use crate::identity::{
    AUTHENTICATED, SERVICE_ACCOUNTS, UNAUTHENTICATED, User, split_service_account,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// As whom the request is done: by the headers somebody else, if the user may act as that; without them the user
/// himself. Call it after `authenticate`, for in-memory clients too.
pub fn impersonate(
    user: User,
    headers: &HeaderMap,
    authorizer: &Authorizer,
) -> Result<User, Status> {
    let wanted = Wanted::read(headers)?;
    if wanted.is_empty() {
        return Ok(user);
    }
    if wanted.user.is_empty() {
        return Err(Status::internal(
            "requested to impersonate groups, uid or extras without impersonating a user",
        ));
    }
    wanted.authorize(&user, authorizer)?;
    Ok(wanted.into_user())
}

/// What the headers ask for.
#[derive(Default)]
struct Wanted {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

impl Wanted {
    fn read(headers: &HeaderMap) -> Result<Self, Status> {
        let mut wanted = Self::default();
        for (name, value) in headers {
            let name = name.as_str();
            if !name.starts_with("impersonate-") {
                continue;
            }
            let Ok(value) = value.to_str().map(str::to_owned) else {
                return Err(Status::bad_request(format!("the header {name} is not text")));
            };
            match name {
                USER => wanted.user = value,
                GROUP => wanted.groups.push(value),
                UID => wanted.uid = value,
                _ => {
                    if let Some(key) = name.strip_prefix(EXTRA) {
                        wanted.extra.entry(percent_decoded(key)).or_default().push(value);
                    }
                }
            }
        }
        Ok(wanted)
    }

    fn is_empty(&self) -> bool {
        self.user.is_empty()
            && self.groups.is_empty()
            && self.uid.is_empty()
            && self.extra.is_empty()
    }

    fn authorize(&self, user: &User, authorizer: &Authorizer) -> Result<(), Status> {
        let check =
            |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
                let target = Target::Resource { group, resource, subresource, namespace, name };
                authorizer.check(&Attributes { user, verb: "impersonate", target, fields: &[] })
            };
        match split_service_account(&self.user) {
            Some((namespace, name)) => check("", "serviceaccounts", "", namespace, name)?,
            None => check("", "users", "", "", &self.user)?,
        }
        for group in &self.groups {
            check("", "groups", "", "", group)?;
        }
        let details = "authentication.k8s.io";
        if !self.uid.is_empty() {
            check(details, "uids", "", "", &self.uid)?;
        }
        for (key, values) in &self.extra {
            for value in values {
                check(details, "userextras", key, "", value)?;
            }
        }
        Ok(())
    }

    fn into_user(self) -> User {
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = split_service_account(&self.user)
        {
            groups = vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
        }
        let anonymous = self.user == User::anonymous().name;
        let own = if anonymous { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            groups.push(own.to_owned());
        }
        User { name: self.user, uid: self.uid, groups, extra: self.extra }
    }
}

/// Keys of extras may hold what header names may not, such as a slash.
pub(super) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'%').then(|| after.get(..2)).flatten();
        let decoded = code
            .and_then(|code| std::str::from_utf8(code).ok())
            .and_then(|code| u8::from_str_radix(code, 16).ok());
        match decoded {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    // What is not text stays as it came.
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authz::tests::{alice, grant, store};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())
            })
            .collect()
    }

    #[tokio::test]
    async fn without_headers_everybody_is_himself() {
        let (_dir, store) = store().await;
        let user = User::new("alice", &[]);
        assert_eq!(
            impersonate(user.clone(), &headers(&[("accept", "x")]), &Authorizer::new(&store))
                .unwrap(),
            user
        );
    }

    #[tokio::test]
    async fn nobody_acts_as_another_without_the_right_to() {
        let (_dir, store) = store().await;
        let authorizer = Authorizer::new(&store);
        let rules = json!([
            { "apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"] },
            { "apiGroups": [""], "resources": ["groups"], "resourceNames": ["team"], "verbs": ["impersonate"] },
            { "apiGroups": ["authentication.k8s.io"], "resources": ["userextras/a/b"], "resourceNames": ["1"], "verbs": ["impersonate"] },
        ]);
        grant(&store, "", "impersonator", alice(), rules).await;
        let act = |pairs: &[(&'static str, &'static str)]| {
            impersonate(User::new("alice", &[]), &headers(pairs), &authorizer)
        };
        let bob = act(&[("impersonate-user", "bob")]).unwrap();
        assert_eq!(
            (bob.name.as_str(), bob.groups.as_slice()),
            ("bob", &["system:authenticated".to_owned()][..])
        );
        let bob = act(&[
            ("Impersonate-User", "bob"),
            ("Impersonate-Group", "team"),
            ("Impersonate-Extra-a%2fb", "1"),
        ])
        .unwrap();
        assert_eq!(bob.groups, ["team", "system:authenticated"]);
        assert_eq!(bob.extra["a/b"], ["1"]);
        let refused = act(&[("impersonate-user", "carol")]).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (
                403,
                r#"users "carol" is forbidden: User "alice" cannot impersonate resource "users" in API group "" at the cluster scope"#
            )
        );
        for pairs in [
            &[("impersonate-user", "bob"), ("impersonate-group", "system:masters")][..],
            &[("impersonate-user", "bob"), ("impersonate-uid", "7")],
            &[("impersonate-user", "bob"), ("impersonate-extra-a%2fb", "2")],
            &[("impersonate-user", "system:serviceaccount:shop:bot")],
        ] {
            assert_eq!(act(pairs).unwrap_err().code, 403, "{pairs:?}");
        }
        assert_eq!(act(&[("impersonate-group", "team")]).unwrap_err().code, 500);
    }

    #[tokio::test]
    async fn an_impersonated_account_is_in_its_groups() {
        let (_dir, store) = store().await;
        let authorizer = Authorizer::new(&store);
        let headers = headers(&[("impersonate-user", "system:serviceaccount:shop:bot")]);
        let bot = impersonate(User::admin(), &headers, &authorizer).unwrap();
        assert_eq!(bot.groups, User::service_account("shop", "bot", "").groups);
    }
}
