//! From verified claims to a user: by names of claims, or by expressions over them.
//!
//! As upstream's
//! <https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/plugin/pkg/authenticator/token/oidc/oidc.go>;
//! nobody but the log learns why a token was refused.

use coracle_cel::{
    Environment, EvaluationError, Meter, Program, Scope, Type, Value as Cel, from_json, to_json,
};
use serde_json::{Map, Value, json};

use crate::expressions::{compile, user_type};
use crate::identity::User;

/// What one expression may cost; upstream's bound of each call.
const BUDGET: u64 = 1_000_000;

/// An issuer's rules, checked and compiled.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) claims: Vec<ClaimRule>,
    pub(super) username: Mapping,
    pub(super) groups: Option<Mapping>,
    pub(super) uid: Option<Mapping>,
    /// Keys, and what they hold.
    pub(super) extra: Vec<(String, Expression)>,
    pub(super) users: Vec<Validation>,
}

/// Where a part of the user comes from.
#[derive(Debug)]
pub(super) enum Mapping {
    /// A claim, and what is put before its value.
    Claim {
        name: String,
        prefix: String,
    },
    Expression(Expression),
}

/// What must hold of the claims.
#[derive(Debug)]
pub(super) enum ClaimRule {
    Required { claim: String, value: String },
    Expression(Validation),
}

/// An expression that must be true, and what is said where it is not.
#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: String,
}

/// A compiled expression.
#[derive(Debug)]
pub(super) struct Expression {
    text: String,
    program: Program,
}

impl Expression {
    /// Over the `claims` of a token; or what is wrong with it.
    pub(super) fn over_claims(text: &str, wanted: &[Type]) -> Result<Self, String> {
        let environment = Environment::default().with("claims", Type::map(Type::Dyn));
        let program = compile(&environment, text, wanted)?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// Over the `user` that is to be.
    pub(super) fn over_user(text: &str) -> Result<Self, String> {
        let environment = Environment::default().with("user", user_type());
        let program = compile(&environment, text, &[Type::Bool])?;
        Ok(Self { text: text.to_owned(), program })
    }

    /// As it was written.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn evaluate(&self, seen: &Seen<'_>) -> Result<Value, String> {
        let mut meter = Meter::new(BUDGET);
        let value = self.program.evaluate(seen, &mut meter);
        let value = value.and_then(|value| to_json(&value, &mut meter));
        value.map_err(|error| format!("expression '{}' resulted in error: {error}", self.text))
    }
}

/// The one variable of an expression.
struct Seen<'a> {
    name: &'static str,
    value: &'a Value,
}

impl Scope for Seen<'_> {
    fn variable(&self, name: &str, _: &mut Meter) -> Option<Result<Cel, EvaluationError>> {
        (name == self.name).then(|| Ok(from_json(self.value)))
    }
}

impl Validation {
    fn check(&self, seen: &Seen<'_>, of: &str) -> Result<(), String> {
        let Self { expression, message } = self;
        if expression.evaluate(seen)? == true {
            return Ok(());
        }
        let text = expression.text();
        Err(format!(
            "error evaluating {of} expression: validation expression '{text}' failed: {message}"
        ))
    }
}

impl Rules {
    /// The user that verified claims make.
    pub(super) fn user(&self, claims: &Map<String, Value>) -> Result<User, String> {
        let all = Value::Object(claims.clone());
        let seen = Seen { name: "claims", value: &all };
        for rule in &self.claims {
            match rule {
                ClaimRule::Required { claim, value } => {
                    if claims.get(claim).and_then(Value::as_str) != Some(value) {
                        return Err(format!("required claim {claim} is not {value}"));
                    }
                }
                ClaimRule::Expression(rule) => rule.check(&seen, "claim validation")?,
            }
        }
        let groups = match &self.groups {
            Some(groups) => groups.groups(&seen)?,
            None => Vec::new(),
        };
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        let mut user = User::new(self.username.username(&seen)?, &groups);
        if let Some(uid) = &self.uid {
            user.uid = uid.uid(&seen)?;
        }
        for (key, expression) in &self.extra {
            let values = texts(&expression.evaluate(&seen)?);
            let values = values.ok_or_else(|| format!("extra {key} is neither text nor a list"))?;
            if !values.is_empty() {
                user.extra.insert(key.clone(), values);
            }
        }
        if let Some(id) = claims.get("jti").and_then(Value::as_str) {
            let key = "authentication.kubernetes.io/credential-id".to_owned();
            user.extra.insert(key, vec![format!("JTI={id}")]);
        }
        self.judge(&user)?;
        Ok(user)
    }

    fn judge(&self, user: &User) -> Result<(), String> {
        if self.users.is_empty() {
            return Ok(());
        }
        // Which groups everybody gets is not the issuer's to judge.
        let is_told = |group: &&String| *group != crate::identity::AUTHENTICATED;
        let told = json!({
            "username": user.name,
            "uid": user.uid,
            "groups": user.groups.iter().filter(is_told).collect::<Vec<_>>(),
            "extra": user.extra,
        });
        let seen = Seen { name: "user", value: &told };
        self.users.iter().try_for_each(|rule| rule.check(&seen, "user validation"))
    }
}

impl Mapping {
    fn username(&self, seen: &Seen<'_>) -> Result<String, String> {
        let username = match self {
            Self::Claim { name, prefix } => {
                let value = seen.value[name].as_str().unwrap_or_default();
                if value.is_empty() {
                    return Err(format!("claim {name} is not present"));
                }
                let verified = &seen.value["email_verified"];
                if name == "email" && !verified.is_null() && *verified != true {
                    return Err("email not verified".to_owned());
                }
                format!("{prefix}{value}")
            }
            Self::Expression(expression) => {
                let value = expression.evaluate(seen)?;
                value.as_str().ok_or("the username is no text")?.to_owned()
            }
        };
        if username.is_empty() { Err("the username is empty".to_owned()) } else { Ok(username) }
    }

    fn groups(&self, seen: &Seen<'_>) -> Result<Vec<String>, String> {
        match self {
            Self::Claim { name, prefix } => {
                let groups = texts(&seen.value[name]);
                let groups = groups.ok_or_else(|| format!("claim {name} is no list"))?;
                Ok(groups.iter().map(|group| format!("{prefix}{group}")).collect())
            }
            Self::Expression(expression) => {
                let groups = texts(&expression.evaluate(seen)?);
                groups.ok_or_else(|| "the groups are neither text nor a list".to_owned())
            }
        }
    }

    fn uid(&self, seen: &Seen<'_>) -> Result<String, String> {
        let value = match self {
            Self::Claim { name, .. } => seen.value[name].clone(),
            Self::Expression(expression) => expression.evaluate(seen)?,
        };
        Ok(value.as_str().ok_or("the uid is no text")?.to_owned())
    }
}

/// A text or a list of them; nothing of what is null or empty.
fn texts(value: &Value) -> Option<Vec<String>> {
    let all: Vec<&Value> = match value {
        Value::Null => Vec::new(),
        Value::Array(several) => several.iter().collect(),
        one => vec![one],
    };
    let texts = all.into_iter().map(|one| one.as_str().map(str::to_owned));
    let texts: Option<Vec<String>> = texts.collect();
    texts.map(|texts| texts.into_iter().filter(|text| !text.is_empty()).collect())
}
