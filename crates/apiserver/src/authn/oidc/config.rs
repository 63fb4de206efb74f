//! Which issuers are trusted, and how their claims become users: `AuthenticationConfiguration` of
//! `apiserver.config.k8s.io/v1` (and its betas), and the flags `--oidc-…` that are older than it.

use serde::Deserialize;

/// Why no issuer is trusted.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// It is no such file.
    #[error("cannot read the authentication configuration: {0}")]
    Unreadable(String),
    /// It wants what we cannot do, or what makes no sense.
    #[error("authentication configuration: {0}")]
    Wrong(String),
}

/// The flags `--oidc-…` of upstream's kube-apiserver.
#[derive(Debug, Clone, Default)]
pub struct OidcFlags {
    /// Who issues tokens.
    pub issuer_url: String,
    /// For whom.
    pub client_id: String,
    /// The CA of the issuer, PEM; the system's trust without it.
    pub ca_pem: Option<String>,
    /// Which claim is the user's name; `sub` when empty.
    pub username_claim: String,
    /// What is put before it; `-` is nothing.
    pub username_prefix: String,
    /// Which claim are the groups.
    pub groups_claim: String,
    /// What is put before each.
    pub groups_prefix: String,
    /// Claims that must be so: `NAME=VALUE`.
    pub required_claims: Vec<String>,
}

/// An issuer, checked.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) url: String,
    pub(super) discovery: String,
    pub(super) authority: Option<String>,
    pub(super) audiences: Vec<String>,
    pub(super) required: Vec<(String, String)>,
    pub(super) username: Claim,
    pub(super) groups: Option<Claim>,
    pub(super) uid: Option<String>,
}

/// A claim, and what is put before its value.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) prefix: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: IssuerFields,
    claim_mappings: Mappings,
    #[serde(default)]
    claim_validation_rules: Vec<Rule>,
    #[serde(default)]
    user_validation_rules: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerFields {
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: String,
    certificate_authority: Option<String>,
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mappings {
    username: Mapping,
    groups: Option<Mapping>,
    uid: Option<Mapping>,
    #[serde(default)]
    extra: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default, rename = "message")]
    _message: String,
}

/// Reads the file.
pub(super) fn parse(text: &str) -> Result<Vec<Issuer>, OidcError> {
    let file: File =
        serde_yaml::from_str(text).map_err(|error| OidcError::Unreadable(error.to_string()))?;
    let version = file.api_version.strip_prefix("apiserver.config.k8s.io/");
    if file.kind != "AuthenticationConfiguration"
        || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1"))
    {
        let what = format!("it is {} of {}", file.kind, file.api_version);
        return Err(OidcError::Unreadable(what));
    }
    let mut issuers: Vec<Issuer> = Vec::new();
    for (index, jwt) in file.jwt.into_iter().enumerate() {
        let issuer = issuer(&format!("jwt[{index}]"), jwt)?;
        if issuers.iter().any(|other| other.url == issuer.url) {
            return Err(wrong(format!("jwt[{index}].issuer.url"), "Duplicate value"));
        }
        issuers.push(issuer);
    }
    Ok(issuers)
}

fn issuer(place: &str, jwt: Jwt) -> Result<Issuer, OidcError> {
    let Jwt { issuer, claim_mappings: mappings, claim_validation_rules: rules, .. } = jwt;
    let unsupported = !jwt.user_validation_rules.is_empty()
        || !mappings.extra.is_empty()
        || rules.iter().any(|rule| !rule.expression.is_empty())
        || [Some(&mappings.username), mappings.groups.as_ref(), mappings.uid.as_ref()]
            .into_iter()
            .flatten()
            .any(|mapping| !mapping.expression.is_empty());
    if unsupported {
        // Left out they would let in whom somebody meant to keep out.
        return Err(wrong(place.to_owned(), "CEL expressions are not supported here: use claims"));
    }
    if !matches!(issuer.audience_match_policy.as_str(), "" | "MatchAny") {
        return Err(wrong(format!("{place}.issuer.audienceMatchPolicy"), "must be MatchAny"));
    }
    let claim = |field: &str, mapping: Mapping| {
        let place = format!("{place}.claimMappings.{field}");
        if mapping.claim.is_empty() {
            return Err(wrong(format!("{place}.claim"), "Required value"));
        }
        let prefix = mapping.prefix;
        let prefix = prefix.ok_or_else(|| {
            wrong(format!("{place}.prefix"), "prefix is required when claim is set. It can be set to an empty string to disable prefixing")
        })?;
        Ok(Claim { name: mapping.claim, prefix })
    };
    let uid = mappings.uid.map(|uid| uid.claim).filter(|claim| !claim.is_empty());
    let required = rules.into_iter().map(|rule| (rule.claim, rule.required_value));
    checked(
        place,
        Issuer {
            discovery: issuer.discovery_url,
            url: issuer.url,
            authority: issuer.certificate_authority.filter(|pem| !pem.is_empty()),
            audiences: issuer.audiences,
            required: required.collect(),
            username: claim("username", mappings.username)?,
            groups: mappings.groups.map(|groups| claim("groups", groups)).transpose()?,
            uid,
        },
    )
}

/// The one issuer of the flags.
pub(super) fn from_flags(flags: &OidcFlags) -> Result<Issuer, OidcError> {
    let or = |text: &str, default: &str| {
        if text.is_empty() { default.to_owned() } else { text.to_owned() }
    };
    let name = or(&flags.username_claim, "sub");
    let prefix = match flags.username_prefix.as_str() {
        "-" => String::new(),
        // Nobody but an address is the same for all issuers.
        "" if name != "email" => format!("{}#", flags.issuer_url),
        prefix => prefix.to_owned(),
    };
    let groups = (!flags.groups_claim.is_empty())
        .then(|| Claim { name: flags.groups_claim.clone(), prefix: flags.groups_prefix.clone() });
    let mut required = Vec::new();
    for claim in &flags.required_claims {
        let (name, value) = claim.split_once('=').ok_or_else(|| {
            wrong("--oidc-required-claim".to_owned(), "must be of the form NAME=VALUE")
        })?;
        required.push((name.to_owned(), value.to_owned()));
    }
    checked(
        "--oidc-issuer-url",
        Issuer {
            url: flags.issuer_url.clone(),
            discovery: String::new(),
            authority: flags.ca_pem.clone(),
            audiences: vec![flags.client_id.clone()],
            required,
            username: Claim { name, prefix },
            groups,
            uid: None,
        },
    )
}

fn checked(place: &str, mut issuer: Issuer) -> Result<Issuer, OidcError> {
    if !issuer.url.starts_with("https://") {
        return Err(wrong(format!("{place}: {}", issuer.url), "URL scheme must be https"));
    }
    if issuer.audiences.iter().all(String::is_empty) {
        return Err(wrong(place.to_owned(), "at least one audience is required"));
    }
    if issuer.discovery.is_empty() {
        let base = issuer.url.trim_end_matches('/');
        issuer.discovery = format!("{base}/.well-known/openid-configuration");
    }
    Ok(issuer)
}

fn wrong(place: String, cause: &str) -> OidcError {
    OidcError::Wrong(format!("{place}: {cause}"))
}
