//! How the API is extended, guarded and shared: certificates, webhooks, policies, flows.

use serde_json::Value;

use super::Columns;
use super::cells::{AGE, NAME, age, human, integer, name, or, text};
use crate::rules::json::Read;

pub static SIGNING_REQUEST: Columns = Columns {
    definitions: &[
        NAME,
        AGE,
        text("SignerName", "Requested signer for the request up to 571 characters long."),
        text("Requestor", "Base64-encoded PKCS#10 CSR data"),
        text(
            "RequestedDuration",
            "expirationSeconds is the requested duration of validity of the issued certificate.",
        ),
        text("Condition", "Conditions applied to the request, such as approval or denial."),
    ],
    cells: |request, now| {
        let spec = &request["spec"];
        let seconds = &spec["expirationSeconds"];
        vec![
            name(request),
            age(request, now),
            or(spec["signerName"].text(), "<none>"),
            spec["username"].text().into(),
            if seconds.is_set() { human(seconds.int()).into() } else { "<none>".into() },
            request_status(request).into(),
        ]
    },
};

pub static TRUST_BUNDLE: Columns = Columns {
    definitions: &[NAME, text("SignerName", "signerName indicates the associated signer, if any.")],
    cells: |bundle, _| vec![name(bundle), or(bundle["spec"]["signerName"].text(), "<none>")],
};

pub static API_SERVICE: Columns = Columns {
    definitions: &[
        NAME,
        text("Service", "The reference to the service that hosts this API endpoint."),
        text("Available", "Whether this service is available."),
        AGE,
    ],
    cells: |service, now| {
        let reference = &service["spec"]["service"];
        let host = if reference.is_set() {
            format!("{}/{}", reference["namespace"].text(), reference["name"].text())
        } else {
            "Local".to_owned()
        };
        let available = service["status"]["conditions"]
            .items()
            .iter()
            .find(|condition| condition["type"] == "Available");
        let available = match available
            .map(|condition| (condition["status"].text(), condition["reason"].text()))
        {
            Some(("True", _)) => "True".to_owned(),
            Some((status, reason)) => format!("{status} ({reason})"),
            None => "Unknown".to_owned(),
        };
        vec![name(service), host.into(), available.into(), age(service, now)]
    },
};

pub static WEBHOOKS: Columns = Columns {
    definitions: &[
        NAME,
        integer(
            "Webhooks",
            "Webhooks indicates the number of webhooks registered in this configuration",
        ),
        AGE,
    ],
    cells: |configuration, now| {
        vec![name(configuration), configuration["webhooks"].size().into(), age(configuration, now)]
    },
};

const PARAM_KIND: super::Column =
    text("ParamKind", "ParamKind specifies the kind of resources used to parameterize this policy");

pub static VALIDATING_POLICY: Columns = Columns {
    definitions: &[
        NAME,
        integer(
            "Validations",
            "Validations indicates the number of validation rules defined in this configuration",
        ),
        PARAM_KIND,
        AGE,
    ],
    cells: |policy, now| {
        vec![
            name(policy),
            policy["spec"]["validations"].size().into(),
            param_kind(policy),
            age(policy, now),
        ]
    },
};

pub static MUTATING_POLICY: Columns = Columns {
    definitions: &[
        NAME,
        integer(
            "Mutations",
            "Mutation indicates the number of mutations rules defined in this configuration",
        ),
        PARAM_KIND,
        AGE,
    ],
    cells: |policy, now| {
        vec![
            name(policy),
            policy["spec"]["mutations"].size().into(),
            param_kind(policy),
            age(policy, now),
        ]
    },
};

pub static POLICY_BINDING: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "PolicyName",
            "PolicyName indicates the policy definition which the policy binding binded to",
        ),
        text("ParamRef", "ParamRef indicates the param resource which sets the configration param"),
        AGE,
    ],
    cells: |binding, now| {
        let reference = &binding["spec"]["paramRef"];
        let shown = match (reference["namespace"].text(), reference["name"].text()) {
            (_, "") if reference["selector"].is_set() => {
                super::cells::selector(&reference["selector"])
            }
            (_, "") => "<unset>".into(),
            // Whether the parameter has a namespace cannot be told from here.
            ("", name) => format!("*/{name}").into(),
            (namespace, name) => format!("{namespace}/{name}").into(),
        };
        vec![name(binding), binding["spec"]["policyName"].text().into(), shown, age(binding, now)]
    },
};

pub static FLOW_SCHEMA: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "PriorityLevel",
            "name is the name of the priority level configuration being referenced.",
        ),
        text(
            "MatchingPrecedence",
            "matchingPrecedence is used to choose among the FlowSchemas that match a given request.",
        ),
        text(
            "DistinguisherMethod",
            "distinguisherMethod defines how to compute the flow distinguisher for requests.",
        ),
        AGE,
        text("MissingPL", "references a broken or non-existent PriorityLevelConfiguration"),
    ],
    cells: |schema, now| {
        let spec = &schema["spec"];
        let dangling = schema["status"]["conditions"]
            .items()
            .iter()
            .find(|condition| condition["type"] == "Dangling");
        vec![
            name(schema),
            spec["priorityLevelConfiguration"]["name"].text().into(),
            spec["matchingPrecedence"].int().into(),
            or(spec["distinguisherMethod"]["type"].text(), "<none>"),
            age(schema, now),
            or(dangling.map_or("", |condition| condition["status"].text()), "?"),
        ]
    },
};

pub static PRIORITY_LEVEL: Columns = Columns {
    definitions: &[
        NAME,
        text(
            "Type",
            "type indicates whether this priority level is subject to limitation on request execution.",
        ),
        text(
            "NominalConcurrencyShares",
            "nominalConcurrencyShares contributes to the computation of the nominal concurrency limit of this level.",
        ),
        text("Queues", "queues is the number of queues for this priority level."),
        text(
            "HandSize",
            "handSize is a small positive number that configures the shuffle sharding of requests into queues.",
        ),
        text(
            "QueueLengthLimit",
            "queueLengthLimit is the maximum number of requests allowed to be waiting in a given queue.",
        ),
        AGE,
    ],
    cells: |level, now| {
        let limited = &level["spec"]["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let number = |value: &Value| if value.is_set() { value.clone() } else { "<none>".into() };
        vec![
            name(level),
            level["spec"]["type"].text().into(),
            number(&limited["nominalConcurrencyShares"]),
            number(&queuing["queues"]),
            number(&queuing["handSize"]),
            number(&queuing["queueLengthLimit"]),
            age(level, now),
        ]
    },
};

fn param_kind(policy: &Value) -> Value {
    let kind = &policy["spec"]["paramKind"];
    if kind.is_set() {
        format!("{}/{}", kind["apiVersion"].text(), kind["kind"].text()).into()
    } else {
        "<unset>".into()
    }
}

fn request_status(request: &Value) -> String {
    let has = |condition: &str| {
        request["status"]["conditions"].items().iter().any(|found| found["type"] == condition)
    };
    let mut status = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_owned();
    if has("Failed") {
        status.push_str(",Failed");
    }
    if !request["status"]["certificate"].text().is_empty() {
        status.push_str(",Issued");
    }
    status
}
