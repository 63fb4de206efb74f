//! Which issuers are trusted, and how their claims become users: `AuthenticationConfiguration` of
//! `apiserver.config.k8s.io/v1` (and its betas), and the flags `--oidc-…` that are older than it.
//!
//! The checks and their words are upstream's
//! (<https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/apis/apiserver/validation/validation.go>).

use coracle_api::names;
use coracle_api::status::{FieldErrors, Path};
use coracle_cel::Type;
use serde::Deserialize;

use super::claims::{ClaimRule, Expression, Mapping, Rules, Validation};

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
    pub(super) rules: Rules,
}

/// Where requests without credentials are anybody's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Anonymous {
    #[default]
    Everywhere,
    /// At these paths alone.
    At(Vec<String>),
}

/// What a file says.
pub(super) struct Configuration {
    pub(super) issuers: Vec<Issuer>,
    pub(super) anonymous: Anonymous,
}

/// Upstream's bound.
const MOST_ISSUERS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    jwt: Vec<Jwt>,
    anonymous: Option<AnonymousFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnonymousFields {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<PathCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathCondition {
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Jwt {
    issuer: IssuerFields,
    claim_mappings: Mappings,
    #[serde(default)]
    claim_validation_rules: Vec<RuleFields>,
    #[serde(default)]
    user_validation_rules: Vec<UserRuleFields>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct IssuerFields {
    #[serde(default)]
    url: String,
    #[serde(default, rename = "discoveryURL")]
    discovery_url: String,
    certificate_authority: Option<String>,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Mappings {
    username: MappingFields,
    groups: Option<MappingFields>,
    uid: Option<MappingFields>,
    #[serde(default)]
    extra: Vec<ExtraFields>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MappingFields {
    #[serde(default)]
    claim: String,
    prefix: Option<String>,
    #[serde(default)]
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExtraFields {
    #[serde(default)]
    key: String,
    #[serde(default)]
    value_expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleFields {
    #[serde(default)]
    claim: String,
    #[serde(default)]
    required_value: String,
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserRuleFields {
    #[serde(default)]
    expression: String,
    #[serde(default)]
    message: String,
}

/// Reads the file.
pub(super) fn parse(text: &str) -> Result<Configuration, OidcError> {
    let file: File =
        serde_yaml::from_str(text).map_err(|error| OidcError::Unreadable(error.to_string()))?;
    let version = file.api_version.strip_prefix("apiserver.config.k8s.io/");
    if file.kind != "AuthenticationConfiguration"
        || !matches!(version, Some("v1" | "v1beta1" | "v1alpha1"))
    {
        let what = format!("it is {} of {}", file.kind, file.api_version);
        return Err(OidcError::Unreadable(what));
    }
    let mut errors = FieldErrors::new();
    let at = Path::new("jwt");
    if file.jwt.len() > MOST_ISSUERS {
        errors.too_many(&at, file.jwt.len(), MOST_ISSUERS);
    }
    let mut issuers: Vec<Issuer> = Vec::new();
    for (index, jwt) in file.jwt.into_iter().enumerate() {
        let at = at.index(index);
        let (url, discovery) = (jwt.issuer.url.clone(), jwt.issuer.discovery_url.clone());
        let place = at.child("issuer");
        if issuers.iter().any(|other| other.url == url) {
            errors.duplicate(place.child("url"), url);
        }
        if !discovery.is_empty() && issuers.iter().any(|other| other.discovery == discovery) {
            errors.duplicate(place.child("discoveryURL"), discovery);
        }
        issuers.extend(issuer(&at, jwt, &mut errors));
    }
    let anonymous = anonymous(file.anonymous, &mut errors);
    if errors.is_empty() {
        Ok(Configuration { issuers, anonymous })
    } else {
        Err(OidcError::Wrong(errors.to_string()))
    }
}

fn anonymous(fields: Option<AnonymousFields>, errors: &mut FieldErrors) -> Anonymous {
    match fields {
        None => Anonymous::Everywhere,
        Some(AnonymousFields { enabled: false, conditions }) => {
            if !conditions.is_empty() {
                let paths: Vec<String> = conditions.into_iter().map(|it| it.path).collect();
                let why = "enabled should be set to true when conditions are defined";
                errors.invalid("anonymous.conditions", paths, why);
            }
            Anonymous::At(Vec::new())
        }
        Some(AnonymousFields { conditions, .. }) if conditions.is_empty() => Anonymous::Everywhere,
        Some(AnonymousFields { conditions, .. }) => {
            Anonymous::At(conditions.into_iter().map(|condition| condition.path).collect())
        }
    }
}

/// None if something is wrong with it, which is then among the errors.
fn issuer(at: &Path, jwt: Jwt, errors: &mut FieldErrors) -> Option<Issuer> {
    check_issuer(&at.child("issuer"), &jwt.issuer, errors);
    let found = errors.len();
    check_email(at, &jwt, errors);
    let mappings = at.child("claimMappings");
    let rules = at.child("claimValidationRules");
    let claims: Vec<_> = jwt
        .claim_validation_rules
        .into_iter()
        .enumerate()
        .map(|(index, rule)| claim_rule(&rules.index(index), rule, errors))
        .collect();
    let username = mapping(&mappings.child("username"), &jwt.claim_mappings.username, errors);
    let is_given =
        |fields: &MappingFields| !fields.claim.is_empty() || !fields.expression.is_empty();
    let groups = jwt.claim_mappings.groups.filter(is_given);
    let groups = groups.map(|groups| mapping(&mappings.child("groups"), &groups, errors));
    let uid = jwt.claim_mappings.uid.filter(is_given);
    let uid = uid.map(|uid| {
        // A uid has no prefix.
        let uid = MappingFields { prefix: uid.expression.is_empty().then(String::new), ..uid };
        mapping(&mappings.child("uid"), &uid, errors)
    });
    let extra = extra(&mappings.child("extra"), jwt.claim_mappings.extra, errors);
    let users = user_rules(&at.child("userValidationRules"), jwt.user_validation_rules, errors);
    if errors.len() > found {
        return None;
    }
    let rules = Rules {
        claims: claims.into_iter().collect::<Option<_>>()?,
        username: username?,
        groups: groups.flatten(),
        uid: uid.flatten(),
        extra,
        users,
    };
    Some(complete(Issuer {
        discovery: jwt.issuer.discovery_url,
        url: jwt.issuer.url,
        authority: jwt.issuer.certificate_authority.filter(|pem| !pem.is_empty()),
        audiences: jwt.issuer.audiences,
        rules,
    }))
}

fn check_issuer(at: &Path, issuer: &IssuerFields, errors: &mut FieldErrors) {
    check_url(&at.child("url"), &issuer.url, errors);
    if !issuer.discovery_url.is_empty() {
        let place = at.child("discoveryURL");
        if issuer.discovery_url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            let why = "discoveryURL must be different from URL";
            errors.invalid(&place, issuer.discovery_url.as_str(), why);
        }
        check_url(&place, &issuer.discovery_url, errors);
    }
    let place = at.child("audiences");
    if issuer.audiences.is_empty() {
        errors.required(&place, format!("at least one {} is required", place.as_str()));
    }
    for (index, audience) in issuer.audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.required(place.index(index), "audience can't be empty");
        } else if issuer.audiences[..index].contains(audience) {
            errors.duplicate(place.index(index), audience.as_str());
        }
    }
    let policy = issuer.audience_match_policy.as_str();
    let why = match (issuer.audiences.len(), policy) {
        (_, "MatchAny") | (0 | 1, "") => return,
        (0 | 1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
        _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
    };
    errors.invalid(at.child("audienceMatchPolicy"), policy, why);
}

fn check_url(at: &Path, url: &str, errors: &mut FieldErrors) {
    let mut wrong = |why: &str| errors.invalid(at, url, why);
    if url.is_empty() {
        errors.required(at, "URL is required");
        return;
    }
    let Some(rest) = url.strip_prefix("https://") else {
        wrong("URL scheme must be https");
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        wrong("URL must not contain a username or password");
    }
    if url.contains('?') {
        wrong("URL must not contain a query");
    }
    if url.contains('#') {
        wrong("URL must not contain a fragment");
    }
}

const BOTH: &str = "claim and expression can't both be set";
const EITHER: &str = "claim or expression is required";

fn mapping(at: &Path, fields: &MappingFields, errors: &mut FieldErrors) -> Option<Mapping> {
    let MappingFields { claim, prefix, expression } = fields;
    match (claim.is_empty(), expression.is_empty()) {
        (true, true) => errors.required(at, EITHER),
        (false, false) => errors.invalid(at, "", BOTH),
        (true, false) => {
            if let Some(prefix) = prefix {
                let why = "prefix can't be set when expression is set";
                errors.invalid(at.child("prefix"), prefix.as_str(), why);
            }
            let texts = [Type::String, Type::list(Type::String), Type::list(Type::Dyn)];
            let is_list = at.as_str().ends_with(".groups");
            let wanted = if is_list { &texts[..] } else { &texts[..1] };
            let place = at.child("expression");
            return over_claims(&place, expression, wanted, errors).map(Mapping::Expression);
        }
        (false, true) => match prefix {
            Some(prefix) => {
                return Some(Mapping::Claim { name: claim.clone(), prefix: prefix.clone() });
            }
            None => errors.required(
                at.child("prefix"),
                "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
            ),
        },
    }
    None
}

fn over_claims(
    at: &Path,
    text: &str,
    wanted: &[Type],
    errors: &mut FieldErrors,
) -> Option<Expression> {
    Expression::over_claims(text, wanted).map_err(|why| errors.invalid(at, text, why)).ok()
}

fn claim_rule(at: &Path, rule: RuleFields, errors: &mut FieldErrors) -> Option<ClaimRule> {
    let RuleFields { claim, required_value: value, expression, message } = rule;
    match (claim.is_empty(), expression.is_empty()) {
        (true, true) => errors.required(at, EITHER),
        (false, false) => errors.invalid(at, claim, BOTH),
        (false, true) => {
            if message.is_empty() {
                return Some(ClaimRule::Required { claim, value });
            }
            errors.invalid(at.child("message"), message, "message can't be set when claim is set");
        }
        (true, false) => {
            if !value.is_empty() {
                let why = "requiredValue can't be set when expression is set";
                errors.invalid(at.child("requiredValue"), value, why);
            }
            let place = at.child("expression");
            let expression = over_claims(&place, &expression, &[Type::Bool], errors)?;
            return Some(ClaimRule::Expression(Validation { expression, message }));
        }
    }
    None
}

fn extra(at: &Path, all: Vec<ExtraFields>, errors: &mut FieldErrors) -> Vec<(String, Expression)> {
    let mut found: Vec<(String, Expression)> = Vec::new();
    for (index, ExtraFields { key, value_expression }) in all.into_iter().enumerate() {
        let at = at.index(index);
        check_key(&at.child("key"), &key, errors);
        if found.iter().any(|(other, _)| *other == key) {
            errors.duplicate(at.child("key"), key.as_str());
        }
        let place = at.child("valueExpression");
        if value_expression.is_empty() {
            errors.required(place, "valueExpression is required");
            continue;
        }
        let wanted = [Type::String, Type::list(Type::String), Type::list(Type::Dyn)];
        found.extend(over_claims(&place, &value_expression, &wanted, errors).map(|it| (key, it)));
    }
    found
}

/// Keys are lower-case paths below a domain that is not Kubernetes' own.
fn check_key(at: &Path, key: &str, errors: &mut FieldErrors) {
    if key.is_empty() {
        errors.required(at, "");
        return;
    }
    match key.split_once('/') {
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            errors.invalid_each(at, key, names::dns_subdomain(domain));
            let is_own = |own: &str| domain == own || domain.ends_with(&format!(".{own}"));
            if is_own("k8s.io") || is_own("kubernetes.io") {
                let why =
                    "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                errors.invalid(at, key, why);
            }
        }
        _ => errors.invalid(at, key, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if key.chars().any(char::is_uppercase) {
        errors.invalid(at, key, "key must be lowercase");
    }
}

fn user_rules(at: &Path, rules: Vec<UserRuleFields>, errors: &mut FieldErrors) -> Vec<Validation> {
    let mut found: Vec<Validation> = Vec::new();
    for (index, UserRuleFields { expression, message }) in rules.into_iter().enumerate() {
        let place = at.index(index).child("expression");
        if expression.is_empty() {
            errors.required(place, "expression is required");
        } else if found.iter().any(|other| other.expression.text() == expression) {
            errors.duplicate(place, expression);
        } else {
            match Expression::over_user(&expression) {
                Ok(expression) => found.push(Validation { expression, message }),
                Err(why) => errors.invalid(place, expression, why),
            }
        }
    }
    found
}

/// Anybody may call an address his own before it is verified.
fn check_email(at: &Path, jwt: &Jwt, errors: &mut FieldErrors) {
    let mentions = |expression: &str, claim: &str| {
        expression.match_indices(claim).any(|(start, _)| {
            let after = expression[start + claim.len()..].chars().next();
            !after.is_some_and(|after| after.is_alphanumeric() || after == '_')
        })
    };
    let username = &jwt.claim_mappings.username.expression;
    let extras = jwt.claim_mappings.extra.iter().map(|extra| &extra.value_expression);
    let rules = jwt.claim_validation_rules.iter().map(|rule| &rule.expression);
    let mut all = std::iter::once(username).chain(extras).chain(rules);
    if mentions(username, "claims.email") && !all.any(|it| mentions(it, "claims.email_verified")) {
        let why = "claims.email_verified must be used in claimMappings.username.expression or \
                   claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
                   claims.email is used in claimMappings.username.expression";
        errors.invalid(at.child("claimMappings.username.expression"), username.as_str(), why);
    }
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
    let groups = (!flags.groups_claim.is_empty()).then(|| Mapping::Claim {
        name: flags.groups_claim.clone(),
        prefix: flags.groups_prefix.clone(),
    });
    let mut claims = Vec::new();
    for claim in &flags.required_claims {
        let (claim, value) = claim.split_once('=').ok_or_else(|| {
            OidcError::Wrong("--oidc-required-claim: must be of the form NAME=VALUE".to_owned())
        })?;
        claims.push(ClaimRule::Required { claim: claim.to_owned(), value: value.to_owned() });
    }
    let mut errors = FieldErrors::new();
    check_url(&Path::new("--oidc-issuer-url"), &flags.issuer_url, &mut errors);
    if flags.client_id.is_empty() {
        errors.required("--oidc-client-id", "");
    }
    if !errors.is_empty() {
        return Err(OidcError::Wrong(errors.to_string()));
    }
    let username = Mapping::Claim { name, prefix };
    let (uid, extra, users) = (None, Vec::new(), Vec::new());
    Ok(complete(Issuer {
        url: flags.issuer_url.clone(),
        discovery: String::new(),
        authority: flags.ca_pem.clone(),
        audiences: vec![flags.client_id.clone()],
        rules: Rules { claims, username, groups, uid, extra, users },
    }))
}

/// Where an issuer says what it is, when nobody says otherwise.
fn complete(mut issuer: Issuer) -> Issuer {
    if issuer.discovery.is_empty() {
        let base = issuer.url.trim_end_matches('/');
        issuer.discovery = format!("{base}/.well-known/openid-configuration");
    }
    issuer
}
